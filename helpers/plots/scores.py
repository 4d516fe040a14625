"""Figures of scores: distributions, ROC and reliability curves, threshold sweeps, accuracy against fairness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.bias.scored import RIGHT, Scored, read_scored
from helpers.bias.scores import area
from helpers.bias.thresholds import roc_curves
from helpers.names import choose
from helpers.plots.legend import place
from helpers.plots.style import PALETTE, alt

# Groups differ in colour, line and marker, so that they can be told apart in grey too.
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (3, 3)))
MARKERS = "osD^vPX*"


def distributions(
    y_true: Any,
    y_score: Any,
    group: Any,
    *,
    bins: int = 20,
    threshold: float | None = 0.5,
    positive: Any = None,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Figure:
    """Histograms of the score, one panel a group, positives and negatives apart.

    Parameters
    ----------
    y_true, y_score, group, positive, groups, classes : as in `helpers.bias.calibration.calibration`
    bins : number of bars between 0 and 1
    threshold : marked by a line; None: no line

    Returns
    -------
    Figure; bars are shares of the images of one group and label, so that groups of different size can be compared
    """
    rows = read_scored(y_true, y_score, group, positive=positive, groups=groups, classes=classes)
    size = (7, 1.2 + 1.5 * len(rows.groups))
    options = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(len(rows.groups), 1, figsize=size, **options)
    edges = np.linspace(0, 1, bins + 1)
    looks = (
        (False, f"not {rows.positive}", {"color": PALETTE[0], "alpha": 0.45, "histtype": "stepfilled"}),
        (True, rows.positive, {"color": PALETTE[1], "linewidth": 2, "histtype": "step"}),
    )
    described = []
    for g, (name, ax) in enumerate(zip(rows.groups, axes[:, 0], strict=True)):
        said = []
        for label, title, look in looks:
            score = rows.score[(rows.group == g) & (rows.label == label)]
            if len(score):
                ax.hist(score, edges, weights=np.full(len(score), 1 / len(score)), label=title, **look)
                said.append(f"{title} median {np.median(score):.2f} (n = {len(score)})")
        if threshold is not None:
            ax.axvline(threshold, color="0.25", linestyle=":", label=f"threshold {threshold:g}" if g == 0 else None)
        ax.set_title(f"{name}  (n = {int((rows.group == g).sum())})", fontsize="medium")
        described.append(f"{name}: {', '.join(said)}")
    handles: dict[str, Any] = {}
    for ax in axes[:, 0]:
        for handle, title in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(title, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False)
    axes[-1, 0].set_xlabel(_score_label(rows))
    figure.supylabel("share of the images with that label", fontsize="medium")
    return alt(figure, f"Distribution of the score by group and label. {'; '.join(described)}.")


def roc(
    y_true: Any,
    y_score: Any,
    group: Any,
    *,
    threshold: float | None = 0.5,
    positive: Any = None,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """ROC curves of all groups, their areas, and where one threshold for all puts each group.

    Parameters
    ----------
    y_true, y_score, group, positive, groups, classes : as in `helpers.bias.thresholds.roc_curves`
    threshold : marked on every curve; None: no marks

    Raises
    ------
    ValueError : no group has both labels.
    """
    rows = read_scored(y_true, y_score, group, positive=positive, groups=groups, classes=classes)
    curves = roc_curves(y_true, y_score, group, positive=positive, groups=groups, classes=classes)
    areas = [area(rows.score[rows.group == g], rows.label[rows.group == g]) for g in range(len(rows.groups))]
    if np.isnan(areas).all():
        raise ValueError("y_true: no group has both labels, so there is no curve to draw")
    if ax is None:
        _, ax = plt.subplots(figsize=(6.2, 5.8), layout="constrained")
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    ax.annotate("chance", (0.62, 0.62), xytext=(4, -4), textcoords="offset points", va="top", color="0.4", fontsize="small")
    without = []
    described = []
    for k, (name, auc) in enumerate(zip(rows.groups, areas, strict=True)):
        curve = curves[curves["group"] == name]
        if np.isnan(auc):
            without.append(name)
            continue
        colour = PALETTE[k % len(PALETTE)]
        ax.plot(curve["fpr"], curve["tpr"], color=colour, linestyle=LINES[k % len(LINES)], label=f"{name}  (AUC {auc:.3f})")
        said = f"{name} AUC {auc:.3f}"
        if threshold is not None:
            point = curve[curve["threshold"] >= threshold].iloc[-1]
            ax.plot(point["fpr"], point["tpr"], MARKERS[k % len(MARKERS)], color=colour, markeredgecolor="white", markersize=9)
            said += f", at the threshold false positive rate {point['fpr']:.2f} and true positive rate {point['tpr']:.2f}"
        described.append(said)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set_xlabel("false positive rate (share of the negatives)")
    ax.set_ylabel("true positive rate (share of the positives)")
    ax.set_title("ROC by group" + (f"; marks: threshold {threshold:g}" if threshold is not None else ""))
    place(ax, len(described), ncols=1)
    if without:
        ax.annotate(f"one label only: {', '.join(without)}", (0.02, 0.98), xycoords="axes fraction", va="top", color="0.4")
    return alt(ax, f"ROC curves by group. {'; '.join(described)}.")


def reliability(result: Any, *, ax: Axes | None = None) -> Axes:
    """Reliability curves of all groups: observed rate against mean score, with intervals; the diagonal is calibrated.

    Parameters
    ----------
    result : `helpers.bias.calibration.Calibration`
    ax : where to draw; None: a new figure
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.6, 7.2), layout="constrained")
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    ax.annotate("calibrated", (0.5, 0.5), xytext=(5, -5), textcoords="offset points", va="top", color="0.4", fontsize="small")
    described = []
    for k, (name, rows) in enumerate(result.by_bin.groupby("group", sort=False)):
        rows = rows[rows["n"] > 0]
        colour = PALETTE[k % len(PALETTE)]
        error = result.value("expected_calibration_error_corrected", name)
        reach = np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(min=0)
        ax.errorbar(
            rows["mean_score"], rows["value"], yerr=reach, color=colour, linestyle=LINES[k % len(LINES)],
            marker=MARKERS[k % len(MARKERS)], markersize=5, capsize=2, elinewidth=1,
            label=f"{name}  (n = {rows['n'].sum()}, error {error:.3f})",
        )  # fmt: skip
        low, high = result.interval("expected_calibration_error_corrected", name)
        described.append(f"{name} {error:.3f} ({low:.3f} to {high:.3f})")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set_xlabel(f"mean score of the bin (probability {_asked(result.positive)})")
    ax.set_ylabel(f"observed rate (share, 0 to 1; bars: {result.confidence:.0%} interval)")
    ax.set_title("Reliability by group")
    title = "expected calibration error, bias removed"
    # Below the axes: the curves may run anywhere inside.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize="small", title=title, title_fontsize="small")
    return alt(ax, f"Reliability curves. Expected calibration error, corrected for its bias: {'; '.join(described)}.")


