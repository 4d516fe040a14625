"""Do groups differ in what was measured image by image? Means with intervals, differences with permutation tests.

What is independent of one another are people: without `identity`, every image is a person of its own. A group's mean is that
of its images; its interval draws people with replacement (percentile bootstrap, expanded because few people make it too narrow,
Hesterberg 2015; with fewer than ten people, whose range no percentile leaves, t times the bootstrap's standard error). Scores of
0 and 1 have Wilson's interval instead, since a bootstrap of all or none draws no doubt.

Two groups are compared by the difference of their means, divided by its standard error (Welch's, between people), because a
permutation test of the bare difference also rejects where only the spreads differ (Janssen 1997). Where everybody is in one of
the groups, people are dealt out to them anew: exact if the groups are alike. Where some have images in both, such as with and
without glasses, each person's contribution to the difference gets a random sign (Hemerik, Goeman & Finos 2020): exact if
contributions are symmetric, else nearly so. All ways are gone through where they are few, so that no chance remains.

References
----------
Janssen, "Studentized permutation tests for non-i.i.d. hypotheses", Statistics & Probability Letters 1997.
Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015.
Hemerik, Goeman & Finos, "Robust testing in generalized linear models by sign flipping score contributions", JRSS B 2020.
Phipson & Smyth, "Permutation p-values should never be zero", Stat. Appl. Genet. Mol. Biol. 2010.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from helpers.bias.inputs import read_groups, read_people
from helpers.bias.people import rate_of_people
from helpers.bias.settings import share, whole

BLOCK = 1 << 23  # numbers drawn at a time
FEW = 10  # people
CLOSE = 1 - 1e-9  # equal statistics may differ in their last bits


@dataclass(frozen=True)
class Members:
    """Who is in which group: `code` int64 (N,) into `names`, and `person` int64 (N,) from 0."""

    code: np.ndarray
    names: tuple[str, ...]
    person: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Members:
        """The same for some images."""
        return Members(self.code[rows], self.names, np.unique(self.person[rows], return_inverse=True)[1])

    @property
    def occurring(self) -> list[int]:
        """Codes of the groups that some image is in."""
        return np.unique(self.code).tolist()


@dataclass(frozen=True)
class Draws:
    """How intervals and tests are made: level, replicates, and the seed of a local generator."""

    confidence: float = 0.95
    n_boot: int = 2000
    n_permutations: int = 10_000
    seed: int = 0

    def __post_init__(self):
        share(self.confidence, "confidence")
        whole(self.n_boot, "n_boot")
        whole(self.n_permutations, "n_permutations")
        whole(self.seed, "seed", least=0)


def read_members(group: Any, groups: Sequence[str] | None, identity: Any, count: int) -> Members:
    """Groups and people of `count` images.

    Raises
    ------
    ValueError : as `helpers.bias.inputs.read_groups`; another number of rows.
    """
    code, names = read_groups(group, groups)
    person = np.arange(count) if identity is None else read_people(identity)[0]
    for argument, column in (("group", code), ("identity", person)):
        if len(column) != count:
            raise ValueError(f"{argument}: {len(column)} rows given for {count} images")
    return Members(code, names, person)


def estimates(values: np.ndarray, members: Members, draws: Draws, rates: np.ndarray | bool = False) -> pd.DataFrame:
    """Mean of every column in every group that occurs, with its interval.

    Parameters
    ----------
    values : float64 (N, K), NaN where there is no value
    members, draws : of the N images
    rates : bool (K,), which columns say yes (1) or no (0) of each image

    Returns
    -------
    DataFrame, one row a group × column: `group`, `column` (0 … K - 1), `value, low, high`, `n` images and `people` with a value.
    A group without a value has NaN, one with a single person no interval (NaN).
    """
    tables = []
    for at, means in zip(members.occurring, _resampled(values, members, draws), strict=True):
        rows = members.code == at
        mine, person = values[rows], members.person[rows]
        known = ~np.isnan(mine)
        people = (_sums(known.astype(float), person) > 0).sum(0)
        with np.errstate(invalid="ignore"):
            value = np.where(known, mine, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        low, high = _limits(value, means, people, draws.confidence)
        for k in np.flatnonzero((people > 1) & rates):
            _, low[k], high[k] = rate_of_people(mine[known[:, k], k] == 1, person[known[:, k]], draws.confidence)
        tables.append(
            pd.DataFrame(
                {"group": members.names[at], "column": range(values.shape[1]), "value": value, "low": low, "high": high,
                 "n": known.sum(0), "people": people}
            )
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def differences(values: np.ndarray, members: Members, draws: Draws, rates: np.ndarray | bool = False) -> pd.DataFrame:
    """Difference of every column's mean between every two groups, with its interval and p-value.

    Parameters
    ----------
    values, members, draws, rates : as `estimates`

    Returns
    -------
    DataFrame, one row a pair × column: `group, other, column`, `difference` (the mean of `group` minus that of `other`), `low,
    high, p`, images with a value `n, n_other`. Without a value in one of the groups all is NaN; without two people in each
    there is no interval and no test.
    """
    found = estimates(values, members, draws, rates).set_index(["group", "column"])
    tables = []
    replicates = dict(zip(members.occurring, _resampled(values, members, draws), strict=True))
    for first, second in combinations(members.occurring, 2):
        one, two = (found.loc[members.names[at]] for at in (first, second))
        rows = np.isin(members.code, (first, second))
        difference = (one["value"] - two["value"]).to_numpy()
        fewest = np.minimum(one["people"], two["people"]).to_numpy()
        low, high = _limits(difference, replicates[first] - replicates[second], fewest, draws.confidence)
        mine = values[rows]
        # Newcombe's limits, from those of both rates
        low = np.where(rates, difference - np.hypot(one["value"] - one["low"], two["high"] - two["value"]), low)
        high = np.where(rates, difference + np.hypot(one["high"] - one["value"], two["value"] - two["low"]), high)
        p = difference_test(mine, members.code[rows] == first, members[rows].person, draws.n_permutations, draws.seed)
        tables.append(
            pd.DataFrame(
                {"group": members.names[first], "other": members.names[second], "column": range(values.shape[1]),
                 "difference": difference, "low": low, "high": high, "p": p,
                 "n": one["n"].to_numpy(), "n_other": two["n"].to_numpy()}
            )
        )  # fmt: skip
    if not tables:
        columns = ["group", "other", "column", "difference", "low", "high", "p", "n", "n_other"]
        return pd.DataFrame(columns=columns).astype(dict.fromkeys(columns[3:7], float))
    return pd.concat(tables, ignore_index=True)


def difference_test(values: np.ndarray, first: np.ndarray, person: np.ndarray, n_permutations: int, seed: int) -> np.ndarray:
    """Two-sided permutation p-values (K,) of the difference between the images of `first` and the others.

    Parameters
    ----------
    values : float64 (N, K), NaN where there is no value
    first : bool (N,)
    person : int64 (N,) from 0
    n_permutations : draws; where no more ways than this exist, all are gone through
    seed : of a local generator

    Returns
    -------
    float64 (K,); NaN where one side has fewer than two people with a value.
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    # About zero and of size one, whatever the unit: sums of squares then lose no digits.
    filled = np.where(known, filled - filled.sum(0) / np.maximum(known.sum(0), 1), 0.0)
    filled /= np.where(filled.any(0), np.abs(filled).max(0), 1.0)
    sides = [(_sums(filled * side[:, None], person), _sums(known * side[:, None], person)) for side in (first, ~first)]
    enough = ((sides[0][1] > 0).sum(0) > 1) & ((sides[1][1] > 0).sum(0) > 1)
    in_first, in_other = (np.bincount(person, side) > 0 for side in (first, ~first))
    if (in_first & in_other).any():
        contribution = _contributions(*sides)
        return np.where(enough, sign_test(contribution, n_permutations, seed), np.nan)
    total, count = sides[0][0] + sides[1][0], sides[0][1] + sides[1][1]
    parts = np.concatenate([total, count, total**2, total * count, count**2, count > 0], axis=1)
    seen = np.abs(_welch(in_first[None].astype(float), parts))[0]
    least, ways, at_least = seen * CLOSE, 0, np.zeros(len(seen))
    dealt = _dealt(in_first, n_permutations, seed)
    exact = comb(len(in_first), int(in_first.sum())) <= n_permutations
    for labels in dealt:
        # a replicate that has no such difference says nothing against the null hypothesis
        at_least += (~(np.abs(_welch(labels, parts)) < least)).sum(0)
        ways += len(labels)
    p = at_least / ways if exact else (1 + at_least) / (1 + ways)
    return np.where(enough, p, np.nan)


