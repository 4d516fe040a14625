"""Figures of training with fairness losses: what they cost, what they do to predictions, what noise makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.names import choose
from helpers.plots.style import PALETTE, alt

X = "balanced_accuracy"
TITLES = {
    X: "balanced accuracy (0.5 = guessing)",
    "equalized_odds": "equalized-odds gap (0 = equal rates)",
    "demographic_parity": "demographic-parity gap (0 = equal rates)",
}
PLAIN = "plain"
NEAR = np.array([0.14, 0.07])  # of the axes' lengths: how wide and how high a label of a strength is


def frontier(table: pd.DataFrame, gap: str = "equalized_odds", losses: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Balanced accuracy against a gap: one panel a loss, its strengths joined from weak to strong, all others in grey.

    Better is right and down. Intervals are those of the test images; they do not hold what another training run would give.

    Parameters
    ----------
    table : `Frontier.table` of `helpers.frontier.sweep`, or rows with its columns: `loss, strength, balanced_accuracy, <gap>`
        and the ends of their intervals, `_low` and `_high`. A loss called "plain" is drawn in every panel
    gap : "equalized_odds" or "demographic_parity"
    losses : which, in this order; all by default
    columns : panels a row

    Raises
    ------
    ValueError : a column or a loss is missing (it is named).
    """
    for column in ("loss", "strength", *(f"{name}{end}" for name in (X, gap) for end in ("", "_low", "_high"))):
        choose(column, table.columns, "table column")
    there = [name for name in table["loss"].unique() if name != PLAIN]
    losses = there if losses is None else [choose(name, there, "losses") for name in losses]
    rows = -(-len(losses) // columns)
    columns = min(columns, len(losses))
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.9 * columns, 2.7 * rows + 0.5), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    everything = table[[X, gap]]
    reach = (everything.max() - everything.min()).clip(lower=1e-9).to_numpy()
    plain = table[table["loss"] == PLAIN]
    told = []
    for ax, name in zip(axes.flat, losses, strict=False):
        own = table[table["loss"] == name].sort_values("strength")
        ax.scatter(table[X], table[gap], s=9, color="0.8", zorder=1)
        _points(ax, plain, gap, PALETTE[1], "s")
        _points(ax, own, gap, PALETTE[0], "o")
        ax.plot(own[X], own[gap], color=PALETTE[0], linewidth=1, zorder=2)
        for strengths, at in _apart(own["strength"], own[[X, gap]].to_numpy(), reach):
            ax.annotate(", ".join(f"{each:g}" for each in strengths), at, (4, 4), textcoords="offset points", fontsize=8)
        ax.set_title(name, fontsize=10)
        first, last = own.iloc[0], own.iloc[-1]
        told.append(f"{name} from {first[X]:.2f} and {first[gap]:.2f} to {last[X]:.2f} and {last[gap]:.2f}")
    for k, ax in enumerate(axes.flat):
        ax.set_visible(k < len(losses))
        ax.tick_params(labelbottom=k + columns >= len(losses))  # also above a panel that is not there
    figure.supxlabel(TITLES[X], fontsize=10)
    figure.supylabel(TITLES.get(gap, gap), fontsize=10)
    figure.suptitle(
        "Square: without a fairness loss. Numbers: strengths. Bars: 95 % intervals of the test images", fontsize=10
    )
    return alt(figure, f"{TITLES[X]} and {TITLES.get(gap, gap)} from the weakest to the strongest loss: {'; '.join(told)}.")


def _apart(strengths: Sequence[float], at: np.ndarray, reach: np.ndarray) -> list[tuple[list[float], np.ndarray]]:
    """The strengths that one label has room for, and where: points closer than `NEAR` of the axes share theirs."""
    labels: list[tuple[list[float], np.ndarray]] = []
    for strength, place in zip(strengths, at, strict=True):
        near = next((own for own, first in labels if (np.abs(place - first) < NEAR * reach).all()), None)
        if near is None:
            labels.append(([strength], place))
        elif strength not in near:
            near.append(strength)
    return labels


