"""What the score loses where pixels are hidden: patch by patch (occlusion), or under random masks (RISE)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .method import Work, method
from .passes import each, pairs, precise, scores
from .sampling import average
from .score import Score


def window_cost(options: dict, size: tuple[int, int]) -> tuple[int, int]:
    """One pass for each window, and one for the whole image."""
    down, across = (len(windows(side, options["patch"], options["stride"])) for side in size)
    return 1 + down * across, 0


@method(
    "occlusion",
    backend="torch",
    needs_gradient=False,
    deterministic=True,
    passes="1 + ⌈(H − patch)/stride + 1⌉ × ⌈(W − patch)/stride + 1⌉ forward",
    cost=window_cost,
    per_channel=False,
    definition="mean drop of f over the patches that cover a pixel; patches that stick out at the border are cut off",
)
def occlusion(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    patch: int = 8,
    stride: int = 4,
    baseline: Tensor | str | float = 0.0,
) -> Tensor:
    down, across = (windows(side, patch, stride).to(images.device) for side in images.shape[2:])
    count = len(down) * len(across)
    before = precise(scores(model, images, target))
    after = before.new_empty(len(images), count)
    for which, window in pairs(len(images), count, work.batch_size, images.device):
        hidden = down[window // len(across), :, None] & across[window % len(across), None, :]
        changed = torch.where(hidden[:, None], baseline[which], images[which])
        after[which, window] = precise(scores(model, changed, target[which]))
    drop = (before[:, None] - after).unflatten(1, (len(down), len(across)))
    down, across = down.to(drop), across.to(drop)
    work.tell(forward=each(1 + count, images), backward=each(0, images))
    return torch.einsum("nij,ih,jw->nhw", drop, down, across) / torch.outer(down.sum(0), across.sum(0))


def windows(side: int, patch: int, stride: int) -> Tensor:
    """Which positions of a side each window covers, bool (windows, side); the last is cut off at the end."""
    begin = torch.arange(math.ceil((side - patch) / stride) + 1)[:, None] * stride
    place = torch.arange(side)
    return (place >= begin) & (place < begin + patch)


@method(
    "rise",
    backend="torch",
    needs_gradient=False,
    deterministic=False,
    passes="samples forward",
    cost=lambda options, size: (options["samples"], 0),
    per_channel=False,
    definition="Σ f(x under m) m / (Σ m + 0.0001) over random masks m: a grid of cells shown with probability `keep`, enlarged "
    "bilinearly to (1 + 1/grid) times the image and cut out at a random place, for each mask and image anew (Petsiuk et al. "
    "2018, eq. 6, divided by the sum of the masks as Xplique does; Xplique cuts a whole batch of masks at one place)",
)
def rise(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    samples: int = 1000,
    grid: int = 7,
    keep: float = 0.5,
    baseline: Tensor | str | float = 0.0,
    tolerance: float | None = None,
) -> Tensor:
    def draw(generator: torch.Generator) -> Tensor:
        return torch.rand(grid * grid + 2, generator=generator)

    def gather(which: Tensor, drawn: Tensor) -> Tensor:
        cells = (drawn[:, :-2] < keep).float().unflatten(1, (grid, grid))
        masks = enlarged_masks(cells, drawn[:, -2:], images.shape[2:])
        return weighed(model, images[which], target[which], masks, baseline[which])

    return average(images, work, samples, tolerance, draw, gather, ratio, backward=False, device="cpu")


def enlarged_masks(cells: Tensor, place: Tensor, size: torch.Size) -> Tensor:
    """Cells (b, g, g) enlarged and cut out at the shares `place` (b, 2) of the room there is: (b, H, W) in [0, 1]."""
    large = [int(side * (1 + 1 / cells.shape[1])) for side in size]
    grown = interpolate(cells[:, None], size=large, mode="bilinear", align_corners=False)[:, 0]
    rows, columns = (
        (place[:, i] * (large[i] - size[i] + 1)).long()[:, None] + torch.arange(size[i], device=cells.device) for i in (0, 1)
    )
    number = torch.arange(len(cells), device=cells.device)
    return grown[number[:, None, None], rows[:, :, None], columns[:, None, :]]


def weighed(model: Score, images: Tensor, target: Tensor, masks: Tensor, baseline: Tensor) -> Tensor:
    """Masks (b, H, W) times the score of the image under them, and the masks themselves: (b, 2, H, W)."""
    shown = torch.lerp(baseline, images, masks[:, None].to(images.dtype))
    return torch.stack([scores(model, shown, target).to(masks)[:, None, None] * masks, masks], dim=1)


def ratio(sums: Tensor, counts: Tensor) -> Tensor:
    return sums[:, 0] / (sums[:, 1] + 1e-4)
