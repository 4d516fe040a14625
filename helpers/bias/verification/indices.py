"""Summary indices: one number for how differently subgroups fare, and how large it would be if they fared alike."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import pandas as pd

from helpers.bias.columns import read_numbers
from helpers.bias.settings import share, whole
from helpers.bias.verification.intervals import over_people, over_twos
from helpers.bias.verification.pairing import Pairs
from helpers.bias.verification.rates import Threshold, thresholds_of

INDICES = ("GARBE", "SEDG", "SEDG_deviation", "FDR", "IR")


def gini(rates: Any) -> np.ndarray | float:
    """Gini coefficient with the correction for few groups: 0 all equal, 1 one group has all.

        G = n / (n - 1) * sum_i sum_j |x_i - x_j| / (2 n^2 mean(x))

    Parameters
    ----------
    rates : float (..., n), non-negative, n >= 2

    Returns
    -------
    float (...); NaN where all rates are 0 (0 / 0: there is nothing to share out) or one is NaN

    References
    ----------
    Howard et al., "Evaluating proposed fairness models for face recognition algorithms", arXiv 2203.05051, 2022.
    """
    x = _rates(rates, "rates")
    n = x.shape[-1]
    differences = np.abs(x[..., :, None] - x[..., None, :]).sum((-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return _scalar(n / (n - 1) * differences / (2 * n**2 * x.mean(-1)))


def garbe(fmr: Any, fnmr: Any, alpha: float = 0.5) -> np.ndarray | float:
    """Gini Aggregation Rate for Biometric Equitability: alpha G(FMR) + (1 - alpha) G(FNMR). 0 is equal, 1 the extreme.

    Parameters
    ----------
    fmr, fnmr : float (..., n), of n subgroups at one threshold
    alpha : weight of false matches, in [0, 1]

    References
    ----------
    Howard et al., arXiv 2203.05051, 2022 (GARBE).
    """
    return _weight(alpha) * gini(fmr) + (1 - alpha) * gini(fnmr)


def fairness_discrepancy_rate(fmr: Any, fnmr: Any, alpha: float = 0.5) -> np.ndarray | float:
    """FDR = 1 - (alpha A + (1 - alpha) B), with A and B the largest differences of FMR and of FNMR. 1 is equal.

    With the small FMRs that systems run at, A hardly matters (Howard et al., 2022).

    References
    ----------
    de Freitas Pereira & Marcel, "Fairness in biometrics: a figure of merit to assess biometric verification systems", IEEE
    Transactions on Biometrics, Behavior, and Identity Science 2022 (arXiv 2011.02395).
    """
    a, b = (_rates(x, name) for x, name in ((fmr, "fmr"), (fnmr, "fnmr")))
    return _scalar(1 - (_weight(alpha) * np.ptp(a, axis=-1) + (1 - alpha) * np.ptp(b, axis=-1)))


def inequity_rate(fmr: Any, fnmr: Any, alpha: float = 0.5) -> np.ndarray | float:
    """IR = (max FMR / min FMR)^alpha (max FNMR / min FNMR)^(1 - alpha). 1 is equal; infinite where one rate is 0, NaN if all are.

    References
    ----------
    Grother, "Demographic differentials in face recognition algorithms", 2021, as given by Howard et al., arXiv 2203.05051, 2022.
    """
    a, b = (_rates(x, name) for x, name in ((fmr, "fmr"), (fnmr, "fnmr")))
    _weight(alpha)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _scalar((a.max(-1) / a.min(-1)) ** alpha * (b.max(-1) / b.min(-1)) ** (1 - alpha))


def sedg(fmr: Any, fnmr: Any, fmr_all: float, fnmr_all: float) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Sum of group error differences: its mean over subgroups, and its standard deviation. 0 and 0 are equal.

        SED_g = |1 - FMR_g / FMR_all| + |1 - FNMR_g / FNMR_all|

    The mean says how far subgroups are from the whole, the deviation (with divisor n) whether that falls on few of them.

    Parameters
    ----------
    fmr, fnmr : float (..., n)
    fmr_all, fnmr_all : the rates of all pairs together

    Returns
    -------
    mean, deviation : float (...); NaN where a rate of all pairs is 0

    References
    ----------
    Elobaid et al., "Sum of group error differences: a critical examination of bias evaluation in biometric verification and a
    dual-metric measure", IEEE FG 2024 (arXiv 2404.15385). The formula is as stated here: check it against the edition that you
    compare numbers with.
    """
    a, b = (_rates(x, name) for x, name in ((fmr, "fmr"), (fnmr, "fnmr")))
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.abs(1 - a / fmr_all) + np.abs(1 - b / fnmr_all)
    each = np.where(np.isfinite(each), each, np.nan)
    return _scalar(each.mean(-1)), _scalar(each.std(-1))


