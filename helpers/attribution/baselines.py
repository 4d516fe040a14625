"""What stands for "nothing there": the image that a method or metric compares with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from helpers.names import choose

Baseline = str | float | Tensor | np.ndarray
DISTRIBUTION = ("black", "white", "mean", "blur")  # what methods that average over baselines take by default


def blur(images: Tensor, share: float = 0.25) -> Tensor:
    """Images (N, C, H, W) smoothed three times by a box of `share` of the side (close to a Gaussian)."""
    radius = [min(max(1, int(side * share / 2)), side - 1) for side in images.shape[2:]]
    for _ in range(3):
        padded = pad(images, (radius[1], radius[1], radius[0], radius[0]), mode="replicate")
        images = avg_pool2d(padded, (2 * radius[0] + 1, 2 * radius[1] + 1), stride=1)
    return images


NAMED = {
    "black": torch.zeros_like,
    "white": torch.ones_like,
    "mean": lambda images: images.mean((2, 3), keepdim=True).expand_as(images),  # each image's mean colour
    "blur": blur,
}


def check_baseline(baseline: Baseline, images: Tensor) -> str | float | Tensor:
    """A known name, a number in [0, 1], or a tensor (N, C, H, W) of baselines; ValueError for anything else."""
    if isinstance(baseline, str):
        return choose(baseline, NAMED, "baseline")
    if isinstance(baseline, (int, float)) and not isinstance(baseline, bool):
        if not 0 <= baseline <= 1:
            raise ValueError(f"baseline: {baseline}; expected a pixel value in [0, 1] or one of {', '.join(NAMED)}")
        return float(baseline)
    if isinstance(baseline, (Tensor, np.ndarray)):
        tensor = torch.as_tensor(baseline).detach()
        if tuple(tensor.shape) not in (tuple(images.shape), tuple(images.shape[1:])):
            raise ValueError(
                f"baseline: shape {tuple(tensor.shape)}; expected that of one image {tuple(images.shape[1:])} "
                f"or of all of them {tuple(images.shape)}"
            )
        # a copy, because a tensor from a block of torch.inference_mode() cannot take part in autograd
        return tensor.to(images, copy=True).expand_as(images)
    raise ValueError(f"baseline: {baseline!r}; expected a number in [0, 1], a tensor or one of {', '.join(NAMED)}")


def baseline_of(baseline: str | float | Tensor, images: Tensor, rows: slice = slice(None)) -> Tensor:
    """The baseline of the images of one batch, in their shape, where `rows` says which of all images these are."""
    if isinstance(baseline, Tensor):
        return baseline[rows]
    return NAMED[baseline](images) if isinstance(baseline, str) else torch.full_like(images, baseline)


def references(baselines: Sequence[Baseline] | Tensor, images: Tensor) -> list[Tensor]:
    """Several baselines, each in the shape (n, C, H, W) of `images`: names, pixel values, or a tensor (M, C, H, W) for all.

    Raises
    ------
    ValueError : none given, one alone instead of a sequence, or one that `check_baseline` refuses.
    """
    if isinstance(baselines, (str, int, float)) or not len(baselines):
        raise ValueError(f"baselines: {baselines!r}; expected one or more names, pixel values or images (M, C, H, W)")
    return [baseline_of(check_baseline(one, images), images) for one in baselines]
