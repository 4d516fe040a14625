"""Any CSV or Parquet file that lists images and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.api import types

from helpers.data import tables
from helpers.data.base import FaceDataset
from helpers.data.labels import find_column, missing
from helpers.data.registry import source
from helpers.data.sources.files import as_on_disk, existing_folder, faces_from_files, official_splits
from helpers.names import choose

HOLDS = "a column of image paths and columns of labels"
TRUTH = ({"yes": True, "no": False}, {"true": True, "false": False})
FIRST_LOOK = 1000  # rows


@source("table")
def table(
    *,
    root: str | Path | None = None,
    target: str | None = None,
    protected: str | Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    seed: int = 0,
    on_error: str = "raise",
    cache: str | bool | Path = "auto",
    path: str = "path",
    images: str | Path | None = None,
    identity: str | None = None,
    split_column: str | None = None,
) -> FaceDataset:
    """Images listed in a table of your own.

    Labels may be words, whole numbers, or yes/no values: 0 and 1, -1 and 1, true and false, yes and no.

    Parameters
    ----------
    root : path of a .csv (comma, semicolon or tab; UTF-8, or UTF-16 with BOM), .tsv or .parquet file
    target, protected : columns; both are needed
    split, image_size, seed, on_error, cache : as in `load_faces`
    path : column of image paths, relative to `images` (they may lead out of it by `..`) or absolute; each image in
        one row
    images : folder that the paths start from; None: the table's own folder
    identity : column that says whose face it is, by which the splits keep people apart; None: the column
        `identity` if there is one, else every image counts as another person
    split_column : column of the official splits (train, validation or val, test); None: splits by `seed`.
        Without a validation split, a fifth of the training people becomes one

    Raises
    ------
    FileNotFoundError : no such table or image folder.
    ValueError : a column is missing (with the nearest and all columns), a label or path is blank, an image is
        listed twice, the file is no table. With on_error="skip" blank and repeated rows are left out and
        listed instead.
    """
    if root is None:
        raise FileNotFoundError(
            f"root: the data set 'table' needs the path of your table, a .csv, .tsv or .parquet file with {HOLDS}."
        )
    file = Path(root).expanduser()
    raw = read_table(file, as_text=identity or "identity")
    listing = ", ".join(map(str, raw.columns))
    for argument, value in (("target", target), ("protected", protected)):
        if value is None:
            raise ValueError(f"{argument}: name the column of the table to use. Columns: {listing}")
    path = find_column(raw, path, "path")
    raw, skipped = _with_paths(raw, path, choose(on_error, ("raise", "skip"), "on_error"))
    official = None
    if split_column is not None:
        split_column = find_column(raw, split_column, "split_column")
        official = official_splits(raw[split_column], f"split_column: column {split_column!r}")
    faces = _with_standard_columns(raw, path, identity)
    folder = (
        file.parent
        if images is None
        else existing_folder(images, "table", "Check images=, the folder of the paths.")
    )
    faces["path"] = as_on_disk(faces["path"], folder)
    return faces_from_files(
        faces,
        folder,
        name=file.stem,
        target=target,
        protected=protected,
        split=split,
        image_size=image_size,
        seed=seed,
        on_error=on_error,
        cache=cache,
        official=official,
        skipped=skipped,
    )


def _with_paths(raw: pd.DataFrame, path: str, on_error: str) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The rows that name an image for the first time, and the others as (path, reason)."""
    blank = missing(raw[path])
    again = raw[path].duplicated() & ~blank
    problem = None
    if blank.any():
        problem = f"{blank.sum()} of {len(raw)} rows of column {path!r} are blank (first: row {blank.argmax()})"
    elif again.any():
        problem = f"{raw[path][again].iloc[0]} is listed twice ({again.sum()} repeated rows); keep one row an image"
    if problem is None:
        return raw, []
    if on_error == "raise":
        raise ValueError(f'path: {problem} (on_error="skip" leaves them out)')
    if blank.all():
        raise ValueError(f"path: {problem}")
    left_out = [(f"row {row}", "names no image") for row in np.flatnonzero(blank)]
    same = raw.astype(object).where(raw.notna(), None).astype(str).duplicated()
    for row in np.flatnonzero(again):
        reason = "repeats a row" if same.iloc[row] else "contradicts a row above, which counts"
        left_out.append((str(raw[path].iloc[row]), f"row {row} {reason}"))
    return raw[~(blank | again)].reset_index(drop=True), left_out


def read_table(file: Path, as_text: str | None = None) -> pd.DataFrame:
    """A table of images; yes/no and true/false columns become booleans, and words lose outer blanks.

    `as_text` is a column that stays as it is written, as in `tables.read`.

    Raises
    ------
    FileNotFoundError, ValueError : as `tables.read`.
    """
    raw = tables.read(file, "root", HOLDS, as_text=as_text)
    return pd.DataFrame({name: _tidy(column) for name, column in raw.items()})


def _tidy(column: pd.Series) -> pd.Series:
    if (
        types.is_numeric_dtype(column)
        or types.is_bool_dtype(column)
        or isinstance(column.dtype, pd.CategoricalDtype)
    ):
        return column
    if isinstance(column.dtype, pd.StringDtype):
        words = _composed(column.str.strip())
    else:  # words beside numbers, as a Parquet file may hold them
        words = column.map(lambda value: value.strip() if isinstance(value, str) else value)
    if any(isinstance(value, (list, dict, np.ndarray)) for value in words.iloc[:FIRST_LOOK]):
        return column  # nested Parquet columns, which may lie beside those under study
    if not _is_truth(words.iloc[:FIRST_LOOK].dropna().unique()):  # most columns of words end here, a million paths too
        return words
    spellings = words.dropna().unique()
    truth = _is_truth(spellings)
    if len(spellings) == 0 or not truth:
        return words
    means = {spelling: truth[spelling.casefold()] for spelling in spellings}
    return words.map(means).astype(bool if words.notna().all() else object)


def _composed(words: pd.Series) -> pd.Series:
    """Accents as one sign with their letter, so that a label is one label however it was typed."""
    text = pa.array(words, from_pandas=True)
    if pc.all(pc.string_is_ascii(text)).as_py() is not False:
        return words
    return pd.Series(pc.utf8_normalize(text, "NFC").to_pandas(), index=words.index, name=words.name, dtype=words.dtype)


def _is_truth(values) -> dict[str, bool] | None:
    """What yes and no, or true and false, mean, if these are all the values."""
    for truth in TRUTH:
        if all(isinstance(value, str) and value.casefold() in truth for value in values):
            return truth
    return None


def _with_standard_columns(raw: pd.DataFrame, path: str, identity: str | None) -> pd.DataFrame:
    """The table with the columns `path` and `identity`; every other column as it came."""
    if path != "path" and "path" in raw:
        raise ValueError(f"path: the table has a column 'path' beside {path!r}; rename one of them")
    faces = raw.rename(columns={path: "path"})
    faces["path"] = (
        faces["path"].astype(str).str.replace("\\", "/", regex=False)
    )  # tables written under Windows
    if identity is not None:
        faces["identity"] = raw[find_column(raw, identity, "identity")]
    elif "identity" not in faces:
        faces["identity"] = faces["path"]
    return faces
