"""The result of an audit: its tables, what else can be asked of the counts behind them, and how they are shown."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.bias import permutation
from helpers.bias.counts import Counts
from helpers.bias.crossing import margins
from helpers.bias.estimates import Estimate, estimate, occupied
from helpers.bias.gaps import NAMED, named_parts
from helpers.bias.power import detectable
from helpers.bias.references import against, with_rests
from helpers.bias.settings import whole
from helpers.names import choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class Audit:
    """Values, intervals and gaps of one set of predictions.

    Attributes
    ----------
    by_group : DataFrame, one row a group and statistic: `group, statistic[, class], value, low, high, n, small`.
        `n` counts the images in the denominator (of a mean: of the part that has fewest), `small` says that they are few.
    gaps : DataFrame, one row a statistic and named gap: `statistic[, class], difference, difference_low,
        difference_high, ratio, ratio_low, ratio_high, worst, best`.
    overall : DataFrame, all rows together: `statistic[, class], value, low, high, n`.
    counts : the table behind all of it.
    levels : DataFrame, the level of each crossed attribute for every group; None unless several were crossed.
    statistics : what was asked for, by name; named gaps and statistics of scores have no object of their own (None).
    confidence : level of the intervals.  n_boot, seed : replicates where an interval needs them.
    positive : name of the positive class; None with three classes or more.
    small : values on fewer images are flagged.
    empty : groups that no image belongs to (crossed attributes, unused categories).
    notes : sentences on what is undefined, small or left out.
    method : how the intervals were made.

    The column `class` is there with three classes or more only: a class's name (against the rest), `macro` (the plain
    mean over classes) or `all`.
    """

    by_group: pd.DataFrame
    gaps: pd.DataFrame
    overall: pd.DataFrame
    counts: Counts
    levels: pd.DataFrame | None
    statistics: Mapping[str, Callable | None]
    confidence: float
    n_boot: int
    seed: int
    positive: str | None
    small: int
    empty: tuple[str, ...]
    notes: tuple[str, ...]
    method: str

    def __repr__(self) -> str:
        """Size and the gaps of most interest; the tables are in the attributes."""
        found = [f"{name} {self.gap(name):.3f}" for name in NAMED if name in set(self.gaps["statistic"])]
        few = f"{len(self.counts.groups)} groups" if len(self.counts.groups) > 1 else "1 group"
        return f"Audit({self.counts.n.sum():,} images, {few}{''.join(f', {each}' for each in found)})"

    def value(self, statistic: str, group: str | None = None, label: str | None = None) -> float:
        """Value of a statistic for a group (None: all rows together).

        `label` names the class with three classes or more; by default it is `all`, else `macro`.

        Raises
        ------
        ValueError : unknown statistic, group or class.
        """
        return float(self._row(statistic, group, label)["value"])

    def interval(self, statistic: str, group: str | None = None, label: str | None = None) -> tuple[float, float]:
        """(low, high) of `value`."""
        row = self._row(statistic, group, label)
        return float(row["low"]), float(row["high"])

    def width(self, statistic: str, group: str | None = None, label: str | None = None) -> float:
        """Width of `interval`: how much the sample leaves open."""
        low, high = self.interval(statistic, group, label)
        return high - low

    def gap(self, name: str, label: str | None = None) -> float:
        """Difference between the highest and the lowest group, of a statistic or a named gap."""
        return float(pick(self.gaps, name, label)["difference"])

    def gap_interval(self, name: str, label: str | None = None) -> tuple[float, float]:
        """(low, high) of `gap`."""
        row = pick(self.gaps, name, label)
        return float(row["difference_low"]), float(row["difference_high"])

    def against(self, reference: str = "rest") -> pd.DataFrame:
        """Difference and ratio of every group to a reference, with intervals.

        Parameters
        ----------
        reference : "rest" (all other groups together), "best" (the best group of each statistic), "overall", or a
            group's name

        Returns
        -------
        DataFrame: `group, statistic[, class], value, reference, of, difference, difference_low, difference_high, ratio,
        ratio_low, ratio_high`. `helpers.bias.references` has the intervals. Statistics of scores are left out.

        Raises
        ------
        ValueError : unknown reference, or one group only.
        """
        found = self._estimates(with_rests(self.counts))
        return self._without_class(against(found, self.counts.groups, reference, self.confidence))

    def test(self, n_permutations: int = 2000, seed: int = 0) -> pd.DataFrame:
        """Permutation p-values of every gap, Holm-corrected over all of them.

        `helpers.bias.permutation` says what is permuted. No p-value is below 1 / (n_permutations + 1). Statistics of
        scores are left out.

        Returns
        -------
        DataFrame: `statistic[, class], difference, p, p_holm, given`; `given` says what a permutation holds fixed.

        Raises
        ------
        ValueError : one group only, or no positive number of permutations.
        """
        if len(self.counts.groups) < 2:
            raise ValueError(f"group: there is one group only ({self.counts.groups[0]}), so there is no gap to test")
        whole(n_permutations, "n_permutations")
        named = [name for name in self.statistics if name in NAMED]
        table = permutation.test(self.counts, self._own(), named, self._code(), n_permutations, seed)
        return self._without_class(table)

    def minimum_detectable_gap(self, power: float = 0.8) -> pd.DataFrame:
        """How far a group's value must lie from another's for an audit of this size to find it, for every statistic.

        Returns
        -------
        DataFrame: `group, statistic[, class], value, n, against, detectable`; see `helpers.bias.power`.

        Raises
        ------
        ValueError : `power` is outside (0, 1).
        """
        return detectable(self.by_group, self.confidence, power)

    @cached_property
    def margins(self) -> dict[str, Audit]:
        """The audits of every smaller set of the crossed attributes, by name ("glasses", "glasses × skin_tone").

        Empty unless several attributes were crossed. Statistics of scores are left out, since they need the rows.
        """
        if self.levels is None:
            return {}
        from helpers.bias.audit import assemble  # which makes the objects of this class

        settings = (self._code(), (), self.confidence, self.n_boot, self.seed, self.small)
        wanted = {name: each for name, each in self.statistics.items() if each is not None or name in NAMED}
        return {name: assemble(counts, wanted, *settings) for name, counts in margins(self.counts, self.levels).items()}

    @cached_property
    def intersections(self) -> pd.DataFrame:
        """Every gap between the cells of crossed attributes beside the same gap in each margin, and the worst cell.

        A classifier can treat the groups of two attributes alike, one at a time, and not their intersections (Kearns,
        Neel, Roth & Wu, "Preventing fairness gerrymandering", ICML 2018).

        Returns
        -------
        DataFrame: `statistic[, class], cells, low, high, <margin>, …, worst, n, small`: the gap between cells with its
        interval, that of each margin, the worst cell, and the images in its denominator. No rows without margins.
        """
        keys = [name for name in ("statistic", "class") if name in self.gaps]
        renamed = {"difference": "cells", "difference_low": "low", "difference_high": "high"}
        table = self.gaps[[*keys, *renamed, "worst"]].rename(columns=renamed)
        for name, margin in self.margins.items():
            table[name] = table[keys].merge(margin.gaps, on=keys, how="left")["difference"].to_numpy()
        table["worst"] = table.pop("worst")
        images = self.by_group.set_index(["group", *keys])["n"].to_dict()
        table["n"] = [self._images_behind(images, *row) for row in table[["worst", *keys]].itertuples(index=False)]
        table["small"] = table["n"] < self.small
        return table if self.margins else table.iloc[:0]

    @cached_property
    def weights(self) -> pd.DataFrame:
        """The averaging weights behind every mean.

        Returns
        -------
        DataFrame: `statistic[, class], part, weight, <group>, …`. A row is a part of a statistic that is a plain mean of
        several, with its `weight` 1 / K (the statistic itself, with weight 1, if it is none), and has each group's
        weight in the overall value of the part: its share of the denominator. They add up to 1.
        """
        rows = [
            (each.statistic, each.label, part.name, 1 / len(each.parts), *shares)
            for each in self._estimates(self.counts)
            for part, shares in zip(each.parts, each.shares(), strict=True)
        ]
        columns = ["statistic", "class", "part", "weight", *self.counts.groups]
        return self._without_class(pd.DataFrame(rows, columns=columns))

    def to_markdown(self) -> str:
        """The tables (statistics by group, gaps, cells beside margins, weights) and the notes as Markdown."""
        notes = "\n".join(f"- {note}" for note in (*self.notes, self.method))
        return "\n\n".join([*map(markdown, self._tables()), notes]) + "\n"

    def to_html(self) -> str:
        """The tables and the notes as an HTML fragment; names are escaped."""
        tables = [
            table.to_html(index=False, border=0, classes="audit", na_rep="undefined") for table in self._tables()
        ]
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in (*self.notes, self.method))
        return "\n".join(['<div class="audit">', *tables, f'<ul class="notes">{notes}</ul>', "</div>"])

    _repr_html_ = to_html

    def plot(self, statistic: str | None = None, label: str | None = None) -> Axes:
        """Points and intervals of every gap, or of one statistic by group. Returns the Axes."""
        from helpers.plots import bias  # here, so that an audit does not load matplotlib

        if statistic is None:
            return bias.gaps(self.gaps, label=label, confidence=self.confidence)
        label = self._label(self.by_group, statistic, label)
        return bias.by_group(
            self.by_group, statistic, overall=self.overall, label=label, confidence=self.confidence
        )

    def _row(self, statistic: str, group: str | None, label: str | None) -> pd.Series:
        if group is None:
            return pick(self.overall, statistic, label)
        group = choose(str(group), self.counts.groups, "group")
        return pick(self.by_group[self.by_group["group"] == group], statistic, label)

    @staticmethod
    def _label(table: pd.DataFrame, statistic: str, label: str | None) -> str | None:
        return pick(table, statistic, label).get("class")

    def _own(self) -> dict[str, Callable]:
        return {name: statistic for name, statistic in self.statistics.items() if statistic is not None}

    def _code(self) -> int | None:
        return None if self.positive is None else self.counts.classes.index(self.positive)

    def _estimates(self, counts: Counts) -> list[Estimate]:
        return list(estimate(occupied(counts), counts.classes, self._own(), self._code(), self.n_boot, self.seed))

    def _without_class(self, table: pd.DataFrame) -> pd.DataFrame:
        return table if self.positive is None else table.drop(columns="class")

    def _images_behind(self, images: dict, worst: str, statistic: str, label: str | None = None) -> int:
        """Images in the worst cell's denominator; of a named gap, in that of the part that has fewest."""
        if not worst:
            return 0
        parts = named_parts(statistic, label or "", self.counts.classes) if statistic in NAMED else [(statistic, label)]
        return min(images[(worst, *part)[: 2 if label is None else 3]] for part in parts)

    def _tables(self) -> list[pd.DataFrame]:
        tables = [self._wide(), self._gap_table()]
        if self.margins:
            tables.append(self._margin_table())
        if len(self.counts.groups) > 1 and self.positive is not None:
            tables.append(self._weight_table())
        return tables

    def _margin_table(self) -> pd.DataFrame:
        """Gaps of the margins beside those of the cells, the worst cell with its size."""
        table = self.intersections.rename(columns={"statistic": "gap", "cells": "value"})
        cells = _cells(table)
        table = table.drop(columns=["value", "low", "high"])
        for name in self.margins:
            table[name] = ["undefined" if np.isnan(value) else f"{value:.3f}" for value in table[name]]
        few = table.pop("small")
        table["n"] = [f"{n} (few)" if flag else str(n) for n, flag in zip(table["n"], few, strict=True)]
        table.insert(1 if "class" not in table else 2, "all cells", cells)
        return table.rename(columns={"worst": "worst cell", "n": "n of the worst cell"})

    def _weight_table(self) -> pd.DataFrame:
        """Each group's weight in the overall values, statistics with the same weights on one line."""
        groups = list(self.counts.groups)
        table = self.weights.dropna(subset=groups)
        names = table["statistic"].where(table["weight"] == 1, table["part"].map(_spaced))
        shown = table[groups].map("{:.3f}".format).assign(name=names)
        joined = shown.groupby(groups, sort=False)["name"].agg(lambda names: ", ".join(dict.fromkeys(names)))
        table = joined.reset_index().rename(columns={"name": "weights in the overall"})
        return table[["weights in the overall", *groups]]

    def _wide(self) -> pd.DataFrame:
        """Statistics down, groups across, cells as `value [low, high]`; group sizes in the heading."""
        keys = ["statistic", "class"] if "class" in self.overall else ["statistic"]
        table = self.overall[keys].copy()
        table["all rows" if "class" not in keys else "all groups"] = _cells(self.overall)
        for group, n in zip(self.counts.groups, self.counts.n, strict=True):
            rows = self.by_group[self.by_group["group"] == group]
            table[f"{group} (n = {n})"] = _cells(rows)
        return table

    def _gap_table(self) -> pd.DataFrame:
        keys = ["statistic", "class"] if "class" in self.gaps else ["statistic"]
        table = self.gaps[keys].rename(columns={"statistic": "gap"})
        for kind in ("difference", "ratio"):
            columns = {kind: "value", f"{kind}_low": "low", f"{kind}_high": "high"}
            table[kind] = _cells(self.gaps.rename(columns=columns))
        return table.assign(worst=self.gaps["worst"], best=self.gaps["best"])


