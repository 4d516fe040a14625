"""Pictures of a data set: faces side by side, mean faces, and how many there are of each kind."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.data.pictures import mean_image
from helpers.names import choose
from helpers.plots.style import PALETTE, SEQUENTIAL, alt

if TYPE_CHECKING:
    from torch import Tensor

    from helpers.data.base import FaceDataset

MOST_NAMED = 12  # captions that the alternative text repeats; more would be read out for minutes
HATCHES = ("", "//", "..", "xx", "\\\\", "oo")  # classes stay apart in print and without colour vision


def grid(images: Tensor | np.ndarray, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """Images side by side, each in its own pixels.

    Parameters
    ----------
    images : float (N, 3, H, W) in [0, 1] as a data set yields them, or uint8 (N, H, W, 3) as it stores them
    titles : N captions; None: none
    columns : int, most images in a row

    Returns
    -------
    Figure

    Raises
    ------
    ValueError : another shape, no images, captions that differ in number, or fewer than one column.
    """
    pictures = _pictures(images)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles: {len(titles)} captions do not fit {len(pictures)} images")
    if columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height = 1.25 + (0.35 if titles is not None else 0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.25 * columns, height * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for i, (axis, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        axis.imshow(picture)
        if titles is not None:
            axis.set_title(textwrap.fill(str(titles[i]), 18), fontsize=8, loc="center")
    named = "" if titles is None else ": " + "; ".join(str(title) for title in titles[:MOST_NAMED])
    more = "; …" if titles is not None and len(titles) > MOST_NAMED else ""
    return alt(figure, f"{len(pictures)} face images in {rows} rows of up to {columns}{named}{more}.")


def _pictures(images: Tensor | np.ndarray) -> np.ndarray:
    """Anything `grid` takes as an array that imshow takes, (N, H, W, 3)."""
    pictures = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    if pictures.ndim == 4 and pictures.shape[1] == 3 and pictures.dtype != np.uint8:
        pictures = pictures.transpose(0, 2, 3, 1).clip(
            0, 1
        )  # a redrawn or attacked image may leave [0, 1] by a hair
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or len(pictures) == 0:
        raise ValueError(
            f"images: expected float (N, 3, H, W) or uint8 (N, H, W, 3), got {pictures.dtype} "
            f"{pictures.shape}"
        )
    return pictures


def mean_faces(dataset: FaceDataset, by: str = "cell") -> Figure:
    """The mean image of each class, each group, or each cell (group × class), with how many images it is the
    mean of.

    What differs between the mean faces of two classes is what a classifier can learn, the cause or a
    shortcut.

    Parameters
    ----------
    dataset : FaceDataset
    by : "target", "group" or "cell" (rows are groups, columns classes)

    Returns
    -------
    Figure; an empty cell stays white and says "no images".

    Examples
    --------
    The figure of Robinson et al. (2020), females above males and one column an ethnicity, from your copy of Balanced Faces in
    the Wild (here the faces are cut to their central square):

    >>> bfw = load_faces("bfw", root="BFW-Release", target="ethnicity", protected="gender", split="all")  # doctest: +SKIP
    >>> mean_faces(bfw)  # doctest: +SKIP
    """
    by = choose(by, ("target", "group", "cell"), "by")
    # One row or one column of panels stands for "no distinction" by the other label.
    groups = dataset.groups if by != "target" else ("",)
    classes = dataset.classes if by != "group" else ("",)
    row = dataset.group if by != "target" else np.zeros(len(dataset), dtype=int)
    column = dataset.targets if by != "group" else np.zeros(len(dataset), dtype=int)
    if by == "group":  # side by side, as the classes are
        groups, classes, row, column = classes, groups, column, row
    size = (1.6 * len(classes) + 0.8, 1.75 * len(groups) + 0.3)
    figure, axes = plt.subplots(len(groups), len(classes), figsize=size, squeeze=False, layout="constrained")
    said = []
    for r, group in enumerate(groups):
        for c, label in enumerate(classes):
            axis, rows = axes[r, c], np.flatnonzero((row == r) & (column == c))
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            sns.despine(ax=axis, left=True, bottom=True)
            if len(rows):
                axis.imshow(mean_image(dataset.images, rows))
            else:
                axis.imshow(np.ones((*dataset.images.shape[1:3], 3)))
                axis.text(
                    0.5, 0.5, "no images", transform=axis.transAxes, ha="center", va="center", fontsize=8
                )
            axis.set_xlabel(f"n = {len(rows):,}", fontsize=8)
            if r == 0:
                axis.set_title(_lines(label), fontsize=9, loc="center")
            if c == 0:
                axis.set_ylabel(_lines(group), fontsize=9)
            said.append(f"{', '.join(part for part in (group, label) if part)} ({len(rows)} images)")
    return alt(
        figure,
        f"Mean faces of {dataset.name}: "
        f"{'; '.join(said[:MOST_NAMED])}{'; …' if len(said) > MOST_NAMED else ''}.",
    )


def _lines(name: str) -> str:
    """A name of a class or group on several short lines, crossed groups one attribute a line."""
    return "\n".join(textwrap.fill(part, 16) for part in name.replace(", ", ",\n").split("\n"))


def counts(dataset: FaceDataset) -> Axes:
    """Heat map of how many images each cell (group × class) holds, with the numbers.

    Parameters
    ----------
    dataset : FaceDataset

    Returns
    -------
    Axes
    """
    table = dataset.counts()
    size = (2.4 + 1.4 * table.shape[1], 1.5 + 0.65 * table.shape[0])
    _, axis = plt.subplots(figsize=size, layout="constrained")
    # The numbers stand in the cells, so a colour bar would say the same again.
    sns.heatmap(table, annot=True, fmt=",d", cmap=SEQUENTIAL, vmin=0, linewidths=1, ax=axis, cbar=False)
    axis.set_title(f"Images, {dataset.name} ({dataset.split})")
    axis.set(xlabel=table.columns.name, ylabel=table.index.name)
    axis.set_xticks(axis.get_xticks(), [_lines(label) for label in table.columns], rotation=0)
    axis.set_yticks(axis.get_yticks(), [_lines(group) for group in table.index], rotation=0)
    cells = [f"{group} and {label}: {n:,}" for group, row in table.iterrows() for label, n in row.items()]
    alt(axis, f"Numbers of images in {dataset.name} ({dataset.split}). {'; '.join(cells)}.")
    return axis


def imbalance(dataset: FaceDataset) -> Axes:
    """Share of each class within each group: equal bars mean that group and class are unrelated.

    Parameters
    ----------
    dataset : FaceDataset

    Returns
    -------
    Axes; dashed lines are the shares over all images. A group without images has no bar, and its label says n
    = 0.
    """
    table = dataset.counts()
    totals = table.sum(axis=1)
    shares = 100 * table.div(totals.where(totals > 0), axis=0)  # percent; NaN, not 0, where nobody is
    overall = 100 * table.sum() / len(dataset)
    width = 0.8 / table.shape[1]
    _, axis = plt.subplots(figsize=(2.5 + 0.6 * table.size, 3.6), layout="constrained")
    for c, label in enumerate(table.columns):
        color = PALETTE[c % len(PALETTE)]
        place = np.arange(len(table)) + (c - (table.shape[1] - 1) / 2) * width
        bars = axis.bar(
            place,
            shares[label],
            width,
            color=color,
            hatch=HATCHES[c % len(HATCHES)],
            edgecolor="white",
            label=label,
        )
        axis.bar_label(
            bars, [f"{share:.0f}" if share == share else "" for share in shares[label]], fontsize=8
        )
        axis.axhline(overall[label], color=color, linestyle="--", linewidth=1)
    names = [f"{_lines(group)}\nn = {totals[group]:,}" for group in table.index]
    axis.set_xticks(range(len(table)), names)
    axis.set(ylim=(0, 109), ylabel="images of the group, %", xlabel=table.index.name)
    axis.set_title(f"Share of each class, {dataset.name} ({dataset.split})")
    axis.grid(axis="x", visible=False)
    axis.legend(title=table.columns.name, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    said = [
        f"{group}: "
        + (
            ", ".join(f"{share:.0f} % {label}" for label, share in row.items())
            if totals[group]
            else "no images"
        )
        for group, row in shares.iterrows()
    ]
    alt(
        axis, f"Share of each class within each group of {dataset.name} ({dataset.split}). {'; '.join(said)}."
    )
    return axis
