"""Pictures of attribution: maps beside faces, scores of methods, and mean maps of groups."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from helpers.names import choose
from helpers.plots import judging
from helpers.plots.style import DIVERGING, alt

if TYPE_CHECKING:
    from torch import Tensor

SCALES = ("method", "map")
CELL = 1.45  # inches a picture
CMAP = plt.colormaps[DIVERGING].with_extremes(bad="0.6")  # grey is on neither side of zero: there is no number
SIZES = plt.colormaps["Purples"].with_extremes(bad="0.6")


def panel(
    images: Tensor | np.ndarray,
    attributions: Mapping[str, Tensor | np.ndarray],
    titles: Sequence[str] | None = None,
    *,
    overlay: bool = False,
    scale: str = "method",
) -> Figure:
    """One row a face, one column a method: red speaks for the class, blue against it, white is zero.

    Parameters
    ----------
    images : float (N, 3, H, W) in [0, 1]
    attributions : name of a method -> maps (N, H, W), signed, in any unit
    titles : N texts, to the left of the rows
    overlay : lay the map over the grey face, the more opaque the more relevant, instead of on white
    scale : "method" for one scale a column, so that strong and weak maps of a method can be told apart; "map" for
        one scale a picture, so that the place is seen whatever the strength

    Returns
    -------
    Figure. Scales are symmetric about zero and end at the 99th percentile of |relevance|, so that one extreme
    pixel does not hide the rest; a colour bar under each column shows its scale ("map": in shares of that end, which
    stands under each picture). Grey pixels have no number; maps of zeros or without a number say so.

    Raises
    ------
    ValueError : another shape, no maps, titles that differ in number, an unknown scale (with the nearest name).
    """
    if not isinstance(attributions, Mapping):
        raise ValueError(f"attributions: {type(attributions).__name__} given; expected name -> maps (N, H, W)")
    pictures, maps = _pictures(images), {name: _array(values) for name, values in attributions.items()}
    scale = choose(scale, SCALES, "scale")
    if not maps:
        raise ValueError("attributions: none given; expected a name and maps (N, H, W)")
    for name, values in maps.items():
        _check_shape(values, pictures.shape[:3], f"attributions {name!r}")
    _check_titles(titles, len(pictures))
    count = len(pictures)
    figure, grid = plt.subplots(
        count + 1,  # the last row holds the colour bars, so that faces and maps keep one size
        1 + len(maps),
        figsize=(CELL * (1 + len(maps)) + (0.9 if titles is not None else 0.1), CELL * count + 0.9),
        height_ratios=[*[1] * count, 0.06],
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    grid[-1, 0].axis("off")
    for row, picture in enumerate(pictures):
        _bare(grid[row, 0]).imshow(picture)
        if titles is not None:
            grid[row, 0].set_ylabel(titles[row], rotation=0, ha="right", va="center", fontsize=9)
    grid[0, 0].set_title("Face", fontsize=10, loc="center")
    for column, (name, values) in enumerate(maps.items(), start=1):
        ends = [_end(values) if scale == "method" else _end(one) for one in values]
        for row, (one, end) in enumerate(zip(values, ends, strict=True)):
            _map(_bare(grid[row, column]), one, end, pictures[row] if overlay else None)
            if scale == "map":
                _say_end(grid[row, column], one, end)
        grid[0, column].set_title(_words(name), fontsize=10, loc="center")
        _bar(figure, grid[-1, column], ends[0] if scale == "method" else 1.0, scale)
    return alt(
        figure,
        f"{count} faces in rows; beside each, its attribution maps by {', '.join(maps)}. "
        "Red pixels speak for the class, blue ones against it.",
    )


def scores(table: pd.DataFrame, *, chance: str | None = None, better: Mapping[str, str] | None = None) -> Figure:
    """`judging.metrics` in one row, for scores of which higher is better unless they are known by name, or by `better`.

    Parameters
    ----------
    table, chance, better : as in `judging.metrics`

    Returns
    -------
    Figure. Methods keep the order of the table, from the top.

    Raises
    ------
    ValueError : a column is missing, or no method is called `chance` (with the nearest name).
    """
    names = set(table["metric"]) if "metric" in table else set()
    known = dict.fromkeys(names, "higher") | judging.BETTER | dict(better or {})
    return judging.metrics(table, chance=chance, better=known, columns=max(1, len(names)))


def mean_map_by_group(
    attributions: Tensor | np.ndarray,
    group: Tensor | np.ndarray | Sequence,
    groups: Sequence[str] | None = None,
    images: Tensor | np.ndarray | None = None,
    *,
    overlay: bool = False,
) -> Figure:
    """The mean map of each group, side by side on one scale; with images, under it the group's mean face.

    Parameters
    ----------
    attributions : (N, H, W); pixels are averaged place by place, so the faces should be aligned. Maps without a negative
        number are drawn as sizes, from 0 on
    group : N codes or names
    groups : names of the codes 0, 1, …; None if `group` holds names
    images : float (N, 3, H, W) in [0, 1]; None leaves the faces out
    overlay : lay the map over the group's mean face, grey; needs `images`

    Returns
    -------
    Figure. A group without an image is left out. For several methods, and differences: `attribution_panels.by_group`.

    Raises
    ------
    ValueError : shapes or lengths that do not fit, or a code without a name.
    """
    maps, member = _array(attributions), np.asarray(_array(group))
    _check_shape(maps, maps.shape if maps.ndim == 3 else ("N", "H", "W"), "attributions")
    if member.shape != (len(maps),):
        raise ValueError(f"group: shape {member.shape}; expected ({len(maps)},), one an image")
    if groups is not None:
        if not np.issubdtype(member.dtype, np.integer) or ((member < 0) | (member >= len(groups))).any():
            raise ValueError(f"group: expected codes from 0 to {len(groups) - 1}, one for each of `groups`")
        member = np.asarray(groups, dtype=object)[member]
    names = [name for name in (groups or sorted(set(member))) if (member == name).any()]
    faces = None
    if overlay and images is None:
        raise ValueError("overlay: True without images; expected images (N, 3, H, W) to lay the maps over")
    if images is not None:
        faces = _pictures(images)
        _check_shape(maps, faces.shape[:3], "attributions")
    means = {name: maps[member == name].mean(0) for name in names}
    signed = bool((maps[np.isfinite(maps)] < 0).any())
    end = _end(np.stack(list(means.values())))
    rows = 1 if faces is None else 2
    figure, grid = plt.subplots(
        rows,
        len(names),
        figsize=(1.3 * CELL * len(names) + 0.9, 1.3 * CELL * rows + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for column, (name, mean) in enumerate(means.items()):
        _map(_bare(grid[-1, column]), mean, end, faces[member == name].mean(0) if overlay else None, signed)
        if faces is not None:
            _bare(grid[0, column]).imshow(faces[member == name].mean(0))
        grid[0, column].set_title(f"{name} (n = {(member == name).sum()})", fontsize=10, loc="center")
    bar = figure.colorbar(_colours(end, signed), ax=grid, shrink=0.7, pad=0.02)
    bar.set_label("mean relevance" if signed else "mean size of relevance", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return alt(figure, f"Mean attribution map of each group on one scale: {', '.join(map(str, names))}.")


def pixels(values: np.ndarray, end: float) -> np.ndarray:
    """A map (H, W) in the colours of the figures, on a scale from -end to end: uint8 (H, W, 3), grey where there is no number."""
    return _colours(end).to_rgba(np.ma.masked_invalid(values), bytes=True)[..., :3]


def end_of(values: np.ndarray) -> float:
    """Where the symmetric scale of these maps ends: the 99th percentile of the sizes; if that is 0 their maximum, or 1."""
    return _end(np.asarray(values))


def _map(axes: Axes, values: np.ndarray, end: float, face: np.ndarray | None, signed: bool = True) -> None:
    """One map on a palette that ends at `end`, on white or over the grey face; what it lacks is said."""
    known = np.isfinite(values)
    scale = _colours(end, signed)
    shown, limits = np.ma.masked_array(values, ~known), {"cmap": scale.cmap, "norm": scale.norm}
    if face is None:
        axes.imshow(shown, **limits)
    else:
        axes.imshow(face.mean(2), cmap="gray", vmin=-0.25, vmax=1.1)  # paler than the photograph, so that colours stand out
        strength = np.clip(np.where(known, np.abs(values, where=known, out=np.zeros(values.shape)) / end, 1), 0, 1)
        axes.imshow(shown, **limits, alpha=0.75 * strength**0.7)
    if not known.any():
        _say(axes, "no number\n(NaN)")
    elif not values[known].any():
        _say(axes, "all zero")


def _say(axes: Axes, words: str) -> None:
    """Words in the middle of a picture, which would otherwise be read as a map that is there."""
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=9, color="0.15",
              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1.5})  # fmt: skip


def _say_end(axes: Axes, values: np.ndarray, end: float) -> None:
    """Under a picture, where its own scale ends; nothing where it has no scale."""
    if np.nan_to_num(values).any():
        axes.set_xlabel(f"±{end:.2g}", fontsize=7, labelpad=1)


def _bar(figure: Figure, axes: Axes, end: float, scale: str) -> None:
    """The scale of one column, under it."""
    bar = figure.colorbar(_colours(end), cax=axes, orientation="horizontal")
    bar.set_ticks([-end, 0, end], labels=[f"{-end:.2g}".replace("-", "−"), "0", f"{end:.2g}"])
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    bar.set_label("relevance" if scale == "method" else "share of the\n99th percentile", fontsize=8)


def _words(name: str) -> str:
    """A name as it stands in a figure: `integrated_gradients` in two words, on two lines if they are long."""
    return textwrap.fill(str(name).replace("_", " "), 16, break_long_words=False)


def _colours(end: float, signed: bool = True) -> plt.cm.ScalarMappable:
    """From -end to end with white in the middle; without signs from 0 to end, in a hue that says neither for nor against."""
    return plt.cm.ScalarMappable(Normalize(-end if signed else 0, end), CMAP if signed else SIZES)


def _end(values: np.ndarray) -> float:
    """Where a symmetric scale ends: the 99th percentile of |values|; if that is 0 their maximum, or 1."""
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size:
        return 1.0
    return float(np.percentile(sizes, 99) or sizes.max() or 1.0)


def _bare(axes: Axes) -> Axes:
    """Axes that hold a picture: no ticks, no grid, no frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _array(values: Tensor | np.ndarray | Sequence) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() and values.element_size() < 4 else values  # NumPy has no bfloat16
    return np.asarray(values)


def _pictures(images: Tensor | np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1] as imshow takes them, (N, H, W, 3)."""
    images = _array(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"images: shape {images.shape}; expected (N, 3, H, W)")
    if not np.issubdtype(images.dtype, np.floating) or np.nanmax(images) > 1.01:  # they would all be drawn white
        raise ValueError(f"images: {images.dtype} up to {np.nanmax(images):.4g}; expected floats in [0, 1]")
    return np.broadcast_to(images, (len(images), 3, *images.shape[2:])).transpose(0, 2, 3, 1).clip(0, 1)


def _check_shape(values: np.ndarray, expected: tuple, argument: str) -> None:
    if values.shape != tuple(expected):
        raise ValueError(f"{argument}: shape {values.shape}; expected {tuple(expected)}")


def _check_titles(titles: Sequence[str] | None, count: int) -> None:
    if titles is not None and len(titles) != count:
        raise ValueError(f"titles: {len(titles)} texts for {count} images")
