"""From a table of image files to one split of a data set: what all sources of photographs share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.base import FaceDataset
from helpers.data.decode import decode_all
from helpers.data.sampling import SPLITS, split_identities
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


def existing_folder(root: str | Path | None, source: str, layout: str) -> Path:
    """`root` as a folder that is there.

    Raises
    ------
    FileNotFoundError : no `root` was given, or it is no folder; `layout` is told.
    """
    if root is None:
        raise FileNotFoundError(f"root: the data set {source!r} needs the folder of your copy. {layout}")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"root: {folder} {problem}. {layout}")
    return folder


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
) -> FaceDataset:
    """Choose the rows of one split, check their labels, then read their images.

    Parameters
    ----------
    table : one row an image of *all* splits, with `path` (relative to `folder`) and `identity`
    folder : Path that the paths are relative to
    name, target, protected, split, image_size, seed, on_error : as in `load_faces`
    official : str Series (N,), the official split of each row as `official_splits` gives them; None: whole
        people by seed. Without a validation split, a fifth of the training people becomes one
    skipped : (path, reason) of files left out before

    Returns
    -------
    FaceDataset; its classes and groups are those of the whole table, so all splits share codes.

    Raises
    ------
    ValueError : an unknown column, a missing label, an empty split, one identity in two official splits, an
        unreadable image.
    """
    on_error = choose(on_error, ("raise", "skip"), "on_error")
    rows = table
    if split != "all":
        splits = _splits(table["identity"], official, name, seed)
        rows = table[splits == split].reset_index(drop=True)
        if rows.empty:
            raise ValueError(
                f"split: {name!r} has no official split {split!r}; it has {', '.join(sorted(set(splits)))}"
            )
    about = {"target": target, "protected": protected, "name": name, "split": split, "reference": table}
    # A view of a single zero byte stands in for the images: wrong labels show before the long reading.
    FaceDataset(np.broadcast_to(np.uint8(0), (len(rows), image_size, image_size, 3)), rows, **about)
    images, kept, failed = decode_all([folder / path for path in rows["path"]], image_size, on_error=on_error)
    left_out = [*skipped, *((rows["path"][i], reason) for i, reason in failed)]
    return FaceDataset(images, rows.iloc[kept], **about, skipped=left_out)


def _splits(identity: pd.Series, official: pd.Series | None, name: str, seed: int) -> np.ndarray:
    """str (N,), the split of each row."""
    if official is None:
        return split_identities(identity, seed=seed)
    splits = official.to_numpy(dtype="U10")  # wide enough for "validation"
    present = official.groupby(identity.to_numpy()).unique()
    shared = present[present.map(len) > 1]
    if len(shared):
        raise ValueError(
            f"split: {len(shared)} identities are in two splits of {name!r}, such as {shared.index[0]!r} in "
            f"{' and '.join(sorted(shared.iloc[0]))}; a test on people seen in training measures memory. "
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
