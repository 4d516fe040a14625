"""Figures of an examination: did mitigation work, whom did it help, and does the model still look at the attribute?

All take tables of `helpers.examine`, and show the model as it was beside every method.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.names import choose
from helpers.plots.bias import DOWN, NOISE, UP
from helpers.plots.legend import below
from helpers.plots.measures import points
from helpers.plots.style import PALETTE, alt

VANILLA, ALL = "Vanilla", "all"
LOOKS = {UP: (PALETTE[2], "^"), DOWN: (PALETTE[3], "v"), NOISE: (PALETTE[7], "o")}
SCORES = {
    "RRF": "share of all relevance in the region",
    "HRF": "share of the region's pixels with high relevance",
    "MRR": "mean relevance in the region / outside (1: equal)",
    "DET": "share of images with more relevance inside than outside",
    "ADR": "mean relevance in the region, before minus after (below 0: more)",
    "DIF": "share of the region's pixels that lost relevance",
    "RDDT": "share of images whose region lost relevance",
}
NEUTRAL = {"MRR": 1.0, "ADR": 0.0}


def flips(table: pd.DataFrame, *, group: str = ALL, confidence: float = 0.95, ax: Axes | None = None) -> Axes:
    """Share of faces whose decision flips when only the attribute is redrawn, by method, beside the model as it was.

    Parameters
    ----------
    table : `Examination.flips`
    group : which faces; "all": those of all groups
    confidence : of the intervals, for the axis
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : an empty table (the data could not be redrawn), or an unknown group.
    """
    _filled(table, "flips")
    rows = table[table["group"] == choose(group, dict.fromkeys(table["group"]), "group")]
    ax = _methods(rows, "flip_rate", ax)
    vanilla = rows[rows["method"] == VANILLA]
    if len(vanilla):
        ax.axvline(vanilla["flip_rate"].iloc[0], color=PALETTE[1], linestyle=":", label="as it was")
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]) - 0.005)
    whose, n = "" if group == ALL else f" of {group}", rows["n"].iloc[0]
    ax.set_xlabel(f"faces{whose} whose decision flips (share, 0: never; bars: {confidence:.0%} interval, n = {n})")
    ax.set_title("Flips when only the attribute changes")
    if len(vanilla):
        below(ax)
    return alt(ax, f"Share of faces{whose} whose decision flips when only the attribute is redrawn: {_told(rows, 'flip_rate')}.")


def probe(table: pd.DataFrame, *, confidence: float = 0.95, ax: Axes | None = None) -> Axes:
    """How well a linear probe reads the group from what the classifier is given, by method, with chance as a line.

    Parameters
    ----------
    table : `Examination.probe`
    confidence, ax : as in `flips`

    Raises
    ------
    ValueError : an empty table.
    """
    _filled(table, "probe")
    places = list(dict.fromkeys(table["layer"]))
    names = list(table["method"]) if len(places) == 1 else [f"{row.method}  ({row.layer})" for row in table.itertuples()]
    ax = _methods(table, "accuracy", ax, names)
    place = np.arange(len(table))[::-1]
    others = (table["method"] != VANILLA).to_numpy()
    if others.any():
        ax.scatter(table["before"][others], place[others], s=60, facecolors="none", edgecolors=PALETTE[1], zorder=3,
                   label="same layer, as it was")  # fmt: skip
    chance = float(table["chance"].iloc[0])
    ax.axvline(chance, color=PALETTE[7], linestyle="--", label=f"chance: {chance:.2f}")
    ax.set_xlim(min(chance, ax.get_xlim()[0]) - 0.02, 1.02)
    ax.set_xlabel(
        f"group recognised from the features (mean share over groups;\nbars: {confidence:.0%} interval, "
        f"n = {table['n'].iloc[0]} images the probe was not fitted on)"
    )
    ax.set_title("What the features still tell about the group" + (f"  ({places[0]})" if len(places) == 1 else ""))
    below(ax)
    return alt(ax, f"Share of images whose group a linear probe recognises, chance {chance:.2f}: {_told(table, 'accuracy')}.")


def groups(table: pd.DataFrame, statistic: str = "balanced_accuracy", *, confidence: float = 0.95) -> Figure:
    """Whom each method levels up and down: every group's change of one statistic, a panel a group.

    Parameters
    ----------
    table : `Examination.groups`
    statistic : its name
    confidence : as in `flips`

    Raises
    ------
    ValueError : an empty table, or an unknown statistic.
    """
    _filled(table, "groups")
    statistic = choose(statistic, dict.fromkeys(table["statistic"]), "statistic")
    rows = table[table["statistic"] == statistic]
    if "class" in rows:
        rows = rows[rows["class"].isin(["all", "macro"])]
    figure, panels = _panels(list(dict.fromkeys(rows["group"])), list(dict.fromkeys(rows["method"])))
    for ax, (group, mine) in zip(panels, rows.groupby("group", sort=False), strict=True):
        place = np.arange(len(mine))[::-1]
        for verdict, (colour, marker) in LOOKS.items():
            some = (mine["verdict"] == verdict).to_numpy()
            if some.any():
                points(ax, mine[some].assign(value=mine["change"]), place[some], colour, marker)
        ax.axvline(0, color="0.3", linewidth=1)
        ax.set_title(f"{group}  (as it was: {mine['first'].iloc[0]:.2f})", fontsize="medium")
    for verdict, (colour, marker) in LOOKS.items():
        panels[0].errorbar([], [], [], fmt=marker, color=colour, label=verdict)
    _legend(figure, panels)
    name = statistic.replace("_", " ")
    figure.supxlabel(f"change of {name} from {VANILLA} (share; bars: {confidence:.0%} interval, paired)", fontsize="medium")
    figure.suptitle(f"Change of {name}", x=0.01, ha="left", fontsize="large")
    told = "; ".join(
        f"{row.method}, {row.group}: {row.change:+.2f} ({row.low:+.2f} to {row.high:+.2f}), {row.verdict or 'undefined'}"
        for row in rows.itertuples()
    )
    return alt(figure, f"Change of {name} by method and group: {told}.")


def regions(table: pd.DataFrame, score: str = "RRF", *, region: str | None = None, confidence: float = 0.95) -> Figure:
    """One region score of every method by group, beside that of the model as it was on the same images.

    Parameters
    ----------
    table : `Examination.regions`
    score : RRF, HRF, MRR, DET, ADR, DIF or RDDT
    region : which; None: the first
    confidence : as in `flips`

    Raises
    ------
    ValueError : an empty table (no masks were known), an unknown score or region.
    """
    _filled(table, "regions")
    score = choose(score, dict.fromkeys(table["score"]), "score")
    known = list(dict.fromkeys(table["region"]))
    region = known[0] if region is None else choose(region, known, "region")
    rows = table[(table["score"] == score) & (table["region"] == region)]
    figure, panels = _panels(list(dict.fromkeys(rows["group"])), list(dict.fromkeys(rows["method"])))
    for ax, (group, mine) in zip(panels, rows.groupby("group", sort=False), strict=True):
        for at, row in zip(np.arange(len(mine))[::-1], mine.itertuples(), strict=True):
            points(ax, mine.loc[[row.Index]], [at], PALETTE[1] if row.method == VANILLA else PALETTE[0],
                   "s" if row.method == VANILLA else "o")  # fmt: skip
        before = mine.loc[mine["method"] == VANILLA, "value"]
        if len(before) and np.isfinite(before.iloc[0]):
            ax.axvline(before.iloc[0], color=PALETTE[1], linestyle=":", label="as it was")
        if score in NEUTRAL:
            ax.axvline(NEUTRAL[score], color="0.3", linewidth=1)
        ax.set_title(f"{group}  (n = {mine['n'].max()})", fontsize="medium")
    _legend(figure, panels)
    figure.supxlabel(f"{score}: {SCORES[score]} (bars: {confidence:.0%} interval over images)", fontsize="medium")
    figure.suptitle(f"Relevance on the pixels of {region.replace('_', ' ')}", x=0.01, ha="left", fontsize="large")
    told = "; ".join(f"{row.group}, {row.method}: {row.value:.3f} ({row.low:.3f} to {row.high:.3f})" for row in rows.itertuples())
    return alt(figure, f"{score} on the pixels of {region}, {SCORES[score]}, by group and method: {told}.")


def _methods(rows: pd.DataFrame, value: str, ax: Axes | None, names: list[str] | None = None) -> Axes:
    """One point a method with its interval, the first on top."""
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 1.8 + 0.4 * len(rows)), layout="constrained")
    place = np.arange(len(rows))[::-1]
    as_it_was = (rows["method"] == VANILLA).to_numpy()
    for some, colour, marker in ((as_it_was, PALETTE[1], "s"), (~as_it_was, PALETTE[0], "o")):
        points(ax, rows[some].assign(value=rows[value]), place[some], colour, marker)
    ax.set_yticks(place, list(rows["method"]) if names is None else names)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    return ax


def _panels(groups: list[str], methods: list[str]) -> tuple[Figure, list[Axes]]:
    """A panel a group, with the methods as its rows, the first on top."""
    size = (max(9.0, 2.2 + 2.7 * len(groups)), 1.9 + 0.4 * len(methods))
    figure, axes = plt.subplots(1, len(groups), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained")
    axes[0, 0].set_yticks(np.arange(len(methods))[::-1], methods)
    axes[0, 0].set_ylim(-0.6, len(methods) - 0.4)
    return figure, list(axes[0])


def _legend(figure: Figure, panels: list[Axes]) -> None:
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=True, fontsize="small")


def _filled(table: pd.DataFrame, name: str) -> None:
    if table.empty:
        raise ValueError(f"table: {name} is empty, so there is nothing to draw; `Examination.notes` says why")


def _told(rows: pd.DataFrame, value: str) -> str:
    return "; ".join(
        f"{row['method']} {row[value]:.2f} ({row['low']:.2f} to {row['high']:.2f})" for _, row in rows.iterrows()
    )
