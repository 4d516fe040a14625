"""Figures of what debiasing gained and what it cost."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.debiasing.select import pareto_front
from helpers.plots.style import PALETTE, alt

X, Y = "balanced_accuracy", "equalized_odds"
TITLES = {X: "Balanced accuracy (0.5 = guessing)", Y: "Equalized-odds gap (0 = equal rates)"}
VANILLA = "Vanilla"


def usable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with both numbers.

    Raises
    ------
    ValueError : a column is missing, or no row has numbers.
    """
    missing = {"method", "degenerate", *(f"{name}{end}" for name in (X, Y) for end in ("", "_low", "_high"))} - set(
        frame
    )
    if missing:
        raise ValueError(f"frame: lacks {', '.join(sorted(missing))}; give what helpers.debiasing.to_frame returns")
    rows = frame.dropna(subset=[X, Y]).reset_index(drop=True)
    if rows.empty:
        raise ValueError("frame: no method has numbers to draw")
    return rows


def colour(row) -> str:
    """Grey for a model that predicts one class, orange for the model as it was, blue for the others."""
    return "0.55" if row.degenerate else PALETTE[1] if row.method == VANILLA else PALETTE[0]


def whiskers(row, name: str) -> np.ndarray:
    """Lengths (2, 1) of an interval's arms below and above the value; none where the interval is undefined."""
    value = getattr(row, name)
    ends = np.array([[value - getattr(row, f"{name}_low")], [getattr(row, f"{name}_high") - value]])
    return np.nan_to_num(ends).clip(0)


