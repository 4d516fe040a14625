"""Figures of face verification: scores, DET and ROC curves, error rates, intended against actual rates, confusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from scipy import stats

from helpers.names import choose
from helpers.plots.legend import below, place
from helpers.plots.style import PALETTE, alt

MARKERS = "osD^vPX*"
COLOURS = [PALETTE[k] for k in (0, 3, 2, 1, 4, 5, 7)] + ["0.1"]  # without the palest, which thin lines in print lose
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)))
GENUINE, IMPOSTOR = PALETTE[0], PALETTE[1]
SHOWN_RATES = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.95, 0.99)


def scores(
    pairs: Any, *, threshold: float | None = None, thresholds: Mapping[str, float] | None = None, bins: int = 60
) -> Figure:
    """Signal-detection plot: how genuine and impostor scores of every subgroup are distributed, with thresholds.

    Parameters
    ----------
    pairs : `helpers.bias.verification.Pairs` (its `cell_names`, `cells` and `scores(group, same)`)
    threshold : one for all, drawn as a solid line
    thresholds : a mapping (or Series) from subgroup to its own threshold, drawn dashed
    bins : number of bins over the range of all scores

    Raises
    ------
    ValueError : no pairs, or a threshold of an unknown subgroup.
    """
    names = [pairs.cell_names[code] for code in pairs.cells]
    if not len(pairs):
        raise ValueError("pairs: none given, so there is nothing to draw")
    given = {} if thresholds is None else dict(thresholds)
    own = {choose(name, names, "thresholds"): float(value) for name, value in given.items()}
    edges = np.linspace(pairs.score.min(), pairs.score.max() + 1e-9, bins + 1)
    figure, axes = plt.subplots(
        len(names), 1, figsize=(7.5, 0.9 + 1.15 * len(names)), sharex=True, layout="constrained", squeeze=False
    )
    said = []
    for ax, name in zip(axes[:, 0], names, strict=True):
        parts = [f"{name}:"]
        for same, colour, label, style in ((False, IMPOSTOR, "impostor", "--"), (True, GENUINE, "genuine", "-")):
            values = pairs.scores(name, same)
            if not len(values):
                parts.append(f"no {label} pairs")
                continue
            height, _ = np.histogram(values, edges, density=True)
            ax.stairs(height, edges, color=colour, fill=True, alpha=0.3)
            ax.stairs(height, edges, color=colour, linestyle=style, linewidth=1.6, label=f"{label} pairs")
            parts.append(f"{label} mean {values.mean():.2f}")
        if threshold is not None:
            ax.axvline(threshold, color="0.15", linewidth=1.5, label="one threshold")
        if name in own:
            ax.axvline(own[name], color=PALETTE[3], linewidth=1.8, linestyle=":", label="threshold of the subgroup")
            parts.append(f"own threshold {own[name]:.2f}")
        ax.set_yticks([])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.margins(x=0)
        said.append(" ".join(parts[:1]) + " " + ", ".join(parts[1:]))
    axes[0, 0].set_title("Scores of genuine and impostor pairs by subgroup")
    axes[-1, 0].set_xlabel("similarity score (cosine, no unit); accepted to the right of a threshold")
    figure.supylabel("density of pairs", fontsize="medium")
    handles = {label: handle for ax in axes[:, 0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, frameon=False)
    at = f" One threshold at {threshold:.2f}." if threshold is not None else ""
    alt(figure, f"Distributions of similarity scores by subgroup. {'; '.join(said)}.{at}")
    return figure


def det(table: pd.DataFrame, *, scale: str = "probit", at: float | None = 0.01, ax: Axes | None = None) -> Axes:
    """Detection error trade-off: FNMR against FMR of every subgroup; lower left is better.

    Parameters
    ----------
    table : of `curves`: `group, fmr, fnmr, n_impostor, n_genuine`
    scale : "probit" (normal scores make straight lines, as in Martin et al., 1997) or "log"
    at : an FMR that is marked; None: none
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : an empty table or an unknown scale.

    References
    ----------
    Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.
    """
    choose(scale, ("probit", "log"), "scale")
    ax = _new(ax)
    said = _draw_curves(ax, table, "fnmr", at)
    least = [max(0.5 / table[name].max(), 1e-6) for name in ("n_impostor", "n_genuine")]
    seen = table[(table["fmr"] >= least[0]) & (table["fnmr"] >= least[1])]
    most = [min(max(seen[name].max(), 0.02), 0.99) if len(seen) else 0.99 for name in ("fmr", "fnmr")]
    for axis, low, high, name in ((ax.xaxis, least[0], most[0], "x"), (ax.yaxis, least[1], most[1], "y")):
        if scale == "probit":
            getattr(ax, f"set_{name}scale")("function", functions=(_probit, stats.norm.cdf))
            ticks = [tick for tick in SHOWN_RATES if low <= tick <= 1.5 * high]
            axis.set_ticks(ticks, labels=[_percent(tick) for tick in ticks])
            getattr(ax, f"set_{name}lim")(low, stats.norm.cdf(_probit(high) + 0.15))
        else:
            getattr(ax, f"set_{name}scale")("log")
            getattr(ax, f"set_{name}lim")(low, 1.3 * high)
            axis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
            axis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    _mark(ax, at)
    ax.set_xlabel(f"false match rate (% of impostor pairs, {scale} scale)")
    ax.set_ylabel(f"false non-match rate (% of genuine pairs, {scale} scale)")
    ax.set_title("Detection error trade-off")
    return alt(ax, f"DET curves, false non-match rate against false match rate. {said}")


def roc(table: pd.DataFrame, *, at: float | None = 0.01, ax: Axes | None = None) -> Axes:
    """Receiver operating characteristic: true accept rate against FMR on a log scale; upper left is better.

    Parameters and errors as in `det`.
    """
    ax = _new(ax)
    said = _draw_curves(ax, table, "tar", at)
    ax.set_xscale("log")
    ax.set_xlim(max(0.5 / table["n_impostor"].max(), 1e-6), 1.1)
    ax.set_ylim(max(-0.02, table.loc[table["fmr"] >= ax.get_xlim()[0], "tar"].min() - 0.1), 1.02)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    _mark(ax, at)
    ax.set_xlabel("false match rate (% of impostor pairs, log scale)")
    ax.set_ylabel("true accept rate (share of genuine pairs, 0 to 1)")
    ax.set_title("True accepts for a given false match rate")
    place(ax, table["group"].nunique(), title="subgroup")
    return alt(ax, f"ROC curves, true accept rate against false match rate. {said}")


def rates(table: pd.DataFrame, *, intended: float | None = None, confidence: float = 0.95) -> Figure:
    """FMR and FNMR of every subgroup, with intervals and the number of people, side by side on log scales.

    Parameters
    ----------
    table : of `error_rates`
    intended : the FMR that the threshold was chosen for, drawn as a line
    confidence : of the intervals, for the axis

    Raises
    ------
    ValueError : no rate has a value.
    """
    if table["value"].isna().all():
        raise ValueError("table: no rate has a value, so there is nothing to draw")
    names = list(dict.fromkeys(table["group"]))
    figure, axes = plt.subplots(1, 2, figsize=(11, 1.6 + 0.4 * len(names)), sharey=True, layout="constrained")
    said = []
    for ax, rate, what in zip(axes, ("FMR", "FNMR"), ("false match rate", "false non-match rate"), strict=True):
        rows = table[table["rate"] == rate].set_index("group").reindex(names)
        floor = _floor(rows)
        ax.set_xscale("log")
        ax.set_xlim(floor, 1.4)
        _limits(ax, rows, np.arange(len(names))[::-1], floor)
        ax.set_xlabel(f"{what}\n(share of pairs, log scale; bars: {confidence:.0%}\ninterval for all subgroups together)")
        if rate == "FMR" and intended is not None:
            ax.axvline(intended, color=PALETTE[7], linestyle="--", label=f"intended FMR: {intended:g}")
        said.append(f"{rate} " + "; ".join(_spoken(name, row) for name, row in rows.iterrows()))
    people = table.groupby("group", sort=False)["people"].max()
    axes[0].set_yticks(np.arange(len(names))[::-1], [f"{name}  ({people[name]} people)" for name in names])
    axes[0].set_ylim(-0.6, len(names) - 0.4)
    axes[0].set_title("Impostors accepted")
    axes[1].set_title("Genuine pairs rejected")
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, frameon=False)
    alt(figure, f"Error rates by subgroup with {confidence:.0%} intervals. {'. '.join(said)}.")
    return figure


def percent_difference(
    table: pd.DataFrame, *, fmr: float | None = None, confidence: float = 0.95, ax: Axes | None = None
) -> Axes:
    """How far every subgroup's FMR is from the intended one, with one threshold and with subgroup thresholds.

    Parameters
    ----------
    table : of `helpers.bias.verification.percent_difference`
    fmr : which intended rate; None: the only one in the table
    confidence : of the intervals, for the axis
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : several intended rates and none chosen, or one that the table does not have.
    """
    known = list(dict.fromkeys(table["fmr"]))
    if fmr is None and len(known) > 1:
        raise ValueError(f"fmr: the table has {', '.join(f'{rate:g}' for rate in known)}; say which")
    fmr = known[0] if fmr is None else fmr
    if fmr not in known:
        raise ValueError(f"fmr: {fmr!r} is not in the table, which has {', '.join(f'{rate:g}' for rate in known)}")
    table = table[table["fmr"] == fmr]
    names = list(dict.fromkeys(table["group"]))
    if ax is None:
        _, ax = plt.subplots(figsize=(8.5, 1.8 + 0.5 * len(names)), layout="constrained")
    base = np.arange(len(names))[::-1]
    said = []
    styles = ((PALETTE[3], "o", 0.16), (PALETTE[0], "s", -0.16))
    for (scheme, rows), (colour, marker, shift) in zip(table.groupby("thresholds", sort=False), styles, strict=False):
        rows = rows.set_index("group").reindex(names)
        found = rows["value"].notna().to_numpy()
        some = rows[found]
        reach = np.stack([some["value"] - some["low"], some["high"] - some["value"]]).clip(min=0)
        ax.errorbar(some["value"], base[found] + shift, xerr=reach, fmt=marker, color=colour, capsize=3, markersize=6,
                    elinewidth=1.8, label=scheme)  # fmt: skip
        said.append(f"{scheme}: " + "; ".join(_spoken(name, row, "{:+.2f}") for name, row in rows.iterrows()))
    ax.axvline(0, color="0.3", linewidth=1)
    ax.set_xscale("symlog", linthresh=1, linscale=1)
    top = max(2.0, float(np.nanmax(table["high"].to_numpy(), initial=2.0)))
    ticks = [tick for tick in (-1, -0.5, 0, 1, 3, 9, 30, 100, 300, 1000, 10_000) if tick <= top * 1.2]
    ax.set_xticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(-1.12, top * 1.25)
    ax.set_yticks(base, names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlabel(
        f"(FMR − intended) / intended, intended FMR {fmr:g}; +1 is twice the intended rate, −1 no false match\n"
        f"(bars: {confidence:.0%} interval for all subgroups together; linear to 1, then logarithmic)"
    )
    ax.set_title("Difference from the intended false match rate")
    below(ax)
    return alt(ax, f"Relative difference from the intended FMR of {fmr:g} by subgroup. {'. '.join(said)}.")


def rank1(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Heat map of rank-1 confusion: of the images of a subgroup (row), the share whose nearest is of another (column).

    Parameters
    ----------
    table : of `rank1_confusion`: `group, match, value, n`
    ax : where to draw; None: a new figure
    """
    names = list(dict.fromkeys(table["group"]))
    share = table.pivot(index="group", columns="match", values="value").reindex(index=names, columns=names)
    size = table.groupby("group")["n"].first()
    if ax is None:
        _, ax = plt.subplots(figsize=(2.8 + 0.75 * len(names), 2.2 + 0.6 * len(names)), layout="constrained")
    top = float(np.nanmax(share.to_numpy(), initial=0))
    sns.heatmap(100 * share, vmin=0, vmax=100 * top or 1, cmap="cividis", annot=True, fmt=".0f" if top > 0.2 else ".1f",
                linewidths=1, linecolor="white", cbar_kws={"label": "share of the row's images (%)"}, ax=ax)  # fmt: skip
    ax.set_yticklabels([f"{name} (n = {size[name]})" for name in names], rotation=0)
    ax.set_xlabel("subgroup of the most similar image of another person")
    ax.set_ylabel("subgroup of the image")
    ax.set_title("Who is taken for whom at rank 1")
    said = "; ".join(
        f"{name} most often {row.idxmax()} ({row.max():.0%})" for name, row in share.iterrows() if row.notna().any()
    )
    return alt(ax, f"Rank-1 confusion between subgroups: {said}.")


