"""What took long is kept on disk: predictions, and mitigated models as they come, so that a closed page loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from helpers.data.cache import cache_dir
from helpers.files import whole


def folder(key: str) -> Path:
    """Where what belongs to one model and its faces is kept."""
    return cache_dir("explorer", key)


def logits(key: str, predict: Callable[[], np.ndarray]) -> np.ndarray:
    """The predictions of a model, float32 (N, K): kept ones, or those that `predict` makes, once for all visitors."""
    path = folder(key) / "logits.npy"
    with FileLock(path.with_suffix(".lock")):  # of two visitors one computes, the other waits for it
        if not path.is_file():
            found = np.ascontiguousarray(predict(), dtype=np.float32)
            with whole(path) as part, open(part, "wb") as file:
                np.save(file, found)
    return np.load(path)


def keep(place: Path, result) -> None:
    """Write a `CorrectionResult` with a model: the model, and what it answers on the faces that judge it."""
    from helpers import models

    models.save(result.model, place / f"{result.method}.safetensors")
    said = {"seconds": result.seconds, "note": result.note, "predicted": result.answers.after.tolist()}
    with whole(place / f"{result.method}-answers.json") as part:  # last: a method counts as kept once this is there
        part.write_text(json.dumps(said), encoding="utf-8")


def names(place: Path) -> list[str]:
    """The methods that are kept in a folder, sorted."""
    return sorted(path.name.removesuffix("-answers.json") for path in place.glob("*-answers.json"))


def read(place: Path, method: str):
    """The model of a kept method, its predicted classes int64 (N,), seconds and note."""
    from helpers import models

    said = json.loads((place / f"{method}-answers.json").read_text(encoding="utf-8"))
    model = models.load(place / f"{method}.safetensors")
    return model, np.array(said["predicted"], np.int64), said["seconds"], said["note"]
