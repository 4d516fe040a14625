"""Statistics of scores by group: their mean, and the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats

from helpers.bias.columns import read_numbers
from helpers.bias.estimates import Estimate
from helpers.bias.inputs import same_length
from helpers.bias.uncertainty import Limits

ROUNDING = 1e-6


def read_scores(y_score: Any, n: int, classes: int) -> np.ndarray:
    """Scores as float64 (N,) for two classes, (N, C) for more.

    What lies outside [0, 1] by no more than `ROUNDING`, as averaged or normalised probabilities may, becomes 0 or 1.

    Raises
    ------
    ValueError : no numbers, length or shape does not fit, a score is missing or outside [0, 1].
    """
    scores = read_numbers(y_score, "y_score").astype(np.float64, copy=False)
    if scores.ndim not in (1, 2):
        raise ValueError(f"y_score: shape ({n},) expected, {scores.shape} given")
    same_length(n, y_score=len(scores))
    if classes == 2 and scores.shape == (n, 2):
        raise ValueError(f"y_score: shape ({n},), the positive class's probability, expected; ({n}, 2) given")
    wanted = (n,) if classes == 2 else (n, classes)
    if scores.shape != wanted:
        raise ValueError(f"y_score: shape {wanted} expected with {classes} classes, {scores.shape} given")
    return probabilities(scores, "y_score")


def probabilities(scores: np.ndarray, argument: str) -> np.ndarray:
    """Scores within [0, 1]; what lies outside by no more than `ROUNDING` becomes 0 or 1.

    Raises
    ------
    ValueError : a score is missing or outside.
    """
    if scores.size and scores.min() >= 0 and scores.max() <= 1:  # false with a NaN
        return scores
    bad = ~((scores >= -ROUNDING) & (scores <= 1 + ROUNDING))  # written so that NaN is bad too
    if bad.any():
        raise ValueError(
            f"{argument}: {bad.sum()} scores are missing or outside [0, 1] (first {float(scores[bad][0])!r}); "
            "pass probabilities, such as the sigmoid of logits"
        )
    return np.clip(scores, 0, 1)


def score_estimates(
    labels: np.ndarray, scores: np.ndarray, group: np.ndarray, groups: int, label: str
) -> Iterator[Estimate]:
    """Mean score and ROC AUC of one class for every group and for all rows.

    Parameters
    ----------
    labels : bool (N,), whether the row is of the class
    scores : float (N,) in [0, 1]
    group : int (N,), codes below `groups`
    label : name of the class, "" in a binary audit

    Returns
    -------
    `mean_score`, with Student's t interval within [0, 1] (all of [0, 1] for a single image), and `roc_auc` with
    Newcombe's score interval. AUC is NaN, with n = 0, where a group lacks one of the two labels.

    References
    ----------
    Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statistics in Medicine 2006 (method 5).
    """
    rows = [group == g for g in range(groups)] + [np.ones(len(group), dtype=bool)]
    n = np.array([row.sum() for row in rows])
    mean = np.array([scores[row].mean() for row in rows])
    error = np.array([scores[row].std(ddof=1) / np.sqrt(row.sum()) if row.sum() > 1 else np.inf for row in rows])

    def mean_limits(z: float) -> Limits:
        t = stats.t.isf(stats.norm.sf(z), np.maximum(n - 1, 1))
        return np.clip(mean - t * error, 0, 1), np.clip(mean + t * error, 0, 1)

    yield Estimate("mean_score", label, mean, n, mean_limits)
    positives = np.array([labels[row].sum() for row in rows])
    auc = np.array([area(scores[row], labels[row]) for row in rows])
    defined = ~np.isnan(auc)
    yield Estimate(
        "roc_auc", label, auc, np.where(defined, n, 0), lambda z: area_limits(auc, positives, n - positives, z)
    )


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    """P(score of a positive > score of a negative) + half the ties; NaN if a label is absent."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return np.nan
    rank_sum = stats.rankdata(scores)[labels].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def area_limits(auc: np.ndarray, positives: np.ndarray, negatives: np.ndarray, z: float) -> Limits:
    """Limits t with |auc - t| = z sqrt(t (1 - t) (1 + m ((1 - t) / (2 - t) + t / (1 + t))) / (P N)), m = (P + N) / 2 - 1.

    Solved by bisection on either side of the value; 0 or 1 where no solution lies inside.
    """
    auc = np.asarray(auc, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):

        def outside(t: np.ndarray) -> np.ndarray:
            m = (positives + negatives) / 2 - 1
            variance = t * (1 - t) * (1 + m * ((1 - t) / (2 - t) + t / (1 + t))) / (positives * negatives)
            return (auc - t) ** 2 > z * z * variance

        def solve(end: float) -> np.ndarray:
            inner, outer = auc.copy(), np.full_like(auc, end)
            for _ in range(60):
                middle = (inner + outer) / 2
                beyond = outside(middle)
                inner, outer = np.where(beyond, inner, middle), np.where(beyond, middle, outer)
            return np.where(np.isnan(auc), np.nan, np.where(auc == end, end, (inner + outer) / 2))

        return solve(0.0), solve(1.0)
