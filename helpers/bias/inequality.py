"""Inequality of benefits: generalised entropy, and how much of it lies between the groups.

A wrong positive prediction is taken for an undeserved benefit of 2, a right prediction for 1, a missed positive for 0
(Speicher et al., 2018: b = prediction - label + 1). Three values, so the counts of false negatives, right predictions and
false positives of each group hold everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.bias import uncertainty
from helpers.bias.counts import Counts, count
from helpers.bias.inputs import read_groups, read_labels, read_positive, same_length
from helpers.bias.nonnegative import FACTORS, p_value, size_at
from helpers.bias.settings import share, whole
from helpers.names import choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BENEFITS = np.array([0.0, 1.0, 2.0])  # missed positive, right prediction, false positive
PRIOR = 1 / 3  # of each kind of outcome, so that one kind that did not occur is not taken for impossible


@dataclass(frozen=True)
class Inequality:
    """Generalised entropy of the benefits, by group, in all, and split into between and within groups.

    Attributes
    ----------
    by_group : DataFrame, one row a group and statistic: `group, statistic, alpha, value, low, high, n`. Statistics:
        `mean_benefit` (1 if false positives and missed positives are equally many; `alpha` NaN), `generalised_entropy`
        (one row an alpha), and `coefficient_of_variation` (standard deviation / mean of the benefits, `alpha` NaN).
    overall : the same for all rows together, without the column `group`
    decomposition : DataFrame, one row an alpha: `alpha, total, between, between_low, between_high, within, share,
        between_if_equal, p_value`. total = between + within; `share` is between / total. `between_if_equal` is what
        groups with the same shares of outcomes would show on average, `p_value` how often they show at least as much.
    counts : DataFrame `group, missed, right, false_positive`, the counts behind it
    confidence, n_boot : level of the intervals, and samples behind them
    empty : groups that have no row
    notes : what is infinite or undefined.  method : how the intervals were made
    """

    by_group: pd.DataFrame
    overall: pd.DataFrame
    decomposition: pd.DataFrame
    counts: pd.DataFrame
    confidence: float
    n_boot: int
    empty: tuple[str, ...]
    notes: tuple[str, ...]
    method: str

    def value(self, statistic: str, group: str | None = None, alpha: float | None = None) -> float:
        """Value of a statistic for a group (None: all rows); `alpha` for the generalised entropy (None: the first one)."""
        table = self.overall
        if group is not None:
            group = choose(str(group), dict.fromkeys(self.by_group["group"]), "group")
            table = self.by_group[self.by_group["group"] == group]
        table = table[table["statistic"] == choose(statistic, dict.fromkeys(table["statistic"]), "statistic")]
        if alpha is not None:
            table = table[table["alpha"] == alpha]
            if table.empty:
                raise ValueError(f"alpha: {alpha!r} was not computed; name it in the call of `inequality`")
        return float(table["value"].iloc[0])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Generalised entropy by group, at the first alpha (`helpers.plots.measures.by_group`)."""
        from helpers.plots import measures  # here, so that the numbers do not load matplotlib

        alpha = self.decomposition["alpha"].iloc[0]
        rows = self.by_group[self.by_group["alpha"] == alpha]
        return measures.by_group(
            rows, "generalised_entropy", confidence=self.confidence, ax=ax,
            xlabel=f"generalised entropy of the benefits, alpha = {alpha:g} (no unit; 0: all equal)",
        )  # fmt: skip


