"""What each fix changes, for whom, and what it takes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers.debiasing.result import joined, readable, to_frame
from helpers.plots import debiasing as drawings

from .html import Heading, Picture, Points, Section, Table, Told
from .wording import summarised, words

HEADING = "What does each fix cost?"
SHOWN = ("accuracy", "true_positive_rate", "false_positive_rate")
READ = (
    "Read both numbers: a model that gives every face the same answer has no gap and no use (balanced accuracy 0.5 with two "
    "classes).",
    "A method chosen because it is best in this table needs further faces to confirm it.",
    "No method makes a model fair in every sense; it makes the measured gap smaller.",
)


def none() -> Section:
    """The section where no fix was tried."""
    return Section(HEADING, (
        "No fix was tried for this page. helpers.report(…, results=helpers.debias(model, validation)) or --debias on the command "
        "line compares some on the same faces.",
    ))  # fmt: skip


def mitigation(results, faces, confidence: float) -> Told:
    """Before and after, who gains and who loses, and what a method takes, all on the same faces."""
    told = readable(results)
    frame = to_frame(results)
    numbers = told.drop(columns=["seconds", "remarks"])
    parts: list = []
    if frame["equalized_odds"].notna().any():
        drawing = drawings.before_after(frame)
        parts.append(Picture.of(
            drawing, f"Each model on the same faces, with {confidence:.0%} intervals; the dotted line is the model as it was."
        ))  # fmt: skip
        plt.close(drawing)
    parts.append(Table.of(numbers, f"Before and after on the same {len(faces):,} faces, with {confidence:.0%} intervals; changes "
                                   "are paired, face by face"))  # fmt: skip
    parts += [Heading("Who gains and who loses?"), *shares(results, confidence)]
    takes = pd.DataFrame({
        "method": list(results),
        "needs the group of every new face": ["yes" if result.needs_group else "no" for result in results.values()],
        "seconds to fit": [
            "not measured" if np.isnan(result.seconds) else f"{result.seconds:.2f}" for result in results.values()
        ],
        "remarks": [remarks(result) for result in results.values()],
    })  # fmt: skip
    parts += [
        Heading("What does it take?"),
        Table.of(takes, "What a method needs, and how long it took to fit; the pass over the data that all share is not in it"),
        Points(READ),
    ]
    return Told(Section(HEADING, tuple(parts)), said(results, frame))


def shares(results, confidence: float) -> list:
    """Changes by group, paired, with verdicts."""
    rows = []
    for name, result in results.items():
        if result.comparison is None:
            continue
        table = summarised(result.comparison.by_group)
        for group in dict.fromkeys(table["group"]):
            mine = table[table["group"] == group].set_index("statistic")
            known = {each: change(mine.loc[each]) for each in SHOWN if each in mine.index}
            cells = {f"change of {words(each).lower()}": known.get(each, "not defined") for each in SHOWN}
            rows.append({"method": name, "group": group, **cells})
    if not rows:
        return ["There is no model beside the first to compare it with."]
    return [Table.of(
        pd.DataFrame(rows),
        f"Changes of each group's statistics, paired, with {confidence:.0%} intervals; ▲ better, ▼ worse for it, beyond noise",
    )]  # fmt: skip


def change(row: pd.Series) -> str:
    """A change with its interval, and a sign where it is more than noise."""
    if pd.isna(row["change"]):
        return "not defined"
    sign = {"levels up": " ▲", "levels down": " ▼"}.get(row["verdict"], "")
    return f"{row['change']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{sign}"


def remarks(result) -> str:
    """Why a method failed, and what its reader has to know."""
    return joined([result.error or "", "predicts one class" * bool(result.degenerate), result.note]) or "–"


def said(results, frame: pd.DataFrame) -> str:
    """Which method has the smallest gap on these faces, at what price."""
    after = frame[(frame["equalized_odds_change"].notna()) & ~frame["degenerate"].astype(bool)].set_index("method")
    if after.empty:
        return ""
    name = after["equalized_odds"].astype(float).idxmin()
    row = after.loc[name]
    gap, price = (
        "{:+.3f} [{:+.3f}, {:+.3f}]".format(*(row[f"{key}_change{end}"] for end in ("", "_low", "_high")))
        for key in ("equalized_odds", "balanced_accuracy")
    )
    needs = " It needs the group of every new face." if row["needs_group"] else ""
    noise = " (which may be chance)" if row["equalized_odds_change_high"] >= 0 else ""
    return (
        f"Of the fixes tried, {name} leaves the smallest equalized-odds gap: {row['equalized_odds']:.3f}, a change of "
        f"{gap}{noise}, while balanced accuracy changes by {price}.{needs} Further faces have to confirm a choice made on these."
    )
