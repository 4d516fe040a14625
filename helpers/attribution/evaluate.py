"""Judging attribution maps: one tidy table, and its means with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.bias.settings import whole
from helpers.names import choose

from .baselines import check_baseline
from .explainer import Explain, check_same, explainers
from .memory import with_less
from .metric import METRICS, Case, check_maps, check_masks, check_metric_options
from .score import borrowed, check_model, prepare


def evaluate(
    model: nn.Module,
    images: Tensor | np.ndarray,
    attributions: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray],
    target: int | Tensor | np.ndarray | None = None,
    metrics: str | Sequence[str] = "all",
    masks: Tensor | np.ndarray | None = None,
    *,
    before: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray] | None = None,
    explain: Explain | Mapping[str, Explain] | None = None,
    batch_size: int | None = None,
    memory: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """How good the maps are, image by image.

    Parameters
    ----------
    model : torch.nn.Module, images (N, C, H, W) to logits; left as it was, even after an error
    images : float (N, C, H, W) in [0, 1]
    attributions : maps (N, H, W), or several by name
    target : the class code that the maps explain, or one for each image (N,); None for the predicted classes
    metrics : "all", a name from `metrics()` or several
    masks : bool (N, H, W), the pixels that are known to matter; needed by the scores of localisation
    before : maps (N, H, W) of the same images for the model as it was before it was changed, for all of `attributions` or by
        its names; needed by ADR, DIF and RDDT
    batch_size : images in one pass; by default 64 up to 128 × 128 pixels, fewer above, four times as many on a GPU, or as many as
        `memory` has room for
    memory : bytes that passes may take; by default half of what is free
    seed : of all that is drawn (ties in the order of pixels, subsets, noise, random weights), alike for every method
    device : where to compute; by default where the model is
    progress : show a progress bar
    **options : of the metrics, see `metrics()["options"]`; each goes to every metric that has it. `steps=50` (points of a
        curve), `samples`, `baseline="black"` ("white", "mean", "blur", "noise", "inpaint", a pixel value or a tensor),
        `activation` ("softmax" for the target's probability, "logit" for the raw output)

    Returns
    -------
    DataFrame, one row an image × metric: `image` (its number), `metric`, `value`, and `method` first if `attributions`
    is a dict. `attrs["left_out"]` says which metrics "all" left out and why, `attrs["undefined"]` lists each NaN as a
    dict of `method, image, metric, reason`.

    Raises
    ------
    ValueError : before any long work, for an unknown metric or option (with the nearest name), a metric that needs
        masks, maps before a change or `explain` without it, maps or masks of another shape, an `explain` that makes other
        maps than those given, and for images, target and model as in `attribute`.
    """
    seed = whole(seed, "seed", least=0)
    chosen, left_out = choose_metrics(metrics, {"masks": masks, "before": before, "explain": explain})
    settings = check_metric_options(chosen, options)
    named = dict(attributions) if isinstance(attributions, Mapping) else {"": attributions}
    if not named:
        raise ValueError("attributions: an empty dict; expected at least one name with maps (N, H, W)")
    check_model(model)
    room = max((maker.room for maker in explainers(explain, list(named), 1, seed).values() if maker), default=1.0)
    tables, undefined = [], []
    with torch.inference_mode(False), borrowed(model, device) as place:
        ready = prepare(model, images, target, batch_size, place, memory, explain is not None, room)
        for metric, setting in settings.items():
            if "baseline" in setting:
                check_baseline(setting["baseline"], ready.images, removing=metric != "completeness")
            if METRICS[metric].check is not None:
                METRICS[metric].check(setting, ready.images)
        maps = {
            name: check_maps(values, ready.images, f"attributions {name}".strip()) for name, values in named.items()
        }
        truth = None if masks is None else check_masks(masks, ready.images)
        earlier = dict.fromkeys(maps) if before is None else maps_before(before, maps, ready.images)
        makers = explainers(explain, list(named), ready.batch_size, seed)
        for name, maker in makers.items():
            if maker is not None and any(METRICS[metric].needs_explain for metric in chosen):
                check_same(maker, model, ready.images, ready.target, maps[name], name)
        memo, size = {}, ready.batch_size
        work = [(name, metric) for name in maps for metric in chosen]
        for name, metric in tqdm(work, desc="evaluate", disable=not progress):
            judged = maps[name], truth, ready.batch_size, seed, earlier[name], makers[name]
            case = Case(model, ready.images, ready.target, *judged, memo)
            if METRICS[metric].needs_explain and case.explain is None:
                values = np.full(len(case.maps), np.nan)
                reasons = dict.fromkeys(range(len(values)), "explain does not say how these maps were made")
            else:
                judge = lambda size, case=case, metric=metric: METRICS[metric].function(
                    replace(case, batch_size=size), **settings[metric]
                )
                (values, reasons), size = with_less(size, judge)
            tables.append(
                pd.DataFrame({"method": name, "image": np.arange(len(values)), "metric": metric, "value": values})
            )
            undefined += [
                {"method": name, "image": image, "metric": metric, "reason": reason}
                for image, reason in sorted(reasons.items())
            ]
    frame = pd.concat(tables, ignore_index=True)
    if not isinstance(attributions, Mapping):
        frame = frame.drop(columns="method")
    frame.attrs = {"left_out": left_out, "undefined": undefined}
    return frame


def summary(frame: pd.DataFrame, confidence: float = 0.95, seed: int = 0, n_boot: int = 1000) -> pd.DataFrame:
    """Mean of each metric over the images, with a percentile bootstrap interval (Wilson's for 0/1 scores).

    Every column other than `image` and `value` tells rows apart, so a column added to `evaluate`'s table (a group, a
    backend) splits the summary. Images are drawn with the same numbers in each row, so that rows can be compared.

    Parameters
    ----------
    frame : as returned by `evaluate`
    confidence : float in (0, 1)
    seed : int
    n_boot : int, bootstrap samples

    Returns
    -------
    DataFrame: the columns that tell rows apart, `mean, low, high, n` (images with a value) and `undefined` (images
    without). No image: NaN. One image: a mean without interval (NaN).

    Raises
    ------
    ValueError : `frame` lacks `image`, `metric` or `value`; `confidence` outside (0, 1).
    """
    missing = [name for name in ("image", "metric", "value") if name not in getattr(frame, "columns", ())]
    if missing:
        raise ValueError(f"frame: no column {', '.join(missing)}; expected the table that evaluate returns")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence!r}; expected a share between 0 and 1, such as 0.95")
    n_boot, seed = whole(n_boot, "n_boot"), whole(seed, "seed", least=0)
    keys = [name for name in frame.columns if name not in ("image", "value")]
    rows = []
    for labels, part in frame.groupby(keys, sort=False, dropna=False, observed=True):
        values = part["value"].to_numpy(dtype=np.float64)
        known = values[~np.isnan(values)]
        mean = known.mean() if len(known) else np.nan
        low, high = interval(known, confidence, seed, n_boot)
        rows.append((*labels, mean, low, high, len(known), len(values) - len(known)))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "n", "undefined"])


def interval(values: np.ndarray, confidence: float, seed: int, n_boot: int) -> tuple[float, float]:
    """Interval of the mean of `values` (n,): bootstrap, or Wilson's for hits and misses; NaN for fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    if np.isin(values, (0, 1)).all():
        # ten misses out of ten do not prove a rate of exactly zero, which is all that a bootstrap could draw
        n, mean, z = len(values), values.mean(), NormalDist().inv_cdf((1 + confidence) / 2)
        centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
        return max(0.0, centre - half), min(1.0, centre + half)
    return bootstrapped(values, confidence, seed, n_boot)


def bootstrapped(values: np.ndarray, confidence: float, seed: int, n_boot: int) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (n,); NaN for fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(values), size=(n_boot, len(values)))
    low, high = np.quantile(values[draws].mean(1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return low, high


def maps_before(before: Any, names: Mapping[str, Any], images: Tensor) -> dict[str, np.ndarray]:
    """For each name the maps before the change; ValueError if there are none for one of them."""
    named = dict(before) if isinstance(before, Mapping) else dict.fromkeys(names, before)
    if lacking := [name for name in names if name not in named]:
        raise ValueError(f"before: no maps for {', '.join(map(repr, lacking))}; there are {', '.join(map(repr, named))}")
    return {name: check_maps(named[name], images, f"before {name}".strip()) for name in names}


NEEDS = {  # argument -> what "all" says is needed, what one metric says
    "before": ("the maps before a change", "the maps (N, H, W) of the model before it was changed"),
    "masks": ("masks", "them, bool (N, H, W)"),
    "explain": ("explain", "it, for how the maps were made: a method's name, say"),
}


def choose_metrics(metrics: str | Sequence[str], given: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The metrics to compute, and those that "all" leaves out with the reason; `given` holds what NEEDS names, or None."""
    missing = [name for name in NEEDS if given[name] is None]
    if isinstance(metrics, str) and metrics == "all":
        left_out = {}
        for name, entry in METRICS.items():
            lacking = [need for need in missing if getattr(entry, f"needs_{need}")]
            if reason := entry.by_name or "; ".join(f"needs {NEEDS[need][0]}" for need in lacking):
                left_out[name] = reason
        return [name for name in METRICS if name not in left_out], left_out
    names = [metrics] if metrics is None or isinstance(metrics, str) else list(metrics)
    chosen = list(dict.fromkeys(choose(name, METRICS, "metrics") for name in names))
    if not chosen:
        raise ValueError(f"metrics: none given; accepted: all, {', '.join(METRICS)}")
    for need in missing:
        if needing := [name for name in chosen if getattr(METRICS[name], f"needs_{need}")]:
            raise ValueError(f"{need}: {', '.join(needing)} need {NEEDS[need][1]}")
    return chosen, {}
