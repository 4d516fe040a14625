"""From a table of image files to one split of a data set: what all sources of photographs share."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import store
from helpers.data.base import FaceDataset
from helpers.data.cache import cache_dir
from helpers.data.decode import decode_all, is_image, printable
from helpers.data.labels import find_column, missing
from helpers.data.sampling import SPLITS, share_identities, split_identities
from helpers.data.stored import Stored
from helpers.data.variants import Wish, choose_rows
from helpers.names import choose

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}

NO_TEXT = "has a name that is no UTF-8; rename it"


def as_on_disk(paths: pd.Series, folder: Path) -> pd.Series:
    """The paths with accents as the file names have them: as one sign with their letter or, from a Mac, as two."""
    spelt = paths.tolist()
    for i, path in enumerate(spelt):
        if not path.isascii() and not os.path.exists(os.path.join(folder, path)):
            forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
            spelt[i] = next((form for form in forms if os.path.exists(os.path.join(folder, form))), path)
    return pd.Series(spelt, index=paths.index, dtype=paths.dtype)


_WISH: ContextVar[Wish | None] = ContextVar("wish", default=None)


@contextmanager
def choosing(wish: Wish | None) -> Iterator[None]:
    """Within the block `faces_from_files` reads only a variant of the split, without each source handing the wish on."""
    token = _WISH.set(wish)
    try:
        yield
    finally:
        _WISH.reset(token)


def existing_folder(root: str | Path | None, source: str, layout: str) -> Path:
    """`root` as a folder that is there; None: where `python -m helpers fetch` puts the data set, if there is something.

    Raises
    ------
    FileNotFoundError : no `root` was given and nothing has been fetched, or it is no folder; `layout` is told.
    """
    if root is None:
        fetched = cache_dir() / source
        if fetched.is_dir() and any(fetched.iterdir()):
            return fetched
        raise FileNotFoundError(f"root: the data set {source!r} needs the folder of your copy. {layout}")
    folder = Path(root).expanduser()
    if not os.path.isdir(folder):  # False for what no path can be, where pathlib raises
        problem = "is a file, not a folder" if os.path.exists(folder) else "does not exist"
        raise FileNotFoundError(f"root: {folder} {problem}. {layout}")
    return folder


def needed(folder: Path, places: Sequence[str], layout: str) -> Path:
    """The first of `places` (paths relative to `folder`) that is there: a file if it has an ending, else a folder.

    Raises
    ------
    FileNotFoundError : none is; all of them are named, and `layout` is told.
    """
    for place in places:
        if (os.path.isfile if Path(place).suffix else os.path.isdir)(folder / place):
            return folder / place
    raise FileNotFoundError(f"root: {folder} has no {' nor '.join(places)}. {layout}")


def without_absent(
    table: pd.DataFrame, folder: Path, listing: str, on_error: str, layout: str
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The rows whose image file is there, and the others as (path, reason).

    One look into each folder, not one for each file: 200,000 files take a fraction of a second.

    Parameters
    ----------
    table : one row an image, with `path` relative to `folder`
    folder : Path
    listing : the file that lists the images, for the messages
    on_error : "raise" refuses a copy that lacks files, "skip" lists them
    layout : what is expected where, for the messages

    Raises
    ------
    FileNotFoundError : a file is missing and `on_error` is "raise", or all of them are.
    """
    on_error = choose(on_error, ("raise", "skip"), "on_error")
    folders = table["path"].str.replace("/?[^/]*$", "", regex=True).unique()
    there = {
        f"{inner}/{name}" if inner else name
        for inner in folders
        if (folder / inner).is_dir()
        for name in os.listdir(folder / inner)
    }
    absent = ~table["path"].astype(object).isin(there)  # as objects: pandas' own strings take ten times as long
    if not absent.any():
        return table, []
    first = table["path"][absent].iloc[0]
    if absent.all():
        raise FileNotFoundError(f"root: {folder} has none of the {len(table)} images of {listing}, such as {first}. {layout}")
    if on_error == "raise":
        raise FileNotFoundError(
            f"root: {folder} lacks {absent.sum()} of the {len(table)} images of {listing}, such as {first} "
            f'(on_error="skip" leaves them out). {layout}'
        )
    return table[~absent].reset_index(drop=True), [
        (path, f"listed in {listing}, but the file is not there") for path in table["path"][absent]
    ]


def unlisted(table: pd.DataFrame, folder: Path, inner: Iterable[str], listing: str) -> list[tuple[str, str]]:
    """The image files in the folders `inner` of `folder` ("" is itself) that no row of the table names, as (path, reason)."""
    names = {
        f"{place}/{name}" if place else name
        for place in inner
        for name in os.listdir(folder / place)
        if not name.startswith(".")
    }
    return [(printable(path), f"no row in {listing}") for path in sorted(names.difference(table["path"])) if is_image(Path(path))]


