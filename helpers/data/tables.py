"""Reading a table from a file: CSV with any of the usual separators, TSV, Parquet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

# Not "none": a beard or a hat of kind "none" is a label.
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "<NA>")
SUFFIXES = (".csv", ".tsv", ".parquet")


def read(file: Path, argument: str, holds: str) -> pd.DataFrame:
    """A .csv (comma, semicolon or tab; UTF-8, with or without BOM), .tsv or .parquet file as a table.

    Parameters
    ----------
    file : Path
    argument : what to call it in an error
    holds : what its columns are expected to be, for the errors

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : another kind of file, no rows, or one that cannot be read; the message names the file.
    """
    accepted = f"Expected a .csv, .tsv or .parquet file with {holds}."
    if not file.is_file():
        raise FileNotFoundError(
            f"{argument}: {file} {'is a folder' if file.is_dir() else 'does not exist'}. {accepted}"
        )
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{argument}: {file} ends in {file.suffix!r}. {accepted}")
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
        else:
            with file.open(encoding="utf-8-sig") as lines:
                header = lines.readline()
            table = pd.read_csv(
                file,
                sep=max(",;\t", key=header.count),
                encoding="utf-8-sig",
                keep_default_na=False,
                na_values=MISSING,
                low_memory=False,
            )
    except (ValueError, OSError) as error:  # pandas' ParserError, pyarrow's ArrowInvalid, a wrong encoding
        raise ValueError(f"{argument}: {file} cannot be read as a table ({error}). {accepted}") from error
    if table.empty:
        raise ValueError(f"{argument}: {file} has no rows. {accepted}")
    table.columns = [str(name).strip() for name in table.columns]
    return table
