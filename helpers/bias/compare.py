"""Two models on the same images: how each group's statistics change, and whether a gap closes by levelling up or down.

Both models answer for the same images, so their statistics go together, and an interval that ignores it is too wide (or,
for two audits side by side, says nothing). Everything is computed on one table of counts by group, label, first and
second prediction.

A change of one group
    second - first, with MOVER limits for dependent estimates (Zou & Donner, 2008): the models' own score limits play
    the part of standard errors, and their correlation comes from the delta method on the joint table. For the share of
    right predictions this is Newcombe's method 10 for paired proportions.
A change of a gap
    With D a signed difference of two groups, a gap is max D. For whatever pair the first gap belongs to, the change is
    at most max over all pairs of (D_second - D_first of that pair), and at least D_second of the second gap's pair minus
    max D_first. MOVER limits of these differences, correlated as the models are, give the interval; the pair that was
    picked for being extreme enters with the widened critical value, as in `uncertainty`. Percentiles of bootstrapped
    differences would not do: a replicated gap is too large when the true one is near zero, and two models without any
    gap would be told apart.

References
----------
Zou & Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 2008.
Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data",
Statistics in Medicine 1998.
Mittelstadt, Wachter & Russell, "The unfairness of fair machine learning: levelling down and strict egalitarianism by
default", 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.bias import uncertainty
from helpers.bias.audit import wanted_statistics
from helpers.bias.crossing import read_crossed
from helpers.bias.estimates import Cells, Estimate, estimate, evaluate
from helpers.bias.gaps import NAMED, named_parts
from helpers.bias.inputs import read_labels, read_positive, same_length
from helpers.bias.result import markdown
from helpers.bias.settings import share, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("group", "statistic", "class", "first", "second", "change", "low", "high", "n", "verdict")
UP, DOWN, NOISE = "levels up", "levels down", "within noise"


@dataclass(frozen=True)
class Comparison:
    """What a second model changes for each group, and for each gap.

    Attributes
    ----------
    by_group : DataFrame: `group, statistic[, class], first, second, change, low, high, n, verdict`. The verdict is
        "levels up" if the interval of the change lies on the better side of zero, "levels down" if on the worse side,
        else "within noise"; for what has no value in one of the models it is "".
    gaps : DataFrame: `statistic[, class], first, second, change, low, high, verdict`, of the groups that have a value in
        both models: both gaps are of the same groups, so one may be smaller than in an audit of that model alone. The
        verdict says whether the gap closes or widens beyond noise, and which groups it levels up and down.
    overall : DataFrame: as `by_group`, for all rows together.
    names : of the two models.  confidence : of the intervals.  n : rows.
    """

    by_group: pd.DataFrame
    gaps: pd.DataFrame
    overall: pd.DataFrame
    names: tuple[str, str]
    confidence: float
    n: int

    @property
    def method(self) -> str:
        """How the intervals were made, in a sentence."""
        return (
            f"{self.confidence:.0%} intervals of paired differences, {self.names[1]} minus {self.names[0]}, over {self.n:,} "
            f"images. Groups: MOVER with the models' correlation; gaps: the same over all "
            "pairs of groups, widened for having picked the extreme ones. Verdicts are for one comparison at a time."
        )

    def to_markdown(self) -> str:
        """Both tables as Markdown, and how the intervals were made."""
        first, second = self.names
        tables = [_readable(table).rename(columns={"first": first, "second": second}) for table in (self.gaps, self.by_group)]
        return "\n\n".join([*map(markdown, tables), f"- {self.method}"]) + "\n"

    def plot(self, statistic: str = "accuracy", label: str | None = None) -> Axes:
        """Every group's change of one statistic, from the first model to the second, with its interval."""
        from helpers.plots import bias

        return bias.changes(self, statistic, label=label)


