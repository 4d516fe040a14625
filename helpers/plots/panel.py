"""Faces beside their attribution maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from .style import DIVERGING


def panel(
    images: np.ndarray, maps: Mapping[str, np.ndarray], labels: Sequence[str] | None = None, size: float = 1.5
) -> Figure:
    """One row a face, one column a method: signed relevance, red for and blue against the class.

    Parameters
    ----------
    images : float (N, 3, H, W) in [0, 1]
    maps : method's name -> float (N, H, W), signed, any unit
    labels : N texts, written to the left of the rows
    size : inches a picture

    Returns
    -------
    Figure. Every map has a scale of its own, symmetric about zero, up to the 99th percentile of its absolute
    values,
    so that one bright pixel does not hide the rest.

    Raises
    ------
    ValueError : a map's shape does not fit the images, or `labels` are not one an image.
    """
    n, _, height, width = images.shape
    for name, values in maps.items():
        if np.shape(values) != (n, height, width):
            raise ValueError(
                f"maps: {name!r} has shape {np.shape(values)}, the images need {(n, height, width)}"
            )
    if labels is not None and len(labels) != n:
        raise ValueError(f"labels: {len(labels)} texts do not fit {n} images")
    figure, grid = plt.subplots(
        n,
        1 + len(maps),
        figsize=(size * (1 + len(maps)) + 1.2, size * n + 0.7),
        squeeze=False,
        layout="constrained",
    )
    for row in range(n):
        grid[row, 0].imshow(np.clip(images[row].transpose(1, 2, 0), 0, 1))
        if labels is not None:
            grid[row, 0].set_ylabel(labels[row], rotation=0, ha="right", va="center", fontsize=8)
        for column, values in enumerate(maps.values(), start=1):
            top = np.nanpercentile(np.abs(values[row]), 99)
            top = top if top > 0 else 1.0  # a map of zeros is white, not an error
            grid[row, column].imshow(values[row], cmap=DIVERGING, vmin=-top, vmax=top)
    for axes, title in zip(grid[0], ("Face", *maps), strict=True):
        axes.set_title(title, fontsize=9, loc="center")
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
    if maps:
        bar = figure.colorbar(
            ScalarMappable(Normalize(-1, 1), DIVERGING),
            ax=grid,
            orientation="horizontal",
            shrink=0.5,
            aspect=40,
            pad=0.02,
        )
        bar.set_ticks([-1, 0, 1], labels=["against", "none", "for the class"])
        bar.set_label("Relevance (own scale in each picture)", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    return figure
