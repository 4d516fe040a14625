"""Figures of many experiments: mean ranks with their critical difference, and what methods gain and cost over seeds."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.debiasing.result import VANILLA
from helpers.plots.style import PALETTE, alt

X, Y = "balanced_accuracy", "equalized_odds"
MARKERS = "oD^vPX*<>hdp8"  # the square is the network as it was


def ranks(ranking, ax: Axes | None = None) -> Axes:
    """The mean rank of each method, the best on top; bars that do not overlap are methods that the test tells apart.

    Parameters
    ----------
    ranking : from `helpers.experiment_summary.ranks`
    ax : where to draw; None: a new figure
    """
    rows = ranking.table
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 1.4 + 0.32 * len(rows)), layout="constrained")
    place = np.arange(len(rows))[::-1]
    reach = np.nan_to_num(np.stack([rows["rank"] - rows["low"], rows["high"] - rows["rank"]]))
    ax.errorbar(rows["rank"], place, xerr=reach, fmt="o", color=PALETTE[0], elinewidth=2, capsize=3)
    ax.margins(y=0.1)
    ax.set_yticks(place, rows["method"])
    ax.set_xlabel("mean rank, 1 the best (bars: half the critical difference to each side)")
    by = "distance to accuracy 1 and gap 0" if ranking.by == "distance" else ranking.by.replace("_", " ")
    ax.set_title(f"Ranks by {by} over {ranking.problems} problems")
    ax.grid(axis="y", visible=False)
    said = "; ".join(f"{row.method} {row.rank:.2f}" for row in rows.itertuples())
    end = "no critical difference" if ranking.critical_difference != ranking.critical_difference else (
        f"ranks that differ by less than {ranking.critical_difference:.2f} are not told apart"
    )  # fmt: skip
    return alt(ax, f"Mean ranks by {by}: {said}; {end}.")


def trade_off(summary: pd.DataFrame) -> Figure:
    """Balanced accuracy against the equalized-odds gap, means over seeds with intervals, a panel a data set and bias.

    Parameters
    ----------
    summary : from `helpers.experiment_summary.over_seeds`
    """
    blocks = list(summary.groupby(["data", "bias"], sort=False))
    columns = min(3, len(blocks))
    lines = -(-len(blocks) // columns)
    size = (4.3 * columns + 1.6, 3.7 * lines)
    figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, sharex=True, sharey=True, layout="constrained")
    names = list(dict.fromkeys(summary["method"]))
    style = {name: (PALETTE[k % len(PALETTE)], MARKERS[k % len(MARKERS)]) for k, name in enumerate(names)}
    style[VANILLA] = ("0.2", "s")
    said = []
    for ax, ((data, bias), block) in zip(grid.flat, blocks, strict=False):
        for row in block.dropna(subset=[X, Y]).to_dict("records"):
            colour, marker = style[row["method"]]
            reach = [np.nan_to_num([[row[m] - row[f"{m}_low"]], [row[f"{m}_high"] - row[m]]]).clip(min=0) for m in (X, Y)]
            ax.errorbar(
                row[X], row[Y], xerr=reach[0], yerr=reach[1], color=colour, marker=marker, markersize=7, elinewidth=0.9,
                linestyle="none", label=row["method"],
            )  # fmt: skip
            said.append(f"{data}, {bias}, {row['method']} {row[X]:.2f} and {row[Y]:.2f}")
        ax.set_title(f"{data}, {bias}", fontsize=11)
    for ax in list(grid.flat)[len(blocks) :]:
        ax.set_visible(False)
    for ax in grid[-1]:
        ax.set_xlabel("balanced accuracy (0.5 = guessing)")
    for ax in grid[:, 0]:
        ax.set_ylabel("equalized-odds gap (0 = equal)")
    handles = {label: handle for ax in grid.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=9, frameon=False)
    what = "Means over seeds of balanced accuracy and equalized-odds gap, right and down is better"
    return alt(figure, f"{what}: {'; '.join(said)}.")
