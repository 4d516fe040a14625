"""Drawn faces beside their counterfactuals, masks and regions."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from helpers.plots.style import alt

# Eleven regions are more than a colour-blind-safe palette holds: neighbours on the face differ in lightness instead.
COLOURS = {"accessories": "#000000", "brows": "#8c564b", "eyes": "#ffffff", "mouth": "#d55e00", "nose": "#cc79a7",
           "facial_hair": "#999999", "hair": "#5b4500", "head_covering": "#004949", "clothing": "#0072b2",
           "skin": "#f0e442", "background": "#bfe3f5"}


def what_if(faces, indices: Sequence[int], attribute: str) -> Figure:
    """One column a face: the picture, the same face with `attribute` changed, and the mask of that attribute.

    Parameters
    ----------
    faces : data set with `counterfactual` and `mask` (see `IllustratedFaces`)
    indices : rows of the data set
    attribute : name of the attribute that is redrawn

    Returns
    -------
    Figure with alternative text
    """
    indices = [int(i) for i in indices]
    figure, axes = plt.subplots(3, len(indices), figsize=(1.5 * len(indices) + 1, 4.8), squeeze=False)
    name = attribute.replace("_", " ")
    masks = [faces.mask(i, attribute) for i in indices]
    for column, i, mask in zip(axes.T, indices, masks, strict=True):
        pictures = (faces[i][0], faces.counterfactual(i, attribute))
        for ax, picture in zip(column, pictures, strict=False):
            ax.imshow(picture.permute(1, 2, 0).numpy())
        column[2].imshow(mask, cmap="gray", vmin=0, vmax=1)
    for ax, label in zip(axes[:, 0], ("drawn", f"{name}\nchanged", "pixels that\ndepend on it"), strict=True):
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    figure.tight_layout()
    share = np.mean([mask.mean() for mask in masks])
    alt(figure, f"{len(indices)} drawn faces, the same faces with {name} changed and nothing else, and the masks of the "
                f"pixels that change: {share:.0%} of the picture on average.")
    return figure


def regions(faces, indices: Sequence[int]) -> Figure:
    """Pictures above, their regions below, each region in one colour with a legend."""
    indices = [int(i) for i in indices]
    figure, axes = plt.subplots(2, len(indices), figsize=(1.5 * len(indices) + 1, 4.2), squeeze=False)
    palette = ListedColormap(list(COLOURS.values()))
    for column, i in zip(axes.T, indices, strict=True):
        masks = faces.regions(i)
        codes = sum(code * masks[name] for code, name in enumerate(COLOURS))
        column[0].imshow(faces[i][0].permute(1, 2, 0).numpy())
        column[1].imshow(codes, cmap=palette, vmin=-0.5, vmax=len(COLOURS) - 0.5, interpolation="nearest")
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    for ax, label in zip(axes[:, 0], ("drawn", "its regions"), strict=True):
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    handles = [Patch(facecolor=colour, edgecolor="grey", label=name.replace("_", " ")) for name, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="lower center", ncol=6, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    alt(figure, f"{len(indices)} drawn faces and below each a map of its parts: {', '.join(COLOURS)}.".replace("_", " "))
    return figure