def inequality(
    y_true: Any,
    y_pred: Any,
    group: Any,
    *,
    alpha: float | Sequence[float] = (1, 2),
    positive: Any = 1,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Inequality:
    """Generalised entropy index of the benefits of a binary prediction.

    With benefits b_i = prediction_i - label_i + 1 and their mean mu (Speicher et al., 2018, eq. 1 and 2):

        GE(alpha) = 1 / (n alpha (alpha - 1)) sum_i [(b_i / mu)^alpha - 1]
        GE(1) = 1 / n sum_i (b_i / mu) ln(b_i / mu)         Theil's index
        GE(0) = -1 / n sum_i ln(b_i / mu)                   mean log deviation

    Parameters
    ----------
    y_true, y_pred, group, positive, groups, classes : as in `helpers.bias.audit`, two classes only
    alpha : one or several numbers; the larger, the more false positives count beside missed positives
    confidence : level of the intervals
    n_boot : samples behind them
    seed : of these samples

    Returns
    -------
    Inequality

    Raises
    ------
    ValueError : as `audit`; more than two classes; an alpha that is not a finite number.

    Notes
    -----
    0 ln 0 is 0. For alpha of 0 or less a single benefit of 0 (one missed positive) makes the index infinite, and infinity
    is what is reported: choose a positive alpha to compare groups. A group in which every row is a missed positive has
    mean benefit 0, so its index is 0 / 0: NaN.

    Groups add up exactly: GE = between + within, between being the index when everyone has the group's mean benefit, and
    within = sum_g (n_g / n) (mu_g / mu)^alpha GE_g.

    Intervals are percentiles of the index when the shares of outcomes are drawn from their posterior (Dirichlet, with 1/3
    added to each count), group by group: close to a bootstrap of the counts, but not of width zero when one kind of error
    did not occur. The part between groups cannot be negative and is positive in any sample, so its lower limit and
    p-value come from samples in which the groups' shares are drawn towards the common ones (`helpers.bias.nonnegative`).

    This measures inequality of outcomes, with a benefit that is a choice: it suits decisions where the positive prediction
    is wanted. It is no gap: a model equally bad for all groups has all of its inequality within them.

    References
    ----------
    Speicher et al., "A unified approach to quantifying algorithmic unfairness: measuring individual & group unfairness via
    inequality indices", KDD 2018.

    Examples
    --------
    >>> result = inequality([1, 1, 0, 0], [1, 0, 0, 1], ["a", "a", "b", "b"], alpha=2)
    >>> result.value("generalised_entropy"), result.decomposition["between"].item()
    (0.25, 0.125)
    """
    true, pred, values, names = read_labels(y_true, y_pred, classes)
    if len(names) > 2:
        raise ValueError(f"y_true: {len(names)} classes given; a benefit needs two, so compare one class with the rest")
    code = read_positive(positive, values, names)
    alphas = _alphas(alpha)
    share(confidence, "confidence")
    whole(n_boot, "n_boot")
    codes, levels = read_groups(group, groups)
    same_length(len(true), group=len(codes))
    table = count(true, pred, codes, levels, names)
    return _from_counts(table, code, alphas, confidence, n_boot, seed)


def generalised_entropy(counts: np.ndarray, alpha: float) -> np.ndarray:
    """Generalised entropy of benefits 0, 1 and 2 that occur `counts` times.

    Parameters
    ----------
    counts : (..., 3), numbers of missed positives, right predictions and false positives; shares do as well
    alpha : finite number

    Returns
    -------
    float64 (...); NaN where the mean benefit is 0, infinite where alpha <= 0 and there is a benefit of 0
    """
    counts = np.asarray(counts, dtype=np.float64)
    n = counts.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = counts @ BENEFITS / n
        return _index(counts / n[..., None], BENEFITS / mean[..., None], alpha)


def decompose(counts: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generalised entropy of several groups together, as the sum of a part between and a part within them.

    Parameters
    ----------
    counts : (..., G, 3), as in `generalised_entropy`
    alpha : finite number

    Returns
    -------
    total, between, within : float64 (...) each, total = between + within
    """
    counts = np.asarray(counts, dtype=np.float64)
    size = counts.sum(-1)
    n = size.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (counts @ BENEFITS).sum(-1) / n
        of_group = np.where(size > 0, counts @ BENEFITS / size, 1)
        ratio = of_group / mean[..., None]
        between = _index(size / n[..., None], ratio, alpha)
        inner = generalised_entropy(counts, alpha)
        # A group without any benefit has no index, and no weight either: (mu_g / mu)^alpha is 0.
        weight = size / n[..., None] * np.where((ratio == 0) & (alpha > 0), 0, ratio ** float(alpha))
        within = np.where((weight == 0) | (size == 0), 0, weight * inner).sum(-1)
    total = generalised_entropy(counts.sum(-2), alpha)
    return total, between, within


def _index(share: np.ndarray, ratio: np.ndarray, alpha: float) -> np.ndarray:
    """sum share f(ratio), ratio = b / mu, over the last axis; terms without a share are left out."""
    there = share > 0
    ratio = np.where(there, ratio, 1)
    if alpha == 1:
        terms = ratio * np.log(np.where(ratio == 0, 1, ratio))
    elif alpha == 0:
        terms = -np.log(ratio)
    else:
        terms = (ratio ** float(alpha) - 1) / (alpha * (alpha - 1))
    return np.where(there, share * terms, 0).sum(-1)


def _alphas(alpha: float | Sequence[float]) -> list[float]:
    try:
        alphas = [float(each) for each in np.atleast_1d(np.asarray(alpha, dtype=np.float64))]
    except (TypeError, ValueError):
        alphas = []
    if not alphas or not np.isfinite(alphas).all():
        raise ValueError(f"alpha: one or several finite numbers expected, {alpha!r} given")
    return list(dict.fromkeys(alphas))


def _from_counts(
    table: Counts, positive: int, alphas: list[float], confidence: float, n_boot: int, seed: int
) -> Inequality:
    empty = tuple(name for name, n in zip(table.groups, table.n, strict=True) if n == 0)
    table = table.existing()
    other = 1 - positive
    cells = table.table
    missed, false = cells[:, positive, other], cells[:, other, positive]
    outcomes = np.stack([missed, table.n - missed - false, false], axis=1)  # (G, 3)
    rng = np.random.default_rng(seed)
    shares = rng.standard_gamma(outcomes + PRIOR, size=(n_boot, *outcomes.shape))
    shares /= shares.sum(-1, keepdims=True)
    draws = shares * table.n[:, None]
    both = np.concatenate([outcomes, outcomes.sum(0, keepdims=True)])
    drawn = np.concatenate([draws, draws.sum(1, keepdims=True)], axis=1)  # (B, G + 1, 3)

    blocks = [_statistic("mean_benefit", np.nan, both, drawn, lambda c: c @ BENEFITS / c.sum(-1), confidence)]
    for alpha in alphas:
        block = _statistic(
            "generalised_entropy", alpha, both, drawn, lambda c, a=alpha: generalised_entropy(c, a), confidence
        )
        blocks.append(block)
    variation = lambda c: np.sqrt(2 * generalised_entropy(c, 2))
    blocks.append(_statistic("coefficient_of_variation", np.nan, both, drawn, variation, confidence))
    names = (*table.groups, "")
    long = pd.concat([block.assign(group=names) for block in blocks])
    order = {name: k for k, name in enumerate(names)}
    long = long.sort_values("group", key=lambda column: column.map(order), kind="stable", ignore_index=True)
    long = long[["group", "statistic", "alpha", "value", "low", "high", "n"]]
    whole = long["group"] == ""
    return Inequality(
        by_group=long[~whole],
        overall=long[whole].drop(columns="group").reset_index(drop=True),
        decomposition=pd.DataFrame([_between(outcomes, draws, alpha, confidence, n_boot, rng) for alpha in alphas]),
        counts=pd.DataFrame(outcomes, columns=["missed", "right", "false_positive"]).assign(group=table.groups)[
            ["group", "missed", "right", "false_positive"]
        ],
        confidence=confidence,
        n_boot=n_boot,
        empty=empty,
        notes=tuple(_notes(outcomes, table.groups, empty, alphas)),
        method=(
            f"{confidence:.0%} intervals: percentiles over {n_boot} draws of the shares of outcomes from their posterior; "
            "the lower limit of the part between groups from samples of groups drawn towards equality."
        ),
    )


def _statistic(name: str, alpha: float, counts: np.ndarray, drawn: np.ndarray, of, confidence: float) -> pd.DataFrame:
    """One statistic for every group and the whole: value and interval."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value, replicates = of(counts.astype(np.float64)), of(drawn)
    tail = (1 - confidence) / 2
    # Infinities are no numbers to interpolate between; where the value is infinite, so are its limits.
    low, high = np.quantile(np.where(np.isfinite(replicates), replicates, np.finfo(float).max), [tail, 1 - tail], axis=0)
    finite = np.isfinite(value)
    low, high = np.where(finite, np.minimum(low, value), value), np.where(finite, np.maximum(high, value), value)
    high = np.where(high > 1e300, np.inf, high)
    columns = {"statistic": name, "alpha": alpha, "value": value, "low": low, "high": high, "n": counts.sum(-1)}
    return pd.DataFrame(columns)


def _between(
    outcomes: np.ndarray, draws: np.ndarray, alpha: float, confidence: float, n_boot: int, rng: np.random.Generator
) -> dict[str, float]:
    total, between, within = (float(part) for part in decompose(outcomes, alpha))
    row = {"alpha": alpha, "total": total, "between": between, "between_low": np.nan, "between_high": np.nan,
           "within": within, "share": np.nan, "between_if_equal": np.nan, "p_value": np.nan}  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        row["share"] = float(np.divide(between, total)) if np.isfinite(total) else np.nan
    if len(outcomes) < 2 or not np.isfinite(between):
        return row
    size = outcomes.sum(1)
    pooled = outcomes.sum(0) / size.sum()
    # The noise in a group's shares is about as large as its size says; what exceeds it is kept.
    deviation = outcomes / size[:, None] - pooled
    mean_gap = deviation @ BENEFITS
    variance = (pooled @ BENEFITS**2 - (pooled @ BENEFITS) ** 2) * (1 / size - 1 / size.sum())
    clear = np.abs(mean_gap) > uncertainty.critical(0.95) * np.sqrt(variance)
    if clear.any():
        deviation = deviation * clear[:, None]
    shares = np.clip(pooled + FACTORS[:, None, None] * deviation, 0, None)
    shares /= shares.sum(-1, keepdims=True)
    values = np.stack([decompose(rng.multinomial(size, each, size=(n_boot, len(size))), alpha)[1] for each in shares])
    sizes = np.maximum.accumulate(decompose(shares * size[:, None], alpha)[1])
    sizes[0] = 0.0
    tail = (1 - confidence) / 2
    defined = np.where(np.isnan(values), np.inf, values)
    row["between_low"] = size_at(between, np.minimum(defined, 1e300), sizes, 1 - tail)
    replicates = decompose(draws, alpha)[1]
    row["between_high"] = max(float(np.nanquantile(replicates, 1 - tail)), between)
    row["between_if_equal"] = float(np.mean(values[0][np.isfinite(values[0])]))
    row["p_value"] = p_value(between, defined[0])
    return row


def _notes(outcomes: np.ndarray, groups: tuple[str, ...], empty: tuple[str, ...], alphas: list[float]):
    if empty:
        yield f"No image belongs to: {'; '.join(empty)}."
    if len(groups) == 1:
        yield f"There is one group only ({groups[0]}): nothing lies between groups."
    undefined = [name for name, row in zip(groups, outcomes, strict=True) if row[0] == row.sum()]
    if undefined:
        yield f"Every row is a missed positive, so the mean benefit is 0 and the index undefined: {', '.join(undefined)}."
    infinite = [name for name, row in zip(groups, outcomes, strict=True) if 0 < row[0] < row.sum()]
    if infinite and min(alphas) <= 0:
        yield f"A missed positive makes the index infinite for alpha of 0 or less: {', '.join(infinite)}."
