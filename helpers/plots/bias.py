"""Figures of a bias assessment: values by group, gaps, and a gap against whatever was varied."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from helpers.names import choose
from helpers.plots.legend import below
from helpers.plots.style import PALETTE, alt

UP, DOWN, NOISE = "levels up", "levels down", "within noise"

#: What `gaps` shows by default: a rate and its complement have the same gap, and a named gap is that of its rate.
SHOWN = (
    "demographic_parity",
    "equal_opportunity",
    "equalized_odds",
    "accuracy_parity",
    "predictive_parity",
    "balanced_accuracy",
    "f1",
    "roc_auc",
)


def gaps(
    table: Any,
    *,
    names: Sequence[str] | None = None,
    label: str | None = None,
    confidence: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Every gap as a point with its interval, largest on top; zero, no gap, is marked.

    Parameters
    ----------
    table : `Audit.gaps` (or an Audit): `statistic[, class], difference, difference_low, difference_high`
    names : which gaps; None: those of `SHOWN` that the table has, or all of it if it has none
    label : with three classes or more, which class; None: `all`, else `macro`
    confidence : of the intervals, for the axis
    ax : where to draw; None: a new figure

    Returns
    -------
    Axes; x is the difference between the highest and the lowest group (a difference of shares, 0 to 1)

    Raises
    ------
    ValueError : an unknown name, or no gap to draw.
    """
    table = _one_class(getattr(table, "gaps", table), label)
    if names is None:
        common = table["statistic"].isin(SHOWN)
        table = table[common] if common.any() else table
    else:
        known = list(table["statistic"])
        table = table.set_index("statistic").loc[[choose(name, known, "names") for name in names]].reset_index()
    undefined = list(table.loc[table["difference"].isna(), "statistic"])
    table = table.dropna(subset="difference").sort_values("difference", kind="stable")
    if table.empty:
        raise ValueError("table: no gap has a value, so there is nothing to draw")
    ax = _axes(ax, len(table))
    decided = table["difference_low"] > 0
    for several, colour, legend in (
        (decided, PALETTE[3], "interval above zero"),
        (~decided, PALETTE[0], "interval reaches zero"),
    ):
        rows = np.flatnonzero(several)
        _points(ax, table.iloc[rows], rows, "difference", colour, legend)
    ax.axvline(0, color="0.3", linewidth=1)
    ax.set_yticks(range(len(table)), [_readable(name) for name in table["statistic"]])
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.set_xlim(left=min(-0.02, ax.get_xlim()[0]))
    ax.set_xlabel(f"highest minus lowest group (share, 0 to 1; bars: {confidence:.0%} interval)")
    ax.set_title("Gaps between groups")
    _note(ax, undefined, "no value")
    below(ax)
    top = table.iloc[-1]
    return alt(
        ax,
        f"Gaps between groups with {confidence:.0%} intervals. The largest is {_readable(top['statistic'])}, "
        f"{_range(top, 'difference')}; {int(decided.sum())} of {len(table)} intervals lie above zero.",
    )


