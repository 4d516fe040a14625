"""Rates and means over images that belong to people: intervals that take the people, not the images, as independent."""

from __future__ import annotations

import numpy as np
from scipy import stats

from helpers.bias import uncertainty
from helpers.bias.compare import paired_limits


def mean_of_people(column: np.ndarray, people: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Mean of values (N,) in [-1, 1], and its t interval by the cluster-robust standard error.

    Parameters
    ----------
    column : float (N,)
    people : (N,), whose image each row is; a number of its own for each row where images are independent
    confidence : level of the interval

    Returns
    -------
    mean, low, high; one person alone has the whole range.
    """
    mean, residual = _residuals(column, people)
    count = len(residual)
    t = float(stats.t.isf((1 - confidence) / 2, max(count - 1, 1)))
    reach = t * np.sqrt(_variance(residual, len(column))) if count > 1 else np.inf
    return mean, max(mean - reach, -1.0), min(mean + reach, 1.0)


def rate_of_people(column: np.ndarray, people: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Share of True among (N,), and Wilson's interval on the effective number of images.

    Parameters, returns : as `mean_of_people`. The design effect is the variance by people over the binomial one, at least 1; as
    people are few, n is also multiplied by (z / t)^2 (Korn & Graubard, 1998).
    """
    mean, residual = _residuals(column, people)
    n, count = len(column), len(residual)
    z, t = uncertainty.critical(confidence), float(stats.t.isf((1 - confidence) / 2, max(count - 1, 1)))
    size = float(n)
    if count < n:
        binomial = mean * (1 - mean) / n
        # Where all or none flip, people may be of one mind: each is then worth one image.
        effect = max(_variance(residual, n) / binomial, 1.0) if binomial > 0 else n / count
        size = max(n / effect * (z / t) ** 2, 1.0)
    low, high = uncertainty.wilson(np.array([mean * size]), np.array([size]), z)
    return mean, float(low[0]), float(high[0])


def change_of_rates(
    before: np.ndarray, after: np.ndarray, people: np.ndarray, confidence: float
) -> tuple[float, float, float]:
    """Share of True in `after` minus that in `before`, for the same N images, with MOVER limits (Newcombe's method 10).

    The limits of both rates are those of `rate_of_people`, their correlation that of the people's residuals.

    Parameters
    ----------
    before, after : bool (N,)
    people, confidence : as in `mean_of_people`

    Returns
    -------
    change, low, high
    """
    first, *of_first = rate_of_people(before, people, confidence)
    second, *of_second = rate_of_people(after, people, confidence)
    one, other = _residuals(before, people)[1], _residuals(after, people)[1]
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    correlation = (one * other).sum() / scale if scale > 0 else 0.0
    low, high = paired_limits(
        np.array([first]), tuple(map(np.array, of_first)), np.array([second]), tuple(map(np.array, of_second)), correlation
    )
    return second - first, float(low[0]), float(high[0])


def _residuals(column: np.ndarray, people: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of a column, and each person's sum of residuals."""
    mean = float(np.mean(column))
    return mean, np.bincount(np.unique(people, return_inverse=True)[1], column - mean)


def _variance(residual: np.ndarray, n: int) -> float:
    """C / (C - 1) sum of squares / n^2, for C people."""
    return len(residual) / max(len(residual) - 1, 1) * float((residual**2).sum()) / n**2