def sign_test(contribution: np.ndarray, n_permutations: int, seed: int) -> np.ndarray:
    """Two-sided p-values (K,) of sums over people, each person's contribution (C, K) with a random sign.

    Where no more than `n_permutations` ways exist, all are gone through. A column without any contribution has p = 1.
    """
    there = np.flatnonzero(contribution.any(1))
    contribution = contribution[there]
    least = np.abs(contribution.sum(0)) * CLOSE
    exact = len(there) < 62 and 2 ** len(there) <= n_permutations
    ways, at_least = 0, np.zeros(contribution.shape[1])
    for signs in _signs(len(there), n_permutations, seed, exact):
        at_least += (np.abs(signs @ contribution) >= least).sum(0)
        ways += len(signs)
    return at_least / ways if exact else (1 + at_least) / (1 + ways)


def zero_test(values: np.ndarray, members: Members, draws: Draws) -> np.ndarray:
    """Two-sided p-values (groups that occur, K) of means of zero, by giving each person's sum a random sign.

    Parameters
    ----------
    values, members, draws : as `estimates`

    Returns
    -------
    float64; NaN where fewer than two people have a value. Exact if what comes from a person is as likely with either sign.
    """
    found = []
    for at in members.occurring:
        rows = members.code == at
        mine, person = values[rows], members[rows].person
        people = (_sums((~np.isnan(mine)).astype(float), person) > 0).sum(0)
        p = sign_test(_sums(np.nan_to_num(mine, nan=0.0), person), draws.n_permutations, draws.seed)
        found.append(np.where(people > 1, p, np.nan))
    return np.array(found)