def indices(
    pairs: Pairs,
    threshold: Threshold,
    alpha: float = 0.5,
    *,
    confidence: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """All indices at a threshold, beside what they would be if every subgroup had the same rates.

    An index of unequal rates is above zero even for equal subgroups, since estimates differ by chance. So every subgroup is put
    at the rates of all pairs (at thresholds of its own that reach them), its people are resampled there, and the index taken of
    these replicates: their mean is what chance alone gives with these people, and `p_value` the share of them that is at least
    as unequal as what was observed.

    Parameters
    ----------
    pairs : Pairs
    threshold : as in `error_rates`
    alpha : weight of false matches in GARBE, FDR and IR
    confidence : of the limit `equal_high` below which equal subgroups stay
    n_boot, seed : as in `error_rates`

    Returns
    -------
    DataFrame `index, value, equal, equal_high, p_value, groups`: `equal` the mean under equality; `equal_high` its quantile on
    the unequal side (the low one for FDR); `groups` that were compared, which are the subgroups with both rates. NaN where an
    index has no value. IR is infinite where a subgroup has no error.

    Raises
    ------
    ValueError : fewer than two subgroups with both rates.
    """
    _weight(alpha)
    share(confidence, "confidence")
    whole(n_boot, "n_boot", least=100)
    accepted = pairs.score >= thresholds_of(pairs, threshold)[pairs.cell]
    wrong = accepted != pairs.same
    kinds = [~pairs.same, pairs.same]
    overall = [float(wrong[kind].mean()) if kind.any() else np.nan for kind in kinds]
    rows_of = {g: [kind & (pairs.cell == g) for kind in kinds] for g in range(len(pairs.groups))}
    rows_of = {g: both for g, both in rows_of.items() if all(mine.any() for mine in both)}
    if len(rows_of) < 2:
        said = ", ".join(pairs.groups[g] for g in rows_of) or "none"
        raise ValueError(f"pairs: two subgroups with genuine and impostor pairs expected, {said} given")
    observed = _all([np.array([wrong[both[k]].mean() for both in rows_of.values()]) for k in (0, 1)], overall, alpha)
    rng = np.random.default_rng(seed)
    alike = [np.stack([_at_rate(pairs, both[k], overall[k], n_boot, rng) for both in rows_of.values()], -1) for k in (0, 1)]
    chance = _all(alike, overall, alpha)
    rows = []
    for name in INDICES:
        value, draws = observed[name], chance[name]
        draws = draws[~np.isnan(draws)]
        unequal = -1 if name == "FDR" else 1
        if np.isnan(value) or not len(draws):
            rows.append((name, value, np.nan, np.nan, np.nan, len(rows_of)))
            continue
        extreme = np.quantile(unequal * draws, confidence, method="inverted_cdf") * unequal
        p_value = (1 + (unequal * draws >= unequal * value - 1e-12).sum()) / (1 + len(draws))
        rows.append((name, value, draws.mean(), extreme, p_value, len(rows_of)))
    return pd.DataFrame(rows, columns=["index", "value", "equal", "equal_high", "p_value", "groups"])


def _all(rates: list[np.ndarray], overall: list[float], alpha: float) -> dict[str, Any]:
    mean, deviation = sedg(*rates, *overall)
    values = garbe(*rates, alpha), mean, deviation, fairness_discrepancy_rate(*rates, alpha), inequity_rate(*rates, alpha)
    return dict(zip(INDICES, values, strict=True))


def _at_rate(pairs: Pairs, mine: np.ndarray, rate: float, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """Replicates of one subgroup's rate, were it `rate`: its most error-prone pairs are the wrong ones, as many as that takes."""
    rows = np.flatnonzero(mine)
    same = bool(pairs.same[rows[0]])
    order = np.argsort(pairs.score[rows] if same else -pairs.score[rows], kind="stable")
    error = np.zeros(len(rows), dtype=bool)
    error[order[: min(max(round(rate * len(rows)), 1), len(rows) - 1)]] = True  # none, or all, would show no chance at all
    one, two = pairs.person1[rows], pairs.person2[rows]
    if same:
        found = over_people(np.bincount(one, error), np.bincount(one), n_boot, rng)
    else:
        found = over_twos(one, two, error, n_boot, rng)
    values = found.values[np.isfinite(found.values)]
    mean = values.mean()
    values = np.resize(values, n_boot)
    return np.clip(values / mean * rate, 0, 1) if mean > 0 else np.full(n_boot, rate)


def _rates(values: Any, argument: str) -> np.ndarray:
    x = read_numbers(values, argument).astype(np.float64, copy=False)
    if x.ndim == 0 or x.shape[-1] < 2:
        raise ValueError(f"{argument}: rates of at least two subgroups expected, shape {x.shape} given")
    if (x < 0).any():
        raise ValueError(f"{argument}: {x[x < 0].flat[0]:g} is below 0")
    return x


def _weight(alpha: float) -> float:
    if not (isinstance(alpha, numbers.Real) and 0 <= alpha <= 1):
        raise ValueError(f"alpha: {alpha!r} is outside [0, 1]")
    return alpha


def _scalar(value: np.ndarray) -> np.ndarray | float:
    return float(value) if np.ndim(value) == 0 else value
