"""Reading one column of whatever kind (array, tensor, Series, categories, list, generator) as integer codes with names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Column:
    """One column of an audit: `values[codes[n]]` is what row n said, `names` is what each value is called."""

    codes: np.ndarray  # int64 (N,)
    values: tuple[Any, ...]
    names: tuple[str, ...]

    def occurring(self) -> list[int]:
        """Codes that some row has; categories may list more."""
        return np.flatnonzero(np.bincount(self.codes, minlength=len(self.values))).tolist()


def read_column(values: Any, argument: str) -> Column:
    """Any column as codes into its sorted values.

    Parameters
    ----------
    values : one value a row: whole numbers (also as floats), booleans or strings, in an array, a tensor of any device, a
        Series of any dtype, an Arrow array, a list (of tensors with one value, too), a generator; or pandas categories,
        which keep their order and the levels that nobody has (but a group's only: of labels, what occurs counts)
    argument : what to call it in an error

    Raises
    ------
    ValueError : no column (a table, a mapping, a set, a lone value, a text); more than one dimension; values that are
        missing (None, NaN, NA, masked, blank, or the text "nan", which NumPy makes of a NaN among strings), fractional, of
        several kinds, or of a kind that names no group, such as dates.
    """
    if isinstance(values, pd.Categorical):
        values = pd.Series(values)
    if isinstance(getattr(values, "dtype", None), pd.CategoricalDtype):
        return _read_categories(pd.Series(values), argument)
    array = _array(values, argument)
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
    lost = {"nan"} if array.dtype.kind == "U" else set()  # np.array(["a", np.nan]) holds the text "nan"
    blank = np.array([not name.strip() or name in lost for name in names], dtype=bool)
    refuse_missing(blank[codes] if len(codes) else blank, argument)
    return Column(codes.astype(np.int64), names, names)


def read_tensor(tensor: Any, argument: str) -> np.ndarray:
    """A PyTorch tensor of any device as an array; the caller need not import PyTorch.

    Raises
    ------
    ValueError : the tensor has no dense values to read (sparse, or on the meta device).
    """
    if "bfloat16" in str(tensor.dtype):  # NumPy has no such type
        tensor = tensor.float()
    try:
        return tensor.detach().cpu().numpy()
    except (RuntimeError, TypeError) as error:  # NotImplementedError is a RuntimeError
        raise ValueError(f"{argument}: a dense tensor expected, {tensor.layout} on {tensor.device} given ({error})") from None


def read_numbers(values: Any, argument: str) -> np.ndarray:
    """Numbers of any shape as an array of floats; what was masked is NaN.

    Parameters
    ----------
    values : an array, a tensor of any device and type, a Series or table, (nested) lists, a list of tensors, a generator
    argument : what to call it in an error

    Returns
    -------
    float32 if that came, else float64

    Raises
    ------
    ValueError : texts, dates, lists of different length, or whatever else is no number.
    """
    if hasattr(values, "detach"):
        values = read_tensor(values, argument)
    if isinstance(values, np.ma.MaskedArray):
        values = values.astype(np.float64).filled(np.nan)  # a masked score is a missing one
    if hasattr(values, "__next__"):
        values = list(values)
    if isinstance(values, list | tuple) and any(hasattr(each, "detach") for each in values[:1]):
        values = [read_tensor(each, argument) for each in values]  # collected in a loop over images
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiubO":
            raise TypeError(f"{array.dtype} given")
        return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument}: numbers expected ({error})") from None


def refuse_missing(absent: np.ndarray, argument: str) -> None:
    """Raise ValueError if any entry of the mask `absent` is true; the first row is named."""
    if absent.any():
        rows = np.flatnonzero(absent)
        raise ValueError(
            f"{argument}: {len(rows)} of {len(absent)} values are missing (first at row {rows[0]}); "
            "label these rows or leave them out"
        )


def _array(values: Any, argument: str) -> np.ndarray:
    if hasattr(values, "detach"):
        return read_tensor(values, argument)
    if isinstance(values, pd.DataFrame):
        raise ValueError(f"{argument}: one column expected, a table of {values.shape[1]} given; pick it with table[name]")
    if isinstance(values, np.ma.MaskedArray):
        refuse_missing(np.ma.getmaskarray(values), argument)
        return np.asarray(values)
    if isinstance(values, pd.Series | pd.Index):
        return values.to_numpy()
    if hasattr(values, "__array__"):  # Arrow arrays, pandas' own, tensors of other libraries
        return np.asarray(values)
    # A mapping would give its keys, a set an order of its own, a text its letters: no rows, and no error later on.
    if isinstance(values, str | bytes | Mapping | set | frozenset) or not hasattr(values, "__iter__"):
        hint = "; pass a DataFrame to cross several attributes" if isinstance(values, Mapping) and argument == "group" else ""
        raise ValueError(f"{argument}: one value a row expected, a lone {type(values).__name__} given{hint}")
    rows = list(values)
    try:
        if rows and hasattr(rows[0], "detach"):  # predictions collected in a loop
            rows = [each.item() for each in rows]
        # Through objects, so that NumPy cannot turn the list ["a", 1, nan] into strings.
        column = np.empty(len(rows), dtype=object)
        column[:] = rows
    except (AttributeError, RuntimeError, ValueError):
        raise ValueError(f"{argument}: one value a row expected, nested lists given") from None
    return column


def _read_integers(array: np.ndarray) -> Column:
    if not len(array):
        return Column(array.astype(np.int64), (), ())
    low, high = int(array.min()), int(array.max())
    if high - low < 1 << 16 and high < 1 << 63:  # few possible values: a table of those that occur beats sorting a million
        shifted = array.astype(np.int64) - low if low else array.astype(np.int64, copy=False)
        found = np.flatnonzero(np.bincount(shifted))
        code = np.zeros(high - low + 1, dtype=np.int64)
        code[found] = np.arange(len(found))
        codes, found = code[shifted] if len(found) <= high - low else shifted, found + low
    else:
        found, codes = np.unique(array, return_inverse=True)
    values = tuple(int(value) for value in found)
    return Column(codes, values, tuple(str(value) for value in values))


def _read_categories(series: pd.Series, argument: str) -> Column:
    refuse_missing(series.isna().to_numpy(), argument)
    levels, codes = series.cat.categories, series.cat.codes.to_numpy().astype(np.int64)
    column = Column(codes, tuple(levels), tuple(str(level) for level in levels))
    blank = np.array([not name.strip() for name in column.names], dtype=bool)
    refuse_missing(blank[codes] if len(codes) else blank[:0], argument)
    if argument in ("y_true", "y_pred") or set(levels) <= {-1, 0, 1}:
        # Labels are what occurs, and a yes/no column stays one when it is stored as categories.
        used = column.occurring()
        of_level = read_column(levels[used].to_numpy(), argument)
        position = np.zeros(len(levels), dtype=np.int64)
        position[used] = of_level.codes
        return Column(position[codes] if len(levels) else codes, of_level.values, of_level.names)
    return column


def _plain(array: np.ndarray, argument: str) -> np.ndarray:
    """An object array as one of integers, floats, booleans or strings; mixed kinds are refused."""
    refuse_missing(pd.isna(array), argument)
    kind = pd.api.types.infer_dtype(array, skipna=False)
    known = {"integer": np.int64, "boolean": bool, "floating": float, "mixed-integer-float": float}
    if kind in known:
        try:
            return array.astype(known[kind])
        except OverflowError:
            raise ValueError(f"{argument}: holds numbers beyond 64 bits; make them strings") from None
    if kind in ("string", "empty"):
        return array
    raise ValueError(
        f"{argument}: whole numbers, booleans or strings expected, all of one kind; {kind} values given"
    )


def _whole(array: np.ndarray, argument: str) -> np.ndarray:
    refuse_missing(np.isnan(array), argument)
    last = 2.0 ** (np.finfo(array.dtype).nmant + 1)  # beyond it floats skip whole numbers, and two groups may become one
    fractions = array[~(np.abs(array) <= last) | (array != np.round(array))]
    if len(fractions):
        hint = {
            "y_pred": "give hard predictions here and scores as `y_score`",
            "y_true": "give class labels",
        }.get(argument, "bin it with pandas.cut")
        raise ValueError(
            f"{argument}: holds {fractions[0]:g} ({len(fractions)} values are not whole, or too large to be told apart); {hint}"
        )
    return array.astype(np.int64)
