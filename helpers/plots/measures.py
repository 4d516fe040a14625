"""Any measure by group: points with intervals, for tables with `group, value, low, high, n`."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from helpers.names import choose, number
from helpers.plots.style import PALETTE, alt


def by_group(
    table: pd.DataFrame,
    measure: str,
    *,
    xlabel: str | None = None,
    reference: float | None = None,
    reference_label: str = "",
    confidence: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """One measure by group with its interval and the number of images behind it.

    Parameters
    ----------
    table : `group, statistic` (or `measure`)`, value, low, high, n`; `other`, if there, is added to the group's name
    measure : which rows
    xlabel : name and unit of the measure; None: its name
    reference, reference_label : a value to mark by a line, and what it is
    confidence : level of the intervals, for the axis
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : an unknown measure, or one that no group has a value of.
    """
    key = "measure" if "measure" in table else "statistic"
    measure = choose(measure, dict.fromkeys(table[key]), "measure")
    rows = table[table[key] == measure].reset_index(drop=True)
    if not np.isfinite(rows["value"]).any():
        raise ValueError(f"measure: no group has a finite value of {measure}, so there is nothing to draw")
    if ax is None:
        longest = max(len(f"{_who(row)}  ({_size(row)})") for row in rows.itertuples())
        _, ax = plt.subplots(figsize=(max(8, 4 + 0.09 * longest), 1.6 + 0.4 * len(rows)), layout="constrained")
    name = measure.replace("_", " ")
    position = np.arange(len(rows))[::-1]  # the first group on top
    points(ax, rows, position, PALETTE[0], "o")
    ax.set_yticks(position, [f"{_who(row)}  ({_size(row)})" for row in rows.itertuples()])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_ylim(-0.6, len(rows) - 0.4)
    for y, value in zip(position, rows["value"], strict=True):
        if not np.isfinite(value):
            said = "infinite" if np.isinf(value) else "undefined"
            ax.annotate(said, (0.02, y), xycoords=("axes fraction", "data"), va="center", color="0.4", backgroundcolor="white")
    if reference is not None:
        ax.axvline(reference, color=PALETTE[7], linestyle="--", label=reference_label or None)
        if reference_label:
            ax.legend(loc="best", frameon=True)
    ax.set_xlabel(f"{xlabel or name}\n(bars: {confidence:.0%} interval; n: images)")
    ax.set_title(f"{name[0].upper()}{name[1:]} by group")
    described = "; ".join(
        f"{_who(row)} {number(row.value)} ({number(row.low)} to {number(row.high)})"
        for row in rows.itertuples()
        if np.isfinite(row.value)
    )
    return alt(ax, f"{name[0].upper()}{name[1:]} by group with {confidence:.0%} intervals: {described}.")


def points(
    ax: Axes, rows: pd.DataFrame, position: Sequence[float], colour: str, marker: str, label: str | None = None
) -> None:
    """Horizontal points with intervals at the given heights; rows without a finite value are left out."""
    there = np.isfinite(rows["value"].to_numpy())
    if not there.any():
        return
    rows, position = rows[there], np.asarray(position)[there]
    value = rows["value"].to_numpy()
    reach = np.stack([value - rows["low"], rows["high"] - value])
    # No interval (two images): the point stands alone. An infinite limit is drawn to the edge by neither.
    reach = np.where(np.isfinite(reach), reach, 0).clip(min=0)
    ax.errorbar(
        value, position, xerr=reach, fmt=marker, color=colour, capsize=3, elinewidth=1.8, markersize=6, label=label
    )


def _who(row) -> str:
    return f"{row.group} – {row.other}" if hasattr(row, "other") else str(row.group)


def _size(row) -> str:
    return f"n = {row.n} and {row.n_other}" if hasattr(row, "n_other") else f"n = {row.n}"
