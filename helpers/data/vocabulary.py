"""Common names for attributes that data sets annotate under names of their own.

`load_faces(…, target="smiling", protected="woman")` means the same wherever both are annotated; each data set's own names
keep working. These are annotations: what somebody, or a program, wrote down about a picture (see `data/README.md`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

AGE_GROUPS = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
"""FairFace's groups of ages, in years; the last one begins at 70."""
STARTS = (0, 3, 10, 20, 30, 40, 50, 60, 70)


@dataclass(frozen=True)
class Rule:
    """How a common name follows from a data set's own columns.

    Attributes
    ----------
    columns : own columns that it needs
    read : from these columns (Series, in this order) to the labels
    words : the rule in words, for the documentation
    """

    columns: tuple[str, ...]
    read: Callable[..., pd.Series]
    words: str


def same(column: str) -> Rule:
    return Rule((column,), lambda own: own, f"`{column}`")


def opposite(column: str) -> Rule:
    return Rule((column,), lambda own: _opposite(own), f"not `{column}`")


def equal(column: str, value: str) -> Rule:
    def read(own: pd.Series) -> pd.Series:
        shown, absent = (own == value).astype(bool), own.isna()
        return shown.astype(object).where(~absent, None) if absent.any() else shown

    return Rule((column,), read, f"`{column}` is {value}")


def beard_goatee_or_moustache(no_beard: str, goatee: str, moustache: str) -> Rule:
    def read(none: pd.Series, chin: pd.Series, lip: pd.Series) -> pd.Series:
        shown = (none == False) | (chin == True) | (lip == True)  # noqa: E712  a missing label equals neither
        told = shown | (none.notna() & chin.notna() & lip.notna())
        return shown if told.all() else shown.astype(object).where(told, None)

    return Rule((no_beard, goatee, moustache), read, f"not `{no_beard}`, or `{goatee}`, or `{moustache}`")


def age_group(column: str) -> Rule:
    return Rule((column,), group_ages, f"`{column}` in FairFace's groups")


def group_ages(years: pd.Series) -> pd.Series:
    """Ages in years as ordered categories, the names in `AGE_GROUPS`."""
    return pd.cut(years, [*STARTS, float("inf")], right=False, labels=AGE_GROUPS)


def _opposite(own: pd.Series) -> pd.Series:
    return ~own if own.dtype == bool else own.map({True: False, False: True}).astype(object)


VOCABULARY: dict[str, dict[str, Rule]] = {
    "smiling": {"illustrated": same("smiling"), "celeba": same("Smiling"), "lfw": same("Smiling")},
    "glasses": {
        "illustrated": same("glasses"),
        "orl": same("glasses"),
        "celeba": same("Eyeglasses"),
        "lfw": same("Eyeglasses"),
    },
    "facial_hair": {
        "illustrated": same("facial_hair"),
        "orl": same("facial_hair"),
        "celeba": beard_goatee_or_moustache("No_Beard", "Goatee", "Mustache"),
        "lfw": beard_goatee_or_moustache("No Beard", "Goatee", "Mustache"),
    },
    "head_covering": {
        "illustrated": same("head_covering"),
        "celeba": same("Wearing_Hat"),
        "lfw": same("Wearing Hat"),
    },
    "woman": {
        "orl": same("woman"),
        "bfw": same("woman"),
        "celeba": opposite("Male"),
        "fairface": equal("gender", "Female"),
        "utkface": equal("gender", "female"),
        "lfw": opposite("Male"),
    },
    "young": {"celeba": same("Young")},
    "age_group": {"fairface": same("age"), "utkface": age_group("age")},
    "race_annotation": {"bfw": same("ethnicity"), "fairface": same("race"), "utkface": same("race")},
    "blond_hair": {"celeba": same("Blond_Hair"), "lfw": same("Blond Hair")},
    "black_hair": {"celeba": same("Black_Hair"), "lfw": same("Black Hair")},
    "brown_hair": {"celeba": same("Brown_Hair"), "lfw": same("Brown Hair")},
    "grey_hair": {"celeba": same("Gray_Hair"), "lfw": same("Gray Hair")},
    "bald": {"celeba": same("Bald"), "lfw": same("Bald")},
    "makeup": {"celeba": same("Heavy_Makeup"), "lfw": same("Heavy Makeup")},
}
"""For each common name, the data sets that annotate it and how it is read there."""


def with_common_names(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table of data set `name` with a column for each common name that its columns give.

    Own columns stay as they are; where a common name is the own one, nothing is added. A copy of the data set without
    the columns that a name needs goes without that name.
    """
    added = {}
    for common, rules in VOCABULARY.items():
        rule = rules.get(name)
        if rule is not None and common not in table and set(rule.columns) <= set(table.columns):
            added[common] = rule.read(*(table[column] for column in rule.columns))
    return pd.concat([table, pd.DataFrame(added, index=table.index)], axis=1) if added else table


def as_markdown() -> str:
    """The vocabulary as the table in `data/README.md`: a row a common name, a column a data set."""
    names = sorted({name for rules in VOCABULARY.values() for name in rules})
    lines = ["| common name | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for common, rules in VOCABULARY.items():
        cells = [rules[name].words if name in rules else "" for name in names]
        lines.append(f"| `{common}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)
