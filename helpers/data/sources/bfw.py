"""Balanced Faces in the Wild: 8 subgroups × 100 people × 25 faces (Robinson et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers.data.base import FaceDataset
from helpers.data.decode import is_image
from helpers.data.registry import source
from helpers.data.sources.files import existing_folder, faces_from_files
from helpers.data.vocabulary import with_common_names

IMAGES = "bfw-cropped-aligned"
# The archive was packed with the folders above: some copies unpack to Users/<name>/bfw/, others to <name>/bfw/.
PLACES = tuple(
    f"{release}{above}{IMAGES}"
    for release in ("", "BFW-Release/")
    for above in ("", f"{IMAGES}/", "Users/*/bfw/", "*/bfw/", "*/*/bfw/")
)
SUBGROUPS = tuple(
    f"{ethnicity}_{gender}"
    for ethnicity in ("asian", "black", "indian", "white")
    for gender in ("females", "males")
)
LAYOUT = (
    "Request BFW from its authors (the form is linked at https://github.com/visionjo/facerec-bias-bfw), "
    "unpack it, and give the "
    f"folder that holds {IMAGES}/<ethnicity>_<females|males>/<identity>/<image>.jpg, such as "
    f"{IMAGES}/asian_females/n000009/0010_01.jpg."
)
LABEL_ERRORS = {
    "asian_females/n002509/0139_03.jpg": "known label error: another person",
    "white_females/n003391/0017_02.jpg": "known label error: a cartoon",
    "asian_males/n006741/0275_02.jpg": "known label error: a cartoon",
}


@source("bfw")
def bfw(
    *,
    root: str | Path | None = None,
    target: str = "woman",
    protected: str | Sequence[str] = "ethnicity",
    split: str = "train",
    image_size: int = 64,
    seed: int = 0,
    on_error: str = "raise",
    cache: str | bool | Path = "auto",
    keep_label_errors: bool = False,
) -> FaceDataset:
    """Faces balanced over ethnicity and gender, each about 108×124 px, from your own download.

    Columns: `path` (relative to bfw-cropped-aligned), `identity`, `ethnicity` (asian, black, indian, white),
    `gender` (female, male), `woman` (bool) and `subgroup` (AF, AM, BF, BM, IF, IM, WF, WM), as the folders
    annotate them; `race_annotation` is the common name of `ethnicity`.

    Parameters
    ----------
    root : folder bfw-cropped-aligned, or the one that the archive was unpacked in: its images are found below
        BFW-Release and Users/<name>/bfw as well
    target, protected, split, image_size, seed, on_error, cache : as in `load_faces`
    keep_label_errors : keep the three images known to show another person or a cartoon; by default they are
        left out and listed in `.skipped`

    Raises
    ------
    FileNotFoundError : the folder, or one of the eight subgroups, is not there.

    References
    ----------
    Robinson et al., "Face Recognition: Too Bias, or Not Too Bias?", CVPR Workshops 2020.
    """
    folder = existing_folder(root, "bfw", LAYOUT)
    inner = (place for pattern in PLACES for place in sorted(folder.glob(pattern)) if place.is_dir())
    folder = next(inner, folder)
    absent = [subgroup for subgroup in SUBGROUPS if not (folder / subgroup).is_dir()]
    if absent:
        raise FileNotFoundError(f"root: {folder} has no folder {', '.join(absent)}. {LAYOUT}")
    rows, skipped = [], []
    for subgroup in SUBGROUPS:
        found = [file for file in sorted((folder / subgroup).glob("[!.]*/[!.]*")) if is_image(file)]
        if not found:
            raise FileNotFoundError(
                f"root: {folder / subgroup} has no image <identity>/<image>.jpg. {LAYOUT}"
            )
        for file in found:
            path = file.relative_to(folder).as_posix()
            if path in LABEL_ERRORS and not keep_label_errors:
                skipped.append((path, LABEL_ERRORS[path]))
            else:
                rows.append(_describe(path))
    return faces_from_files(
        with_common_names(pd.DataFrame(rows), "bfw"),
        folder,
        name="bfw",
        target=target,
        protected=protected,
        split=split,
        image_size=image_size,
        seed=seed,
        on_error=on_error,
        cache=cache,
        skipped=skipped,
    )


def _describe(path: str) -> dict:
    """What the path asian_females/n000009/0010_01.jpg says."""
    subgroup, identity, _ = path.split("/")
    ethnicity, gender = subgroup.split("_")
    return {
        "path": path,
        "identity": identity,
        "ethnicity": ethnicity,
        "gender": gender.removesuffix("s"),
        "woman": gender == "females",
        "subgroup": (ethnicity[0] + gender[0]).upper(),
    }
