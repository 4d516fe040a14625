"""What another threshold would have done: every statistic and gap at every threshold, ROC curves, accuracy against fairness.

The rows are sorted into the gaps between thresholds once; sums from the top give each threshold's contingency table, and
`helpers.bias.statistics` is evaluated on all these tables together. A row is predicted positive if its score is at least
the threshold, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.bias import uncertainty
from helpers.bias.columns import read_numbers
from helpers.bias.estimates import Cells, Estimate, estimate, evaluate
from helpers.bias.gaps import NAMED, Gap, gap, largest
from helpers.bias.scored import Scored, read_scored
from helpers.bias.settings import share
from helpers.bias.statistics import STATISTICS
from helpers.names import choose

GRID = np.linspace(0, 1, 101)
SHOWN = (
    "selection_rate",
    "true_positive_rate",
    "false_positive_rate",
    "balanced_accuracy",
    "demographic_parity",
    "equalized_odds",
)

# The cells of a binary table in the order of `evaluate`, 2 * label + prediction.
LABELS, PREDICTIONS = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])


def threshold_sweep(
    y_true: Any,
    y_score: Any,
    group: Any,
    *,
    thresholds: Sequence[float] | str | None = None,
    statistics: str | Sequence[str] = SHOWN,
    confidence: float = 0.95,
    positive: Any = None,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Values by group, overall values and gaps at every threshold.

    Parameters
    ----------
    y_true, y_score, group, positive, groups, classes : as in `helpers.bias.calibration.calibration`
    thresholds : numbers; "all", every distinct score; None, every distinct score if there are at most 101 of them, else
        0, 0.01, …, 1
    statistics : "all", or names among `helpers.bias.STATISTICS` and `helpers.bias.NAMED` (which have a gap only)
    confidence : level of the intervals

    Returns
    -------
    DataFrame `threshold, statistic, kind, group, value, low, high, n`, thresholds ascending. `kind` is "group", "overall"
    or "gap" (the highest minus the lowest group; equalized odds: the larger of two such gaps); `group` is a name in the
    first case, else "". `n` counts the images in the denominator, of a gap in the smallest one that it compares.
    NaN, with n = 0, where a denominator is empty: nobody is predicted positive, or a group lacks one of the labels.

    Raises
    ------
    ValueError : as `calibration`; a threshold that is not a number; an unknown statistic.

    Notes
    -----
    The intervals, those of `audit`, hold at a threshold chosen beforehand. At the threshold that was chosen because its
    gap is the smallest of all, the gap on new images will be larger: choose on one sample, report on another.

    Cost: one binary search a row, then work in proportion to thresholds × groups.

    Examples
    --------
    >>> sweep = threshold_sweep([1, 0, 1, 0], [0.9, 0.4, 0.6, 0.1], ["a", "a", "b", "b"], statistics=["selection_rate"])
    >>> sweep[sweep["kind"] == "gap"][["threshold", "value"]].to_numpy().tolist()
    [[0.1, 0.0], [0.4, 0.5], [0.6, 0.0], [0.9, 0.5]]
    """
    share(confidence, "confidence")
    wanted = _wanted(statistics)
    rows = read_scored(y_true, y_score, group, positive=positive, groups=groups, classes=classes)
    at = _thresholds(thresholds, rows.score)
    tables = _tables(rows, at)
    values, gaps = _evaluate(tables, wanted, rows.groups, confidence)
    return _long(at, rows.groups, wanted, values, gaps, confidence)


