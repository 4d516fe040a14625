"""Captum's methods that hide segments of an image and look at the score; they need no gradient.

All of them give each pixel the value of its segment. Values of Shapley type add up over segments, not over pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helpers.models.running import untouched_random_state

from .method import Work, method
from .score import Score
from .segments import Segments, count


@method(
    "feature_ablation",
    backend="captum",
    needs_gradient=False,
    deterministic=True,
    passes="1 + segments forward",
    cost=lambda options, size: (1 + count(options["segments"]), 0),
    per_channel=False,
    definition="drop of f when a pixel's segment is replaced by the baseline; segments: a grid's rows, or an integer mask",
)
def feature_ablation(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    segments: Segments = 8,
    baseline: Tensor | str | float = "black",
) -> Tensor:
    from captum.attr import FeatureAblation

    score, shown = over_segments(model, images, baseline, segments)
    found = FeatureAblation(score).attribute(shown, 0, target, perturbations_per_eval=max(1, work.batch_size // len(images)))
    return paint(found, segments)


@method(
    "shapley_value_sampling",
    backend="captum",
    needs_gradient=False,
    deterministic=False,
    passes="1 + samples × segments forward",
    cost=lambda options, size: (1 + options["samples"] * count(options["segments"]), 0),
    per_channel=False,
    definition="mean gain of f when a pixel's segment joins those before it in `samples` random orders (Castro et al. 2009); "
    "over the segments adds up to f(x) − f(b)",
)
def shapley_value_sampling(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    segments: Segments = 8,
    samples: int = 10,
    baseline: Tensor | str | float = "black",
) -> Tensor:
    from captum.attr import ShapleyValueSampling

    score, shown = over_segments(model, images, baseline, segments)
    several = max(1, work.batch_size // len(images))
    with untouched_random_state(work.seed):  # each batch sees the same orders
        found = ShapleyValueSampling(score).attribute(shown, 0, target, n_samples=samples, perturbations_per_eval=several)
    return paint(found, segments)


@method(
    "kernel_shap",
    backend="captum",
    needs_gradient=False,
    deterministic=False,
    passes="samples forward",
    cost=lambda options, size: (options["samples"], 0),
    per_channel=False,
    definition="Shapley values of segments by weighted least squares over `samples` random sets (Lundberg & Lee 2017); "
    "over the segments adds up to f(x) − f(b); needs more samples than segments",
)
def kernel_shap(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    segments: Segments = 8,
    samples: int = 800,
    baseline: Tensor | str | float = 0.0,
) -> Tensor:
    from captum.attr import KernelShap

    return one_by_one(KernelShap, model, images, baseline, target, segments, samples, work)


@method(
    "lime",
    backend="captum",
    needs_gradient=False,
    deterministic=False,
    passes="samples forward",
    cost=lambda options, size: (options["samples"], 0),
    per_channel=False,
    definition="weights of a ridge regression (`penalty`) of f on which segments are shown, in `samples` random halves, "
    "weighted by exp(−d²/`nearness`²) with the cosine distance d to the whole image (Ribeiro et al. 2016, as in its image code)",
)
def lime(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    segments: Segments = 8,
    samples: int = 150,
    baseline: Tensor | str | float = 0.0,
    penalty: float = 2.0,
    nearness: float = 0.25,
) -> Tensor:
    if not (penalty >= 0 and nearness > 0):
        raise ValueError(f"penalty, nearness: {penalty!r}, {nearness!r}; expected at least 0, and a distance above 0")
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    def weight(image: Tensor, perturbed: Tensor, shown: Tensor, **unused: Any) -> Tensor:
        # Captum's default measures in pixels, where at its width of 1 every sample but the image itself weighs nothing
        distance = 1 - (shown.float().mean(1) ** 0.5)
        return torch.exp(-((distance / nearness) ** 2))

    make = lambda score: Lime(score, interpretable_model=SkLearnRidge(alpha=penalty), similarity_func=weight)
    return one_by_one(make, model, images, baseline, target, segments, samples, work)


def one_by_one(
    make: Callable[[Callable], Any],
    model: Score,
    images: Tensor,
    baseline: Tensor,
    target: Tensor,
    segments: Tensor,
    samples: int,
    work: Work,
) -> Tensor:
    """Maps (n, H, W) of explainers that fit a regression for each image; all images see the same samples."""
    maps = []
    for i in range(len(images)):
        codes = torch.unique(segments[i : i + 1], return_inverse=True)[1]
        count = int(codes.max()) + 1
        if samples <= count:
            raise ValueError(f"samples: {samples} for {count} segments; expected more samples than segments")
        score, shown = over_segments(model, images[i : i + 1], baseline[i : i + 1], codes)
        with untouched_random_state(work.seed):
            found = make(score).attribute(
                shown, 0, target[i : i + 1], n_samples=samples, perturbations_per_eval=min(samples, work.batch_size)
            )
        maps.append(paint(found.to(images.device), codes))
    return torch.cat(maps)


def over_segments(
    model: Score, images: Tensor, baseline: Tensor, segments: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The score as a function of which segments are shown, and the point where all are: ones (n, S).

    The function takes (k n, S), the n images k times over, as Captum stacks them, and gives float32 scores (k n, classes);
    what is not shown is the baseline.
    """
    codes = segments.flatten(1)

    def score(shown: Tensor) -> Tensor:
        times = len(shown) // len(images)
        keep = shown.gather(1, codes.repeat(times, 1)).reshape(-1, 1, *images.shape[2:])
        return model(torch.where(keep > 0.5, images.repeat(times, 1, 1, 1), baseline.repeat(times, 1, 1, 1))).float()

    return score, torch.ones(len(images), int(codes.max()) + 1, device=images.device)


def paint(values: Tensor, segments: Tensor) -> Tensor:
    """Maps (n, H, W) in which each pixel has the value (n, S) of its segment."""
    return values.gather(1, segments.flatten(1)).reshape(segments.shape)
