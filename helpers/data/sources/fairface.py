"""FairFace: 97,698 photographs, drawn so that seven annotated groups are near equal in number (Kärkkäinen & Joo, 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers.data import tables
from helpers.data.base import FaceDataset
from helpers.data.lists import once
from helpers.data.registry import source
from helpers.data.sources.files import existing_folder, faces_from_files, needed, without_absent
from helpers.data.vocabulary import AGE_GROUPS, with_common_names

LAYOUT = (
    "Get FairFace from https://github.com/joojs/fairface (see data/README.md) and give the folder that holds train/1.jpg …, "
    "val/1.jpg …, fairface_label_train.csv and fairface_label_val.csv."
)
ARCHIVES = ("fairface-img-margin025-trainval", "fairface-img-margin125-trainval")
LEVELS = {
    "age": AGE_GROUPS,
    "gender": ("Female", "Male"),
    "race": ("Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast Asian", "White"),
}


@source("fairface")
def fairface(
    *,
    root: str | Path | None = None,
    target: str = "woman",
    protected: str | Sequence[str] = "race",
    split: str = "train",
    image_size: int = 64,
    seed: int = 0,
    on_error: str = "raise",
    cache: str | bool | Path = "auto",
) -> FaceDataset:
    """Photographs from Flickr, aligned and cropped, with annotated age group, gender and race.

    Columns: `path` (such as train/1.jpg), `identity`, `age` (nine groups in their order), `gender` (Female, Male), `race`
    (seven groups), `service_test` (bool), and the common names of `helpers.data.vocabulary`. Nobody says who is shown, so
    every image counts as another person.

    There are two official splits. `val` is the one that results are reported on, so it is `split="test"` here; a fifth of
    `train`, drawn by `seed`, becomes `split="validation"`.

    Parameters
    ----------
    root : folder with both label files and the folders train and val; if there is none of these but an unpacked
        fairface-img-margin025-trainval or fairface-img-margin125-trainval, its images are taken, in this order
    target, protected, split, image_size, seed, on_error, cache : as in `load_faces`; images that are listed and not there
        count as unreadable ones

    Raises
    ------
    FileNotFoundError : a label file or the images are not there; the message says which was expected where.
    ValueError : a label file lacks a column, names an image twice, or holds a value that FairFace does not have.

    References
    ----------
    Kärkkäinen & Joo, "FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age for Bias Measurement and
    Mitigation", WACV 2021.
    """
    folder = existing_folder(root, "fairface", LAYOUT)
    files = {part: needed(folder, [f"fairface_label_{part}.csv"], LAYOUT) for part in ("train", "val")}
    images = needed(folder, ("train", *(f"{archive}/train" for archive in ARCHIVES)), LAYOUT).parent
    table = pd.concat([_read(file, part) for part, file in files.items()], ignore_index=True)
    table, absent = without_absent(table, images, "fairface_label_train.csv and fairface_label_val.csv", on_error, LAYOUT)
    return faces_from_files(
        with_common_names(table, "fairface"),
        images,
        name="fairface",
        target=target,
        protected=protected,
        split=split,
        image_size=image_size,
        seed=seed,
        on_error=on_error,
        cache=cache,
        official=table["path"].str.partition("/")[0].map({"train": "train", "val": "test"}),
        skipped=absent,
    )


def _read(file: Path, part: str) -> pd.DataFrame:
    """One of the two label files."""
    raw = tables.read(file, "root", "the columns file, age, gender, race and service_test")
    lacking = [column for column in ("file", *LEVELS) if column not in raw]
    if lacking:
        raise ValueError(f"{file}: lacks the column {', '.join(lacking)}; it has {', '.join(raw.columns)}")
    path = raw["file"].astype("str").str.strip().str.replace("\\", "/", regex=False)
    once(path, file)
    elsewhere = ~path.str.match(rf"{part}/[^/]+$")
    if elsewhere.any():
        raise ValueError(f"{file}: lists {path[elsewhere].iloc[0]}; expected {part}/<image>.jpg")
    columns = {"path": path, "identity": path}
    for column, levels in LEVELS.items():
        words = raw[column].astype(object).map(lambda value: value.strip() if isinstance(value, str) else value)
        found = words.where(words.notna(), None)
        unknown = found.notna() & ~found.isin(levels)
        if unknown.any():
            hint = " (a spreadsheet program reads 3-9 and 10-19 as dates: take the original file)" if column == "age" else ""
            raise ValueError(
                f"{file}: column {column!r} holds {found[unknown].iloc[0]!r} ({unknown.sum()} rows){hint}; accepted: "
                f"{', '.join(levels)}"
            )
        columns[column] = pd.Categorical(found, categories=levels, ordered=column == "age")
    if "service_test" in raw:
        columns["service_test"] = raw["service_test"].astype(str).str.strip().str.casefold().isin(("true", "1"))
    return pd.DataFrame(columns)