def faces_from_files(
    table: pd.DataFrame,
    folder: Path,
    *,
    name: str,
    target: str,
    protected: str | Sequence[str],
    split: str,
    image_size: int,
    seed: int,
    on_error: str,
    official: pd.Series | None = None,
    skipped: Iterable[tuple[str, str]] = (),
    cache: str | bool | Path = "auto",
) -> FaceDataset:
    """Choose the rows of one split, check their labels, then read their images.

    Parameters
    ----------
    table : one row an image of *all* splits, with `path` (relative to `folder`) and `identity`
    folder : Path that the paths are relative to
    name, target, protected, split, image_size, seed, on_error, cache : as in `load_faces`
    official : str Series (N,), the official split of each row as `official_splits` gives them; None: whole
        people by seed. Without a validation split, a fifth of the training people becomes one. A variant with fractions of
        its own cuts the people by them instead
    skipped : (path, reason) of files left out before

    With `on_error="skip"` rows without a label in the columns under study are left out and listed as well.

    Returns
    -------
    FaceDataset; its classes and groups are those of the whole table, so all splits share codes.

    Raises
    ------
    ValueError : an unknown column, a missing label, an empty split, one identity in two official splits, an
        unreadable image.
    """
    on_error = choose(on_error, ("raise", "skip"), "on_error")
    rows, wish, chosen = table, _WISH.get(), None
    if split != "all":
        fractions = None if wish is None else wish.fractions
        if fractions is None:
            splits = _splits(table["identity"], official, name, seed)
        else:
            splits = share_identities(table["identity"], fractions, seed)
        rows = table[splits == split].reset_index(drop=True)
        if rows.empty:
            raise ValueError(
                f"split: {name!r} has no official split {split!r}; it has {', '.join(sorted(set(splits)))}"
            )
    unlabelled = []
    if on_error == "skip":
        rows, unlabelled = _with_labels(rows, target, protected)
    if wish is not None:
        chosen = choose_rows(rows, wish, target=target, protected=protected, split=split, seed=seed)
        rows = rows.iloc[chosen.rows].reset_index(drop=True)
    about = {"target": target, "protected": protected, "name": name, "split": split, "reference": table}
    # A view of a single zero byte stands in for the images: wrong labels show before the long reading.
    FaceDataset(np.broadcast_to(np.uint8(0), (len(rows), image_size, image_size, 3)), rows, **about)
    images, kept, failed = read_images(folder, rows["path"].tolist(), image_size, on_error, cache)
    left_out = [*skipped, *unlabelled, *((rows["path"][i], reason) for i, reason in failed)]
    faces = FaceDataset(images, rows.iloc[kept], **about, skipped=left_out)
    faces.folder = folder
    faces.chosen = None if chosen is None else chosen.report
    return faces


def read_images(
    folder: Path, paths: Sequence[str], image_size: int, on_error: str, cache: str | bool | Path
) -> tuple[np.ndarray | Stored, np.ndarray, list[tuple[int, str]]]:
    """The images, which of the paths they are, and (index, reason) of those that cannot be read, as `decode_all` gives them.

    With cache="auto", a cache without room is told as a warning, and the images are held in memory instead.
    """
    try:
        place = store.place_of(cache, len(paths), image_size)
        if place is not None:
            return store.open_faces(folder, paths, image_size, place, on_error=on_error)
    except store.Unwritable as error:
        if cache != "auto":
            raise
        warnings.warn(f"{error}. The images are held in memory this time", stacklevel=2)
    return decode_all([os.path.join(folder, path) for path in paths], image_size, on_error=on_error)


def _with_labels(
    rows: pd.DataFrame, target: str, protected: str | Sequence[str]
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The rows with a label in every column under study, and the others as (path, reason); all rows if none has."""
    reason = pd.Series("", index=rows.index, dtype=object)
    for argument, column in [("target", target), *(("protected", each) for each in np.atleast_1d(protected).tolist())]:
        name = find_column(rows, column, argument)
        reason = reason.where(~missing(rows[name]) | (reason != ""), f"column {name!r}: no label")
    good = (reason == "").to_numpy()
    if good.all() or not good.any():
        return rows, []
    return rows[good].reset_index(drop=True), list(zip(rows["path"][~good], reason[~good], strict=True))


def _splits(identity: pd.Series, official: pd.Series | None, name: str, seed: int) -> np.ndarray:
    """str (N,), the split of each row."""
    if official is None:
        return split_identities(identity, seed=seed)
    splits = official.to_numpy(dtype="U10")  # wide enough for "validation"
    places = pd.DataFrame({"identity": identity.to_numpy(), "split": splits}).drop_duplicates()
    shared = places[places["identity"].duplicated(keep=False)]
    if len(shared):
        person = shared["identity"].min()
        raise ValueError(
            f"split: {shared['identity'].nunique()} identities are in two splits of {name!r}, such as {person!r} in "
            f"{' and '.join(sorted(shared['split'][shared['identity'] == person]))}; a test on people seen in training "
            "measures memory. "
            'Repair the splits, or take split="all" and cut it by identity'
        )
    if "validation" not in splits and "train" in splits:
        training = splits == "train"
        splits[training] = split_identities(identity[training], (0.8, 0.2, 0.0), seed)
    return splits


def official_splits(column: pd.Series, argument: str) -> pd.Series:
    """Spellings of split names (train, val, valid, validation, test, in any case) as `SPLITS`.

    Raises
    ------
    ValueError : another value, or none; it is named.
    """
    found = column.astype(str).str.strip().str.casefold()
    unknown = column.isna() | ~found.isin(SPLIT_NAMES)
    if unknown.any():
        raise ValueError(
            f"{argument}: {column[unknown].iloc[0]!r} ({unknown.sum()} rows) is no split; accepted: "
            f"{', '.join(SPLITS)}"
        )
    return found.map(SPLIT_NAMES)
