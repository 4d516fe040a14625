"""Calibration by group: does a score of 0.8 mean 80 %, and does it mean that for everyone?

Rows are sorted into bins of the score once; curves, errors and simulated samples are computed from the bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers.bias import uncertainty
from helpers.bias.estimates import Estimate
from helpers.bias.gaps import gap
from helpers.bias.nonnegative import FACTORS, p_value, size_at
from helpers.bias.scored import read_scored
from helpers.bias.settings import share, whole
from helpers.bias.uncertainty import Limits
from helpers.names import choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ERROR = "expected_calibration_error"
CORRECTED = f"{ERROR}_corrected"
REFERENCE = f"{ERROR}_if_calibrated"
LARGE = "calibration_in_the_large"
BRIER = "brier_score"


@dataclass(frozen=True)
class Calibration:
    """Reliability curves and calibration errors by group.

    Attributes
    ----------
    by_bin : DataFrame, one row a group and bin: `group, bin, left, right, mean_score, value, low, high, n`. `value` is
        the observed rate of positives with Wilson's interval; NaN with n = 0 where a group has no score in a bin.
    by_group : DataFrame, one row a group and statistic: `group, statistic, value, low, high, n, p_value`. Statistics:

        `expected_calibration_error` : sum over bins of n_b / n |mean score - observed rate|. Biased upwards, the more
            so the smaller the group: do not compare it between groups of different size.
        `expected_calibration_error_corrected` : the same without that bias; compare this one.
        `expected_calibration_error_if_calibrated` : what a perfectly calibrated model with these very scores would show
            (mean; low and high: the middle 95 % of samples). `p_value`, in the row of the error itself, is the share of
            such samples with at least the observed error.
        `calibration_in_the_large` : mean score - rate of positives; above zero, the scores promise too much.
        `brier_score` : mean of (score - label)^2.
    overall : the same for all rows together, without the column `group`
    gaps : DataFrame, the largest difference between two groups: `statistic, difference, difference_low,
        difference_high, worst, best`; for the corrected error, calibration in the large and the Brier score
    positive : what the scores are the probability of
    confidence : level of the intervals
    empty : groups that have no row
    notes : what is undefined or rests on little.  method : how the numbers were made
    """

    by_bin: pd.DataFrame
    by_group: pd.DataFrame
    overall: pd.DataFrame
    gaps: pd.DataFrame
    positive: str
    confidence: float
    empty: tuple[str, ...]
    notes: tuple[str, ...]
    method: str

    def value(self, statistic: str, group: str | None = None) -> float:
        """Value of a statistic for a group (None: all rows)."""
        return float(self._row(statistic, group)["value"])

    def interval(self, statistic: str, group: str | None = None) -> tuple[float, float]:
        """(low, high) of `value`."""
        row = self._row(statistic, group)
        return float(row["low"]), float(row["high"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Reliability curves of all groups (`helpers.plots.scores.reliability`)."""
        from helpers.plots import scores  # here, so that the numbers do not load matplotlib

        return scores.reliability(self, ax=ax)

    def _row(self, statistic: str, group: str | None) -> pd.Series:
        table = self.overall
        if group is not None:
            group = choose(str(group), dict.fromkeys(self.by_group["group"]), "group")
            table = self.by_group[self.by_group["group"] == group]
        names = list(table["statistic"])
        return table.iloc[names.index(choose(statistic, names, "statistic"))]


@dataclass(frozen=True)
class Bins:
    """What is kept of the rows of one group: sums by bin and moments of the residuals score - label.

    Bins without a row are left out.
    """

    n: np.ndarray  # int64 (B,)
    positives: np.ndarray  # int64 (B,)
    score: np.ndarray  # float64 (B,), mean score
    variance: np.ndarray  # float64 (B,), mean of score (1 - score): a label's variance if the scores are calibrated
    residual: float  # mean of score - label
    residual_error: float  # its standard error
    brier: float
    brier_error: float


