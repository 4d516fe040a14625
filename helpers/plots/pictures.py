"""What looking at the pictures shows: the figure of a data card, and gaps at equal brightness, sharpness and so on."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.names import choose, number
from helpers.plots.legend import below
from helpers.plots.measures import points
from helpers.plots.style import PALETTE, SEQUENTIAL, alt

MOST_FACES = 8  # mean faces in a row; more would be too small to see anything
AXES = {
    "brightness": "brightness (mean luma, 0 black to 1 white)",
    "contrast": "contrast (standard deviation of luma)",
    "sharpness": "sharpness (variance of the Laplacian)",
    "asymmetry": "left-right asymmetry (0 none to 1 most)",
    "clipped": "share of pixels black or white",
    "width": "width of the files, px",
    "height": "height of the files, px",
    "yaw": "yaw, degrees",
    "roll": "roll, degrees",
}
LOOKS = {"smaller": (PALETTE[2], "v"), "larger": (PALETTE[3], "^"), "within noise": (PALETTE[7], "o")}


def card(found: Any) -> Figure:
    """Mean faces and counts, brightness and sharpness by group with intervals, sizes of the files.

    Parameters
    ----------
    found : `helpers.data.DataCard` of pictures

    Raises
    ------
    ValueError : the card is that of a table alone.
    """
    if found.pictures is None:
        raise ValueError("found: the card of a table alone has no pictures to draw")
    groups = list(found.mean_faces)
    shown = groups[:MOST_FACES]
    rows = max(len(found.counts), 2)
    figure = plt.figure(figsize=(11, 2.6 + 0.55 * rows + 1.5 + 0.35 * len(groups) + 0.6), layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[2.3, 1.1 + 0.45 * rows, 1.4 + 0.35 * len(groups)])
    for axis, name in zip(np.atleast_1d(top.subplots(1, max(len(shown), 4))), [*shown, *[None] * 4], strict=False):
        axis.axis("off")
        if name is not None:
            axis.imshow(found.mean_faces[name])
            axis.set_title(_short(name), fontsize=9, loc="center")
    more = f" (the first {MOST_FACES} of {len(groups)} groups)" if len(groups) > MOST_FACES else ""
    top.suptitle(f"{found.name} ({found.split}): mean faces by {found.protected}{more}", fontsize=12, x=0.01, ha="left")
    left, right = middle.subplots(1, 2, width_ratios=[1.3, 1])
    sns.heatmap(found.counts, annot=True, fmt=",d", cmap=SEQUENTIAL, vmin=0, linewidths=1, ax=left, cbar=False)
    left.set(xlabel=found.target, ylabel=found.protected, title="Pictures by group and class")
    left.set_xticks(left.get_xticks(), [_short(name) for name in found.counts.columns], rotation=0)
    left.set_yticks(left.get_yticks(), [_short(name) for name in found.counts.index], rotation=0)
    _sizes(found, right)
    for k, (axis, measure) in enumerate(zip(bottom.subplots(1, 2, sharey=True), ("brightness", "sharpness"), strict=True)):
        by_group(found.pictures, measure, axis, found.confidence)
        axis.tick_params(labelleft=not k)
    of_people = "" if found.people is None else f" of {found.people:,} people"
    rated = found.pictures[found.pictures["measure"] == "brightness"]
    said = "; ".join(f"{row.group} {row.value:.2f}" for row in rated.head(MOST_FACES).itertuples())
    return alt(
        figure,
        f"Data card of {found.name} ({found.split}), {found.n:,} pictures{of_people}: mean faces by {found.protected}, pictures "
        f"by group and class, sizes of the files, brightness and sharpness by group. Mean brightness: {said}.",
    )


def by_group(table: pd.DataFrame, measure: str, ax: Axes | None = None, confidence: float = 0.95) -> Axes:
    """Mean of one measure of the pictures in every group, with its interval.

    Parameters
    ----------
    table : of `helpers.data.pictures.by_group`: `measure, group, value, low, high, n, people`
    measure : its name
    ax : where to draw; None: a new figure
    confidence : of the intervals, for the axis
    """
    rows = table[table["measure"] == choose(measure, dict.fromkeys(table["measure"]), "measure")].reset_index(drop=True)
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 1.5 + 0.4 * len(rows)), layout="constrained")
    position = np.arange(len(rows))[::-1]
    points(ax, rows, position, PALETTE[0], "o")
    ax.set_yticks(position, [f"{_short(row.group)} ({row.people:,})" for row in rows.itertuples()])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(f"{AXES.get(measure, measure)}\n(bars: {confidence:.0%} interval; numbers: people)")
    ax.set_title(f"{measure.capitalize()} by group")
    said = "; ".join(f"{row.group} {number(row.value)} ({number(row.low)} to {number(row.high)})" for row in rows.itertuples())
    return alt(ax, f"Mean {measure} of the pictures by group with {confidence:.0%} intervals: {said}.")


def explained(gaps: pd.DataFrame, statistic: str | None = None, *, confidence: float = 0.95, ax: Axes | None = None) -> Axes:
    """One gap as it is, and between pictures that are alike in each measure.

    Parameters
    ----------
    gaps : `helpers.bias.Explanations.gaps`
    statistic : its name; None: the first
    confidence : of the intervals, for the axis
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : an unknown statistic, or no measure to compare at.
    """
    if gaps.empty:
        raise ValueError("gaps: no measure has values in both groups, so there is nothing to draw")
    names = list(dict.fromkeys(gaps["statistic"]))
    statistic = names[0] if statistic is None else choose(statistic, names, "statistic")
    rows = gaps[gaps["statistic"] == statistic].reset_index(drop=True)
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 2 + 0.4 * len(rows)), layout="constrained")
    position, first = np.arange(len(rows))[::-1], rows.iloc[0]
    ax.axvspan(first["gap_low"], first["gap_high"], color=PALETTE[0], alpha=0.15, linewidth=0)
    ax.axvline(first["gap"], color=PALETTE[0], linestyle="--", label=f"as it is: {first['gap']:.2f}")
    ax.axvline(0, color="0.3", linewidth=1)
    for verdict, (colour, marker) in LOOKS.items():
        mine = (rows["verdict"] == verdict).to_numpy()
        some = rows[mine].rename(columns={"equal": "value", "equal_low": "low", "equal_high": "high"})
        points(ax, some, position[mine], colour, marker, verdict)
    named = rows["measure"].replace({"clipped": "clipping"})
    ax.set_yticks(position, [f"equal {name} ({share:.0%})" for name, share in zip(named, rows["covered"], strict=True)])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    name = statistic.replace("_", " ")
    ax.set_xlabel(
        f"{name}, {first['highest']} minus {first['lowest']}\n"
        f"(bars and band: {confidence:.0%} interval; %: pictures that could be compared)"
    )
    ax.set_title(f"Gap in {name} at equal …")
    below(ax, ncols=4)
    said = "; ".join(
        f"{row.measure} {row.equal:.2f} ({row.equal_low:.2f} to {row.equal_high:.2f}), {row.verdict}" for row in rows.itertuples()
    )
    return alt(
        ax,
        f"The gap in {name} between {first['highest']} and {first['lowest']} is {first['gap']:.2f} "
        f"({first['gap_low']:.2f} to {first['gap_high']:.2f}). At equal {said}.",
    )


def _sizes(found: Any, ax: Axes) -> None:
    ax.set_title("Sizes of the files")
    if found.sizes.empty:
        ax.axis("off")
        height, width = found.stored
        ax.text(0, 0.5, f"unknown; read as {width}×{height} px", transform=ax.transAxes)
        return
    table = found.sizes
    area = 20 + 280 * table["n"] / table["n"].max()
    ax.scatter(table["width"], table["height"], s=area, color=PALETTE[0], alpha=0.6, linewidth=0)
    ax.set(xlabel="width, px (area: how many)", ylabel="height, px")
    ax.set(xlim=(0, 1.2 * table["width"].max()), ylim=(0, 1.2 * table["height"].max()))


def _short(name: str) -> str:
    return textwrap.fill(str(name), 18, max_lines=2, placeholder=" …")
