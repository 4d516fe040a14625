"""Any tree of folders whose names are the labels: class/…/image."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from helpers.data.base import FaceDataset
from helpers.data.decode import is_image, printable
from helpers.data.registry import source
from helpers.data.sources.files import NO_TEXT, SPLIT_NAMES, existing_folder, faces_from_files
from helpers.data.sources.table import read_table
from helpers.names import choose

LAYOUT = "Expected folders class/…/image, or train/class/…/image beside validation/ (or val/) and test/."


@source("folder")
def folder(
    *,
    root: str | Path | None = None,
    target: str | None = None,
    protected: str | Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    seed: int = 0,
    on_error: str = "raise",
    cache: str | bool | Path = "auto",
    levels: Sequence[str] | None = None,
    attributes: str | Path | None = None,
) -> FaceDataset:
    """Images in a tree of your own, whose folder names become columns.

    ================================  =========================================================
    tree                              columns, unless `levels` names them
    ================================  =========================================================
    `class/image`                     class
    `class/group/image`               class, group; with `attributes`, class, identity
    `class/group/identity/image`      class, group, identity
    ================================  =========================================================

    Without a level (or an attribute) called `identity`, every image counts as another person. If all folders
    of the root are called train, validation (or val), test, they are the official splits; without a
    validation split, a fifth of the training people becomes one. Files are taken in sorted order; hidden ones
    are passed over, others that are no images are listed in `.skipped`; links to folders are followed, but
    never round in circles. An accent is the same whether its letter is written as one sign or as two.

    Parameters
    ----------
    root : folder
    target : column; None: the first level
    protected : column, or several; None: the level `group`, else the only column of `attributes`
    split, image_size, seed, on_error, cache : as in `load_faces`
    levels : names for the levels of folders from the top down (without the splits'), such as ("smiling",
        "age", "identity")
    attributes : CSV, TSV or Parquet file with a column `path` (relative to `root`) and columns of labels, a
        row for every image

    Raises
    ------
    FileNotFoundError : no such folder or attributes file.
    ValueError : no images, a class without images, images at different depths, a class that training lacks,
        an image without attributes, no protected attribute.
    """
    top = existing_folder(root, "folder", LAYOUT)
    sheet = None if attributes is None else Path(attributes).expanduser()
    images, skipped = _list_images(top, sheet, choose(on_error, ("raise", "skip"), "on_error"))
    splits = _official_splits(top)
    tree = pd.DataFrame({"path": images})
    if splits is not None:
        tree["split"] = [splits[path.split("/")[0]] for path in images]
    names = [composed(path).split("/")[splits is not None : -1] for path in images]
    levels = _levels(images, names, levels, sheet is not None)
    for i, level in enumerate(levels):
        tree[level] = [parts[i] for parts in names]
    _check_classes(top, tree, levels[0], splits)
    faces = tree if sheet is None else _join(tree, sheet)
    if "identity" not in faces:
        faces["identity"] = faces["path"]
    official = faces.pop("split") if splits is not None else None
    if protected is None:
        protected = _default_protected(faces, levels, tree)
    return faces_from_files(
        faces,
        top,
        name=top.resolve().name,
        target=target or levels[0],
        protected=protected,
        split=split,
        image_size=image_size,
        seed=seed,
        on_error=on_error,
        cache=cache,
        official=official,
        skipped=skipped,
    )


def _list_images(top: Path, sheet: Path | None, on_error: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Paths of the images relative to `top`, sorted, and the other files with why they are left out."""
    images, skipped, problems = [], [], []
    here = None if sheet is None else os.path.realpath(sheet)
    for file in walk(top, (), problems):
        path = file.relative_to(top).as_posix()
        if here is not None and os.path.realpath(file) == here:
            continue
        if not is_image(file):
            skipped.append((printable(path), "not an image file"))
        elif "/" not in path:
            skipped.append((printable(path), "outside the class folders"))
        elif printable(path) != path:
            problems.append((file, NO_TEXT))
        else:
            images.append(path)
    for place, reason in problems:
        path = printable(place.relative_to(top).as_posix())
        if on_error == "raise":
            raise ValueError(f'root: {top / path} {reason} (on_error="skip" leaves it out)')
        skipped.append((path, reason))
    if not images:
        loose = sum(reason.startswith("outside") for _, reason in skipped)
        where = f"; {loose} images lie in it directly, without a class folder" if loose else ""
        raise ValueError(f"root: {top} has no images in class folders{where}. {LAYOUT}")
    return images, skipped