def _sums(values: np.ndarray, person: np.ndarray) -> np.ndarray:
    rows = sparse.csr_matrix((np.ones(len(person)), (person, np.arange(len(person)))))
    return np.asarray(rows @ values, dtype=np.float64)


def _resampled(values: np.ndarray, members: Members, draws: Draws) -> Iterator[np.ndarray]:
    """People are drawn within each group; all together where some are in several, who are then drawn with all their images."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    pairs = np.unique(np.stack([members.person, members.code]), axis=1)
    shared = pairs.shape[1] > len(np.unique(pairs[0]))
    for at in members.occurring:
        rows = members.code == at
        person = members.person[rows]
        if not shared:
            person = np.unique(person, return_inverse=True)[1]
        total, count = _sums(filled[rows], person), _sums(known[rows].astype(float), person)
        people = members.person.max() + 1 if shared else len(total)
        rng = np.random.default_rng([draws.seed, 0 if shared else at])  # shared: the same people for every group
        means = []
        for size in _blocks(draws.n_boot, people):
            drawn = rng.integers(people, size=(size, people)) + people * np.arange(size)[:, None]
            weight = np.bincount(drawn.ravel(), minlength=size * people).reshape(size, people).astype(float)[:, : len(total)]
            with np.errstate(invalid="ignore", divide="ignore"):
                means.append((weight @ total) / (weight @ count))
        yield np.concatenate(means)


def _limits(value: np.ndarray, means: np.ndarray, people: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Limits (K,) from replicates (B, K) of the estimates (K,), further out the fewer people; NaN for fewer than two."""
    low, high = np.full((2, means.shape[1]), np.nan)
    for count in np.unique(people[people > 1]):
        some = np.flatnonzero((people == count) & ~np.isnan(means).all(0))
        reach = np.sqrt(count / (count - 1)) * stats.t.isf((1 - confidence) / 2, count - 1)
        if count < FEW:
            error = np.nanstd(means[:, some], axis=0)
            low[some], high[some] = value[some] - reach * error, value[some] + reach * error
        else:
            tail = stats.norm.sf(reach)
            low[some], high[some] = np.nanquantile(means[:, some], [tail, 1 - tail], axis=0)
    return low, high


def _welch(labels: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Welch's t (R, K) between the people with label 1 and 0, for labels (R, C); all that it needs are sums over people.

    With S a person's sum and n their images, m = ΣS / Σn has the variance c / (c - 1) Σ (S - m n)² / (Σn)² for c people.
    """
    inside = labels @ parts
    means, variances = [], []
    for part in (inside, parts.sum(0) - inside):
        total, count, square, cross, size, people = np.split(part, 6, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / count
            spread = np.maximum(square - 2 * mean * cross + mean**2 * size, 0)
            spread = np.where(spread > 1e-13 * square, spread, 0.0)  # what rounding leaves of equal values
            means.append(mean)
            variances.append(people / (people - 1) * spread / count**2)
    difference, variance = means[0] - means[1], variances[0] + variances[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(difference) > 1e-13, difference / np.sqrt(variance), np.where(np.isnan(variance), np.nan, 0.0))


def _contributions(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What each person adds to the difference of means, (C, K), if both sides have the common mean."""
    (total, count), (total_other, count_other) = one, other
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (total + total_other).sum(0) / (count + count_other).sum(0)
        found = (total - mean * count) / count.sum(0) - (total_other - mean * count_other) / count_other.sum(0)
    return np.nan_to_num(found, nan=0.0)


def _dealt(first: np.ndarray, n_permutations: int, seed: int) -> Iterator[np.ndarray]:
    """Labels (R, C) with as many ones as `first` has: every way if they are few, else drawn."""
    people, ones = len(first), int(first.sum())
    if comb(people, ones) <= n_permutations:
        labels = np.zeros((comb(people, ones), people))
        for row, chosen in enumerate(combinations(range(people), ones)):
            labels[row, list(chosen)] = 1
        yield labels
        return
    rng = np.random.default_rng([seed, 1])
    for size in _blocks(n_permutations, people):
        yield rng.permuted(np.tile(first.astype(float), (size, 1)), axis=1)


def _signs(people: int, n_permutations: int, seed: int, exact: bool) -> Iterator[np.ndarray]:
    if exact:
        yield 1.0 - 2.0 * (np.arange(2**people)[:, None] >> np.arange(people) & 1)
        return
    rng = np.random.default_rng([seed, 2])
    for size in _blocks(n_permutations, people):
        yield 1.0 - 2.0 * rng.integers(2, size=(size, people), dtype=np.int8)


def _blocks(count: int, width: int) -> list[int]:
    """Sizes of blocks of rows that hold `BLOCK` numbers each."""
    size = max(1, BLOCK // max(width, 1))
    return [min(size, count - start) for start in range(0, count, size)]
