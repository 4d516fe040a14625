"""Figures of a counterfactual audit: who flips and which way, and how far the score moves."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.plots.legend import below
from helpers.plots.measures import points
from helpers.plots.style import PALETTE, alt

LOOKS = (
    ("flip_rate", "any flip", PALETTE[7], "D"),
    ("flips_to_positive", "to positive", PALETTE[2], "^"),
    ("flips_to_negative", "to negative", PALETTE[3], "v"),
)


def flips(result: Any, *, by: str = "group", ax: Axes | None = None) -> Axes:
    """Share of images whose predicted class changes, by group (or direction), with the two ways it can change.

    Parameters
    ----------
    result : `helpers.bias.counterfactual.Counterfactual`
    by : "group" or "direction"
    ax : where to draw; None: a new figure

    Raises
    ------
    ValueError : `by` is neither, or no direction is known.
    """
    table = _table(result, by)
    overall = result.overall.assign(**{by: "all"})
    table = pd.concat([table, overall], ignore_index=True)
    names = list(dict.fromkeys(table[by]))
    shown = [look for look in LOOKS if (table["statistic"] == look[0]).any()]
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 1.8 + 0.7 * len(names)), layout="constrained")
    place = np.arange(len(names))[::-1].astype(float)
    described = []
    for k, (statistic, label, colour, marker) in enumerate(shown):
        rows = table[table["statistic"] == statistic]
        points(ax, rows, place + 0.22 * ((len(shown) - 1) / 2 - k), colour, marker, label)
        if statistic == "flip_rate":
            described = [f"{who} {row.value:.0%} ({row.low:.0%} to {row.high:.0%})"
                         for who, row in zip(names, rows.itertuples(), strict=True)]  # fmt: skip
    n = table[table["statistic"] == "flip_rate"]["n"]
    ax.set_yticks(place, [f"{name}  (n = {count})" for name, count in zip(names, n, strict=True)])
    # Flips are rare in most models: the whole range from 0 to 1 would squeeze all of them to its edge.
    most = table.loc[table["statistic"] == "flip_rate", "high"].max()
    ax.set(xlim=(-0.02 * most, 1.1 * most) if 0 < most <= 0.5 else (-0.02, 1.02), ylim=(-0.6, len(names) - 0.4))
    what = result.attribute.replace("_", " ") or "the attribute"
    ax.set_xlabel(f"images whose predicted class changes (share; bars: {result.confidence:.0%} interval)")
    ax.set_title(f"Flips when nothing but {what} changes")
    below(ax, ncols=3)
    return alt(ax, f"Share of images whose predicted class flips when only {what} is changed: {'; '.join(described)}.")


def changes(result: Any, *, by: str = "group", bins: int = 40) -> Figure:
    """Distribution of the change of score, one panel a group (or direction), with its mean and interval.

    Parameters
    ----------
    result, by : as in `flips`
    bins : number of bars between the smallest and the largest change
    """
    table = _table(result, by)
    names = list(dict.fromkeys(table[by]))
    change = result.rows["score_after"] - result.rows["score_before"]
    reach = max(float(change.abs().max()), 0.05)
    edges = np.linspace(-reach, reach, bins + 1)
    figure, axes = plt.subplots(
        len(names), 1, figsize=(7, 1.2 + 1.4 * len(names)), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    means = table[table["statistic"] == "score_change"].set_index(by)
    described = []
    for name, ax in zip(names, axes[:, 0], strict=True):
        mine = change[result.rows[by] == name]
        row = means.loc[name]
        ax.hist(mine, edges, weights=np.full(len(mine), 1 / len(mine)), color=PALETTE[0], alpha=0.55)
        ax.axvline(0, color="0.3", linewidth=1)
        ax.axvspan(row["low"], row["high"], color=PALETTE[3], alpha=0.25, linewidth=0)
        ax.axvline(row["value"], color=PALETTE[3], linestyle="--", label=f"mean {row['value']:+.3f}")
        ax.set_title(f"{name}  (n = {len(mine)})", fontsize="medium")
        ax.legend(loc="upper left", frameon=True, fontsize="small")
        described.append(f"{name} {row['value']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})")
    what = result.attribute.replace("_", " ") or "the attribute"
    axes[-1, 0].set_xlabel(f"score after minus score before (probability; band: {result.confidence:.0%} interval of the mean)")
    figure.supylabel("share of the images", fontsize="medium")
    figure.suptitle(f"Change of score when nothing but {what} changes", fontsize="large")
    return alt(figure, f"Mean change of score when only {what} is changed: {'; '.join(described)}.")


def gallery(result: Any, faces: Any, *, n: int = 6) -> Figure:
    """The images whose score moves most, as they are and with the attribute changed, for a data set that can redraw them.

    Parameters
    ----------
    result : of `helpers.bias.counterfactual.counterfactual`
    faces : the data set it was made from
    n : number of pairs

    Raises
    ------
    ValueError : the data set cannot redraw its images, or `n` is below 1.
    """
    if not hasattr(faces, "counterfactual"):
        raise ValueError(f"faces: {type(faces).__name__} cannot redraw its images")
    if n < 1:
        raise ValueError(f"n: {n!r} given; at least one pair expected")
    change = result.rows["score_after"] - result.rows["score_before"]
    chosen = result.rows.loc[change.abs().sort_values(ascending=False, kind="stable").index[:n]]
    figure, axes = plt.subplots(2, len(chosen), figsize=(1.7 * len(chosen) + 0.6, 4.2), squeeze=False, layout="constrained")
    for column, row in zip(axes.T, chosen.itertuples(), strict=True):
        value = _new_value(faces, int(row.row), result.attribute, row.direction)
        pictures = (faces[int(row.row)][0], faces.counterfactual(int(row.row), result.attribute, value))
        said = ((row.before, row.score_before), (row.after, row.score_after))
        for ax, picture, (label, score) in zip(column, pictures, said, strict=True):
            ax.imshow(picture.permute(1, 2, 0).numpy())
            ax.set_title(f"{label}\n{score:.2f}", fontsize="small", loc="center")
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
    what = result.attribute.replace("_", " ")
    for ax, label in zip(axes[:, 0], ("as it is", f"{what}\nchanged"), strict=True):
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    flipped = int(chosen["flip"].sum())
    return alt(
        figure,
        f"The {len(chosen)} faces whose score moves most when only {what} is changed, above as they are and below changed, "
        f"with the predicted class and its score; {flipped} of them flip.",
    )


def _new_value(faces: Any, row: int, attribute: str, direction: str) -> Any:
    """The value that the attribute was changed to: what the direction says after its arrow."""
    from helpers.data.styles import ATTRIBUTES  # only this figure needs to know how faces are drawn

    said = direction.split(" -> ")[-1]
    return {"yes": True, "no": False}.get(said, said if said in ATTRIBUTES[attribute] else None)


def _table(result: Any, by: str) -> pd.DataFrame:
    if by not in ("group", "direction"):
        raise ValueError(f"by: {by!r} given; 'group' or 'direction' expected")
    table = result.by_group if by == "group" else result.by_direction
    if table.empty:
        raise ValueError("by: no direction is known of these pairs; name it in the call that made them")
    return table