def _draw_curves(ax: Axes, table: pd.DataFrame, y: str, at: float | None) -> str:
    if table.empty:
        raise ValueError("table: no curve in it, so there is nothing to draw")
    said = []
    for k, (name, rows) in enumerate(table.groupby("group", sort=False)):
        colour = COLOURS[k % len(COLOURS)]
        x, values = rows["fmr"].to_numpy(), rows[y].to_numpy()
        ax.plot(x, values, color=colour, linestyle=LINES[k % len(LINES)], linewidth=1.8, drawstyle="steps-post", label=name,
                marker=MARKERS[k % len(MARKERS)], markersize=5, markevery=(0.04 + 0.02 * (k % 5), 0.2))  # fmt: skip
        if at is not None:
            said.append(f"{name} {values[x <= at][-1]:.3f}")  # from strict to lenient: the last one that keeps to it
    place(ax, table["group"].nunique(), title="subgroup")
    return f"{y.upper()} at an FMR of {at:g}: {', '.join(said)}." if at is not None else ""


def _mark(ax: Axes, at: float | None) -> None:
    if at is not None:
        ax.axvline(at, color="0.35", linewidth=1, linestyle=(0, (2, 2)))


def _new(ax: Axes | None) -> Axes:
    return ax if ax is not None else plt.subplots(figsize=(6.6, 5.4), layout="constrained")[1]