def pareto(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Balanced accuracy against the equalized-odds gap, a point a method with its intervals, the front joined.

    Better is right and down. Models that predict one class are crosses and never on the front.

    Parameters
    ----------
    frame : DataFrame from `helpers.debiasing.to_frame`; methods without numbers are left out
    ax : Axes to draw into, by default those of a new figure

    Returns
    -------
    Axes
    """
    rows = usable(frame)
    ax = ax or plt.subplots(figsize=(7.5, 5), layout="constrained")[1]
    front = pareto_front(rows[[X, Y]].to_numpy(), (X, Y)) & ~rows["degenerate"].to_numpy(bool)
    joined = rows[front].sort_values(X)
    ax.plot(
        joined[X], joined[Y], color=PALETTE[2], linewidth=1.5, linestyle="--", zorder=1, label="Pareto front",
        marker="o", markersize=14, markerfacecolor="none",  # rings, so that a front of one point is seen too
    )  # fmt: skip
    for row in rows.itertuples():
        ax.errorbar(
            getattr(row, X), getattr(row, Y), xerr=whiskers(row, X), yerr=whiskers(row, Y), color=colour(row),
            marker="X" if row.degenerate else "s" if row.method == VANILLA else "o", markersize=7,
            elinewidth=0.9, alpha=0.95, zorder=2,
        )  # fmt: skip
    ax.margins(0.08)
    label_points(ax, rows)
    ax.set(xlabel=TITLES[X], ylabel=TITLES[Y], title="What each method gains and what it costs")
    ax.legend(loc="best", frameon=True)
    told = "; ".join(f"{r.method} {getattr(r, X):.2f} and {getattr(r, Y):.2f}" for r in rows.itertuples())
    return alt(
        ax,
        f"Balanced accuracy and equalized-odds gap of each model: {told}. On the front: {', '.join(joined['method'])}.",
    )


def label_points(ax: Axes, rows: pd.DataFrame) -> None:
    """Write each method's name beside its point, stepping down where a name would cover one written before."""
    ax.figure.canvas.draw()  # sizes of text are known only after a first drawing
    written = []
    for row in rows.sort_values(Y, ascending=False).itertuples():
        text = row.method + (" (one class)" if row.degenerate else "")
        note = ax.annotate(
            text, (getattr(row, X), getattr(row, Y)), (7, 6), textcoords="offset points", fontsize=9, zorder=3
        )
        for offset in ((7, 6), (7, -14), (-7, 6), (-7, -14), (7, 18), (7, -26), (-7, 18), (-7, -26)):
            note.set_position(offset)
            note.set_horizontalalignment("left" if offset[0] > 0 else "right")
            box = note.get_window_extent()
            if not any(box.overlaps(other) for other in written):
                break
        written.append(note.get_window_extent().padded(4))


def before_after(frame: pd.DataFrame) -> Figure:
    """Both numbers of each method as a row of points with intervals, beside a line at the value before.

    Parameters
    ----------
    frame : DataFrame from `helpers.debiasing.to_frame`; methods without numbers are left out

    Returns
    -------
    Figure with two panels that share their rows, in the order of the frame
    """
    rows = usable(frame)
    figure, axes = plt.subplots(1, 2, figsize=(9, 1.2 + 0.45 * len(rows)), sharey=True, layout="constrained")
    vanilla = rows[rows["method"] == VANILLA]
    for ax, name, better in zip(axes, (X, Y), ("→ better", "← better"), strict=True):
        for i, row in enumerate(rows.itertuples()):
            ax.errorbar(
                getattr(row, name), i, xerr=whiskers(row, name), color=colour(row),
                marker="X" if row.degenerate else "s" if row.method == VANILLA else "o", markersize=7, capsize=3,
            )  # fmt: skip
        if len(vanilla):
            ax.axvline(vanilla[name].iloc[0], color=PALETTE[1], linestyle=":", linewidth=1.5, zorder=0)
        ax.set(xlabel=f"{TITLES[name]}, {better}")
    names = [m + (" (one class)" if d else "") for m, d in zip(rows["method"], rows["degenerate"], strict=True)]
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle("Before (dotted) and after", x=0.01, ha="left", fontsize=12)
    told = "; ".join(f"{r.method} {getattr(r, X):.2f} and {getattr(r, Y):.2f}" for r in rows.itertuples())
    return alt(figure, f"Balanced accuracy and equalized-odds gap with intervals, by method: {told}.")


def repeated(frame: pd.DataFrame) -> Figure:
    """Every method on several problems, a point a run, beside another library's runs of the same name on the same network.

    Parameters
    ----------
    frame : DataFrame with `problem` ("<kind>-<seed>"), `method`, `balanced_accuracy`, `equalized_odds`, and for the other
        library `detoxai_balanced_accuracy`, `detoxai_equalized_odds` (NaN where it has no such method), as
        `benchmarks/debiasing.py` writes it

    Returns
    -------
    Figure with a row of panels for each kind of problem: both numbers, methods in the order of their mean distance to the ideal

    Raises
    ------
    ValueError : a column is missing, or there is no row.
    """
    missing = {"problem", "method", X, Y, f"detoxai_{X}", f"detoxai_{Y}"} - set(frame)
    if missing or frame.empty:
        raise ValueError(f"frame: lacks {', '.join(sorted(missing)) or 'rows'}; give benchmarks/results/debiasing.csv")
    frame = frame.assign(kind=frame["problem"].str.rpartition("-")[0], far=np.hypot(1 - frame[X], frame[Y]))
    methods = list(frame.groupby("method")["far"].mean().sort_values().index)
    kinds = list(dict.fromkeys(frame["kind"]))
    size = (9, len(kinds) * (1.1 + 0.3 * len(methods)))
    figure, axes = plt.subplots(len(kinds), 2, figsize=size, sharex="col", sharey=True, squeeze=False, layout="constrained")
    for kind, panels in zip(kinds, axes, strict=True):
        rows = frame[frame["kind"] == kind]
        place = rows["method"].map(methods.index)
        for ax, name in zip(panels, (X, Y), strict=True):
            ax.plot(rows[f"detoxai_{name}"], place + 0.18, "s", color=PALETTE[1], markersize=5, alpha=0.9, label="DetoxAI")
            ax.plot(rows[name], place - 0.12, "o", color=PALETTE[0], markersize=6, alpha=0.9, label="Candor")
            ax.set_xlabel(TITLES[name])
            ax.grid(axis="y", alpha=0.3)
        panels[0].set_yticks(range(len(methods)), methods)
        panels[0].set_ylim(len(methods) - 0.5, -0.5)
        panels[0].set_title(kind, loc="left")
    axes[0, 1].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    means = frame.groupby(["kind", "method"])[[X, Y]].mean()
    told = "; ".join(f"{kind}, {method}: {row[X]:.2f} and {row[Y]:.2f}" for (kind, method), row in means.iterrows())
    return alt(figure, f"Balanced accuracy and equalized-odds gap of every run; means of Candor's: {told}.")