def walk(place: Path, above: tuple[str, ...], problems: list[tuple[Path, str]]) -> Iterator[Path]:
    """All files below a folder in sorted order, but hidden ones; a link to a folder above is not followed."""
    real = os.path.realpath(place)
    if real in above:
        return
    try:
        entries = sorted(place.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        problems.append((place, f"may not be read ({error.strerror})"))
        return
    for entry in entries:
        if entry.name.startswith((".", "__MACOSX")):
            continue
        if os.path.isdir(entry):
            yield from walk(entry, (*above, real), problems)
        else:
            yield entry


def _class_folders(place: Path) -> list[Path]:
    if not os.access(place, os.R_OK | os.X_OK):
        return []
    return [entry for entry in sorted(place.iterdir()) if os.path.isdir(entry) and not entry.name.startswith((".", "__MACOSX"))]


def _official_splits(top: Path) -> dict[str, str] | None:
    """Which folder of the root is which split; None if the folders are classes."""
    names = [entry.name for entry in _class_folders(top)]
    splits = {name: SPLIT_NAMES.get(name.casefold()) for name in names}
    if None in splits.values() or "train" not in splits.values() or len(splits) < 2:
        return None
    if len(set(splits.values())) < len(splits):
        raise ValueError(f"root: {top} has one split under two names: {', '.join(names)}")
    return splits


def _levels(
    images: list[str], names: list[list[str]], levels: Sequence[str] | None, has_sheet: bool
) -> tuple[str, ...]:
    """The names of the levels of folders, once it is clear that all images lie equally deep."""
    depth = len(names[0])
    for path, parts in zip(images, names, strict=True):
        if len(parts) != depth or depth == 0:
            raise ValueError(
                f"root: images lie at different depths: {images[0]} and {path}. {LAYOUT}"
                if depth
                else f"root: {path} lies in a split without a class folder. {LAYOUT}"
            )
    if levels is None:
        by_depth = {
            1: ("class",),
            2: ("class", "identity" if has_sheet else "group"),
            3: ("class", "group", "identity"),
        }
        if depth not in by_depth:
            raise ValueError(
                f"levels: name the {depth} levels of folders above {images[0]}, such as ('class', 'group', …)"
            )
        return by_depth[depth]
    levels = (levels,) if isinstance(levels, str) else tuple(levels)
    taken = {"path", "split"} & set(levels)
    if len(levels) != depth or len(set(levels)) != depth or taken:
        raise ValueError(
            f"levels: expected {depth} different names (not path or split) for the folders above "
            f"{images[0]}, got {levels!r}"
        )
    return levels


def _check_classes(top: Path, tree: pd.DataFrame, level: str, splits: dict[str, str] | None) -> None:
    """Every folder of a class holds images, and training knows every class."""
    for base in [top] if splits is None else [top / name for name in splits]:
        filled = {
            path.relative_to(base).parts[0]
            for path in (top / p for p in tree["path"])
            if path.is_relative_to(base)
        }
        for place in _class_folders(base):
            if place.name not in filled:
                raise ValueError(f"root: the class folder {place} has no images; fill or remove it")
    if splits is not None:
        known = set(tree.loc[tree["split"] == "train", level])
        strange = tree[~tree[level].isin(known)]
        if len(strange):
            row = strange.iloc[0]
            raise ValueError(
                f"root: {row['path']} has the {level} {row[level]!r}, outside the classes of train: "
                f"{', '.join(sorted(known))}"
            )


def _join(tree: pd.DataFrame, sheet: Path) -> pd.DataFrame:
    """The tree with the columns of the attributes file beside it."""
    raw = read_table(sheet, as_text="identity")
    if "path" not in raw:
        raise ValueError(f"attributes: {sheet} has no column 'path'. Columns: {', '.join(raw.columns)}")
    on_disk = {composed(path): path for path in tree["path"]}
    named = [PurePosixPath(str(path).replace("\\", "/")).as_posix() for path in raw["path"]]
    raw["path"] = [on_disk.get(composed(path), path) for path in named]
    if raw["path"].duplicated().any():
        raise ValueError(f"attributes: {sheet} lists {raw['path'][raw['path'].duplicated()].iloc[0]} twice")
    clash = [
        column for column in raw.columns if column in tree.columns and column not in ("path", "identity")
    ]
    if clash:
        raise ValueError(
            f"attributes: {sheet} has a column {clash[0]!r}, which is a level of the folders; rename either"
        )
    absent = tree["path"][~tree["path"].isin(raw["path"])]
    if len(absent):
        raise ValueError(
            f"attributes: {sheet} has no row for {len(absent)} of {len(tree)} images, such as "
            f"{absent.iloc[0]}"
        )
    own = tree.drop(columns="identity") if "identity" in raw and "identity" in tree else tree
    return own.merge(raw, on="path", how="left", validate="one_to_one")


def composed(text: str) -> str:
    """Accents as one sign with their letter: a Mac writes them as two into file names, most programs as one."""
    return unicodedata.normalize("NFC", text)


def _default_protected(faces: pd.DataFrame, levels: tuple[str, ...], tree: pd.DataFrame) -> str:
    if "group" in levels:
        return "group"
    choices = [column for column in faces.columns if column not in (*tree.columns, "path", "identity")]
    if len(choices) == 1:
        return choices[0]
    rest = [*(level for level in levels[1:] if level != "identity"), *choices]
    if rest:
        raise ValueError(f"protected: name the column of groups to compare: {', '.join(rest)}")
    raise ValueError(
        "protected: the tree has no level of groups. Give attributes=, a CSV with the columns path and the "
        "protected attribute, or sort the images as class/group/image"
    )
