"""What a sample could have shown: the smallest gap that an audit of this size finds with a wanted probability.

An audit "finds" a gap if the interval of the difference between two groups lies above zero. For groups i and j whose
values have standard errors s_i and s_j, a true difference d is found with probability `power` if about

    d >= (z_confidence + z_power) sqrt(s_i^2 + s_j^2),

with z_confidence widened for picking the extreme pair of G groups (`uncertainty.range_critical`). A finding of "no gap" in
a sample that could not have shown one is no finding.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from helpers.bias.settings import share
from helpers.bias.uncertainty import critical, range_critical


def minimum_detectable_gap(
    n: Mapping[str, int], rate: float = 0.5, *, confidence: float = 0.95, power: float = 0.8
) -> pd.DataFrame:
    """Before any data: how far each group's rate must lie from another's to be found in an audit of these sizes.

    Parameters
    ----------
    n : mapping or Series, images in the denominator of the rate (for a true positive rate: positives) by group
    rate : of the groups, in (0, 1); 0.5 needs most images
    confidence : level of the intervals
    power : wanted probability of finding the gap, in (0, 1)

    Returns
    -------
    DataFrame: `group, n, against, detectable`, as `detectable`

    Raises
    ------
    ValueError : fewer than two groups, a size that is no positive number, `rate` or `power` outside (0, 1).

    Examples
    --------
    >>> minimum_detectable_gap({"a": 100, "b": 100, "c": 1000})["detectable"].round(2).tolist()
    [0.17, 0.17, 0.17]
    """
    if not isinstance(n, Mapping | pd.Series):
        raise ValueError(f"n: sizes by group expected, such as {{'female': 120, 'male': 80}}; {type(n).__name__} given")
    n, rate, confidence = dict(n), share(rate, "rate"), share(confidence, "confidence")
    if len(n) < 2:
        raise ValueError(f"n: sizes of at least two groups expected, {len(n)} given")
    for group, size in n.items():
        if not (isinstance(size, numbers.Real) and 1 <= size < np.inf):
            raise ValueError(f"n: {size!r} images in group {group!r}; at least 1 expected")
    share(power, "power")
    sizes = np.array(list(n.values()), dtype=float)
    errors = np.sqrt(rate * (1 - rate) / sizes)
    against, found = _smallest(errors, confidence, power)
    names = np.array([str(group) for group in n], dtype=object)
    return pd.DataFrame({"group": names, "n": list(n.values()), "against": names[against], "detectable": found})


def detectable(by_group: pd.DataFrame, confidence: float, power: float) -> pd.DataFrame:
    """After an audit: the same for every statistic, from the widths of its intervals.

    Parameters
    ----------
    by_group : `Audit.by_group`
    confidence : level of its intervals
    power : in (0, 1)

    Returns
    -------
    DataFrame: `group, statistic[, class], value, n, against, detectable`: the smallest difference from group `against`
    (the one known best among the others) that would have been found; NaN for a group without a value, and for values
    that no group can be compared with. Above 1 for a rate means: nothing could have been found.
    """
    share(power, "power")
    keys = [name for name in ("statistic", "class") if name in by_group]
    table = by_group[["group", *keys, "value", "n"]].assign(against="", detectable=np.nan)
    errors = (by_group["high"] - by_group["low"]).to_numpy() / (2 * critical(confidence))
    for _, rows in table.groupby(keys, sort=False).indices.items():
        defined = rows[~np.isnan(errors[rows])]
        if len(defined) < 2:
            continue
        against, found = _smallest(errors[defined], confidence, power)
        table.loc[table.index[defined], "against"] = table["group"].to_numpy()[defined][against]
        table.loc[table.index[defined], "detectable"] = found
    return table


def _smallest(errors: np.ndarray, confidence: float, power: float) -> tuple[np.ndarray, np.ndarray]:
    """For each group the other one with the smallest standard error, and the smallest difference from it to be found."""
    first, second = np.argsort(errors, kind="stable")[:2]
    against = np.where(np.arange(len(errors)) == first, second, first)
    z = range_critical(confidence, len(errors)) + stats.norm.ppf(power)
    return against, z * np.hypot(errors, errors[against])
