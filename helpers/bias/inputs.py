"""Reading what users pass to `audit` (arrays, tensors, Series, categories, tables) as integer codes with names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helpers.names import choose


@dataclass(frozen=True)
class Column:
    """One column of an audit: `values[codes[n]]` is what row n said, `names` is what each value is called."""

    codes: np.ndarray  # int64 (N,)
    values: tuple[Any, ...]
    names: tuple[str, ...]


def read_labels(
    y_true: Any, y_pred: Any, classes: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, tuple[Any, ...], tuple[str, ...]]:
    """Codes of labels and predictions over one common set of classes.

    Whole numbers, booleans, strings and categories are labels; floats are if they are whole. Without `classes`, the
    classes are the values that occur in either column, sorted; 0 or 1 alone means the pair (0, 1), -1 or 1 alone the
    pair (-1, 1). With `classes`, numbers are codes into it and strings are names in it.

    Returns
    -------
    y_true, y_pred : int64 (N,), codes
    values : tuple of C labels as they were given
    names : tuple of C strings

    Raises
    ------
    ValueError : empty or of different length; a label is missing, a fraction, or outside `classes`; the two columns
        have no value in common or differ in kind; only one class.
    """
    true, pred = _read(y_true, "y_true"), _read(y_pred, "y_pred")
    same_length(len(true.codes), y_pred=len(pred.codes))
    if not len(true.codes):
        raise ValueError("y_true: empty; an audit needs at least one row")
    if classes is not None:
        names = tuple(str(name) for name in classes)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"classes: at least two different names expected, {list(names)} given")
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
    if pair and all(isinstance(value, bool) for value in found):
        pair = (False, True)
    values = pair or tuple(sorted(found))
    if len(values) < 2:
        raise ValueError(f"y_true: only one class, {values[0]!r}; name the others in `classes`")
    position = {value: i for i, value in enumerate(values)}
    recoded = [np.array([position[value] for value in column.values])[column.codes] for column in (true, pred)]
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
        names = tuple(str(name) for name in groups)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"groups: different names expected, {list(names)} given")
        return _into(_read(group, "group"), names, "group"), names
    if isinstance(group, pd.Series) and group.name is not None:
        column = _named(group, str(group.name))
    else:
        column = _read(group, "group")
    return column.codes, _distinct(column.names)


def same_length(expected: int, **lengths: int) -> None:
    """Raise ValueError if a column is not as long as `y_true`; both lengths are named."""
    for argument, length in lengths.items():
        if length != expected:
            raise ValueError(f"{argument}: {length} rows given, but y_true has {expected}")


def _named(series: pd.Series, name: str) -> Column:
    column = _read(series, f"group column {name!r}")
    for pair in ((0, 1), (-1, 1)):
        if set(column.values) <= set(pair):
            # Both levels exist even if only one occurs: an empty group should be seen.
            codes = np.array([pair.index(value) for value in column.values], dtype=np.int64)[column.codes]
            return Column(codes, pair, (f"not {name}", name))
    return column


def _read(values: Any, argument: str) -> Column:
    """Any column as codes into its sorted values; refuses what is missing, fractional or nested."""
    if hasattr(values, "detach"):  # a tensor, perhaps on another device
        values = values.detach().cpu().numpy()
    if isinstance(values, pd.Categorical):
        values = pd.Series(values)
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        return _read_categories(values, argument)
    array = values.to_numpy() if isinstance(values, pd.Series | pd.Index) else values
    if not isinstance(array, np.ndarray):
        array = list(array)
        try:
            # Through objects, so that NumPy cannot turn the list ["a", 1, nan] into strings.
            column = np.empty(len(array), dtype=object)
            column[:] = array
        except ValueError:
            raise ValueError(f"{argument}: one value a row expected, nested lists given") from None
        array = column
    if array.ndim != 1:
        hint = "; pass a DataFrame to cross several attributes" if argument == "group" else ""
        raise ValueError(f"{argument}: one dimension expected, shape {array.shape} given{hint}")
    if array.dtype == object:
        array = _plain(array, argument)
    if array.dtype.kind == "f":
        array = _whole(array, argument)
    if array.dtype.kind in "iu":
        return _read_integers(array)
    if array.dtype.kind == "b":
        column = _read_integers(array.view(np.int8))
        flags = tuple(bool(value) for value in column.values)
        return Column(column.codes, flags, tuple(str(flag) for flag in flags))
    if array.dtype.kind not in "OUT":
        raise ValueError(f"{argument}: whole numbers, booleans or strings expected, {array.dtype} given")
    codes, found = pd.factorize(array, sort=True)
    names = tuple(str(value) for value in found)
    blank = np.array([not name.strip() for name in names], dtype=bool)
    _refuse_missing(blank[codes] if len(codes) else blank, argument)
    return Column(codes.astype(np.int64), names, names)


def _read_integers(array: np.ndarray) -> Column:
    if not len(array):
        return Column(array.astype(np.int64), (), ())
    low, high = int(array.min()), int(array.max())
    if high - low < 1 << 16:  # few possible values: a table of those that occur beats sorting a million rows
        shifted = array.astype(np.int64) - low
        found = np.flatnonzero(np.bincount(shifted))
        code = np.zeros(high - low + 1, dtype=np.int64)
        code[found] = np.arange(len(found))
        codes, found = code[shifted] if len(found) <= high - low else shifted, found + low
    else:
        found, codes = np.unique(array, return_inverse=True)
    values = tuple(int(value) for value in found)
    return Column(codes, values, tuple(str(value) for value in values))


def _read_categories(series: pd.Series, argument: str) -> Column:
    _refuse_missing(series.isna().to_numpy(), argument)
    levels = series.cat.categories
    if argument in ("y_true", "y_pred") or set(levels) <= {-1, 0, 1}:
        # Labels are what occurs, and a yes/no column stays one when it is stored as categories.
        return _read(series.astype(object), argument)
    return Column(
        series.cat.codes.to_numpy().astype(np.int64), tuple(levels), tuple(str(level) for level in levels)
    )


def _plain(array: np.ndarray, argument: str) -> np.ndarray:
    """An object array as one of integers, floats, booleans or strings; mixed kinds are refused."""
    _refuse_missing(pd.isna(array), argument)
    kind = pd.api.types.infer_dtype(array, skipna=False)
    if kind in ("integer", "boolean", "floating"):
        return array.astype({"integer": np.int64, "boolean": bool, "floating": float}[kind])
    if kind in ("string", "empty"):
        return array
    raise ValueError(
        f"{argument}: whole numbers, booleans or strings expected, all of one kind; {kind} values given"
    )


def _whole(array: np.ndarray, argument: str) -> np.ndarray:
    _refuse_missing(np.isnan(array), argument)
    fractions = array[~np.isfinite(array) | (array != np.round(array))]
    if len(fractions):
        hint = {
            "y_pred": "give hard predictions here and scores as `y_score`",
            "y_true": "give class labels",
        }.get(argument, "bin it with pandas.cut")
        raise ValueError(f"{argument}: holds {fractions[0]:g} ({len(fractions)} values are not whole); {hint}")
    return array.astype(np.int64)


def _refuse_missing(absent: np.ndarray, argument: str) -> None:
    if absent.any():
        rows = np.flatnonzero(absent)
        raise ValueError(
            f"{argument}: {len(rows)} of {len(absent)} values are missing (first at row {rows[0]}); "
            "label these rows or leave them out"
        )


def _into(column: Column, names: tuple[str, ...], argument: str) -> np.ndarray:
    """Recode a column into given names: strings by name, numbers as positions."""
    if column.values and isinstance(column.values[0], str):
        target = [names.index(choose(value, names, argument)) for value in column.values]
    else:
        for value in column.values:
            if not 0 <= value < len(names):
                raise ValueError(f"{argument}: code {value} is outside the {len(names)} names {_shown(names)}")
        target = [int(value) for value in column.values]
    return np.array(target, dtype=np.int64)[column.codes] if target else column.codes


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"group: two groups would be called {repeated[0]!r}; rename the values")
    return names


def _shown(values: Any, most: int = 6) -> str:
    values = [str(value) for value in values]
    return ", ".join(values[:most]) + (", …" if len(values) > most else "")