def _probit(share: Any) -> np.ndarray:
    return stats.norm.ppf(np.clip(share, 1e-9, 1 - 1e-9))


def _percent(value: float) -> str:
    return f"{100 * value:g}"


def _floor(rows: pd.DataFrame) -> float:
    """Where a log axis begins: a decade below the smallest rate; lower limits beyond run out of the axis."""
    above = rows["value"].to_numpy()
    above = above[above > 0]
    return float(above.min() / 10) if len(above) else 1e-3


def _limits(ax: Axes, rows: pd.DataFrame, position: np.ndarray, floor: float) -> None:
    """Points with intervals; a rate of zero, which a log axis lacks, is an open triangle at its left end."""
    found = rows["value"].notna().to_numpy()
    some, at = rows[found], position[found]
    zero = some["value"].to_numpy() == 0
    value = np.where(zero, 1.25 * floor, some["value"].to_numpy())
    low, high = np.maximum(some["low"].to_numpy(), floor / 10), some["high"].to_numpy()
    reach = np.stack([np.where(zero, 0, value - low), high - value]).clip(min=0)
    for mask, marker, face, label in ((~zero, "o", PALETTE[0], None), (zero, "<", "white", "no error seen: only an upper limit")):
        if mask.any():
            ax.errorbar(value[mask], at[mask], xerr=reach[:, mask], fmt=marker, color=PALETTE[0], markerfacecolor=face, capsize=3,
                        elinewidth=1.8, markersize=7, label=label)  # fmt: skip
    for y in position[~found]:
        ax.annotate("no such pairs", (0.02, y), xycoords=("axes fraction", "data"), va="center", color="0.4")


def _spoken(name: Any, row: pd.Series, form: str = "{:.3g}") -> str:
    if np.isnan(row["value"]):
        return f"{name} none"
    return f"{name} {form.format(row['value'])} ({form.format(row['low'])} to {form.format(row['high'])})"