def pick(table: pd.DataFrame, statistic: str, label: str | None) -> pd.Series:
    """The row of a statistic and class; by default the class `all`, else `macro`."""
    statistic = choose(statistic, dict.fromkeys(table["statistic"]), "statistic")
    rows = table[table["statistic"] == statistic]
    if "class" not in rows:
        if label is not None:
            raise ValueError(f"label: {label!r} given, but this audit is binary and has one value a statistic")
        return rows.iloc[0]
    labels = list(rows["class"])
    if label is None:
        summaries = [each for each in ("all", "macro") if each in labels]
        if not summaries:
            raise ValueError(f"label: {statistic} has no summary over classes; name one of {', '.join(labels)}")
        label = summaries[0]
    return rows.iloc[labels.index(choose(str(label), labels, "label"))]


def _cells(rows: pd.DataFrame) -> list[str]:
    def cell(value: float, low: float, high: float) -> str:
        return "undefined" if np.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"

    return [cell(*row) for row in rows[["value", "low", "high"]].itertuples(index=False)]


def markdown(table: pd.DataFrame) -> str:
    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rows = [line(table.columns), line("---" for _ in table.columns)]
    return "\n".join([*rows, *(line(row) for row in table.itertuples(index=False))])


def _spaced(name: str) -> str:
    """"TruePositiveRate" as statistics are called in the tables; what is no such name stays as it is."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() if name.isidentifier() else name
