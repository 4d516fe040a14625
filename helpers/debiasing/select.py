"""Choosing among corrected models: the Pareto front and the point nearest to the ideal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HIGHER = (
    "accuracy",
    "balanced_accuracy",
    "f1",
    "true_positive_rate",
    "true_negative_rate",
    "positive_predictive_value",
    "negative_predictive_value",
    "roc_auc",
)
LOWER = (
    "equalized_odds",
    "equal_opportunity",
    "demographic_parity",
    "accuracy_parity",
    "predictive_parity",
    "error_rate",
    "false_positive_rate",
    "false_negative_rate",
    "false_omission_rate",
    "false_discovery_rate",
)  # gaps between groups, and rates of errors
TIE = 1e-9


def losses(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Distance of each metric to its ideal (1 for those in `HIGHER`, 0 for those in `LOWER`), float (n, m)."""
    values = np.asarray(values, float).reshape(-1, len(names))
    return np.stack([1 - v if name in HIGHER else v for v, name in zip(values.T, names, strict=True)], axis=1)


def pareto_front(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Which of n points no other point beats: as good in every metric and better in one.

    Parameters
    ----------
    values : float array (n, m), one row a model, one column a metric
    names : the m metrics, each in `HIGHER`, in `LOWER` or ending in "_gap" (lower is better)

    Returns
    -------
    bool array (n,). Equal points are all on the front; a point with a NaN never is.
    """
    loss = losses(values, names)
    known = ~np.isnan(loss).any(1)
    no_worse = (loss[:, None] <= loss[None]).all(-1)  # [i, j]: i is no worse than j
    better = (loss[:, None] < loss[None]).any(-1)
    beaten = (no_worse & better & known[:, None]).any(0)
    return known & ~beaten


def distance_to_ideal(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Euclidean distance of n points to the ideal one: 1 for metrics in `HIGHER`, 0 for those in `LOWER`.

    The ideal is fixed rather than the best of those present, so that adding a model never changes the order of two
    others. NaN where a metric is NaN.
    """
    return np.sqrt((losses(values, names) ** 2).sum(1))


def nearest(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Row numbers nearest to the ideal point: one, or several if they tie within 1e-9; none if all are NaN."""
    distance = distance_to_ideal(values, names)
    if np.isnan(distance).all():
        return np.array([], int)
    return np.flatnonzero(distance <= np.nanmin(distance) + TIE)
