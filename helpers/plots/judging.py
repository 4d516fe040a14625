"""Figures of how well maps were judged: methods by metrics, baselines against each other, and maps of a forgetting model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.names import choose
from helpers.plots.style import DIVERGING, PALETTE, alt

BETTER = {
    **dict.fromkeys(("insertion", "mu_fidelity", "relevance_mass", "relevance_rank", "pointing_game"), "higher"),
    **dict.fromkeys(("deletion", "infidelity", "completeness", "average_stability", "sensitivity_max"), "lower"),
    **dict.fromkeys(("model_randomisation", "random_logit", "label_randomisation"), "lower"),
}
SAID = {"higher": "higher is better →", "lower": "← lower is better"}


def metrics(
    table: pd.DataFrame,
    *,
    chance: str | None = None,
    better: Mapping[str, str] | None = None,
    columns: int = 4,
) -> Figure:
    """Mean of each method with its interval, one small plot a metric, on as many rows as needed.

    Parameters
    ----------
    table : columns `method, metric, mean, low, high`, as `helpers.attribution.summary` returns them
    chance : the method that stands for chance (random maps), drawn as a dashed line with a grey band for its interval
    better : metric -> "lower" or "higher", written under its plot; by default of the metrics known by name
    columns : int, small plots in a row

    Returns
    -------
    Figure. Methods keep the order of the table, from the top, and one colour in all plots; a method without a value has none.

    Raises
    ------
    ValueError : a column is missing, no method is called `chance` (with the nearest name), no plot a row.
    """
    missing = [name for name in ("method", "metric", "mean", "low", "high") if name not in getattr(table, "columns", ())]
    if missing:
        raise ValueError(f"table: no column {', '.join(missing)}; expected attribution.summary(frame) of maps given by name")
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns: {columns!r}; expected a whole number of at least 1")
    methods, names = list(table["method"].unique()), list(table["metric"].unique())
    chance = None if chance is None else choose(chance, methods, "chance")
    shown = [name for name in methods if name != chance]
    known = BETTER | dict(better or {})
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(2.5 * columns + 1.3, rows * (0.3 * len(shown) + 1.3)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, metric in zip(grid.flat, names, strict=False):
        part = table[table["metric"] == metric].set_index("method")
        for place, name in enumerate(shown):
            if name in part.index:
                _point(axes, part.loc[name], len(shown) - 1 - place, PALETTE[place % len(PALETTE)])
        if chance in part.index and np.isfinite(part.loc[chance, "mean"]):
            if np.isfinite(part.loc[chance, "low"]):
                axes.axvspan(part.loc[chance, "low"], part.loc[chance, "high"], color="0.35", alpha=0.15, linewidth=0)
            axes.axvline(part.loc[chance, "mean"], color="0.35", linestyle="--", linewidth=1.2)
        axes.set_title(metric.replace("_", " "), fontsize=10)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_xlabel(SAID.get(known.get(metric), "depends on the region"), fontsize=8)
        axes.set_yticks(range(len(shown)), [_words(name) for name in reversed(shown)], fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="y", visible=False)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    note = "; the dashed line is chance" if chance is not None else ""
    said = "; ".join(f"{row.metric} {row.method} {row.mean:.2f}" for row in table.itertuples() if np.isfinite(row.mean))
    return alt(figure, f"Mean of each method with its interval, one small plot a metric{note}: {said}.")


def baselines(scores: pd.DataFrame, *, chance: str | None = None) -> Figure:
    """How the order of the methods hangs on the baseline: rows of methods, one mark a baseline, one small plot a metric.

    Parameters
    ----------
    scores : `baseline_dependence(…).scores`, with the columns `baseline, method, metric, mean, low, high`
    chance : the method that stands for chance, whose name is written in grey

    Returns
    -------
    Figure. Under each other the baselines of one method, in the order of the table.

    Raises
    ------
    ValueError : a column is missing, or no method is called `chance` (with the nearest name).
    """
    there = getattr(scores, "columns", ())
    missing = [name for name in ("baseline", "method", "metric", "mean", "low", "high") if name not in there]
    if missing:
        raise ValueError(f"scores: no column {', '.join(missing)}; expected attribution.baseline_dependence(…).scores")
    methods, names, kinds = (list(scores[column].unique()) for column in ("method", "metric", "baseline"))
    chance = None if chance is None else choose(chance, methods, "chance")
    figure, grid = plt.subplots(
        1,
        len(names),
        figsize=(3.1 * len(names) + 1.2, 0.62 * len(methods) + 1.6),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, metric in zip(grid[0], names, strict=True):
        part = scores[scores["metric"] == metric].set_index(["method", "baseline"])
        for place, (method, kind) in enumerate((method, kind) for method in methods for kind in kinds):
            if (method, kind) in part.index:
                row, lane = divmod(place, len(kinds))
                height = len(methods) - 1 - row + 0.3 - 0.6 * lane / max(1, len(kinds) - 1)
                _point(axes, part.loc[(method, kind)], height, PALETTE[lane % len(PALETTE)], kind if row == 0 else None, 4)
        axes.set_title(metric.replace("_", " "), fontsize=10)
        axes.set_xlabel(SAID.get(BETTER.get(metric), "score"), fontsize=8)
        axes.set_yticks(range(len(methods)), [_words(name) for name in reversed(methods)], fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="y", visible=False)
    for label in grid[0, 0].get_yticklabels():
        if chance is not None and label.get_text() == _words(chance):
            label.set_color("0.5")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    small = {"fontsize": 8, "title_fontsize": 8}
    figure.legend(handles, labels, title="removed pixels become", loc="outside lower center", ncols=len(kinds), **small)
    said = "; ".join(f"{row.metric} {row.method} {row.baseline} {row.mean:.2f}" for row in scores.itertuples())
    return alt(figure, f"Mean of each method by each baseline, with intervals, one small plot a metric: {said}.")


def randomisation(curves: Mapping[str, pd.DataFrame]) -> Axes:
    """The similarity of maps with those of the model as its layers lose their weights, from the last to the first.

    Parameters
    ----------
    curves : name of a method -> `attribution.randomisation_curve(…)`

    Returns
    -------
    Axes. A line a method, the mean over images, in a band of twice its standard error; 1 on the left is the model as it is.

    Raises
    ------
    ValueError : no curve, or one without the columns `layers` and `value`.
    """
    if not curves:
        raise ValueError("curves: none given; expected a name and attribution.randomisation_curve(…)")
    _, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    said = []
    for place, (name, curve) in enumerate(curves.items()):
        if missing := [column for column in ("layers", "value") if column not in curve]:
            raise ValueError(f"curves {name!r}: no column {', '.join(missing)}; expected attribution.randomisation_curve(…)")
        images = curve.groupby("layers")["value"]
        mean, error = images.mean(), 2 * images.sem().fillna(0)
        colour = PALETTE[place % len(PALETTE)]
        low, high = (mean - error).clip(lower=-1), (mean + error).clip(upper=1)  # no similarity lies outside
        axes.fill_between([0, *mean.index], [1, *low], [1, *high], color=colour, alpha=0.15, linewidth=0)
        axes.plot([0, *mean.index], [1, *mean], "o-", markersize=3.5, color=colour, label=name.replace("_", " "))
        said.append(f"{name} {mean.iloc[-1]:.2f}")
    axes.axhline(0, color="0.35", linestyle="--", linewidth=1)
    axes.set_xlabel("layers with random weights, from the last on")
    axes.set_ylabel("similarity with the map\nof the trained model")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    return alt(axes, f"Similarity of maps as layers lose their weights; with all of them random: {', '.join(said)}.")


def agreement(table: pd.DataFrame) -> Axes:
    """How far methods agree, in a grid of methods: `attribution.rank_agreement(…)`.

    Parameters
    ----------
    table : rank correlations in [−1, 1], one method a row and one a column

    Returns
    -------
    Axes. Red agrees, white is no relation, blue is the opposite order; the numbers stand in the cells.

    Raises
    ------
    ValueError : an empty table.
    """
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"table: {type(table).__name__} given; expected attribution.rank_agreement(…)")
    if table.empty:
        raise ValueError("table: it is empty; expected attribution.rank_agreement(…)")
    rows, columns = table.shape
    _, axes = plt.subplots(figsize=(0.85 * columns + 2.6, 0.55 * rows + 1.7), layout="constrained")
    named = table.rename(index=_words, columns=_words)
    bar = {"label": "rank correlation over pixels"}
    sns.heatmap(named, vmin=-1, vmax=1, cmap=DIVERGING, annot=True, fmt=".2f", annot_kws={"size": 9}, ax=axes, cbar_kws=bar)
    axes.tick_params(axis="x", rotation=35, labelsize=9)
    axes.tick_params(axis="y", rotation=0, labelsize=9)
    for text in axes.get_xticklabels():
        text.set_horizontalalignment("right")
    pairs = [(one, other) for one in table.index for other in table.columns if one != other]
    said = "; ".join(f"{one} and {other} {table.loc[one, other]:.2f}" for one, other in pairs)
    return alt(axes, f"Rank correlation over pixels of each two methods: {said}.")


def _point(axes: Axes, row: pd.Series, height: float, colour: str, label: str | None = None, size: float = 5.5) -> None:
    """A mean and, where it is known, its interval."""
    if np.isfinite(row["low"]):
        axes.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(row["mean"], height, "o", color=colour, markersize=size, label=label)


def _words(name: str) -> str:
    """A name as it stands in a figure: `integrated_gradients` in two words, on two lines if they are long."""
    return textwrap.fill(str(name).replace("_", " "), 20, break_long_words=False)
