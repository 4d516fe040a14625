"""Averages over random samples: each image's own noise, and sampling until the map is known well enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .method import Work
from .passes import each, pairs, rounds

Draw = Callable[[torch.Generator], Tensor]


def generators(images: Tensor, work: Work, device: torch.device | str) -> list[torch.Generator]:
    """A generator for each image, from the seed and the image's number: its noise is the same in any batch."""
    seeds = [np.random.SeedSequence([work.seed, work.first + i]).generate_state(1, np.uint64)[0] for i in range(len(images))]
    return [torch.Generator(device).manual_seed(int(seed >> np.uint64(1))) for seed in seeds]


def average(
    images: Tensor,
    work: Work,
    samples: int,
    tolerance: float | None,
    draw: Draw,
    gather: Callable[[Tensor, Tensor], Tensor],
    finish: Callable[[Tensor, Tensor], Tensor],
    *,
    backward: bool,
    device: torch.device | str,
) -> Tensor:
    """The map that `finish` makes of what `gather` adds up over samples.

    With a `tolerance` the samples of an image are dealt to two halves in turn. With A and B the maps of the halves, the standard
    error of the whole is estimated by the standard deviation over pixels of (A − B)/2, and the image is done when that is at most
    `tolerance` times the standard deviation over pixels of (A + B)/2. At most `samples` are taken.

    Parameters
    ----------
    images : (n, C, H, W)
    draw : of an image's generator to one sample of its noise
    gather : of image numbers (b,) and their noise (b, …) to what is added up, (b, …)
    finish : of sums (n, …) and numbers of samples (n,) to maps (n, …)
    backward : whether a sample takes a backward pass too; every one takes a forward pass
    device : of the generators
    """
    n = len(images)
    sources = generators(images, work, device)
    halves = 1 if tolerance is None else 2
    total: Tensor | None = None
    taken, error = each(0, images), torch.full((n,), torch.nan, dtype=torch.float64)
    active = torch.arange(n)
    for begin, end in [(0, samples)] if tolerance is None else rounds(samples):
        for row, step in pairs(len(active), end - begin, work.batch_size):
            which = active[row]
            noise = torch.stack([draw(sources[i]) for i in which.tolist()]).to(images.device)
            found = gather(which.to(images.device), noise)
            if total is None:
                total = found.new_zeros(halves * n, *found.shape[1:])
            slot = which + n * ((begin + step) % halves)
            total.index_add_(0, slot.to(images.device), found)
        taken[active] = end
        if tolerance is None:
            break
        counts = torch.stack([(taken + 1) // 2, taken // 2])[:, active]
        one, two = (finish(total[active + n * half], counts[half].to(images.device)) for half in (0, 1))
        spread = [(part / 2).flatten(1).double().std(1).cpu() for part in (one - two, one + two)]
        error[active] = spread[0] / spread[1]
        active = active[spread[0] > tolerance * spread[1]]
        if not len(active):
            break
    work.tell(forward=taken, backward=taken if backward else each(0, images))
    if tolerance is not None:
        work.tell(error=error)
    return finish(total.unflatten(0, (halves, n)).sum(0), taken.to(images.device))