def sweep(table: pd.DataFrame, statistic: str, *, threshold: float | None = 0.5, ax: Axes | None = None) -> Axes:
    """One statistic against the threshold: every group's value, and its gap with the interval as a band.

    Parameters
    ----------
    table : result of `helpers.bias.thresholds.threshold_sweep`
    statistic : a name in it; of a named gap such as `equalized_odds` only the gap is drawn
    threshold : marked by a line; None: no line
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : an unknown statistic, or no value to draw.
    """
    statistic = choose(statistic, dict.fromkeys(table["statistic"]), "statistic")
    rows = table[table["statistic"] == statistic]
    if rows["value"].isna().all():
        raise ValueError(f"statistic: {statistic} has no value at any threshold, so there is nothing to draw")
    if ax is None:
        _, ax = plt.subplots(figsize=(7.4, 4.4), layout="constrained")
    name = _readable(statistic)
    for k, (group, part) in enumerate(rows[rows["kind"] == "group"].groupby("group", sort=False)):
        ax.plot(
            part["threshold"], part["value"], color=PALETTE[k % len(PALETTE)], linestyle=LINES[k % len(LINES)], label=str(group)
        )
    gap = rows[rows["kind"] == "gap"]
    ax.fill_between(gap["threshold"], gap["low"], gap["high"], color="0.2", alpha=0.18, linewidth=0)
    ax.plot(gap["threshold"], gap["value"], color="0.2", linewidth=2.5, label="gap between groups")
    if threshold is not None:
        ax.axvline(threshold, color="0.25", linestyle=":", label=f"threshold {threshold:g}")
    ax.set_xlim(gap["threshold"].min(), gap["threshold"].max())
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.set_xlabel("threshold (a score of at least this is positive)")
    of = name if (rows["kind"] == "group").any() else f"{name} gap"
    ax.set_ylabel(f"{of} (share, 0 to 1)" if statistic != "treatment_equality" else "false negatives per false positive")
    ax.set_title(f"{name[0].upper()}{name[1:]} at every threshold (band: interval of the gap)")
    place(ax, rows["group"].nunique())
    defined = gap.dropna(subset="value")
    if defined.empty:
        return alt(ax, f"{name} by threshold; fewer than two groups have a value, so there is no gap.")
    widest, narrowest = defined.loc[defined["value"].idxmax()], defined.loc[defined["value"].idxmin()]
    return alt(
        ax,
        f"{name} by threshold. The gap between groups is largest, {_range(widest)}, at threshold {widest['threshold']:.2f} and "
        f"smallest, {_range(narrowest)}, at {narrowest['threshold']:.2f}.",
    )


