"""What stands for "nothing there": the image that a method or metric compares with.

A score that takes pixels away depends on what it puts in their place: black is an edge and a colour of its own, blur leaves
what it should remove, noise is like no photograph. No choice is neutral; see `helpers.attribution.baseline_dependence`.
"""

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


def noise(images: Tensor, rows: slice | Tensor, seed: int) -> Tensor:
    """Every value of every pixel uniform in [0, 1), drawn from the seed and the image's number: batches do not matter."""
    first = rows.start or 0 if isinstance(rows, slice) else None
    numbers = rows.tolist() if first is None else range(first, first + len(images))
    drawn = [np.random.default_rng([seed, i]).random(images.shape[1:], dtype=np.float32) for i in numbers]
    return torch.from_numpy(np.stack(drawn)).to(images)


NAMED = {
    "black": torch.zeros_like,
    "white": torch.ones_like,
    "mean": lambda images: images.mean((2, 3), keepdim=True).expand_as(images),  # each image's mean colour
    "blur": blur,
    "noise": noise,
}
INPAINT = "inpaint"  # depends on which pixels are missing, so that it is no image of its own


def check_baseline(baseline: Baseline, images: Tensor, removing: bool = False) -> str | float | Tensor:
    """A known name, a number in [0, 1], or a tensor (N, C, H, W) of baselines; ValueError for anything else.

    "inpaint" is accepted by what removes some pixels and keeps others (`removing`).
    """
    if isinstance(baseline, str):
        return choose(baseline, [*NAMED, INPAINT] if removing else NAMED, "baseline")
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


def baseline_of(
    baseline: str | float | Tensor, images: Tensor, rows: slice | Tensor = slice(None), seed: int = 0
) -> Tensor:
    """The baseline of the images of one batch, in their shape, where `rows` says which of all images these are."""
    if isinstance(baseline, Tensor):
        return baseline[rows]
    if baseline == "noise":
        return noise(images, rows, seed)
    return NAMED[baseline](images) if isinstance(baseline, str) else torch.full_like(images, baseline)


def remove(images: Tensor, rows: Tensor, removed: Tensor, baseline: str | float | Tensor, seed: int = 0) -> Tensor:
    """Copies of images with some pixels replaced by the baseline.

    Parameters
    ----------
    images : (N, C, H, W), all of them
    rows : int64 (n,), the images to copy; one may come several times
    removed : bool (n, 1, H, W)
    baseline : as `check_baseline` returns it
    seed : of the baseline "noise"

    Returns
    -------
    (n, C, H, W).
    """
    numbers, local = rows.unique(return_inverse=True)
    some = images[numbers]  # few: a baseline is made once an image, not once a copy
    if isinstance(baseline, str) and baseline == INPAINT:
        return inpaint(some[local], removed)
    return torch.where(removed, baseline_of(baseline, some, numbers, seed)[local], some[local])


def inpaint(images: Tensor, removed: Tensor, tolerance: float = 1e-4, most: int = 500) -> Tensor:
    """The smoothest filling: removed pixels solve Laplace's equation with the kept ones as its boundary.

    Each removed pixel is the mean of its neighbours above, below, left and right, of those there are at the border.
    Solved by conjugate gradients from the mean of the kept pixels on, until no pixel is further than `tolerance` from the
    mean of its neighbours, or for `most` steps. Where no pixel is kept the image's mean colour stands.

    Parameters
    ----------
    images : float (n, C, H, W)
    removed : bool (n, 1, H, W)
    tolerance : float, in pixel values
    most : int

    Returns
    -------
    (n, C, H, W), equal to `images` where pixels are kept.
    """
    kept = ~removed
    count = kept.sum((2, 3), keepdim=True)
    some = torch.where(count > 0, kept, torch.ones_like(kept))
    start = (images * some).sum((2, 3), keepdim=True) / some.sum((2, 3), keepdim=True)
    filled = torch.where(removed, start, images)
    open_ = removed & (count > 0)
    degree = neighbours(torch.ones_like(images[:, :1]))
    residual = (neighbours(filled) - degree * filled) * open_
    direction, size = residual, (residual**2).sum((2, 3), keepdim=True)
    for _ in range(most):
        if (residual / degree).abs().max() <= tolerance:
            break
        image = (degree * direction - neighbours(direction)) * open_
        step = size / (direction * image).sum((2, 3), keepdim=True).clamp(min=1e-30)
        filled, residual = filled + step * direction, residual - step * image
        fresh = (residual**2).sum((2, 3), keepdim=True)
        direction, size = residual + direction * (fresh / size.clamp(min=1e-30)), fresh
    return filled


def neighbours(images: Tensor) -> Tensor:
    """Sum over the pixels above, below, left and right, as far as there are any: (n, C, H, W)."""
    total = torch.zeros_like(images)
    total[:, :, 1:] += images[:, :, :-1]
    total[:, :, :-1] += images[:, :, 1:]
    total[..., 1:] += images[..., :-1]
    total[..., :-1] += images[..., 1:]
    return total


def references(baselines: Sequence[Baseline] | Tensor, images: Tensor) -> list[Tensor]:
    """Several baselines, each in the shape (n, C, H, W) of `images`: names, pixel values, or a tensor (M, C, H, W) for all.

    Raises
    ------
    ValueError : none given, one alone instead of a sequence, or one that `check_baseline` refuses.
    """
    if isinstance(baselines, (str, int, float)) or not len(baselines):
        raise ValueError(f"baselines: {baselines!r}; expected one or more names, pixel values or images (M, C, H, W)")
    return [baseline_of(check_baseline(one, images), images) for one in baselines]
