"""CelebA: 202,599 photographs of celebrities with 40 annotated attributes (Liu et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers.data.base import FaceDataset
from helpers.data.lists import lines_of, once, parse, truths
from helpers.data.registry import source
from helpers.data.sources.files import existing_folder, faces_from_files, needed, unlisted, without_absent
from helpers.data.vocabulary import with_common_names
from helpers.names import choose

IMAGES = "img_align_celeba"
LAYOUT = (
    "Get CelebA from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (see data/README.md) and give the folder that holds "
    "img_align_celeba/000001.jpg …, list_attr_celeba.txt, list_eval_partition.txt and identity_CelebA.txt; copies of the "
    "lists as .csv will do."
)
TAKEN = ("path", "identity", "split")
PARTITIONS = {0: "train", 1: "validation", 2: "test"}


@source("celeba")
def celeba(
    *,
    root: str | Path | None = None,
    target: str = "smiling",
    protected: str | Sequence[str] = "woman",
    split: str = "train",
    image_size: int = 64,
    seed: int = 0,
    on_error: str = "raise",
    cache: str | bool | Path = "auto",
    splits: str = "official",
) -> FaceDataset:
    """Photographs of celebrities, aligned and cropped to 178×218, of which the central 178×178 are kept.

    Columns: `path` (relative to img_align_celeba), `identity`, the 40 own attributes (`Smiling`, `Male`, …; bool), and the
    common names of `helpers.data.vocabulary`. Without identity_CelebA.txt every image counts as another person.

    Parameters
    ----------
    root : folder with img_align_celeba and the lists; the official subfolders Anno, Eval and Img are looked into as well
    target, protected, split, image_size, seed, on_error, cache : as in `load_faces`; images that the list names and that are not
        there count as unreadable ones
    splits : "official" (list_eval_partition) or "seed", 60, 20 and 20 % of the people

    Raises
    ------
    FileNotFoundError : the images or a list are not there; the message says which was expected where.
    ValueError : a list is cut off, names an image twice, holds labels other than -1 and 1 (or 0 and 1), or leaves an image
        without split.

    References
    ----------
    Liu, Luo, Wang & Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """
    splits = choose(splits, ("official", "seed"), "splits")
    folder = existing_folder(root, "celeba", LAYOUT)
    if folder.name == IMAGES and not (folder / IMAGES).is_dir():
        folder = folder.resolve().parent
    # Some archives unpack into a folder of the same name within the folder.
    images = needed(folder, (f"{IMAGES}/{IMAGES}", IMAGES, f"Img/{IMAGES}"), LAYOUT)
    listing = _list(folder, "list_attr_celeba", "Anno")
    table = read_attributes(listing)
    table.insert(1, "identity", _identities(folder, table["path"], splits))
    official = None
    if splits == "official" and split != "all":
        file = _list(folder, "list_eval_partition", "Eval")
        official = _column(file, table["path"], "partition").map(PARTITIONS)
        if official.isna().any():
            raise ValueError(f"{file}: {table['path'][official.isna()].iloc[0]} is in no partition; accepted: 0, 1 and 2")
    extra = unlisted(table, images, [""], listing.name)
    if official is not None:
        table["split"] = official
    table, absent = without_absent(table, images, listing.name, on_error, LAYOUT)
    official = table.pop("split") if official is not None else None
    return faces_from_files(
        with_common_names(table, "celeba"),
        images,
        name="celeba",
        target=target,
        protected=protected,
        split=split,
        image_size=image_size,
        seed=seed,
        on_error=on_error,
        cache=cache,
        official=official,
        skipped=[*absent, *extra],
    )


def read_attributes(file: Path) -> pd.DataFrame:
    """list_attr_celeba as .txt or .csv: `path` (str) and a boolean column for each attribute.

    Raises
    ------
    ValueError : no such list, or one that is cut off (the .txt says how many rows it has), repeats an image or holds other
        values.
    """
    text = lines_of(file)
    first, _, rest = text.partition(b"\n")
    if b"," in first:
        names, rows, count, separator = _words(first, ","), rest, None, ","
        if names[0] != "image_id":
            raise ValueError(f"{file}: its header begins with {names[0]!r}; expected image_id and the attributes")
        names = names[1:]
    else:
        if not first.strip().isdigit():
            raise ValueError(f"{file}: its first line is {first[:40].decode(errors='replace')!r}; expected the number of images")
        count, separator = int(first), None
        header, _, rows = rest.partition(b"\n")
        names = _words(header, None)
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: a column is named twice among {', '.join(names)}")
    taken = [name for name in names if name in TAKEN]
    if taken:
        raise ValueError(f"{file}: an attribute is called {taken[0]!r}, which means something else here; rename it")
    table = parse(rows, file, {"path": "str", **dict.fromkeys(names, "int8")}, separator)
    if count is not None and count != len(table):
        raise ValueError(f"{file}: its first line announces {count} images, but it lists {len(table)}; get it again")
    once(table["path"], file)
    return pd.DataFrame({"path": table["path"], **{name: truths(table[name], file) for name in names}})


def _list(folder: Path, stem: str, inner: str) -> Path:
    return needed(folder, [f"{stem}.txt", f"{stem}.csv", f"{inner}/{stem}.txt", f"{inner}/{stem}.csv"], LAYOUT)


def _column(file: Path, paths: pd.Series, what: str) -> pd.Series:
    """The number that a list of two columns gives each image."""
    text = lines_of(file)
    comma = b"," in text.partition(b"\n")[0]
    if comma and text.startswith(b"image_id"):
        text = text.partition(b"\n")[2]
    listed = parse(text, file, {"path": "str", what: "int64"}, "," if comma else None)
    once(listed["path"], file)
    found = paths.map(listed.set_index("path")[what])
    absent = found.isna()
    if absent.any():
        raise ValueError(
            f"{file}: has no {what} for {absent.sum()} of {len(paths)} images, such as {paths[absent].iloc[0]}"
        )
    return found.astype(int)


def _identities(folder: Path, paths: pd.Series, splits: str) -> pd.Series:
    try:
        file = _list(folder, "identity_CelebA", "Anno")
    except FileNotFoundError:
        if splits == "seed":  # without the people, splits by seed would share them
            raise
        return paths
    return _column(file, paths, "identity").astype(str)


def _words(line: bytes, separator: str | None) -> list[str]:
    return [word.strip() for word in line.decode("utf-8", errors="replace").strip().split(separator)]
