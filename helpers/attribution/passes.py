"""Full passes: many small evaluations of a model, packed into batches across images and steps; and when to stop."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .score import Score, channels_last


def pairs(images: int, steps: int, batch_size: int, device: torch.device | str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """Every pair of image and step once, image by image, in batches of `batch_size`: int64 (b,) and (b,)."""
    number = torch.arange(images * steps, device=device)
    for part in number.split(batch_size):
        yield part // steps, part % steps


def rounds(most: int) -> Iterator[tuple[int, int]]:
    """Ranges of steps after which to look at the error: up to 8, 12, 16, …, each time a quarter more, in the end `most`.

    They do not depend on how many images are left, so that a map does not depend on its neighbours in the batch.
    """
    begin, end = 0, min(8, most)
    while begin < most:
        yield begin, end
        begin, end = end, min(most, end + max(4, end // 8 * 2))


def scores(model: Score, images: Tensor, target: Tensor) -> Tensor:
    """The score of each image's target, (n,), without a graph."""
    with torch.no_grad():
        return model(channels_last(images)).gather(1, target[:, None])[:, 0]


def slopes(model: Score, images: Tensor, target: Tensor) -> Tensor:
    """The gradient of each image's target score with respect to its pixels, (n, C, H, W)."""
    return slopes_and_scores(model, images, target)[0]


def slopes_and_scores(model: Score, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each image's target score with respect to its pixels, (n, C, H, W), and the scores (n,), in one pass."""
    images = channels_last(images).detach().requires_grad_()
    with torch.enable_grad():
        score = model(images).gather(1, target[:, None])[:, 0]
    return torch.autograd.grad(score.sum(), images)[0], score.detach()


def precise(values: Tensor) -> Tensor:
    """The same values in float32 at least: a long sum in half precision loses what is added."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def each(number: int, images: Tensor) -> Tensor:
    """The same number for each image: int64 (n,)."""
    return torch.full((len(images),), number)