def compare(
    y_true: Any,
    first: Any,
    second: Any,
    group: Any,
    *,
    positive: Any = 1,
    statistics: str | Sequence[str] | Mapping[str, Callable] = "all",
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    names: tuple[str, str] = ("first", "second"),
) -> Comparison:
    """Compare two models' predictions for the same images, group by group.

    Parameters
    ----------
    y_true : (N,) labels
    first, second : (N,) hard predictions of the two models for the same rows
    group, positive, statistics, confidence, seed, groups, classes : as in `helpers.audit`
    n_boot : bootstrap replicates for the correlation of statistics that are functions of your own
    names : what the two models are called

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError : as `helpers.audit`; the argument is named.

    Examples
    --------
    >>> y = [1, 1, 0, 0] * 50
    >>> found = compare(y, [1, 0, 0, 0] * 50, y, ["a", "b"] * 100)
    >>> found.by_group.query("statistic == 'true_positive_rate'")[["group", "change", "verdict"]].values.tolist()
    [['a', 0.0, 'within noise'], ['b', 1.0, 'levels up']]
    """
    if not isinstance(names, tuple | list) or len(names) != 2 or names[0] == names[1]:
        raise ValueError(f"names: two different names expected, {names!r} given")
    share(confidence, "confidence")
    whole(n_boot, "n_boot")
    true, predictions, values, class_names = _predictions(y_true, first, second, classes)
    code = read_positive(positive, values, class_names)
    wanted = wanted_statistics(statistics, with_scores=False)
    codes, group_names, _ = read_crossed(group, groups)
    same_length(len(true), group=len(codes))

    joint, group_names = _joint(true, *predictions, codes, group_names, len(class_names))
    own = {name: statistic for name, statistic in wanted.items() if statistic is not None}
    named = [name for name in wanted if name in NAMED]
    settings = (class_names, own, code, n_boot, seed)
    sides = [list(estimate(side, *settings)) for side in _sides(joint)]
    z = uncertainty.critical(confidence)
    rows, pairs = [], {}
    for a, b in zip(*sides, strict=True):
        related = _correlation(a, b, joint, n_boot, seed)
        pairs[a.statistic, a.label] = a, b, related
        rows += _changes(a, b, related, group_names, z)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    gaps = _gap_changes(pairs, named, class_names, code is None, confidence)
    gaps["verdict"] = [_gap_verdict(row, frame, class_names) for row in gaps.itertuples(index=False)]
    if code is not None:
        frame, gaps = frame.drop(columns="class"), gaps.drop(columns="class")
    return Comparison(
        by_group=frame[frame["group"].notna()].reset_index(drop=True),
        gaps=gaps,
        overall=frame[frame["group"].isna()].drop(columns="group").reset_index(drop=True),
        names=(str(names[0]), str(names[1])),
        confidence=confidence,
        n=int(joint.counts[:, -1].sum()),
    )


@dataclass(frozen=True)
class Joint:
    """The occupied cells of the joint table, with their counts by group and in all."""

    y: np.ndarray  # int64 (M,), label of each cell
    first: np.ndarray  # int64 (M,), the first model's prediction
    second: np.ndarray  # int64 (M,)
    counts: np.ndarray  # int64 (M, G + 1)


def _predictions(y_true: Any, first: Any, second: Any, classes: Sequence[str] | None):
    """Codes of the labels and of both predictions over the classes that occur in any of the three."""
    try:
        true, one, values, names = read_labels(y_true, first, classes)
    except ValueError as error:
        raise ValueError(str(error).replace("y_pred", "first", 1)) from None
    try:
        _, two, other, _ = read_labels(y_true, second, classes)
    except ValueError as error:
        raise ValueError(str(error).replace("y_pred", "second", 1)) from None
    if other == values:
        return true, (one, two), values, names
    every = tuple(sorted({*values, *other}))
    to_every = [np.array([every.index(value) for value in known]) for known in (values, other)]
    return to_every[0][true], (to_every[0][one], to_every[1][two]), every, tuple(str(value) for value in every)


def _joint(true, first, second, group, groups: Sequence[str], c: int) -> tuple[Joint, tuple[str, ...]]:
    cell = ((group.astype(np.int64) * c + true) * c + first) * c + second
    table = np.bincount(cell, minlength=len(groups) * c**3).reshape(len(groups), c**3)
    present, kept = table.any(1), np.flatnonzero(table.any(0))
    table = table[present][:, kept]
    y, rest = np.divmod(kept, c * c)
    joint = Joint(y, *np.divmod(rest, c), np.concatenate([table, table.sum(0, keepdims=True)]).T)
    return joint, tuple(name for name, there in zip(groups, present, strict=True) if there)