def calibration(
    y_true: Any,
    y_score: Any,
    group: Any,
    *,
    bins: int = 10,
    strategy: str = "quantile",
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    positive: Any = None,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Calibration:
    """Reliability curve, expected calibration error, calibration in the large and Brier score of every group.

    Parameters
    ----------
    y_true : (N,) labels
    y_score : float (N,), probability of the positive class in [0, 1]; or (N, C), of each of three classes or more
    group : (N,), or a DataFrame whose columns are crossed
    bins : number of bins, at least 1
    strategy : "quantile", bins with equally many rows of all groups together (tied scores stay in one bin, so there may
        be fewer bins), or "uniform", bins of equal width. The edges are the same for every group, so that curves can be
        read against each other. A bin holds left < score <= right, the first one its left edge too.
    confidence : level of all intervals, in (0, 1)
    n_boot : parametric samples for the calibration error
    seed : of those samples
    positive : the positive class by value or name; None: label 1, and with three classes or more the calibration of the
        predicted class's probability ("top label"); a class's name gives that class against the rest
    groups, classes : names that integer codes stand for

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError : as `helpers.bias.audit`; scores missing or outside [0, 1]; fewer than one bin or sample; an unknown
        strategy.

    Notes
    -----
    The error's interval holds for the calibration error in these bins, given the scores. Its upper limit is MOVER on the
    Wilson intervals of the bins, from the uncorrected value up. Its lower limit, the corrected value and the reference
    come from simulated labels (`helpers.bias.nonnegative`): drawn by bin, with the observed deviations scaled by factors
    from 0 up and the variance that the rows' own scores give. In bins of few rows deviations that are not significant
    count as none for the lower limit, which makes it cautious. Intervals of means are Student's t; the standard error of
    calibration in the large is at least the one that calibrated scores would give, so that a group of five negatives is
    not certain to be well calibrated. A group with one row has the whole range for its means.

    References
    ----------
    Murphy & Winkler, "Reliability of subjective probability forecasts of precipitation and temperature", JRSS C 1977.
    Broecker & Smith, "Increasing the reliability of reliability diagrams", Weather and Forecasting 2007 (consistency
    resampling).
    Naeini, Cooper & Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015, eq. 3.
    Kumar, Liang & Ma, "Verified uncertainty calibration", NeurIPS 2019 (the bias of the plug-in error).

    Examples
    --------
    >>> result = calibration([0, 0, 0, 1] * 100, [0.25] * 400, ["a", "b"] * 200, bins=1)
    >>> result.value("calibration_in_the_large"), result.value("calibration_in_the_large", "a")
    (0.0, 0.25)
    """
    rows = read_scored(y_true, y_score, group, positive=positive, groups=groups, classes=classes)
    strategy = choose(strategy, ("quantile", "uniform"), "strategy")
    whole(bins, "bins")
    whole(n_boot, "n_boot")
    share(confidence, "confidence")

    edges = _edges(rows.score, bins, strategy)
    members = [rows.group == g for g in range(len(rows.groups))]
    parts = [_bins(rows.label[each], rows.score[each], edges) for each in members]
    parts.append(_bins(rows.label, rows.score, edges))
    errors = [_Error(part[0], n_boot, seed) for part in parts]
    estimates = _estimates([part[0] for part in parts], errors)
    names = (*rows.groups, "")
    z = uncertainty.critical(confidence)
    table = _table(estimates, errors, names, z)
    of_all = table["group"] == ""
    curves = [_curve(*part, edges, name, z) for part, name in zip(parts[:-1], rows.groups, strict=True)]
    return Calibration(
        by_bin=pd.concat(curves, ignore_index=True),
        by_group=table[~of_all].reset_index(drop=True),
        overall=table[of_all].drop(columns="group").reset_index(drop=True),
        gaps=_gaps(estimates, rows.groups, confidence),
        positive=rows.positive,
        confidence=confidence,
        empty=rows.empty,
        notes=tuple(_notes(rows.groups, rows.empty, parts)),
        method=(
            f"{len(edges) - 1} bins ({strategy}), the same for all groups. {confidence:.0%} intervals: Wilson for observed "
            f"rates; Student's t for means; for the calibration error, MOVER over the bins upwards and {n_boot} parametric "
            "samples downwards, from which its bias is estimated too."
        ),
    )


def _edges(score: np.ndarray, bins: int, strategy: str) -> np.ndarray:
    """Edges of the bins that hold a row, (B + 1,), from 0 to 1."""
    if strategy == "uniform":
        return np.linspace(0, 1, bins + 1)
    inner = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
    # With ties an edge can be the lowest or highest score itself: a bin beyond it would be empty.
    inner = inner[inner < score.max()]
    return np.concatenate([[0.0], inner, [1.0]])


def _bins(label: np.ndarray, score: np.ndarray, edges: np.ndarray) -> tuple[Bins, np.ndarray]:
    """The sums of one group's rows, and which bins they are the sums of."""
    bin_of = np.searchsorted(edges[1:-1], score, side="left")
    count = np.bincount(bin_of, minlength=len(edges) - 1)
    used = np.flatnonzero(count)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(bin_of, values, len(count))[used] / count[used]

    n, residual = len(score), score - label
    squares = residual**2
    expected = (score * (1 - score)).mean()  # of the residuals' variance, if the scores are calibrated
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(max(residual.var(ddof=1), expected) / n) if n > 1 else np.inf
        brier_error = squares.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    positives = np.bincount(bin_of, label, len(count))[used].astype(np.int64)
    sums = Bins(
        count[used], positives, mean(score), mean(score * (1 - score)),
        float(residual.mean()), float(spread), float(squares.mean()), float(brier_error),
    )  # fmt: skip
    return sums, used


class _Error:
    """The expected calibration error of one group: value, correction, reference and limits."""

    def __init__(self, part: Bins, n_boot: int, seed: int):
        rng = np.random.default_rng(seed)
        self.part, self.weight = part, part.n / part.n.sum()
        rate = part.positives / part.n
        self.deviation = rate - part.score
        self.value = float(self.weight @ np.abs(self.deviation))
        mixed = (part.positives > 0) & (part.positives < part.n)
        variance = np.where(mixed, rate * (1 - rate), part.variance) / part.n
        # For the estimate, each squared deviation less its own noise; for the lower limit, what is significant.
        shrunk = np.sign(self.deviation) * np.sqrt(np.maximum(self.deviation**2 - variance, 0))
        clear = np.where(np.abs(self.deviation) > uncertainty.critical(0.95) * np.sqrt(variance), self.deviation, 0)
        self.shrunk, self.clear = (self._sample(each, n_boot, rng) for each in (shrunk, clear))
        self.null = self.shrunk[0][0]
        self.p_value = p_value(self.value, self.null)

    def _sample(self, deviation: np.ndarray, n_boot: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Errors in samples, (factors, n_boot), and the true errors, (factors,)."""
        part = self.part
        if not deviation.any():
            deviation = self.deviation
        rate = np.clip(part.score + FACTORS[:, None] * deviation, 0, 1)
        # Labels drawn at a bin's mean score vary more than labels drawn at each row's own: bring that back.
        binomial = part.score * (1 - part.score)
        scale = np.sqrt(np.divide(part.variance, binomial, out=np.ones_like(binomial), where=binomial > 0)).clip(0, 1)
        errors = np.empty((len(FACTORS), n_boot))
        for row, p in zip(errors, rate, strict=True):
            # Bins down and samples across: draws with the same parameters in a row are several times as fast.
            drawn = rng.binomial(part.n[:, None], p[:, None], size=(len(p), n_boot)).T
            noise = (drawn / part.n - p) * scale
            row[:] = np.abs(p - part.score + noise) @ self.weight
        return errors, np.abs(rate - part.score) @ self.weight

    def corrected(self) -> float:
        return size_at(self.value, *self.shrunk, 0.5)

    def limits(self, z: float) -> tuple[float, float]:
        tail = float(stats.norm.sf(z))
        low = min(size_at(self.value, *self.clear, 1 - tail), self.corrected())
        rate_low, rate_high = uncertainty.wilson(self.part.positives, self.part.n, z)
        score = self.part.score
        furthest = np.maximum(np.abs(rate_low - score), np.abs(rate_high - score)) - np.abs(self.deviation)
        return low, min(self.value + float(np.linalg.norm(self.weight * furthest)), 1.0)


def _estimates(parts: list[Bins], errors: list[_Error]) -> list[Estimate]:
    n = np.array([part.n.sum() for part in parts])

    def mean(name: str, values: list[float], errors: list[float], least: float) -> Estimate:
        values, errors = np.array(values), np.array(errors)

        def limits(z: float) -> Limits:
            t = stats.t.isf(stats.norm.sf(z), np.maximum(n - 1, 1))
            return np.clip(values - t * errors, least, 1), np.clip(values + t * errors, least, 1)

        return Estimate(name, "", values, n, limits, higher_is_better=False)

    def error(name: str, value: Callable[[_Error], float]) -> Estimate:
        values = np.array([value(each) for each in errors])

        def limits(z: float) -> Limits:
            return tuple(np.array(limit) for limit in zip(*(each.limits(z) for each in errors), strict=True))

        return Estimate(name, "", values, n, limits, higher_is_better=False)

    return [
        error(ERROR, lambda each: each.value),
        error(CORRECTED, lambda each: each.corrected()),
        mean(LARGE, [part.residual for part in parts], [part.residual_error for part in parts], -1.0),
        mean(BRIER, [part.brier for part in parts], [part.brier_error for part in parts], 0.0),
    ]


def _table(estimates: list[Estimate], errors: list[_Error], names: Sequence[str], z: float) -> pd.DataFrame:
    tail = stats.norm.sf(z)
    rows = []
    limits = [each.limits(z) for each in estimates]
    for g, name in enumerate(names):
        for each, (low, high) in zip(estimates, limits, strict=True):
            tested = errors[g].p_value if each.statistic == ERROR else np.nan
            rows.append((name, each.statistic, each.values[g], low[g], high[g], each.n[g], tested))
        null = errors[g].null
        reference = (null.mean(), *np.quantile(null, [tail, 1 - tail]))
        rows.insert(len(rows) - 2, (name, REFERENCE, *reference, estimates[0].n[g], np.nan))
    return pd.DataFrame(rows, columns=["group", "statistic", "value", "low", "high", "n", "p_value"])


def _curve(part: Bins, used: np.ndarray, edges: np.ndarray, name: str, z: float) -> pd.DataFrame:
    size = len(edges) - 1

    def spread(values: np.ndarray, missing: float) -> np.ndarray:
        column = np.full(size, missing)
        column[used] = values
        return column

    low, high = uncertainty.wilson(part.positives, part.n, z)
    return pd.DataFrame(
        {
            "group": name,
            "bin": np.arange(size),
            "left": edges[:-1],
            "right": edges[1:],
            "mean_score": spread(part.score, np.nan),
            "value": spread(part.positives / part.n, np.nan),
            "low": spread(low, np.nan),
            "high": spread(high, np.nan),
            "n": spread(part.n, 0).astype(np.int64),
        }
    )


def _gaps(estimates: list[Estimate], groups: tuple[str, ...], confidence: float) -> pd.DataFrame:
    rows = []
    for each in estimates:
        if each.statistic != ERROR:  # the plug-in error of a small group is larger for being small
            found = gap(each, groups, confidence)
            signed = each.statistic == LARGE  # neither end of a signed value is the worse one
            rows.append((each.statistic, *found.difference, "" if signed else found.worst, "" if signed else found.best))
    columns = ["statistic", "difference", "difference_low", "difference_high", "worst", "best"]
    return pd.DataFrame(rows, columns=columns)


def _notes(groups: tuple[str, ...], empty: tuple[str, ...], parts: list[tuple[Bins, np.ndarray]]):
    if empty:
        yield f"No image belongs to: {'; '.join(empty)}."
    if len(groups) == 1:
        yield f"There is one group only ({groups[0]}), so there are values and no gaps."
    for name, (part, _) in zip(groups, parts, strict=False):
        n, positives = int(part.n.sum()), int(part.positives.sum())
        if positives in (0, n):
            yield f"{name}: all {n} labels are {'positive' if positives else 'negative'}, which says little of calibration."
        elif n / len(part.n) < 5:
            yield f"{name}: {n} images in {len(part.n)} bins; with fewer than five a bin the curve is mostly noise."