def _points(ax: Axes, rows: pd.DataFrame, gap: str, colour: str, marker: str) -> None:
    bars = {
        which: np.nan_to_num([rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]]).clip(0)
        for which, name in (("xerr", X), ("yerr", gap))
    }
    ax.errorbar(rows[X], rows[gap], **bars, color=colour, marker=marker, linestyle="none", markersize=5, elinewidth=0.8, zorder=3)


def projection(prob, proj, group, groups: Sequence[str], label: str = "fair projection", ax: Axes | None = None) -> Axes:
    """Where each prediction would have to go: its probability against that of the nearest fair predictions.

    Parameters
    ----------
    prob, proj : (N,) probabilities before and after, such as `loss.project` gives
    group : int (N,), codes of `groups`
    label : of the vertical axis
    ax : where to draw; None: a new figure
    """
    prob, proj, group = (np.asarray(each).reshape(-1) for each in (prob, proj, group))
    ax = ax or plt.subplots(figsize=(4.6, 4.2), layout="constrained")[1]
    ax.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=1)
    moved = []
    for k, name in enumerate(groups):
        rows = group == k
        ax.scatter(prob[rows], proj[rows], s=10, color=PALETTE[k % len(PALETTE)], marker="o^sDvP"[k % 6], alpha=0.7, label=name)
        if rows.any():
            moved.append(f"{name} by {(proj[rows] - prob[rows]).mean():+.2f} on average")
    ax.set(xlabel="predicted probability", ylabel=label, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.legend(title="group", fontsize=9)
    return alt(ax, f"Each face's predicted probability and its {label}; moved are {'; '.join(moved)}.")


def noise(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What a loss reads for a fair predictor, against the size of the batch.

    Parameters
    ----------
    table : columns `batch` (images), `loss` (name), `mean` (over batches) and `low`, `high` (of the mean)
    ax : where to draw; None: a new figure
    """
    ax = ax or plt.subplots(figsize=(7, 4), layout="constrained")[1]
    told = []
    for k, (name, rows) in enumerate(table.groupby("loss", sort=False)):
        ax.plot(rows["batch"], rows["mean"], color=PALETTE[k], marker="osD^"[k % 4], label=name)
        ax.fill_between(rows["batch"], rows["low"], rows["high"], color=PALETTE[k], alpha=0.2, linewidth=0)
        first, last = rows.iloc[0], rows.iloc[-1]
        told.append(f"{name} {first['mean']:.2f} at {first['batch']} images and {last['mean']:.2f} at {last['batch']}")
    ax.axhline(0, color="0.5", linewidth=1)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(table["batch"].unique()), [f"{n}" for n in sorted(table["batch"].unique())])
    ax.set(xlabel="images a batch", ylabel="mean loss of a fair predictor", title="Noise, read as unfairness")
    ax.legend(fontsize=9)
    return alt(ax, f"Mean loss of a fair predictor: {'; '.join(told)}.")


def wanted(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The gap that was asked for against the gap that was reached.

    Parameters
    ----------
    table : columns `wanted`, `reached` with `low` and `high`, and `data` (on which images)
    ax : where to draw; None: a new figure
    """
    ax = ax or plt.subplots(figsize=(5.4, 4.2), layout="constrained")[1]
    most = 1.1 * max(table["wanted"].max(), table["high"].max())
    ax.plot([0, most], [0, most], color="0.7", linewidth=1, label="as asked for")
    told = []
    for k, (name, rows) in enumerate(table.groupby("data", sort=False)):
        bars = np.clip([rows["reached"] - rows["low"], rows["high"] - rows["reached"]], 0, None)
        ax.errorbar(
            rows["wanted"] + 0.004 * k,
            rows["reached"],
            yerr=bars,
            color=PALETTE[k],
            marker="os"[k % 2],
            linestyle="none",
            label=name,
        )
        told.append(f"{name}: " + ", ".join(f"{row.reached:.2f} for {row.wanted:g}" for row in rows.itertuples()))
    ax.set(xlabel="gap asked for", ylabel="gap reached, with its 95 % interval", xlim=(0, None), ylim=(0, most))
    ax.legend(fontsize=9)
    return alt(ax, f"Gaps reached for gaps asked for: {'; '.join(told)}.")