def by_group(
    table: Any,
    statistic: str,
    *,
    overall: pd.DataFrame | None = None,
    label: str | None = None,
    confidence: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """One statistic by group, with intervals, the number of images behind each, and the overall value as a line.

    Parameters
    ----------
    table : `Audit.by_group` (or an Audit): `group, statistic[, class], value, low, high, n`
    statistic : its name
    overall : `Audit.overall`, for the line; taken from the Audit if `table` is one
    label, confidence, ax : as in `gaps`

    Raises
    ------
    ValueError : an unknown statistic, or one that no group has a value of.
    """
    if overall is None:
        overall = getattr(table, "overall", None)
    rows = getattr(table, "by_group", table)
    statistic = choose(statistic, dict.fromkeys(rows["statistic"]), "statistic")
    rows = _one_class(rows[rows["statistic"] == statistic], label)
    if rows["value"].isna().all():
        raise ValueError(f"statistic: no group has a value of {statistic}, so there is nothing to draw")
    ax = _axes(ax, len(rows))
    position = np.arange(len(rows))[::-1]  # the first group on top
    _points(ax, rows, position, "value", PALETTE[0], None)
    names = [f"{row.group}  (n = {row.n})" for row in rows.itertuples()]
    ax.set_yticks(position, names)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    for y, row in zip(position, rows.itertuples(), strict=True):
        if np.isnan(row.value):
            where = ("axes fraction", "data")
            ax.annotate("undefined", (0.02, y), xycoords=where, va="center", color="0.4", backgroundcolor="white")
    if overall is not None:
        whole = overall[overall["statistic"] == statistic]
        whole = float(_one_class(whole, label)["value"].iloc[0])
        ax.axvline(whole, color=PALETTE[7], linestyle="--", label=f"all groups: {whole:.2f}")
    if statistic == "treatment_equality":
        ax.set_xlabel(f"false negatives per false positive (bars: {confidence:.0%} interval; n: false positives)")
    else:
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel(f"{_readable(statistic)} (share, 0 to 1; bars: {confidence:.0%} interval;\nn: images in the denominator)")
    if overall is not None:
        below(ax)
    of_class = f" of {label}" if label not in (None, "") else ""
    ax.set_title(f"{_readable(statistic).capitalize()}{of_class} by group")
    defined = rows.dropna(subset="value")
    described = "; ".join(f"{row['group']} {_range(row, 'value')}" for _, row in defined.iterrows())
    title = f"{_readable(statistic).capitalize()}{of_class} by group"
    return alt(ax, f"{title} with {confidence:.0%} intervals: {described}.")


def gap_curve(
    table: pd.DataFrame,
    x: str,
    *,
    y: str = "difference",
    hue: str | None = None,
    xlabel: str | None = None,
    ylabel: str = "gap (difference between groups)",
    marks: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A gap against a quantity that was varied, with its interval as a band.

    Parameters
    ----------
    table : columns `x`, `y`, `<y>_low`, `<y>_high` and, if given, `hue` (one line a value)
    x, y, hue : column names
    xlabel, ylabel : axis labels with units; `xlabel` is the column's name by default
    marks : name -> (x, y), single points to find beside the curve, each a star named in the legend
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : a column is missing (it is named, with the nearest).
    """
    for column in (x, y, f"{y}_low", f"{y}_high", *([hue] if hue else [])):
        choose(column, map(str, table.columns), "table column")
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    lines = [(None, table)] if hue is None else list(table.groupby(hue, sort=False))
    markers = "osD^vPX*"
    for k, (name, rows) in enumerate(lines):
        rows, colour = rows.sort_values(x), PALETTE[k % len(PALETTE)]
        ax.plot(rows[x], rows[y], color=colour, marker=markers[k % len(markers)], label=name)
        ax.fill_between(rows[x], rows[f"{y}_low"], rows[f"{y}_high"], color=colour, alpha=0.2, linewidth=0)
    ax.set_xlabel(xlabel or _readable(x))
    ax.set_ylabel(ylabel)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    for k, (name, (at, value)) in enumerate((marks or {}).items()):
        colour = PALETTE[(len(lines) + k) % len(PALETTE)]
        ax.plot(at, value, "*", color=colour, markersize=16, markeredgecolor="white", zorder=5, label=name)
    if hue is not None or marks:
        ax.legend(title=None if hue is None else _readable(hue))
    described = []
    for name, rows in lines:
        first, last = rows.loc[rows[x].idxmin()], rows.loc[rows[x].idxmax()]
        ends = f"{_range(first, y)} at {first[x]:g}, {_range(last, y)} at {last[x]:g}"
        described.append(ends if name is None else f"{name} {ends}")
    described += [f"{name} {value:.2f} at {at:.2f}" for name, (at, value) in (marks or {}).items()]
    return alt(ax, f"{ylabel} against {xlabel or _readable(x)}: {'; '.join(described)}.")


def changes(comparison: Any, statistic: str, *, label: str | None = None, ax: Axes | None = None) -> Axes:
    """How one statistic of every group changes from one model to another, with the interval of the change.

    Parameters
    ----------
    comparison : `helpers.bias.Comparison`
    statistic : its name
    label, ax : as in `gaps`

    Raises
    ------
    ValueError : an unknown statistic, or one that has no value in both models for any group.
    """
    table = comparison.by_group
    statistic = choose(statistic, dict.fromkeys(table["statistic"]), "statistic")
    rows = _one_class(table[table["statistic"] == statistic], label).dropna(subset="change")
    if rows.empty:
        raise ValueError(f"statistic: no group has a value of {statistic} in both models, so there is nothing to draw")
    ax = _axes(ax, len(rows) + 1)
    position = np.arange(len(rows))[::-1]
    for verdict, colour, marker in ((UP, PALETTE[2], "^"), (DOWN, PALETTE[3], "v"), (NOISE, PALETTE[7], "o")):
        mine = (rows["verdict"] == verdict).to_numpy()
        if mine.any():
            some = rows[mine]
            reach = np.stack([some["change"] - some["low"], some["high"] - some["change"]]).clip(min=0)
            ax.errorbar(some["change"], position[mine], xerr=reach, fmt=marker, color=colour, capsize=3, label=verdict)
    ax.axvline(0, color="0.3", linewidth=1)
    names = [f"{row.group}  ({row.first:.2f} → {row.second:.2f})" for row in rows.itertuples()]
    ax.set_yticks(position, names)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    first, second = comparison.names
    ax.set_xlabel(
        f"change of {_readable(statistic)}, {second} minus {first}\n(bars: {comparison.confidence:.0%} interval, paired)"
    )
    ax.set_title(f"{_readable(statistic).capitalize()}: {first} → {second}")
    below(ax, ncols=3)
    described = "; ".join(
        f"{row.group} {row.change:+.2f} ({row.low:+.2f} to {row.high:+.2f}), {row.verdict}" for row in rows.itertuples()
    )
    return alt(ax, f"Change of {_readable(statistic)} from {first} to {second} by group: {described}.")


def against(table: pd.DataFrame, statistic: str, *, label: str | None = None, ax: Axes | None = None) -> Axes:
    """Every group's difference from its reference, with intervals.

    Parameters
    ----------
    table : of `Audit.against`
    statistic : its name
    label, ax : as in `gaps`

    Raises
    ------
    ValueError : an unknown statistic, or no group with a difference.
    """
    statistic = choose(statistic, dict.fromkeys(table["statistic"]), "statistic")
    rows = _one_class(table[table["statistic"] == statistic], label)
    defined = rows.dropna(subset="difference")
    if defined.empty:
        raise ValueError(f"statistic: no group has a difference of {statistic}, so there is nothing to draw")
    ax = _axes(ax, len(rows) + 1)
    position = np.arange(len(rows))[::-1]
    _points(ax, rows, position, "difference", PALETTE[0], None)
    ax.axvline(0, color="0.3", linewidth=1)
    ax.set_yticks(position, list(rows["group"]))
    ax.set_ylim(-0.6, len(rows) - 0.4)
    of = dict.fromkeys(rows["of"])
    reference = next(iter(of)) if len(of) == 1 else "all other groups"
    reference = "all groups together" if reference == "all" else reference
    ax.set_xlabel(f"{_readable(statistic)} minus that of {reference}")
    ax.set_title(f"{_readable(statistic).capitalize()} against {reference}")
    described = "; ".join(f"{row['group']} {_range(row, 'difference')}" for _, row in defined.iterrows())
    return alt(ax, f"Difference of {_readable(statistic)} from {reference} by group: {described}.")


def margins(
    audit: Any, names: Sequence[str] = SHOWN[:3], *, label: str | None = None, ax: Axes | None = None
) -> Axes:
    """The gap between the cells of crossed attributes beside the gap of each margin, with intervals.

    Parameters
    ----------
    audit : `helpers.bias.Audit` of several crossed attributes
    names : which gaps
    label, ax : as in `gaps`

    Raises
    ------
    ValueError : the audit crossed nothing, or an unknown name.
    """
    if not audit.margins:
        raise ValueError("audit: one attribute only; margins need several crossed ones")
    several = {**audit.margins, "cells (all crossed)": audit}
    ax = _axes(ax, len(names) * len(several))
    step = 0.8 / len(several)
    markers = "osD^vPX*"
    described = []
    for k, (name, each) in enumerate(several.items()):
        table = _one_class(each.gaps, label).set_index("statistic")
        rows = table.loc[[choose(wanted, list(table.index), "names") for wanted in names]]
        position = np.arange(len(names))[::-1] + 0.4 - step * (k + 0.5)
        reach = np.stack([rows["difference"] - rows["difference_low"], rows["difference_high"] - rows["difference"]])
        ax.errorbar(rows["difference"], position, xerr=np.nan_to_num(reach).clip(min=0), fmt=markers[k % len(markers)],
                    color=PALETTE[k % len(PALETTE)], capsize=3, label=name)  # fmt: skip
        described.append(f"{name}: " + ", ".join(f"{_readable(i)} {_range(row, 'difference')}" for i, row in rows.iterrows()))
    ax.axvline(0, color="0.3", linewidth=1)
    ax.set_yticks(np.arange(len(names))[::-1], [_readable(name) for name in names])
    ax.set_xlabel(f"highest minus lowest group (share, 0 to 1; bars: {audit.confidence:.0%} interval)")
    ax.set_title("Gaps of each attribute, and of their combinations")
    below(ax, title="groups by", ncols=3)
    return alt(ax, f"Gaps with intervals by how groups are formed. {'; '.join(described)}.")


def _points(ax: Axes, rows: pd.DataFrame, position: np.ndarray, value: str, colour: str, legend: str | None) -> None:
    low, high = (f"{value}_low", f"{value}_high") if value == "difference" else ("low", "high")
    defined = rows[value].notna().to_numpy()
    rows, position = rows[defined], np.asarray(position)[defined]
    if rows.empty:
        return
    reach = np.stack([rows[value] - rows[low], rows[high] - rows[value]]).clip(min=0)
    ax.errorbar(
        rows[value], position, xerr=reach, fmt="o", color=colour, capsize=3, elinewidth=1.8, markersize=6, label=legend
    )


def _one_class(table: pd.DataFrame, label: str | None) -> pd.DataFrame:
    """The rows of one class; by default of each statistic's summary (`all`, else `macro`), if it has one."""
    if "class" not in table:
        return table
    if label is not None:
        return table[table["class"] == choose(label, dict.fromkeys(table["class"]), "label")]
    rank = table["class"].map({"all": 0, "macro": 1})
    best = rank.groupby(table["statistic"]).transform("min")
    return table[rank.notna() & (rank == best)]


def _axes(ax: Axes | None, rows: int) -> Axes:
    if ax is not None:
        return ax
    return plt.subplots(figsize=(8, 1.4 + 0.36 * rows), layout="constrained")[1]


def _note(ax: Axes, names: list[str], why: str) -> None:
    if names:
        text = f"{why}: {', '.join(_readable(name) for name in names)}"
        ax.set_xlabel("\n".join([ax.get_xlabel(), *textwrap.wrap(text, 66)]))


def _readable(name: str) -> str:
    return {"f1": "F1", "roc_auc": "ROC AUC"}.get(name, str(name).replace("_", " "))


def _range(row: pd.Series, value: str) -> str:
    low, high = ("low", "high") if value == "value" else (f"{value}_low", f"{value}_high")
    return f"{row[value]:.2f} ({row[low]:.2f} to {row[high]:.2f})"
