"""Shares by group with intervals, several ways of counting or several samples side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .legend import below
from .style import PALETTE, alt


def by_group(results: Mapping[str, Any], what: str, *, title: str | None = None, ax: Axes | None = None) -> Axes:
    """The share of every group as a point with its interval, one colour a result.

    Parameters
    ----------
    results : name to `helpers.bias.Rates`, all of the same groups: one sample counted in several ways, or several samples
    what : what the share is of, for the axis: "faces found"
    title : None: "<what> by group"
    ax : Axes to draw on; None: a new figure

    Raises
    ------
    ValueError : no results, or results of different groups.
    """
    tables = {name: result.by_group for name, result in results.items()}
    if not tables:
        raise ValueError("results: empty; give a mapping of names to results of helpers.bias.rates")
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if list(table["group"]) != list(first["group"]):
            raise ValueError(f"results: {name!r} is of the groups {list(table['group'])}, others of {list(first['group'])}")
    if ax is None:
        ax = plt.subplots(figsize=(8.5, 1.6 + 0.5 * len(first)), layout="constrained")[1]
    rows = np.arange(len(first))[::-1]  # the first group on top
    offsets = np.linspace(0.16, -0.16, len(tables)) if len(tables) > 1 else [0.0]
    said, least, most = [], 1.0, 0.0
    for (name, table), offset, colour in zip(tables.items(), offsets, PALETTE, strict=False):
        defined = table["value"].notna().to_numpy()
        part, at = table[defined], rows[defined] + offset
        reach = np.stack([part["value"] - part["low"], part["high"] - part["value"]]).clip(min=0)
        ax.errorbar(part["value"], at, xerr=reach, fmt="o", color=colour, capsize=3, elinewidth=1.8, markersize=6, label=name)
        said += [f"{name}, {row.group}: {row.value:.1%} ({row.low:.1%} to {row.high:.1%})" for row in part.itertuples()]
        least, most = min(least, part["low"].min()), max(most, part["high"].max())
    for y, row in zip(rows, first.itertuples(), strict=True):
        if np.isnan(row.value):
            ax.annotate("nobody", (0.02, y), xycoords=("axes fraction", "data"), va="center", color="0.4")
    ax.set_yticks(rows, [_size(k, tables.values()) for k in range(len(first))], fontsize=10)
    ax.set_ylim(-0.6, len(first) - 0.4)
    ax.grid(visible=False, axis="y")
    ax.set_xlim(max(least - 0.05, -0.02), min(most + 0.05, 1.02))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    confidence = next(iter(results.values())).confidence
    ax.set_xlabel(f"{what} (share; bars: {confidence:.0%} interval)")
    title = title or f"{what[:1].upper()}{what[1:]} by group"
    ax.set_title(title)
    if len(tables) > 1:
        below(ax)
    return alt(ax, f"{title} with {confidence:.0%} intervals. {'; '.join(said)}.")


def _size(k: int, tables: Iterable[pd.DataFrame]) -> str:
    """The name of the k-th group and, where all results are of one sample, how many images and people it has."""
    rows = [table.iloc[k] for table in tables]
    if len({row["n"] for row in rows}) > 1:
        return rows[0]["group"]
    n, people = rows[0]["n"], min(row["people"] for row in rows)  # counting images makes a person of each
    return f"{rows[0]['group']}\n{n} images" + (f", {people} people" if people < n else "")