def _sides(joint: Joint, counts: np.ndarray | None = None) -> tuple[Cells, Cells]:
    counts = joint.counts if counts is None else counts
    return Cells(joint.y, joint.first, counts), Cells(joint.y, joint.second, counts)


def _changes(a: Estimate, b: Estimate, related: np.ndarray, groups: Sequence[str], z: float):
    """Rows of the table for one statistic: every group, then (group None) all rows together."""
    low, high = paired_limits(a.values, a.limits(z), b.values, b.limits(z), related)
    change = b.values - a.values
    better = np.array([low > 0, high < 0]) if a.higher_is_better else np.array([high < 0, low > 0])
    verdict = np.where(better[0], UP, np.where(better[1], DOWN, NOISE))
    verdict = np.where(np.isnan(change), "", verdict)
    n = np.minimum(a.n, b.n)
    columns = (a.values, b.values, change, low, high, n, verdict)
    return [(name, a.statistic, a.label, *row) for name, *row in zip([*groups, None], *columns, strict=True)]


def paired_limits(
    first: np.ndarray, of_first: uncertainty.Limits, second: np.ndarray, of_second: uncertainty.Limits, correlation: np.ndarray
) -> uncertainty.Limits:
    """MOVER limits of second - first for dependent estimates (Zou & Donner, 2008, eq. 7 with a correlation).

    Parameters
    ----------
    first, second : float (G,), values
    of_first, of_second : (low, high), float (G,) each, their own limits
    correlation : float (G,), of the two estimates

    Returns
    -------
    low, high : float (G,)
    """
    change = second - first
    return (
        change - _reach(second - of_second[0], of_first[1] - first, correlation),
        change + _reach(of_second[1] - second, first - of_first[0], correlation),
    )


def _reach(near: np.ndarray, far: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(near**2 + far**2 - 2 * correlation * near * far, 0))


def _correlation(a: Estimate, b: Estimate, joint: Joint, n_boot: int, seed: int) -> np.ndarray:
    """Correlation of the two models' values of one statistic, (G + 1,): by the delta method, else from replicates."""
    influence = np.stack([a.influence(), b.influence()])
    if not np.isnan(influence).any():
        return uncertainty.correlations(influence, joint.counts)[:, 0, 1]
    draws = uncertainty.replicates(joint.counts, n_boot, seed)
    size = draws.shape[1]
    found = []
    for side, part in zip(_sides(joint, draws.reshape(len(draws), -1)), (a.parts[0], b.parts[0]), strict=True):
        cell = part.view.cell
        binary = np.stack([side.counts[cell == k].sum(0) for k in range(4)])
        found.append(evaluate(part.statistic, binary).reshape(size, -1))
    return np.array([_correlation_of(x, y) for x, y in zip(*found, strict=True)])


@dataclass(frozen=True)
class Differences:
    """Signed differences of all ordered pairs of groups, of one or several statistics, for one model."""

    statistic: np.ndarray  # int64 (K,), which statistic
    signs: np.ndarray  # float64 (K, G), +1 and -1 of the pair
    value: np.ndarray  # float64 (K,)
    below: np.ndarray  # float64 (K,), distance to the lower limit, widened for having picked the extreme pair
    above: np.ndarray  # float64 (K,), distance to the plain upper limit


def _gap_changes(
    pairs: dict[tuple[str, str], tuple[Estimate, Estimate, np.ndarray]],
    named: Sequence[str],
    classes: Sequence[str],
    several: bool,
    confidence: float,
) -> pd.DataFrame:
    """Gaps of both models and the change with its interval, for every statistic and named gap."""
    parts = {key: [key] for key in pairs}
    for name in named:
        for label in [*classes, "all"] if several else [""]:
            parts[name, label] = named_parts(name, label, classes)
    rows = [(*key, *_gap_change([pairs[part] for part in of], confidence)) for key, of in parts.items()]
    return pd.DataFrame(rows, columns=["statistic", "class", "first", "second", "change", "low", "high"])


