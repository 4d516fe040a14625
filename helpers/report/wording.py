"""Names, intervals and tables of an audit as they stand in a text."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from .html import interval

SPELT = {"smoothgrad": "SmoothGrad", "grad_cam": "Grad-CAM", "gradient_input": "Gradient × input"}


def names(protected: str | Sequence[str]) -> list[str]:
    """The protected attributes' names for a sentence."""
    return [words(name).lower() for name in ([protected] if isinstance(protected, str) else protected)]


def words(column: str) -> str:
    """A name for a heading: "facial_hair" becomes "Facial hair"; methods are spelt as in their papers."""
    if column in SPELT:
        return SPELT[column]
    spaced = str(column).replace("_", " ")
    return spaced[:1].upper() + spaced[1:]


def summarised(table: pd.DataFrame) -> pd.DataFrame:
    """One row a statistic (and group): with three classes or more, over all of them, or their mean."""
    if "class" not in table:
        return table
    whole = table[table["class"].isin(["all", "macro"])]
    keys = [name for name in ("group", "statistic") if name in table]
    return whole.sort_values("class", kind="stable").drop_duplicates(keys).sort_index()


def spans(table: pd.DataFrame, value: str, low: str | None = None, high: str | None = None) -> list[str]:
    """Value and interval of each row as one text."""
    low, high = low or f"{value}_low", high or f"{value}_high"
    return [interval(*row) for row in zip(table[value], table[low], table[high], strict=True)]


def gaps_table(judged, statistics: Sequence[str]) -> pd.DataFrame:
    """Largest difference and smallest ratio between two groups, with intervals, and the corrected p-value, as texts."""
    level = f"{judged.confidence:.0%}"
    gaps = summarised(judged.gaps)
    gaps = gaps[gaps["statistic"].isin(statistics)]
    table = pd.DataFrame({
        "gap in": [words(name) for name in gaps["statistic"]],
        f"difference [{level}]": spans(gaps, "difference"),
        f"ratio [{level}]": spans(gaps, "ratio"),
        "worst group": [name or "–" for name in gaps["worst"]],
        "best group": [name or "–" for name in gaps["best"]],
    })  # fmt: skip
    if len(judged.counts.groups) > 1:
        p = summarised(judged.test(seed=judged.seed)).set_index("statistic")["p_holm"]
        table["p (Holm)"] = ["not defined" if pd.isna(p[name]) else f"{p[name]:.3g}" for name in gaps["statistic"]]
    return table


def groups_table(judged, statistics: Sequence[str] | None = None) -> pd.DataFrame:
    """Statistics (rows) by group (columns) with intervals, as texts."""
    rates = summarised(judged.by_group)
    if statistics is not None:
        rates = rates[rates["statistic"].isin(statistics)]
    rates = rates.assign(
        statistic=[words(name) for name in rates["statistic"]], cell=spans(rates, "value", "low", "high")
    )
    table = rates.pivot(index="statistic", columns="group", values="cell")
    return table.reindex(index=rates["statistic"].unique(), columns=rates["group"].unique()).reset_index()
