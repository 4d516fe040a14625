"""Labeled Faces in the Wild: 13,233 photographs of 5,749 people (Huang et al., 2007), with attributes (Kumar et al., 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers.data.base import FaceDataset
from helpers.data.lists import lines_of, once, parse
from helpers.data.registry import source
from helpers.data.sources.files import existing_folder, faces_from_files, needed, unlisted, without_absent
from helpers.data.vocabulary import with_common_names

IMAGES = ("lfw", "lfw_funneled", "lfw-deepfunneled")
ATTRIBUTES = "lfw_attributes.txt"
LINES_ABOVE = 3
LAYOUT = (
    "`python -m helpers fetch lfw` gets the photographs, and data/README.md says where the attributes are; give the folder that "
    f"holds lfw/<Name>/<Name>_0001.jpg and {ATTRIBUTES}."
)


@source("lfw")
def lfw(
    *,
    root: str | Path | None = None,
    target: str = "smiling",
    protected: str | Sequence[str] = "woman",
    split: str = "train",
    image_size: int = 64,
    seed: int = 0,
    on_error: str = "raise",
    cache: str | bool | Path = "auto",
) -> FaceDataset:
    """Photographs from the news, 250×250, with attributes that a *classifier* scored.

    Columns: `path`, `identity` (Aaron_Eckhart, …), `photo` (1, …), the own attributes (`Smiling`, `Eyeglasses`, `Male`, …;
    bool, True where the score is positive), and the common names of `helpers.data.vocabulary`. A model that disagrees with
    these labels may be the better one. The official pairs (`pairs.txt`) are for verification: `read_pairs`.

    Images without a row of attributes are left out and listed in `.skipped`. 60, 20 and 20 % of the people, by `seed`, make
    the splits.

    Parameters
    ----------
    root : folder with lfw (or lfw_funneled, lfw-deepfunneled) and lfw_attributes.txt
    target, protected, split, image_size, seed, on_error, cache : as in `load_faces`; images that have attributes and are not
        there count as unreadable ones

    Raises
    ------
    FileNotFoundError : the images or the attributes are not there; the message says which was expected where.
    ValueError : lfw_attributes.txt is no such table, or names an image twice.

    References
    ----------
    Huang, Ramesh, Berg & Learned-Miller, "Labeled Faces in the Wild", University of Massachusetts, TR 07-49, 2007.
    Kumar, Berg, Belhumeur & Nayar, "Attribute and Simile Classifiers for Face Verification", ICCV 2009.
    """
    folder = existing_folder(root, "lfw", LAYOUT)
    images = needed(folder, IMAGES, LAYOUT)
    images = images / images.name if (images / images.name).is_dir() else images  # unpacked into a folder of the same name
    table = read_attributes(needed(folder, [ATTRIBUTES], LAYOUT))
    people = [place.name for place in sorted(images.iterdir()) if place.is_dir() and not place.name.startswith(".")]
    extra = unlisted(table, images, people, ATTRIBUTES)
    table, absent = without_absent(table, images, ATTRIBUTES, on_error, LAYOUT)
    return faces_from_files(
        with_common_names(table, "lfw"),
        images,
        name="lfw",
        target=target,
        protected=protected,
        split=split,
        image_size=image_size,
        seed=seed,
        on_error=on_error,
        cache=cache,
        skipped=[*absent, *extra],
    )


def read_attributes(file: Path) -> pd.DataFrame:
    """lfw_attributes.txt: `path`, `identity`, `photo`, and for each attribute whether its score is positive.

    Raises
    ------
    ValueError : no header with person and imagenum, a score that is no number, an image named twice.
    """
    text, names = lines_of(file), [""]
    for _ in range(LINES_ABOVE):  # a comment, then the names of the columns behind a #
        header, _, text = text.partition(b"\n")
        names = [name.strip() for name in header.decode("utf-8", errors="replace").lstrip("#").strip().split("\t")]
        if names[:2] == ["person", "imagenum"]:
            break
    else:
        raise ValueError(f"{file}: expected a line '#, person, imagenum, Male, …' with tabs among the first {LINES_ABOVE}")
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: a column is named twice among {', '.join(names)}")
    raw = parse(text, file, {"person": "str", "imagenum": "int64", **dict.fromkeys(names[2:], "float64")}, "\t")
    path = image_path(raw["person"], raw["imagenum"])
    once(path, file)
    first = {"path": path, "identity": path.str.partition("/")[0], "photo": raw["imagenum"]}
    return pd.DataFrame(first | {name: _positive(raw[name]) for name in names[2:]})


def image_path(person: pd.Series, number: pd.Series) -> pd.Series:
    """Aaron_Eckhart/Aaron_Eckhart_0001.jpg for "Aaron Eckhart" (or with underscores) and 1."""
    name = person.astype(str).str.strip().str.replace(" ", "_", regex=False)
    return name + "/" + name + "_" + number.astype(int).astype(str).str.zfill(4) + ".jpg"


def _positive(score: pd.Series) -> pd.Series:
    """The sign of a score; a score of 0 or none at all is no label."""
    unsaid = score.isna() | (score == 0)
    return (score > 0).astype(object).where(~unsaid, None) if unsaid.any() else score > 0


def read_pairs(file: str | Path) -> pd.DataFrame:
    """The official pairs of images for verification.

    Parameters
    ----------
    file : pairs.txt (first line: folds and pairs of each kind a fold) or pairsDevTrain.txt, pairsDevTest.txt (pairs only)

    Returns
    -------
    DataFrame with `fold` (0, …), `p1`, `p2` (paths below lfw), `id1`, `id2` (people) and `label` (1: the same person)

    Raises
    ------
    FileNotFoundError, ValueError : no such file; a line that is no pair, or fewer pairs than the first line says.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"file: there is no {file}; pairs.txt comes with LFW. {LAYOUT}")
    lines = [line.split() for line in lines_of(file).decode("utf-8").split("\n") if line.strip()]
    try:
        folds, each = (1, int(lines[0][0])) if len(lines[0]) == 1 else map(int, lines[0])
        wide = [line if len(line) == 4 else [line[0], line[1], line[0], line[2]] for line in lines[1:]]
        table = pd.DataFrame(wide, columns=["id1", "n1", "id2", "n2"]).astype({"n1": int, "n2": int})
    except (ValueError, IndexError) as error:
        raise ValueError(f"file: {file} is no list of pairs '<Name> <n> <n>' and '<Name> <n> <Name> <n>' ({error})") from None
    label = [int(len(line) == 3) for line in lines[1:]]
    if label != ([1] * each + [0] * each) * folds:
        raise ValueError(f"file: {file} should hold {folds} folds of {each} pairs of one person and {each} of two people")
    return pd.DataFrame(
        {
            "fold": [i // (2 * each) for i in range(len(table))],
            "p1": image_path(table["id1"], table["n1"]),
            "p2": image_path(table["id2"], table["n2"]),
            "id1": table["id1"],
            "id2": table["id2"],
            "label": label,
        }
    )
