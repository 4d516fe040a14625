"""UTKFace: over 20,000 photographs whose file names say age, gender and race (Zhang, Song & Qi, 2017)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers.data.base import FaceDataset
from helpers.data.decode import is_image, printable
from helpers.data.registry import source
from helpers.data.sources.files import existing_folder, faces_from_files
from helpers.data.vocabulary import with_common_names

LAYOUT = (
    "Get UTKFace (aligned and cropped faces) from https://susanqq.github.io/UTKFace/ (see data/README.md) and give the folder "
    "UTKFace, or the one above it, with images called <age>_<gender>_<race>_<datetime>.jpg or ….jpg.chip.jpg."
)
INNER = ("UTKFace/UTKFace", "UTKFace", "utkface_aligned_cropped/UTKFace")
GENDERS = {"0": "male", "1": "female"}
RACES = {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "Other"}
OLDEST = 120


@source("utkface")
def utkface(
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
    """Photographs from the web, 200×200, with age, gender and race in their names.

    Columns: `path`, `identity`, `age` (years), `gender` (female, male), `race` (White, Black, Asian, Indian, Other),
    `datetime` (digits), and the common names of `helpers.data.vocabulary`. Ages are many: compare `age_group`. Nobody says
    who is shown, so every image counts as another person, and 60, 20 and 20 % of the *images* make the splits.

    A few official files lack a field in their name; they are left out and listed in `.skipped`.

    Parameters
    ----------
    root : folder UTKFace, or the one above it
    target, protected, split, image_size, seed, on_error, cache : as in `load_faces`

    Raises
    ------
    FileNotFoundError : no such folder, or no image of that kind of name in it.

    References
    ----------
    Zhang, Song & Qi, "Age Progression/Regression by Conditional Adversarial Autoencoder", CVPR 2017.
    """
    folder = existing_folder(root, "utkface", LAYOUT)
    folder = next((folder / inner for inner in INNER if (folder / inner).is_dir()), folder)
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and is_image(Path(name)))
    table, skipped = read_names(pd.Series([printable(name) for name in names], dtype=str))
    if table.empty:
        example = f", such as {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise FileNotFoundError(f"root: {folder} has no image with such a name ({len(skipped)} others{example}). {LAYOUT}")
    return faces_from_files(
        with_common_names(table, "utkface"),
        folder,
        name="utkface",
        target=target,
        protected=protected,
        split=split,
        image_size=image_size,
        seed=seed,
        on_error=on_error,
        cache=cache,
        skipped=skipped,
    )


def read_names(names: pd.Series) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """What file names such as 26_1_2_20170116172345678.jpg.chip.jpg say, and those that do not say it all, with why."""
    fields = names.str.split(".", n=1).str[0].str.split("_")
    count = fields.str.len()
    age, gender, race, taken = (fields.str[i].astype(object).fillna("") for i in range(4))
    years = pd.to_numeric(age.where(age.str.fullmatch(r"\d{1,3}")), errors="coerce")
    reasons = (
        (count != 4, "its name has not the four fields <age>_<gender>_<race>_<datetime>"),
        (~(years <= OLDEST), f"the age in its name is no number of years up to {OLDEST}"),
        (~gender.isin(GENDERS), "the gender in its name is neither 0 nor 1"),
        (~race.isin(RACES), "the race in its name is not one of 0 to 4"),
    )
    reason = pd.Series("", index=names.index, dtype=object)
    for wrong, text in reasons:
        reason = reason.where(~wrong | (reason != ""), text)
    good = reason == ""
    table = pd.DataFrame(
        {
            "path": names[good],
            "identity": names[good],
            "age": years[good].astype(int),
            "gender": gender[good].map(GENDERS),
            "race": race[good].map(RACES),
            "datetime": taken[good].str.extract(r"^(\d*)", expand=False),
        }
    )
    return table.reset_index(drop=True), list(zip(names[~good], reason[~good], strict=True))
