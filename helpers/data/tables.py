"""Reading a table from a file: CSV with any of the usual separators, TSV, Parquet."""

from __future__ import annotations

import codecs
import os
import warnings
from pathlib import Path

import pandas as pd

# Not "none": a beard or a hat of kind "none" is a label.
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "<NA>")
SUFFIXES = (".csv", ".tsv", ".parquet")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(file: Path, argument: str, holds: str, *, as_text: str | None = None) -> pd.DataFrame:
    """A .csv (comma, semicolon or tab), .tsv or .parquet file as a table.

    Text is UTF-8, or UTF-16 with a byte-order mark, which spreadsheet programs call Unicode text. Their first line `sep=;` is
    obeyed. A Parquet file's named index becomes columns.

    Parameters
    ----------
    file : Path
    argument : what to call it in an error
    holds : what its columns are expected to be, for the errors
    as_text : a column that is kept as it is written, so that 007 and 7 differ; None, or one that is not there: none is

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : another kind of file, no rows, a column named twice, rows with more cells than the header, or a file that cannot
        be read; the message names the file.
    """
    accepted = f"Expected a .csv, .tsv or .parquet file with {holds}."
    if not os.path.isfile(file):
        raise FileNotFoundError(
            f"{argument}: {file} {'is a folder' if os.path.isdir(file) else 'does not exist'}. {accepted}"
        )
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{argument}: {file} ends in {file.suffix!r}. {accepted}")
    try:
        table = _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_text(file, as_text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}: {file} cannot be read as UTF-8 text ({error}); save it as UTF-8. {accepted}") from error
    except pd.errors.ParserWarning as error:
        raise ValueError(f"{argument}: {file} has rows with more cells than its header. {accepted}") from error
    except (ValueError, OSError) as error:  # pandas' ParserError, pyarrow's ArrowInvalid
        raise ValueError(f"{argument}: {file} cannot be read as a table ({error}). {accepted}") from error
    if table.empty:
        raise ValueError(f"{argument}: {file} has no rows. {accepted}")
    return table


def _read_parquet(file: Path) -> pd.DataFrame:
    table = pd.read_parquet(file)
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    table.columns = _unique([str(name).strip() for name in table.columns])
    return table


def _read_text(file: Path, as_text: str | None) -> pd.DataFrame:
    with file.open("rb") as content:
        first = content.readline()
    encoding = "utf-16" if first.startswith(UTF16) else "utf-8-sig"
    with file.open(encoding=encoding) as lines:
        header = lines.readline()
        told = header.strip().casefold()
        declared = told[4:] if told.startswith("sep=") and len(told) == 5 else None
        if declared:
            header = lines.readline()
    if "\0" in header:
        raise ValueError("it holds NUL bytes, as UTF-16 without a byte-order mark does; save it as UTF-8")
    common = {
        "sep": declared or max(",;\t", key=header.count),
        "encoding": encoding,
        "skiprows": int(bool(declared)),
        "keep_default_na": False,
    }
    names = pd.read_csv(file, header=None, nrows=1, dtype=str, **common).iloc[0].str.strip().tolist()
    _unique([name for name in names if name])
    with warnings.catch_warnings():
        # Else pandas makes an index of the first cells of rows that are longer than the header, and labels shift.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(
            file,
            na_values=MISSING,
            low_memory=False,
            index_col=False,
            dtype={names.index(as_text): "str"} if as_text in names else None,
            **common,
        )
    table.columns = [str(name).strip() for name in table.columns]
    return table


def _unique(names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise ValueError(f"the column {twice!r} is named twice")
    return names
