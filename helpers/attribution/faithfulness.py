"""Does the model's decision hang on the pixels that the map points at? Deletion and insertion."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers.names import choose

from .baselines import Baseline, check_baseline, remove
from .metric import Case, Values, check_maps, check_metric_options, metric
from .score import Score, borrowed, channels_last, check_model, prepare


@metric(
    "deletion",
    better="lower",
    needs_masks=False,
    definition="area under the score as the most relevant pixels are replaced by the baseline (Petsiuk et al. 2018)",
)
def deletion(case: Case, *, steps: int = 50, baseline: Baseline = "black", activation: str = "softmax") -> Values:
    """Mean height of the deletion curve, by the trapezoid rule: ∫ f_c(x with its top share s removed) ds."""
    return area(path_scores(case, True, steps, baseline, activation)), undefined(case)


@metric(
    "insertion",
    better="higher",
    needs_masks=False,
    definition="area under the score as the most relevant pixels are put on the baseline (Petsiuk et al. 2018)",
)
def insertion(case: Case, *, steps: int = 50, baseline: Baseline = "black", activation: str = "softmax") -> Values:
    """Mean height of the insertion curve, by the trapezoid rule: ∫ f_c(baseline with its top share s inserted) ds."""
    return area(path_scores(case, False, steps, baseline, activation)), undefined(case)


def area(scores: np.ndarray) -> np.ndarray:
    """Trapezoid rule over equal steps from 0 to 1: scores (N, steps + 1) to (N,)."""
    return (scores[:, :-1] + scores[:, 1:]).mean(1) / 2


def undefined(case: Case) -> dict[int, str]:
    """Images whose map has NaN: their pixels have no order, so their scores are NaN."""
    bad = np.flatnonzero(~np.isfinite(case.maps).all((1, 2)))
    return {int(i): "the map has values that are not finite" for i in bad}


def ranking(maps: np.ndarray, seed: int) -> np.ndarray:
    """Rank of each pixel, 0 for the most relevant: maps (N, H, W) to int64 (N, H·W).

    Ties are broken at random, since any fixed order would reward or punish a place in the picture. The order among ties
    depends on the seed and the image's number only: every method meets the same.
    """
    flat = maps.reshape(len(maps), -1)
    ranks = np.empty(flat.shape, dtype=np.int64)
    for i, values in enumerate(flat):
        shuffled = np.random.default_rng([seed, i]).permutation(len(values))
        order = shuffled[np.argsort(-values[shuffled], kind="stable")]
        ranks[i, order] = np.arange(len(values))
    return ranks


def path_scores(case: Case, deleting: bool, steps: int, baseline: Baseline, activation: str) -> np.ndarray:
    """Score of each image's target along the path: float64 (N, steps + 1), NaN for a map that has NaN."""
    images, target = case.images, case.target
    count, _, height, width = images.shape
    pixels = height * width
    steps = min(steps, pixels)  # a step changes at least one pixel
    shares = np.linspace(0, pixels, steps + 1).astype(np.int64)  # rounded down, as Xplique does
    baseline = check_baseline(baseline, images, removing=True)
    ranks = torch.from_numpy(ranking(case.maps, case.seed)).reshape(count, 1, height, width).to(images.device)
    score = Score(case.model, None if activation == "logit" else activation)
    image_number = torch.arange(count).repeat_interleave(steps + 1).split(case.batch_size)
    share = torch.from_numpy(np.tile(shares, count)).split(case.batch_size)
    found = []
    with torch.no_grad():
        for which, top in zip(image_number, share, strict=True):
            which = which.to(images.device)
            leading = ranks[which] < top.to(images.device).view(-1, 1, 1, 1)
            changed = remove(images, which, leading if deleting else ~leading, baseline, case.seed)
            scores = score(channels_last(changed))
            found.append(scores.gather(1, target[which, None])[:, 0].double().cpu())
    curves = torch.cat(found).numpy().reshape(count, steps + 1)
    curves[list(undefined(case))] = np.nan
    return curves


def curve(
    model: nn.Module,
    images: Tensor | np.ndarray,
    attributions: Tensor | np.ndarray,
    target: int | Tensor | np.ndarray | None = None,
    kind: str = "deletion",
    *,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    **options: Any,
) -> np.ndarray:
    """The curve whose area `evaluate` reports: the score as pixels are deleted or inserted, most relevant first.

    Parameters
    ----------
    model, images, target, batch_size, seed, device : as in `evaluate`
    attributions : (N, H, W)
    kind : "deletion" or "insertion"
    **options : `steps=50`, `baseline="black"`, `activation="softmax"` (or "logit")

    Returns
    -------
    float64 (N, steps + 1), at the shares 0, 1/steps, …, 1 of the pixels.

    Raises
    ------
    ValueError : as in `evaluate`.
    """
    kind = choose(kind, ("deletion", "insertion"), "kind")
    settings = check_metric_options([kind], options)[kind]
    check_model(model)
    with torch.inference_mode(False), borrowed(model, device) as place:
        ready = prepare(model, images, target, batch_size, place)
        maps = check_maps(attributions, ready.images, "attributions")
        case = Case(model, ready.images, ready.target, maps, None, ready.batch_size, seed)
        return path_scores(case, kind == "deletion", **settings)