def roc_curves(
    y_true: Any,
    y_score: Any,
    group: Any,
    *,
    positive: Any = None,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The ROC curve of every group, a point for each of its distinct scores.

    Parameters
    ----------
    as in `threshold_sweep`

    Returns
    -------
    DataFrame `group, threshold, fpr, tpr`, thresholds of a group descending from infinity (nobody is positive); equal to
    `sklearn.metrics.roc_curve(..., drop_intermediate=False)`. A group without negatives has no `fpr`, one without
    positives no `tpr`: NaN.

    Raises
    ------
    ValueError : as `threshold_sweep`.
    """
    rows = read_scored(y_true, y_score, group, positive=positive, groups=groups, classes=classes)
    curves = []
    for g, name in enumerate(rows.groups):
        mine = rows.group == g
        own = Scored(rows.label[mine], rows.score[mine], np.zeros(mine.sum(), np.int64), (name,), (), rows.positive)
        at = np.append(np.unique(own.score), np.inf)
        cells = _tables(own, at)[:, :, 0]
        fpr, tpr = (evaluate(STATISTICS[rate], cells)[::-1] for rate in ("false_positive_rate", "true_positive_rate"))
        curves.append(pd.DataFrame({"group": name, "threshold": at[::-1], "fpr": fpr, "tpr": tpr}))
    return pd.concat(curves, ignore_index=True)


def accuracy_fairness(
    y_true: Any,
    y_score: Any,
    group: Any,
    *,
    accuracy: str = "balanced_accuracy",
    gap: str = "equalized_odds",
    thresholds: Sequence[float] | str | None = None,
    confidence: float = 0.95,
    positive: Any = None,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """How much accuracy a smaller gap costs, if one threshold for all is the only thing that can be changed.

    Parameters
    ----------
    accuracy : a name in `STATISTICS` of which more is better; its value over all rows
    gap : a name in `STATISTICS` or `NAMED`; the difference between the highest and the lowest group
    the others : as in `threshold_sweep`

    Returns
    -------
    DataFrame, one row a threshold, ascending: `threshold, accuracy, accuracy_low, accuracy_high, gap, gap_low, gap_high,
    pareto`. `pareto` says that no other threshold is at least as accurate and at least as fair, and better in one of the
    two; never where either is NaN. A threshold at which everyone gets the same answer has no gap, so it is always on this
    front, and it is useless: read both numbers.

    Raises
    ------
    ValueError : as `threshold_sweep`; `accuracy` names something of which less is better.
    """
    accuracy = choose(accuracy, [name for name, each in STATISTICS.items() if each.higher_is_better], "accuracy")
    gap = choose(gap, [*NAMED, *STATISTICS], "gap")
    sweep = threshold_sweep(
        y_true, y_score, group, thresholds=thresholds, statistics=list(dict.fromkeys([accuracy, gap])),
        confidence=confidence, positive=positive, groups=groups, classes=classes,
    )  # fmt: skip

    def column(statistic: str, kind: str, name: str) -> pd.DataFrame:
        rows = sweep[(sweep["statistic"] == statistic) & (sweep["kind"] == kind)].set_index("threshold")
        return rows[["value", "low", "high"]].set_axis([name, f"{name}_low", f"{name}_high"], axis=1)

    curve = pd.concat([column(accuracy, "overall", "accuracy"), column(gap, "gap", "gap")], axis=1).reset_index()
    return curve.assign(pareto=_front(curve["accuracy"].to_numpy(), curve["gap"].to_numpy()))


def _wanted(statistics: str | Sequence[str]) -> list[str]:
    if isinstance(statistics, str):
        statistics = [*STATISTICS, *NAMED] if statistics == "all" else [statistics]
    if not isinstance(statistics, Iterable):
        raise ValueError(f'statistics: "all", or names, expected; {type(statistics).__name__} given')
    wanted = list(dict.fromkeys(choose(name, [*STATISTICS, *NAMED], "statistics") for name in statistics))
    if not wanted:
        raise ValueError("statistics: none asked for")
    return wanted


def _thresholds(thresholds: Sequence[float] | str | None, score: np.ndarray) -> np.ndarray:
    if thresholds is None or isinstance(thresholds, str):
        if thresholds is not None:
            choose(thresholds, ["all"], "thresholds")
        distinct = np.unique(score)
        return distinct if thresholds == "all" or len(distinct) <= len(GRID) else GRID
    at = np.unique(read_numbers(thresholds, "thresholds").astype(np.float64))
    if not len(at) or np.isnan(at).any():
        raise ValueError(f"thresholds: numbers expected, {thresholds!r} given")
    return at


def _tables(rows: Scored, at: np.ndarray) -> np.ndarray:
    """Contingency tables at every threshold: int64 (4, T, G + 1), cells as 2 * label + prediction, all rows last."""
    t, g = len(at), len(rows.groups)
    # How many thresholds a score reaches; the rows that reach threshold k are those that reach more than k of them.
    reached = np.searchsorted(at, rows.score, side="right")
    cell = (rows.label * g + rows.group) * (t + 1) + reached
    histogram = np.bincount(cell, minlength=2 * g * (t + 1)).reshape(2, g, t + 1)
    positive = histogram[:, :, ::-1].cumsum(2)[:, :, -2::-1]  # (2, G, T)
    negative = histogram.sum(2, keepdims=True) - positive
    tables = np.stack([negative[0], positive[0], negative[1], positive[1]]).transpose(0, 2, 1)
    return np.concatenate([tables, tables.sum(2, keepdims=True)], axis=2)


def _evaluate(
    tables: np.ndarray, wanted: list[str], groups: tuple[str, ...], confidence: float
) -> tuple[dict[str, Estimate], dict[str, list[Gap]]]:
    """Every statistic on every table at once, and the gaps threshold by threshold."""
    _, t, width = tables.shape
    needed = dict.fromkeys(base for name in wanted for base in NAMED.get(name, (name,)))
    cells = Cells(LABELS, PREDICTIONS, tables.reshape(4, -1))
    known = estimate(cells, ("0", "1"), {name: STATISTICS[name] for name in needed}, positive=1, n_boot=1, seed=0)
    values = {each.statistic: each for each in known}

    def at_threshold(each: Estimate, k: int) -> Estimate:
        part = slice(k * width, (k + 1) * width)

        def limits(z: float) -> uncertainty.Limits:
            low, high = each.limits(z)
            return low[part], high[part]

        return Estimate(each.statistic, "", each.values[part], each.n[part], limits, each.higher_is_better)

    gaps = {}
    for name in wanted:
        parts = [values[base] for base in NAMED.get(name, (name,))]
        gaps[name] = [
            largest(gap(at_threshold(part, k), groups, confidence, len(parts)) for part in parts) for k in range(t)
        ]
    return values, gaps


def _long(
    at: np.ndarray,
    groups: tuple[str, ...],
    wanted: list[str],
    values: dict[str, Estimate],
    gaps: dict[str, list[Gap]],
    confidence: float,
) -> pd.DataFrame:
    t, width = len(at), len(groups) + 1
    z = uncertainty.critical(confidence)
    blocks = []
    for position, name in enumerate(wanted):
        if name in values and name not in NAMED:
            each = values[name]
            low, high = each.limits(z)
            kind, who = ["group"] * len(groups) + ["overall"], [*groups, ""]
            block = {"kind": kind * t, "group": who * t, "value": each.values, "low": low, "high": high, "n": each.n}
            blocks.append(pd.DataFrame(block).assign(threshold=np.repeat(at, width), statistic=name, position=position))
        numbers = np.array([found.difference for found in gaps[name]])
        n = np.min([_smallest(values[base], t, width) for base in NAMED.get(name, (name,))], axis=0)
        n = np.where(np.isnan(numbers[:, 0]), 0, n)
        block = {"kind": "gap", "group": "", "value": numbers[:, 0], "low": numbers[:, 1], "high": numbers[:, 2], "n": n}
        blocks.append(pd.DataFrame(block).assign(threshold=at, statistic=name, position=position))
    table = pd.concat(blocks, ignore_index=True).sort_values(["threshold", "position"], kind="stable", ignore_index=True)
    return table[["threshold", "statistic", "kind", "group", "value", "low", "high", "n"]]


def _smallest(each: Estimate, t: int, width: int) -> np.ndarray:
    """The smallest denominator among the groups that have a value, by threshold; 0 where none has."""
    n, defined = (column.reshape(t, width)[:, :-1] for column in (each.n, ~np.isnan(each.values)))
    return np.where(defined.any(1), np.where(defined, n, np.iinfo(np.int64).max).min(1), 0)


def _front(accuracy: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Points that no other one dominates, bool (T,); equal points are all on the front or all off it."""
    front = np.zeros(len(accuracy), dtype=bool)
    defined = np.flatnonzero(~np.isnan(accuracy) & ~np.isnan(gap))
    best = -np.inf
    order = defined[np.lexsort((-accuracy[defined], gap[defined]))]
    start = 0
    while start < len(order):
        end = start + int(np.searchsorted(gap[order[start:]], gap[order[start]], side="right"))
        same_gap = order[start:end]
        if accuracy[same_gap[0]] > best:
            best = accuracy[same_gap[0]]
            front[same_gap[accuracy[same_gap] == best]] = True
        start = end
    return front
