"""Reading a column of a table as integer codes with names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.api import types

from helpers.names import choose


def find_column(table: pd.DataFrame, column: str, argument: str) -> str:
    """The name of `column` as `table` spells it.

    Raises
    ------
    ValueError : no such column; the message names the argument, the nearest column and all columns.
    """
    try:
        return choose(column, [str(name) for name in table.columns], argument)
    except ValueError as error:
        raise ValueError(
            str(error).replace("unknown name", "no column", 1).replace("Accepted:", "Columns:")
        ) from None


def missing(column: pd.Series) -> np.ndarray:
    """bool (N,), True where a label is absent: NaN, None, or text of blanks only.

    Raises
    ------
    ValueError : the column holds lists, records or the like; it is named.
    """
    if types.is_numeric_dtype(column) or types.is_bool_dtype(column):
        return column.isna().to_numpy(dtype=bool)
    try:
        code, values = pd.factorize(column)  # a million rows have few different labels; code -1 is NaN or None
    except TypeError as error:
        raise ValueError(
            f"column {column.name!r}: labels are words, whole numbers or yes/no, and it holds others ({error})"
        ) from None
    return np.array([*(isinstance(value, str) and not value.strip() for value in values), True])[code]


def level_names(column: pd.Series, name: str) -> tuple[list, tuple[str, ...]]:
    """The values of a label column and what each is called, in the order of the codes.

    A column of booleans, of 0 and 1, or of -1 and 1 has the two levels `not <name>` and `<name>`, even where
    only one of them occurs. Categories keep their order, other whole numbers and strings are sorted.

    Parameters
    ----------
    column : Series (N,) of booleans, whole numbers, strings or categories; missing values are passed over
    name : str, the attribute's name

    Returns
    -------
    values : list of K raw values
    names : tuple of K strings

    Raises
    ------
    ValueError : the column holds fractions (bin them first) or nothing at all.
    """
    present = column[~missing(column)]
    if isinstance(column.dtype, pd.CategoricalDtype) and not set(column.cat.categories) <= {-1, 0, 1}:
        values = list(column.cat.categories)
        return values, tuple(str(value) for value in values)
    if present.empty:
        raise ValueError(f"column {name!r}: every label is missing")
    found = set(present.unique().tolist())
    if found <= {0, 1}:  # True == 1, so this takes booleans too
        return [False, True], (f"not {name}", name)
    if found <= {-1, 1}:
        return [-1, 1], (f"not {name}", name)
    if any(isinstance(value, float) and not value.is_integer() for value in found):
        shown = ", ".join(f"{value:g}" for value in sorted(found)[:3])
        raise ValueError(
            f"column {name!r}: labels must be categories, and it holds fractions ({shown}, …); bin them "
            "with pandas.cut"
        )
    values = sorted(found, key=lambda value: (isinstance(value, str), value))
    _warn_of_spellings([value for value in values if isinstance(value, str)], name)
    return values, tuple(
        f"{value:.0f}" if isinstance(value, float) else str(value).strip() for value in values
    )


def _warn_of_spellings(words: list[str], name: str) -> None:
    spellings: dict[str, list[str]] = {}
    for word in words:
        spellings.setdefault(word.strip().casefold(), []).append(word)
    several = [alike for alike in spellings.values() if len(alike) > 1]
    if several:
        shown = ", ".join(map(repr, several[0]))
        warnings.warn(f"column {name!r}: {shown} are different labels, though only their capitals differ", stacklevel=4)


def encode(
    column: pd.Series, name: str, names: Sequence[str] | None = None, *, reference: pd.Series | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn a label column into integer codes.

    Parameters
    ----------
    column : Series (N,)
    name : str, the attribute's name
    names : names in the order of the codes, so that splits share them; None: `level_names` of `reference`
    reference : Series that defines the levels (the column over all splits); None: `column` itself

    Returns
    -------
    codes : int64 (N,)
    names : tuple of str

    Raises
    ------
    ValueError : a label is missing (column and count are named), or lies outside `names` (it is named).
    """
    absent = missing(column)
    if absent.any():
        rows = ", ".join(str(row) for row in np.flatnonzero(absent)[:5])
        raise ValueError(
            f"column {name!r}: {absent.sum()} of {len(column)} labels are missing (rows {rows}"
            f"{', …' if absent.sum() > 5 else ''}); label them or leave these rows out"
        )
    values, own = level_names(column if reference is None else reference, name)
    accepted = own if names is None else tuple(str(each) for each in names)
    if len(set(accepted)) != len(accepted):
        raise ValueError(f"column {name!r}: names of classes repeat: {', '.join(accepted)}")
    # Two new names for a yes/no column rename its levels: ("calm", "smiling") for False, True.
    renames = len(accepted) == len(own) == 2 and own[0] == f"not {name}" and not set(own) & set(accepted)
    code_of = (
        {own_name: i for i, own_name in enumerate(own)}
        if renames
        else {each: i for i, each in enumerate(accepted)}
    )
    code_of_value = {
        value: code_of[label] for value, label in zip(values, own, strict=True) if label in code_of
    }
    # Python's dictionary, not pandas' map: to the latter 1, 1.0 and True are different keys.
    distinct, found = pd.factorize(column)
    codes = np.array([code_of_value.get(value, -1) for value in found.tolist()], dtype=np.int64)[distinct]
    outside = codes < 0
    if outside.any():
        raise ValueError(
            f"column {name!r}: label {column[outside].iloc[0]!r} ({outside.sum()} rows) is outside the "
            "classes "
            f"{', '.join(accepted)}"
        )
    return codes, accepted


def cross(codes: Sequence[np.ndarray], names: Sequence[Sequence[str]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Cross several coded columns into one: code = (c1 * K2 + c2) * K3 + c3, name = "n1, n2, n3".

    Every combination gets a code, those that nobody belongs to as well: an empty group should be seen.

    Parameters
    ----------
    codes : sequence of int64 (N,)
    names : sequence of the names of each column's levels

    Returns
    -------
    codes : int64 (N,)
    names : tuple of str, one a combination
    """
    crossed, labels = codes[0], tuple(names[0])
    for more, levels in zip(codes[1:], names[1:], strict=True):
        crossed = crossed * len(levels) + more
        labels = tuple(f"{left}, {right}" for left in labels for right in levels)
    return crossed, labels