def accuracy_fairness(
    table: pd.DataFrame,
    *,
    threshold: float | None = 0.5,
    accuracy: str = "balanced accuracy",
    gap: str = "equalized-odds gap",
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against gap, a point a threshold, the Pareto-optimal ones joined and shown with their intervals.

    Parameters
    ----------
    table : result of `helpers.bias.thresholds.accuracy_fairness`
    threshold : the nearest one in the table is marked; None: no mark
    accuracy, gap : names for the axes
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : no threshold has both numbers.
    """
    known = table.dropna(subset=["accuracy", "gap"])
    if known.empty:
        raise ValueError("table: no threshold has both an accuracy and a gap, so there is nothing to draw")
    if ax is None:
        _, ax = plt.subplots(figsize=(6.8, 5), layout="constrained")
    front = known[known["pareto"]].sort_values(["gap", "accuracy"])
    other = known[~known["pareto"]]
    ax.plot(other["gap"], other["accuracy"], "o", color="0.6", markersize=4, label="other thresholds")
    reach = [np.stack([front[y] - front[f"{y}_low"], front[f"{y}_high"] - front[y]]).clip(min=0) for y in ("gap", "accuracy")]
    ax.errorbar(
        front["gap"], front["accuracy"], xerr=reach[0], yerr=reach[1], color=PALETTE[0], ecolor="#9cc4dd", elinewidth=1,
        marker="s", markersize=6, linestyle="-", label="no threshold is better in both",
    )  # fmt: skip
    said = ""
    if threshold is not None:
        chosen = known.loc[(known["threshold"] - threshold).abs().idxmin()]
        ax.plot(
            chosen["gap"], chosen["accuracy"], "*", color=PALETTE[3], markersize=17, markeredgecolor="white", zorder=5,
            label=f"threshold {chosen['threshold']:.2f}",
        )  # fmt: skip
        said = f" Threshold {chosen['threshold']:.2f} has {chosen['accuracy']:.2f} and {chosen['gap']:.2f}."
    ax.set_xlabel(f"{gap} (share, 0 to 1; left is fairer)")
    ax.set_ylabel(f"{accuracy} (share, 0 to 1)")
    ax.set_title("One threshold for all: accuracy against fairness")
    ax.legend(loc="lower right", frameon=True, fontsize="small")
    best = front.loc[front["accuracy"].idxmax()]
    return alt(
        ax,
        f"{accuracy} against {gap} over {len(known)} thresholds, {len(front)} of them Pareto-optimal. The most accurate one, "
        f"{best['threshold']:.2f}, has {best['accuracy']:.2f} with a gap of {best['gap']:.2f}.{said}",
    )


def _score_label(rows: Scored) -> str:
    return f"score (probability {_asked(rows.positive)})"


def _asked(positive: str) -> str:
    return f"that {positive}" if positive == RIGHT else f"of {positive}"


def _readable(name: str) -> str:
    return {"f1": "F1"}.get(name, str(name).replace("_", " "))


def _range(row: pd.Series) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
