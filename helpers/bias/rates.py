"""`rates`: how often something is so, by group, where several images show one person.

An audit counts images. Where ten images show one person they are no ten witnesses: people, and not images, are then what a
sample has many or few of. Here intervals and tests take people as independent (`helpers.bias.people`, `helpers.bias.by_people`);
without `identity`, every image is a person, and the intervals are Wilson's and Newcombe's.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helpers.bias.by_people import Draws, differences, estimates, read_members
from helpers.bias.columns import read_column
from helpers.bias.permutation import holm
from helpers.bias.uncertainty import critical, wilson


@dataclass(frozen=True, repr=False)
class Rates:
    """Shares by group, and how they differ.

    Attributes
    ----------
    by_group : DataFrame, one row a group: `group, value, low, high, n` (images) and `people`. A group that nobody belongs to has
        NaN and n = 0; a single person has the value and the interval that one witness allows
    differences : DataFrame, one row a pair of groups: `group, other, difference, low, high, p, p_holm`; p is NaN where a side has
        fewer than two people
    confidence : level of the intervals
    """

    by_group: pd.DataFrame
    differences: pd.DataFrame
    confidence: float

    def value(self, group: str) -> float:
        """The share in a group."""
        return float(self._row(group)["value"])

    def interval(self, group: str) -> tuple[float, float]:
        """(low, high) of `value`."""
        row = self._row(group)
        return float(row["low"]), float(row["high"])

    def _row(self, group: str) -> pd.Series:
        rows = self.by_group[self.by_group["group"] == group]
        if rows.empty:
            raise ValueError(f"group: no group {group!r}; accepted: {', '.join(self.by_group['group'])}")
        return rows.iloc[0]

    def __repr__(self) -> str:
        return f"Rates({', '.join(f'{row.group} {row.value:.3f}' for row in self.by_group.itertuples())})"

    def _repr_html_(self) -> str:
        level = html.escape(f"{self.confidence:.0%} intervals that count people")
        return f"<p>{level}</p>{self.by_group.round(3).to_html(index=False)}{self.differences.round(3).to_html(index=False)}"


def rates(
    outcome: Any,
    group: Any,
    identity: Any = None,
    *,
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> Rates:
    """The share of images for which something is so, by group, with intervals and tests that count people.

    For one rate at a time: a face found or not, an answer right or wrong; with the rows of one label, a true positive rate.

    Parameters
    ----------
    outcome : (N,) booleans, or 0 and 1
    group : (N,) labels, or a DataFrame whose columns are crossed, as `audit` takes them
    identity : (N,) whose image each row is; None: every image is another person's
    groups : names that integer codes stand for
    confidence : level of the intervals, in (0, 1)
    n_permutations, seed : of the tests

    Returns
    -------
    Rates

    Raises
    ------
    ValueError : `outcome` has other values, or columns differ in length.

    Notes
    -----
    One rate: Wilson's interval on the effective number of images, which is n over the design effect (the variance of people's
    sums over the binomial one), and fewer still as people are few (Korn & Graubard 1998). Where all or none of a group's images
    are so, each person counts as one image. Differences: Newcombe's limits from those of both rates, and a permutation test that
    deals out people (or, where people have images in several groups, turns the signs of their contributions).

    In simulated groups of 4 to 100 people with ten images each, nominal 95 % intervals that count people held the truth in 89 to
    100 % of studies, those that count images in 55 to 90 % (`benchmarks/rates_coverage.py`).

    Examples
    --------
    >>> found = rates([1, 1, 1, 0] * 10, ["a"] * 20 + ["b"] * 20, identity=[k // 5 for k in range(40)])
    >>> found.value("a")
    0.75
    """
    column = read_column(outcome, "outcome")
    if not set(column.values) <= {0, 1}:
        raise ValueError(f"outcome: {sorted(map(str, column.values))[:4]}; accepted are booleans, or 0 and 1")
    yes = np.array([float(value) for value in column.values])[column.codes][:, None]
    members = read_members(group, groups, identity, len(yes))
    draws = Draws(confidence, n_boot=1, n_permutations=n_permutations, seed=seed)
    table = estimates(yes, members, draws, rates=True).drop(columns="column")
    alone = (table["people"] == 1).to_numpy()  # which `estimates` leaves open: one person is one witness
    table.loc[alone, ["low", "high"]] = np.stack(wilson(table["value"][alone], np.ones(alone.sum()), critical(confidence)), 1)
    table = table.set_index("group").reindex(members.names).rename_axis("group").reset_index()
    table = table.fillna({"n": 0, "people": 0}).astype({"n": int, "people": int})
    pairs = differences(yes, members, draws, rates=True)[["group", "other", "difference", "low", "high", "p"]]
    return Rates(table, pairs.assign(p_holm=list(holm(dict(pairs["p"].items())).values())), confidence)
