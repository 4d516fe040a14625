"""Reading the big lists of official data sets: columns between runs of spaces, tabs or commas."""

from __future__ import annotations

import io
from csv import QUOTE_NONE
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

OUTSIDE = r"^/|^\w:|(?:^|/)\.\.(?:/|$)|\x00"
BLANK = ["", "NA", "NaN", "nan"]
LINES = 2048  # so few that they stay in the processor's cache
RECTANGLES = 64  # runs of lines of one length; names that are numbered have one for each number of digits


def lines_of(file: Path) -> bytes:
    """The text of a file with UNIX line ends, without byte-order mark and outer blank lines."""
    text = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text.strip(b"\n ")


def parse(text: bytes, file: Path, kinds: dict[str, str], separator: str | None) -> pd.DataFrame:
    """Lines of cells as a table, 200,000 rows of 40 columns in a fraction of a second.

    Parameters
    ----------
    text : the lines, without a header
    file : where they are from, for the errors
    kinds : for each column, its name and what it holds: "str", "int8", "int64" or "float64"
    separator : one character, between which a blank cell is a missing label; or None, any run of spaces and tabs

    Raises
    ------
    ValueError : no lines, a line with more or fewer cells, or a cell of another kind; the message names the file.
    """
    if not text:
        raise ValueError(f"{file}: the file has no rows")
    if separator is not None:
        return _parse_cells(text, file, kinds, separator)
    table = _parse_signs(text, kinds)
    return _parse_runs(text, file, kinds) if table is None else table


def _parse_cells(text: bytes, file: Path, kinds: dict[str, str], separator: str) -> pd.DataFrame:
    types = {name: pa.string() if kind == "str" else pa.from_numpy_dtype(kind) for name, kind in kinds.items()}
    try:
        table = csv.read_csv(
            pa.py_buffer(text),
            read_options=csv.ReadOptions(column_names=list(kinds)),
            parse_options=csv.ParseOptions(delimiter=separator, quote_char='"' if separator == "," else False),
            convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=BLANK),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file}: {error}") from error
    return table.to_pandas()


def _parse_signs(text: bytes, kinds: dict[str, str]) -> pd.DataFrame | None:
    """The table, if all lines are a name and numbers of three characters each (" -1", "  1", "  0"); else None.

    CelebA's own list is of this form, in which no cell has to be searched for: a quarter of the time of `_parse_runs`.
    """
    (name, first), *rest = kinds.items()
    if first != "str" or {kind for _, kind in rest} != {"int8"}:
        return None
    buffer = np.frombuffer(text + b"\n", dtype=np.uint8)
    ends = np.flatnonzero(buffer == ord("\n")) + 1
    # Lines of one length that follow each other are a rectangle.
    turns = np.append(np.flatnonzero(np.diff(np.diff(ends, prepend=0))) + 1, len(ends))
    if len(turns) > RECTANGLES:
        return None
    values, names = np.empty((len(rest), len(ends)), dtype=np.int8), []
    start = 0
    for stop in turns.tolist():
        rectangle = buffer[ends[start - 1] if start else 0 : ends[stop - 1]].reshape(stop - start, -1)
        signs = rectangle[:, -1 - 3 * len(rest) : -1]
        if signs.shape[1] < 3 * len(rest) or not _read_signs(signs.reshape(len(signs), -1, 3), values[:, start:stop]):
            return None
        names.append(_read_names(rectangle[:, : -1 - 3 * len(rest)]))
        start = stop
    if any(part is None for part in names):
        return None
    return pd.DataFrame({name: pa.chunked_array(names).to_pandas()} | dict(zip((name for name, _ in rest), values, strict=True)))


def _read_signs(cells: np.ndarray, values: np.ndarray) -> bool:
    """Put the numbers that uint8 (n, k, 3) spell into int8 (k, n); whether they are all -1, 0 or 1."""
    for start in range(0, len(cells), LINES):
        blank, sign, digit = np.moveaxis(cells[start : start + LINES], (2, 1), (0, 1))
        minus, one = sign == ord("-"), digit == ord("1")
        if not ((blank == ord(" ")) & (minus | (sign == ord(" "))) & (one | (digit == ord("0")) & ~minus)).all():
            return False
        values[:, start : start + LINES] = one - 2 * minus.view(np.int8)
    return True


def _read_names(letters: np.ndarray) -> pa.Array | None:
    """uint8 (n, width) as n words, if there is one in each row, with blanks behind it at most where all have them."""
    width = letters.shape[1]
    while width and (letters[:, width - 1] == ord(" ")).all():
        width -= 1
    words = np.ascontiguousarray(letters[:, :width])
    if width == 0 or (words <= ord(" ")).any():
        return None
    array = pa.Array.from_buffers(pa.binary(width), len(words), [None, pa.py_buffer(words)])
    try:
        return array.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:  # no UTF-8, which the other way tells with the file's name
        return None


def _parse_runs(text: bytes, file: Path, kinds: dict[str, str]) -> pd.DataFrame:
    # A column too many catches lines with more cells, which pandas would take for an index of several levels.
    more = "more cells"
    try:
        table = pd.read_csv(
            io.BytesIO(text),
            sep=r"\s+",
            header=None,
            names=[*kinds, more],
            dtype={**kinds, more: "str"},
            na_filter=False,
            quoting=QUOTE_NONE,
            encoding="utf-8",
        )
    except ValueError as error:  # pandas' ParserError and a wrong encoding are kinds of it
        raise ValueError(f"{file}: not {len(kinds)} cells a line, or a cell that is no number ({error})") from error
    if not isinstance(table.index, pd.RangeIndex) or (table[more] != "").any():
        raise ValueError(f"{file}: has lines of more than {len(kinds)} cells")
    return table.drop(columns=more)


def truths(column: pd.Series, file: Path) -> pd.Series:
    """−1 and 1, or 0 and 1, as booleans; a missing label stays missing (None).

    Raises
    ------
    ValueError : another value, or −1 and 0 in one column, which leaves open what 0 means.
    """
    values = column.to_numpy()
    absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    odd = ~(absent | (values == 1) | (values == 0) | (values == -1))
    if odd.any():
        raise ValueError(
            f"{file}: column {column.name!r} holds {column[odd].iloc[0]} ({odd.sum()} rows); accepted: -1 and 1, or 0 and 1"
        )
    if (values == -1).any() and (values == 0).any():
        raise ValueError(f"{file}: column {column.name!r} holds both -1 and 0; accepted: -1 and 1, or 0 and 1")
    read = pd.Series(values == 1, index=column.index, name=column.name)
    return read.astype(object).where(~absent, None) if absent.any() else read


def once(names: pd.Series, file: Path) -> None:
    """Refuse a list that names a file twice, one outside the folder of its images, or a row without a name.

    Raises
    ------
    ValueError : as said; the first such row is named.
    """
    if names.isna().any():
        raise ValueError(f"{file}: row {int(names.isna().to_numpy().argmax())} names no image")
    outside = names.str.contains(OUTSIDE)
    if outside.any():
        raise ValueError(f"{file}: lists {names[outside].iloc[0]!r}, which leads out of the folder of its images")
    twice = names.duplicated()
    if twice.any():
        raise ValueError(f"{file}: lists {names[twice].iloc[0]} twice ({twice.sum()} repeated rows); keep one row an image")
