"""What users pass to `audit` as labels over one set of classes, and as groups; `helpers.bias.columns` reads each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.bias.columns import Column, read_column
from helpers.names import choose


def read_labels(
    y_true: Any, y_pred: Any, classes: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, tuple[Any, ...], tuple[str, ...]]:
    """Codes of labels and predictions over one common set of classes.

    Whole numbers, booleans, strings and categories are labels; floats are if they are whole. Without `classes`, the
    classes are the values that occur in either column, sorted; 0 or 1 alone means the pair (0, 1), -1 or 1 alone the
    pair (-1, 1). With `classes`, numbers are codes into it and strings are names in it. Rows belong together by
    position; the index of a Series is not looked at.

    Returns
    -------
    y_true, y_pred : int64 (N,), codes
    values : tuple of C labels as they were given
    names : tuple of C strings

    Raises
    ------
    ValueError : empty or of different length; a label is missing, a fraction, or outside `classes`; the two columns
        have no value in common, differ in kind, or code no and yes as -1 and 1 here and as 0 and 1 there; only one class.
    """
    true, pred = read_column(y_true, "y_true"), read_column(y_pred, "y_pred")
    same_length(len(true.codes), y_pred=len(pred.codes))
    if not len(true.codes):
        raise ValueError("y_true: empty; an audit needs at least one row")
    if classes is not None:
        names = _names(classes, "classes", "at least two different names", fewest=2)
        recoded = [_into(column, names, argument) for column, argument in ((true, "y_true"), (pred, "y_pred"))]
        return *recoded, tuple(range(len(names))), names
    kinds = [{isinstance(value, str) for value in column.values} for column in (true, pred)]
    found = set(true.values) | set(pred.values)
    pair = next((pair for pair in ((0, 1), (-1, 1)) if found <= set(pair)), None)
    # all labels 0 and all predictions 1 are a bad model, not a mistake in the call
    if kinds[0] != kinds[1] or not (pair or set(true.values) & set(pred.values)):
        raise ValueError(
            f"y_pred: its values ({_shown(pred.values)}) and those of y_true ({_shown(true.values)}) have nothing in "
            "common; name all of them in `classes` if that is meant"
        )
    if {frozenset(true.values), frozenset(pred.values)} == {frozenset({-1, 1}), frozenset({0, 1})}:
        raise ValueError(
            f"y_pred: its values ({_shown(pred.values)}) code no and yes in another way than those of y_true "
            f"({_shown(true.values)}); recode one of them"
        )
    if pair and all(isinstance(value, bool) for value in found):
        pair = (False, True)
    values = pair or tuple(sorted(found))
    if len(values) < 2:
        raise ValueError(f"y_true: only one class, {values[0]!r}; name the others in `classes`")
    position = {value: i for i, value in enumerate(values)}
    recoded = [_recode(column.codes, [position[value] for value in column.values]) for column in (true, pred)]
    return *recoded, values, tuple(str(value) for value in values)


def read_positive(positive: Any, values: tuple[Any, ...], names: tuple[str, ...]) -> int | None:
    """The code of the positive class: `positive` is a label value or a class's name. None with three classes or more.

    Raises
    ------
    ValueError : no class is called so, or there are more than two classes and `positive` names one of them.
    """
    if len(values) > 2:
        if positive != 1:
            raise ValueError(
                f"positive: {positive!r} given with {len(values)} classes, where every class takes its turn as the "
                "positive one; leave it out, or make the labels binary"
            )
        return None
    for known in (values, names):
        if positive in known:
            return known.index(positive)
    raise ValueError(f"positive: {positive!r} is not among the classes {_shown(names)}; name the positive one")


def read_groups(group: Any, groups: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and names of groups; a DataFrame's columns are crossed.

    Values are sorted, categories keep their order. A named column (of a DataFrame, or a Series with a name) of
    booleans, of 0 and 1, or of -1 and 1 has the groups `not <name>` and `<name>`; other values are called as they are.

    Parameters
    ----------
    group : array-like (N,) of whole numbers, booleans, strings or categories; or DataFrame with N rows
    groups : names that integer codes stand for, or the wanted order of names; not with a DataFrame

    Returns
    -------
    codes : int64 (N,)
    names : tuple of str; those that nobody belongs to included, where they are known

    Raises
    ------
    ValueError : missing or fractional values, unhashable values, a code or name outside `groups`.
    """
    if isinstance(group, pd.DataFrame):
        if groups is not None:
            raise ValueError("groups: names are for one column of codes; a DataFrame brings its own")
        if group.shape[1] == 0:
            raise ValueError("group: the table has no columns")
        if not group.columns.is_unique:
            raise ValueError(f"group: column names repeat in {_shown(group.columns)}")
        columns = [_named(group[name], str(name)) for name in group.columns]
        codes, names = columns[0].codes, columns[0].names
        for column in columns[1:]:
            codes = codes * len(column.names) + column.codes
            names = tuple(f"{left}, {right}" for left in names for right in column.names)
        return codes, _distinct(names)
    if groups is not None:
        names = _names(groups, "groups", "different names", fewest=1)
        return _into(read_column(group, "group"), names, "group"), names
    if isinstance(group, pd.Series) and group.name is not None:
        column = _named(group, str(group.name))
    else:
        column = read_column(group, "group")
    return column.codes, _distinct(column.names)