def _gap_change(parts: list[tuple[Estimate, Estimate, np.ndarray]], confidence: float) -> tuple[float, ...]:
    """First gap, second gap, change, low, high; NaN unless every part has two groups with values in both models."""
    usable = [~np.isnan(a.values[:-1]) & ~np.isnan(b.values[:-1]) for a, b, _ in parts]
    if min(kept.sum() for kept in usable) < 2:
        return (np.nan,) * 5
    first, second = (_differences([part[side] for part in parts], usable, confidence) for side in (0, 1))
    i, j = int(first.value.argmax()), int(second.value.argmax())
    together = np.stack([related[:-1] for _, _, related in parts])  # (parts, G)
    spread = [np.stack([_spread(part[side]) for part in parts]) for side in (0, 1)]

    def correlation(k: np.ndarray, m: np.ndarray) -> np.ndarray:
        """Of the first model's pairs k and the second's pairs m; different statistics are taken as unrelated."""
        of = first.statistic[k]
        signs = first.signs[k] * second.signs[m]
        covariance = (signs * (together * spread[0] * spread[1])[of]).sum(-1)
        variances = [
            (signs**2 * errors[of] ** 2).sum(-1)
            for signs, errors in zip((first.signs[k], second.signs[m]), spread, strict=True)
        ]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.nan_to_num(covariance / np.sqrt(variances[0] * variances[1]))
        return np.where(of == second.statistic[m], found, 0.0)

    every = np.arange(len(first.value))
    change = second.value[j] - first.value[i]
    above = _reach(second.above, first.below[i], correlation(np.full_like(every, i), every))
    below = _reach(second.below[j], first.above, correlation(every, np.full_like(every, j)))
    high = (second.value - first.value[i] + above).max()
    low = (second.value[j] - first.value - below).min()
    return first.value[i], second.value[j], change, min(low, change), max(high, change)


def _differences(estimates: list[Estimate], usable: list[np.ndarray], confidence: float) -> Differences:
    z = uncertainty.critical(confidence)
    found = []
    for k, (each, kept) in enumerate(zip(estimates, usable, strict=True)):
        wide = uncertainty.range_critical(confidence ** (1 / len(estimates)), int(kept.sum()))
        i, j = (np.flatnonzero(kept)[side] for side in np.nonzero(~np.eye(int(kept.sum()), dtype=bool)))
        (low, high), (low_wide, high_wide) = each.limits(z), each.limits(wide)
        value = each.values
        signs = np.eye(len(kept))[i] - np.eye(len(kept))[j]
        found.append((
            np.full(len(i), k), signs, value[i] - value[j],
            np.hypot(value[i] - low_wide[i], high_wide[j] - value[j]),
            np.hypot(high[i] - value[i], value[j] - low[j]),
        ))  # fmt: skip
    return Differences(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _spread(each: Estimate) -> np.ndarray:
    """Standard errors of the groups' values by the width of their intervals, (G,); 0 where there is no value."""
    low, high = each.limits(1.0)
    return np.nan_to_num((high - low) / 2)[:-1]


def _correlation_of(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of replicates; 0 where one of them did not vary."""
    defined = np.isfinite(x) & np.isfinite(y)
    x, y = x[defined], y[defined]
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers with three digits, the change with its interval."""
    shown = table.drop(columns=["low", "high"])
    for side in ("first", "second"):
        shown[side] = ["undefined" if np.isnan(value) else f"{value:.3f}" for value in table[side]]
    shown["change"] = [
        "undefined" if np.isnan(row.change) else f"{row.change:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
        for row in table.itertuples()
    ]
    return shown


def _gap_verdict(row: Any, frame: pd.DataFrame, classes: Sequence[str]) -> str:
    """Which way a gap goes beyond noise, and the groups that do it."""
    if np.isnan(row.change):
        return ""
    if row.low <= 0 <= row.high:
        return NOISE
    label = row[1]  # `class` is no attribute's name
    parts = named_parts(row.statistic, label, classes) if row.statistic in NAMED else [(row.statistic, label)]
    keys = pd.MultiIndex.from_tuples(parts)
    mine = frame[frame.set_index(["statistic", "class"]).index.isin(keys) & frame["group"].notna()]
    who = mine["group"]
    if mine["statistic"].nunique() > 1:
        who = who + " in " + mine["statistic"].str.replace("_", " ")
    said = [
        f"{verdict.replace('levels', 'levelling')} {', '.join(dict.fromkeys(who[mine['verdict'] == verdict]))}"
        for verdict in (UP, DOWN)
        if (mine["verdict"] == verdict).any()
    ]
    return ("closes" if row.change < 0 else "widens") + (f" by {' and '.join(said)}" if said else ", no group beyond noise")
