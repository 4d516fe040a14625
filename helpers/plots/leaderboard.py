"""The figure of a leaderboard: how often each method finds the known cause, with chance and an edge detector as marks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from helpers.plots.legend import below
from helpers.plots.style import PALETTE, alt

LOOKS = ("o", "s", "D", "^", "v")
LINES = (("random", "random maps", (0, (1, 1.5))), ("edges", "edges of the picture", (0, (5, 2))), ("centre", "centre", "-."))


def found(table: pd.DataFrame, *, ax: Axes | None = None, confidence: float = 0.95) -> Axes:
    """`found` of each method over the problems with its interval, and of each problem as a small mark; the best on top.

    Parameters
    ----------
    table : as `helpers.leaderboard.Leaderboard.table`
    ax : where to draw; None: a new figure
    confidence : of the intervals, for the axis

    Raises
    ------
    ValueError : no method in the table.
    """
    real = table[table["kind"] == "method"]
    if real.empty:
        raise ValueError("table: no row of kind 'method'")
    problems = [name.removeprefix("found_") for name in table if name.startswith("found_")][2:]
    if ax is None:
        _, ax = plt.subplots(figsize=(8.5, 1.6 + 0.27 * len(real)), layout="constrained")
    place = np.arange(len(real))[::-1].astype(float)
    ax.errorbar(
        real["found"], place, xerr=[real["found"] - real["found_low"], real["found_high"] - real["found"]],
        fmt="none", ecolor="0.25", elinewidth=1.6, capsize=2.5, zorder=3,
    )  # fmt: skip
    ax.scatter(real["found"], place, s=40, color="0.1", zorder=4, label="mean of the problems")
    for at, problem in enumerate(problems):
        ax.scatter(
            real[f"found_{problem}"], place, s=22, marker=LOOKS[at % len(LOOKS)], facecolor="none", linewidth=1.2,
            edgecolor=PALETTE[at], zorder=2, label=problem,
        )  # fmt: skip
    for name, label, dashes in LINES:
        row = table[(table["kind"] == "reference") & (table["method"] == name)]
        if len(row):
            ax.axvline(row["found"].item(), color=PALETTE[3], linestyle=dashes, linewidth=1.4, zorder=1, label=label)
    ax.set_yticks(place, real["method"], fontsize=9)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(real) - 0.3))
    ax.set_xlabel(f"pictures in which the map finds the known cause (share; bars: {confidence:.0%} interval)")
    ax.set_title("Which attribution methods find the cause?")
    ax.grid(axis="y", alpha=0.4)
    below(ax, ncols=4)
    first, last = real.iloc[0], real.iloc[-1]
    marks = [f"{label} {table.loc[table['method'] == name, 'found'].item():.0%}"
             for name, label, _ in LINES if (table["method"] == name).any()]  # fmt: skip
    return alt(
        ax,
        f"{len(real)} attribution methods by the share of pictures in which they find the known cause, from {first['method']} "
        f"({first['found']:.0%}) to {last['method']} ({last['found']:.0%})" + ("; " + ", ".join(marks) if marks else "") + ".",
    )
