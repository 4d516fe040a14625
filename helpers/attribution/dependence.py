"""How much do scores, and the order of methods by them, depend on what is put in the place of removed pixels?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau
from torch import Tensor, nn

from .evaluate import evaluate, summary
from .metric import METRICS

WITH_BASELINE = ("deletion", "insertion", "mu_fidelity")
BASELINES = ("black", "mean", "blur", "noise", "inpaint")


@dataclass(frozen=True)
class BaselineDependence:
    """Scores of the same maps with one baseline after the other.

    frame : as `evaluate`'s, with the column `baseline`
    scores : one row a baseline × method × metric: `mean, low, high, n, undefined` over images, and `rank` of the method, 1 for
        the best (NaN without a mean)
    agreement : one row a metric × pair of baselines: `tau`, Kendall's rank correlation of the methods' means (1: the same
        order, −1: the opposite), and `same_best`, whether both call the same method the best; NaN and None with fewer than two
        methods
    """

    frame: pd.DataFrame
    scores: pd.DataFrame
    agreement: pd.DataFrame


def baseline_dependence(
    model: nn.Module,
    images: Tensor | np.ndarray,
    attributions: Mapping[str, Tensor | np.ndarray],
    target: int | Tensor | np.ndarray | None = None,
    metrics: str | Sequence[str] = WITH_BASELINE,
    baselines: Sequence[str | float] = BASELINES,
    **arguments: Any,
) -> BaselineDependence:
    """Judge the same maps with several baselines, and say how far these agree about the methods.

    Parameters
    ----------
    model, images, attributions, target : as in `evaluate`, the maps by name
    metrics : one or several that have the option `baseline`
    baselines : at least two of those that `evaluate` takes, names or pixel values
    **arguments : as in `evaluate`

    Raises
    ------
    ValueError : as in `evaluate`; fewer than two baselines, maps without names, a metric without a baseline.
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    if "baseline" in arguments:
        raise ValueError(f"baseline: {arguments['baseline']!r}; expected several, as baselines={BASELINES[:2]}")
    if isinstance(baselines, str) or len(set(map(str, baselines))) < max(2, len(list(baselines))):
        raise ValueError(f"baselines: {baselines!r}; expected at least two different ones, such as {', '.join(BASELINES)}")
    if not isinstance(attributions, Mapping):
        raise ValueError(f"attributions: {type(attributions).__name__}; expected maps by the name of their method")
    if without := [name for name in metrics if name in METRICS and "baseline" not in METRICS[name].defaults]:
        having = ", ".join(name for name, entry in METRICS.items() if "baseline" in entry.defaults)
        raise ValueError(f"metrics: {without[0]} has no baseline; accepted: {having}")
    parts = []
    for baseline in baselines:
        part = evaluate(model, images, attributions, target, metrics, baseline=baseline, **arguments)
        part.attrs = {}
        parts.append(part.assign(baseline=str(baseline)))
    frame = pd.concat(parts, ignore_index=True)[["baseline", "method", "image", "metric", "value"]]
    scores = summary(frame)
    sign = scores["metric"].map({name: 1 if METRICS[name].better == "lower" else -1 for name in scores["metric"].unique()})
    scores["rank"] = (sign * scores["mean"]).groupby([scores["baseline"], scores["metric"]]).rank()
    rows = []
    for metric, part in scores.groupby("metric", sort=False):
        ranks = part.pivot(index="method", columns="baseline", values="rank")
        for one, other in combinations(map(str, baselines), 2):
            both = ranks[[one, other]].dropna()
            tau = kendalltau(both[one], both[other]).statistic if len(both) > 1 else np.nan
            best = both[one].idxmin() == both[other].idxmin() if len(both) > 1 else None
            rows.append({"metric": metric, "baseline": one, "other": other, "tau": tau, "same_best": best})
    return BaselineDependence(frame, scores, pd.DataFrame(rows))
