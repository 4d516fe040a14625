"""Figures of relevance by group: mean maps with bars by region, differences, what a fix moved, and methods that do not count.

All take the tables of `helpers.attribution.regions`, `shift`, `quality` and `concepts`. A method that fails the randomisation
check is struck through: its name is crossed out, its points are grey crosses without an interval, and the reason stands below.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.names import choose
from helpers.plots.attribution import _array, _bare, _colours, _end, _map, _pictures
from helpers.plots.measures import points
from helpers.plots.style import PALETTE, alt

if TYPE_CHECKING:
    from torch import Tensor

DIFFERS, UNTRUSTED = "differs", "not trusted"  # as `helpers.attribution.group_result` has them
CELL = 1.9  # inches a mean map
UNITS = {"share": "share of the relevance", "density": "relevance per pixel (1: as everywhere)"}
TINTS = [*PALETTE, "#000000"]


def outlines(masks: Mapping[str, np.ndarray], image: Tensor | np.ndarray | None = None, *, ax: Axes | None = None) -> Axes:
    """Where the regions lie, over a face: to be looked at before shares of a template's regions are believed.

    Parameters
    ----------
    masks : name -> bool (H, W).  image : float (3, H, W) in [0, 1], such as the mean face
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : no mask, one that is not (H, W), or an image of another shape.
    """
    masks = {name: _array(mask) for name, mask in masks.items()}
    if not masks or any(np.ndim(mask) != 2 for mask in masks.values()):
        raise ValueError("masks: expected region -> bool (H, W), at least one; masks by image have no common outline")
    height, width = np.shape(next(iter(masks.values())))
    if ax is None:
        _, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    _bare(ax)
    if image is not None:
        picture = _pictures(_array(image)[None])[0]
        if picture.shape[:2] != (height, width):
            raise ValueError(f"image: {picture.shape[:2]} pixels; expected {(height, width)}, as the masks")
        ax.imshow(picture)
    else:
        ax.imshow(np.ones((height, width, 3)))
    shown = [name for name, mask in masks.items() if np.any(mask)]
    for at, name in enumerate(shown):
        colour = TINTS[at % len(TINTS)]
        ax.imshow(np.asarray(masks[name], float)[..., None] * to_rgba(colour, 0.35))
        _outline(ax, masks[name], "0.15", 0.8)
        ax.plot([], [], "s", color=colour, markersize=9, label=_words(name))
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize="small")
    ax.set_title("Face regions")
    return alt(ax, f"Outlines of the face regions {', '.join(map(_words, shown))}{' over a face' if image is not None else ''}.")


def by_group(
    maps: Tensor | np.ndarray,
    group: Tensor | np.ndarray | Sequence,
    table: pd.DataFrame,
    *,
    groups: Sequence[str] | None = None,
    images: Tensor | np.ndarray | None = None,
    masks: Mapping[str, np.ndarray] | None = None,
    method: str | None = None,
    measure: str = "share",
    confidence: float = 0.95,
) -> Figure:
    """The mean map of every group, and below the relevance of each region in each group with its interval.

    Parameters
    ----------
    maps : float (N, H, W), signed, of faces that are aligned
    group : N codes or names.  groups : names of the codes 0, 1, …
    table : `regions(maps, masks, group).by_group`
    images : float (N, 3, H, W) in [0, 1]: the group's mean face is drawn, grey, under its map
    masks : name -> bool (H, W), whose outlines are drawn on the maps
    method : which of the table's; None: the only one.  measure : "share" or "density"
    confidence : of the intervals, for the axis

    Raises
    ------
    ValueError : shapes, lengths or names that do not fit, a column is missing, several methods and none named.
    """
    rows = _of_method(_needing(table, "group", "region", "measure", "value", "low", "high"), method)
    measure = choose(measure, dict.fromkeys(rows["measure"]), "measure")
    rows = rows[rows["measure"] == measure]
    if "predictions" in rows:
        rows = rows[rows["predictions"] == "all"]
    maps, member = _array(maps), np.asarray(_array(group))
    if maps.ndim != 3 or member.shape != (len(maps),):
        raise ValueError(f"group: shape {member.shape} for maps of shape {maps.shape}; expected (N,) and (N, H, W)")
    if groups is not None and (member.dtype.kind not in "iu" or ((member < 0) | (member >= len(groups))).any()):
        raise ValueError(f"group: expected codes from 0 to {len(groups) - 1}, one for each of `groups`; names need no `groups`")
    member = member.astype(str) if groups is None else np.asarray(groups, dtype=object)[member]
    names = list(dict.fromkeys(rows["group"]))
    if lacking := [name for name in names if name not in set(member)]:
        raise ValueError(f"group: nobody is in {lacking[0]!r}, which the table has; there are {', '.join(sorted(set(member)))}")
    means = {name: maps[member == name].mean(0) for name in names}
    faces = None if images is None else _pictures(images)
    regions = list(dict.fromkeys(rows["region"]))
    end = _end(np.stack(list(means.values())))

    height = 0.16 * len(regions) * (len(names) + 1) + 1.1
    figure = plt.figure(figsize=(max(7.5, CELL * len(names) + 1.2), CELL + 0.5 + height), layout="constrained")
    grid = figure.add_gridspec(2, len(names), height_ratios=[CELL + 0.4, height])
    top = [_bare(figure.add_subplot(grid[0, at])) for at in range(len(names))]
    for ax, (name, mean) in zip(top, means.items(), strict=True):
        _map(ax, mean, end, None if faces is None else faces[member == name].mean(0))
        for mask in (masks or {}).values():
            _outline(ax, mask, "0.25", 0.6)
        ax.set_title(f"{_words(name)} (n = {(member == name).sum()})", fontsize=10, loc="center")
    bar = figure.colorbar(_colours(end), ax=top, shrink=0.8, pad=0.02)
    bar.set_label("mean relevance", fontsize=9)
    bar.ax.tick_params(labelsize=8)

    ax = figure.add_subplot(grid[1, :])
    wide = 0.8 / len(names)
    for at, name in enumerate(names):
        mine = rows[rows["group"] == name].set_index("region").reindex(regions)
        place = np.arange(len(regions))[::-1] + 0.4 - wide * (at + 0.5)
        colour = PALETTE[at % len(PALETTE)]
        ax.barh(place, mine["value"], wide * 0.9, color=colour, alpha=0.45, label=_words(name))
        points(ax, mine, place, colour, "os^Dv"[at % 5])
    if measure == "density":
        ax.axvline(1, color="0.3", linewidth=1)
    ax.set_yticks(np.arange(len(regions))[::-1], [_words(name) for name in regions])
    ax.set_ylim(-0.6, len(regions) - 0.4)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"{UNITS[measure]}, mean over images (bars: {confidence:.0%} interval)")
    ax.legend(loc="best", frameon=True, fontsize="small")
    told = "; ".join(f"{row.region} {row.group} {row.value:.2f}" for row in rows.itertuples() if np.isfinite(row.value))
    return alt(figure, f"Mean attribution map of each group on one scale, and below the {UNITS[measure]} by region: {told}.")


def differences(table: pd.DataFrame, *, of: str = "share of the relevance", confidence: float = 0.95) -> Figure:
    """Differences between groups with their intervals, those beyond noise filled, those of untrusted methods struck through.

    Parameters
    ----------
    table : `differences` of `regions`, `shift` or `quality`: a panel a pair of groups (of scores: a panel a metric, as
        their units differ)
    of : what differs, for the axis
    confidence : of the intervals

    Raises
    ------
    ValueError : a column is missing, or the table is empty (one group only).
    """
    table = _needing(table, "group", "other", "difference", "low", "high", "verdict", "reason")
    pair = table["group"].astype(str) + " − " + table["other"].astype(str)
    method = table["method"] if "method" in table else pd.Series("", index=table.index)
    scores = "metric" in table
    what = table["metric"] if scores else table["region"]
    panel = what if scores else pair
    row = pd.Series([": ".join(filter(None, parts)) for parts in zip(method, pair if scores else what, strict=True)], table.index)
    struck = table["verdict"] == UNTRUSTED
    names, places = list(dict.fromkeys(panel)), list(dict.fromkeys(row))
    size = (max(7.0, 2.4 + 3.0 * len(names)), 1.5 + 0.34 * len(places))
    figure, axes = plt.subplots(1, len(names), figsize=size, sharey=True, sharex=not scores, squeeze=False, layout="constrained")
    height = {name: len(places) - 1 - at for at, name in enumerate(places)}
    for ax, name in zip(axes[0], names, strict=True):
        mine = panel == name
        for some, colour, marker, label in (
            (mine & (table["verdict"] == DIFFERS), PALETTE[0], "o", "differs"),
            (mine & ~struck & (table["verdict"] != DIFFERS), "0.55", "d", "within noise"),
        ):
            points(ax, table[some].rename(columns={"difference": "value"}), row[some].map(height), colour, marker, label)
        ax.plot(table.loc[mine & struck, "difference"], row[mine & struck].map(height), "x", color="0.6", label="not trusted")
        for at in row[mine & table["difference"].isna()].map(height):
            ax.annotate("undefined", (0.02, at), xycoords=("axes fraction", "data"), va="center", color="0.45", fontsize="small")
        ax.axvline(0, color="0.3", linewidth=1)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(_words(name), fontsize="medium")
        ax.grid(axis="y", visible=False)
    shown = [_struck(name) if struck[row == name].all() else _words(name) for name in height]
    axes[0, 0].set_yticks(list(height.values()), shown)
    axes[0, 0].set_ylim(-0.6, len(places) - 0.4)
    handles = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if not struck.any():
        handles.pop("not trusted", None)
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=3, fontsize="small")
    measured = "score" if scores else of
    reasons = dict(zip(method[struck], table.loc[struck, "reason"], strict=True))
    notes = [f"{_struck(name) or 'these maps'}: {reason}" for name, reason in reasons.items()]
    axis = f"difference of the {measured}, first minus second group (bars: {confidence:.0%} interval)"
    figure.supxlabel("\n".join([axis, *(textwrap.fill(note, int(11 * size[0])) for note in notes)]), fontsize="small")
    told = "; ".join(
        f"{where} {who}: {value:+.3f}, {verdict}"
        for where, who, value, verdict in zip(panel, row, table["difference"], table["verdict"], strict=True)
        if np.isfinite(value)
    )
    said = "".join(f" {name or 'These maps'}: {reason}." for name, reason in reasons.items())
    return alt(figure, f"Differences of the {measured} between groups: {told}.{said}")


def shift(
    table: pd.DataFrame, *, method: str | None = None, of: str = "share of the relevance", confidence: float = 0.95
) -> Figure:
    """Every region's relevance before and after, a panel a group; changes beyond noise are in colour.

    Parameters
    ----------
    table : `shift(before, after, masks, group).by_group`
    method : which of the table's; None: the only one
    of : what was measured, for the axis.  confidence : of the intervals

    Raises
    ------
    ValueError : a column is missing, several methods and none named.
    """
    rows = _of_method(_needing(table, "group", "region", "before", "after", "value", "low", "high", "verdict", "reason"), method)
    names, regions = list(dict.fromkeys(rows["group"])), list(dict.fromkeys(rows["region"]))
    size = (max(7.0, 1.6 + 2.7 * len(names)), 1.7 + 0.36 * len(regions))
    figure, axes = plt.subplots(1, len(names), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained")
    place = np.arange(len(regions))[::-1]
    for ax, name in zip(axes[0], names, strict=True):
        mine = rows[rows["group"] == name].set_index("region").reindex(regions)
        for at, row in zip(place, mine.itertuples(), strict=True):
            if not np.isfinite(row.value):
                continue
            colour = PALETTE[0] if row.verdict == DIFFERS else "0.55"
            # the interval of the change, laid where the change ends
            ax.plot([row.before + row.low, row.before + row.high], [at, at], color=colour, linewidth=6,
                    alpha=0.3, solid_capstyle="butt")  # fmt: skip
            ax.plot([row.before, row.after], [at, at], color=colour, linewidth=1.6)
            ax.plot(row.before, at, "o", color="white", markeredgecolor=colour, markersize=7)
            ax.plot(row.after, at, "x" if row.verdict == UNTRUSTED else "o", color=colour, markersize=5)
        doubted = (mine["verdict"] == UNTRUSTED).any()
        ax.set_title(_struck(name) if doubted else f"{_words(name)} (n = {mine['n'].max()})", fontsize="medium")
        ax.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(place, [_words(name) for name in regions])
    axes[0, 0].set_ylim(-0.6, len(regions) - 0.4)
    axes[0, 0].set_xlim(left=0)
    note = f"{of} (hollow: before, filled: after; band: {confidence:.0%} interval of the change; blue: beyond noise)"
    reasons = rows.loc[rows["verdict"] == UNTRUSTED, "reason"].unique()
    lines = [note, *(f"not trusted: {reason}" for reason in reasons)]
    figure.supxlabel("\n".join(textwrap.fill(line, int(12 * size[0])) for line in lines), fontsize="small")
    told = "; ".join(
        f"{row.group} {row.region} {row.before:.2f} to {row.after:.2f}, {row.verdict}"
        for row in rows.itertuples()
        if np.isfinite(row.value)
    )
    return alt(figure, f"{of[0].upper()}{of[1:]} by region before and after, by group: {told}.")


def concepts(table: pd.DataFrame, *, confidence: float = 0.95) -> Figure:
    """How much the decision depends on the groups' concept vectors, layer by layer, a panel a class.

    Parameters
    ----------
    table : `helpers.attribution.concepts(…).table`
    confidence : of the intervals

    Raises
    ------
    ValueError : a column is missing, or the table is empty.
    """
    table = _needing(table, "layer", "target", "group", "effect", "low", "high", "verdict", "separation")
    row = table["layer"].astype(str) + (": " + table["group"].astype(str) if table["group"].nunique() > 1 else "")
    classes, places = list(dict.fromkeys(table["target"])), list(dict.fromkeys(row))
    size = (max(7.0, 2.4 + 3.0 * len(classes)), 1.9 + 0.36 * len(places))
    figure, axes = plt.subplots(1, len(classes), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained")
    height = {name: len(places) - 1 - at for at, name in enumerate(places)}
    for ax, name in zip(axes[0], classes, strict=True):
        for sure, colour, marker, label in ((True, PALETTE[0], "o", "depends"), (False, "0.55", "d", "within noise")):
            mine = (table["target"] == name) & ((table["verdict"] == "depends") == sure)
            points(ax, table[mine].rename(columns={"effect": "value"}), row[mine].map(height), colour, marker, label)
        ax.axvline(0, color="0.3", linewidth=1)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(_words(name), fontsize="medium")
        ax.grid(axis="y", visible=False)
    known = table.groupby(row, sort=False)["separation"].first()
    axes[0, 0].set_yticks(list(height.values()), [f"{name}  ({known[name]:.2f})" for name in height])
    axes[0, 0].set_ylim(-0.6, len(places) - 0.4)
    handles = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=2, fontsize="small")
    whose = f" of {table['group'].iloc[0]}" if table["group"].nunique() == 1 else ""
    figure.supxlabel(
        f"change of the class's log-odds along the concept{whose} (bars: {confidence:.0%} interval;\n"
        "in brackets: how well the layer tells the group apart, 0.5: not at all)", fontsize="small",
    )  # fmt: skip
    told = "; ".join(
        f"{one.target}, {one.layer}, {one.group}: {one.effect:+.2f} ({one.low:+.2f} to {one.high:+.2f}), {one.verdict}"
        for one in table.itertuples()
    )
    return alt(figure, f"Change of a class's log-odds along the groups' concept vectors, by layer: {told}.")


def _outline(ax: Axes, mask: np.ndarray, colour: str, width: float = 1.6) -> None:
    if np.any(mask) and not np.all(mask):
        ax.contour(np.pad(np.asarray(mask, float), 0), levels=[0.5], colors=[colour], linewidths=width)


def _struck(name: str) -> str:
    """A name with every letter crossed out (U+0336)."""
    return "".join(f"{letter}\u0336" for letter in str(name).replace("_", " "))


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _needing(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    if missing := [name for name in columns if name not in getattr(table, "columns", ())]:
        raise ValueError(f"table: no column {', '.join(missing)}; expected one of attribution.regions, shift or quality")
    if table.empty:
        raise ValueError("table: no row, so there is nothing to draw (one group only has no differences)")
    return table.reset_index(drop=True)


def _of_method(table: pd.DataFrame, method: str | None) -> pd.DataFrame:
    """The rows of one method."""
    if "method" not in table:
        return table
    known = list(dict.fromkeys(table["method"]))
    if method is None and len(known) > 1:
        raise ValueError(f"method: none named; accepted: {', '.join(known)}")
    return table[table["method"] == (known[0] if method is None else choose(method, known, "method"))]