def read_people(identity: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes int64 (N,) and names of the people that occur; whole numbers, strings or categories.

    Raises
    ------
    ValueError : as `helpers.bias.columns.read_column`.
    """
    column = read_column(identity, "identity")
    used = column.occurring()
    position = np.zeros(len(column.values), dtype=np.int64)
    position[used] = np.arange(len(used))
    return position[column.codes], tuple(column.names[code] for code in used)


def same_length(expected: int, **lengths: int) -> None:
    """Raise ValueError if a column is not as long as `y_true`; both lengths are named."""
    for argument, length in lengths.items():
        if length != expected:
            raise ValueError(f"{argument}: {length} rows given, but y_true has {expected}")


def _recode(codes: np.ndarray, to: list[int]) -> np.ndarray:
    """`to[code]` for every code; the codes themselves where that changes nothing, which spares a pass over the rows."""
    return codes if to == list(range(len(to))) else np.array(to, dtype=np.int64)[codes]


def _named(series: pd.Series, name: str) -> Column:
    column = read_column(series, f"group column {name!r}")
    for pair in ((0, 1), (-1, 1)):
        if set(column.values) <= set(pair):
            # Both levels exist even if only one occurs: an empty group should be seen.
            codes = _recode(column.codes, [pair.index(value) for value in column.values])
            return Column(codes, pair, (f"not {name}", name))
    return column


def _into(column: Column, names: tuple[str, ...], argument: str) -> np.ndarray:
    """Recode a column into given names: strings by name, numbers as positions."""
    target = list(range(len(column.values)))
    for code in column.occurring():  # a category that nobody has need not be among the names
        value = column.values[code]
        if isinstance(value, str):
            target[code] = names.index(choose(value, names, argument))
        elif isinstance(value, int | np.integer) and 0 <= value < len(names):
            target[code] = int(value)
        else:
            raise ValueError(f"{argument}: code {value} is outside the {len(names)} names {_shown(names)}")
    return _recode(column.codes, target)


def _names(names: Any, argument: str, wanted: str, fewest: int) -> tuple[str, ...]:
    """Names as they were given; a text would pass for its letters."""
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        raise ValueError(f"{argument}: a list of {wanted} expected, {names!r} given")
    found = tuple(str(name) for name in names)
    if len(found) < fewest or len(set(found)) < len(found):
        raise ValueError(f"{argument}: {wanted} expected, {list(found)} given")
    return found


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"group: two groups would be called {repeated[0]!r}; rename the values")
    return names


def _shown(values: Any, most: int = 6) -> str:
    values = [str(value) for value in values]
    return ", ".join(values[:most]) + (", …" if len(values) > most else "")
