"""A layer's output read part by part: as rows, as means of every group x class cell, or as a sample of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from helpers.debiasing.method import Batch

MOST_VALUES = 1 << 26  # that are held at once: 0.25 GB in float32


def as_rows(output: Tensor, flat: bool = False) -> tuple[Tensor, int]:
    """A layer's output as rows of features (m, d), and how many rows an image has.

    (N, d) stays as it is; a map (N, C, H, W) gives a row of C features a position, tokens (N, T, d) one a token; with
    `flat` everything of an image is one row.
    """
    if flat:
        output = output.flatten(1)
    if output.dim() == 4:
        output = output.movedim(1, -1)
    each = output[0].numel() // output.shape[-1]
    return output.reshape(-1, output.shape[-1]), each


def rows(batch: Batch, layer: str, flat: bool = False) -> tuple[str, Iterator[tuple[Tensor, np.ndarray]]]:
    """Name of a layer, and its output in parts: rows float32 (m, d) and the image of each row, int64 (m,)."""
    name, parts = batch.parts(layer)

    def read():
        for numbers, output in parts:
            part, each = as_rows(output, flat)
            yield part, np.repeat(numbers, each)

    return name, read()


@dataclass(frozen=True)
class CellMeans:
    """Means of the features in every group x class cell, in O(d) memory.

    Attributes
    ----------
    mean : float64 (G, C, d); NaN in an empty cell
    count : int64 (G, C), images of the cell (not positions)
    scale : float, root mean square distance of a feature from its overall mean; 1 where all are equal
    within : float64 (d, d), covariance of the features about the mean of their cell; None where there are too many features
    """

    mean: np.ndarray
    count: np.ndarray
    scale: float
    within: np.ndarray | None = None


def cell_means(batch: Batch, layer: str, flat: bool = False, widest: int = 0) -> tuple[str, CellMeans]:
    """Name of a layer, and the means of its features in one pass; their covariance too, if there are `widest` at most."""
    cell = torch.from_numpy(batch.group * batch.classes + batch.y)
    cells = batch.groups * batch.classes
    name, parts = batch.parts(layer)
    total, square, each = None, 0.0, 1
    for numbers, output in parts:
        part, each = as_rows(output, flat)
        own = cell[torch.from_numpy(numbers)].repeat_interleave(each)
        if total is None:
            total = torch.zeros(cells, part.shape[1], dtype=torch.float64)
            d = part.shape[1]
            origin = part.double().mean(0)  # near the mean: squares of what lies far from 0 would lose digits
            product = torch.zeros(d, d, dtype=torch.float64) if d <= widest else None
        for code in own.unique():
            moved = part[own == code].double() - origin
            total[code] += moved.sum(0)
            square += moved.square().sum().item()
            if product is not None:
                product += (moved.float().T @ moved.float()).double()
    count = np.bincount(cell.numpy(), minlength=cells)
    n, filled = len(batch) * each, count > 0
    variance = square / (n * d) - (total.sum(0) / n).square().mean().item()
    off = np.full((cells, d), np.nan)
    off[filled] = total.numpy()[filled] / (count[filled] * each)[:, None]
    within = None
    if product is not None:
        within = product.numpy() / n - (off[filled].T * (count[filled] * each / n)) @ off[filled]
    shape, scale = (batch.groups, batch.classes), float(np.sqrt(max(variance, 0.0))) or 1.0
    return name, CellMeans((origin.numpy() + off).reshape(*shape, d), count.reshape(shape), scale, within)


def sample(batch: Batch, layer: str, flat: bool = False) -> tuple[str, np.ndarray, np.ndarray]:
    """Name of a layer, rows of its features float64 (m, d), and the image of each row, int64 (m,).

    Where an image has so many positions that all would exceed `MOST_VALUES`, as many are drawn from each as fit.

    Raises
    ------
    ValueError : one row an image is too much already.
    """
    name, parts = rows(batch, layer, flat)
    rng, kept, images = np.random.default_rng(batch.seed), [], []
    for part, image in parts:
        most = MOST_VALUES // (len(batch) * part.shape[1])
        if most == 0:
            raise ValueError(
                f"layer: {len(batch)} images with {part.shape[1]} values each at {name!r} are too many to hold at once; "
                "only the concept vectors 'signal' and 'mean_difference' need no more than sums"
            )
        each = len(part) // len(np.unique(image))
        if each > most:
            taken = rng.permuted(np.tile(np.arange(each), (len(part) // each, 1)), axis=1)[:, :most]
            taken = np.sort((taken + each * np.arange(len(taken))[:, None]).ravel())
            part, image = part[torch.from_numpy(taken)], image[taken]
        kept.append(part.double().numpy())
        images.append(image)
    order = np.argsort(np.concatenate(images), kind="stable")
    return name, np.concatenate(kept)[order], np.concatenate(images)[order]
