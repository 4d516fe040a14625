"""One problem to study: faces in three splits and a classifier plainly trained on the first of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from filelock import FileLock
from torch import nn

import helpers
from helpers.data.base import FaceDataset
from helpers.data.cache import cache_dir
from helpers.models import checkpoint, resume
from helpers.names import choose


@dataclass(frozen=True)
class Profile:
    """How much work a lesson does.

    `images` are drawn to train on (data sets that are read bring their own number), `steps` optimiser steps taken,
    `explained` faces explained by the attribution lessons.
    """

    images: int
    steps: int
    explained: int


PROFILES = {"quick": Profile(4000, 252, 16), "full": Profile(20000, 3130, 96)}
LEAST_EPOCHS, MOST_EPOCHS = 3, 20


@dataclass(frozen=True)
class Problem:
    """A trained model, the faces it learned from, those to fit mitigation on, and those to judge by.

    No person is in two of the splits. Iterating gives `train, validation, test, model`.
    """

    train: FaceDataset
    validation: FaceDataset
    test: FaceDataset
    model: nn.Module

    def __iter__(self):
        return iter((self.train, self.validation, self.test, self.model))


def load_problem(
    dataset: str = "illustrated",
    root=None,
    target: str | None = None,
    protected: str | Sequence[str] | None = None,
    profile: str = "quick",
    *,
    image_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    **options,
) -> Problem:
    """Load the faces and the ResNet-18 trained on them; what is not in the cache yet is made.

    Parameters
    ----------
    dataset, root, target, protected, image_size, seed, **options : as `helpers.load_faces`; for "illustrated",
        `correlation` sets the bias of the training split alone
    profile : "quick" (minutes on two cores) or "full" (more faces, longer training)
    progress : bool, show bars

    Returns
    -------
    Problem

    Raises
    ------
    ValueError, FileNotFoundError : as `load_faces` and `train`.
    """
    work = PROFILES[choose(profile, PROFILES, "profile")]
    shared = {"root": root, "target": target, "protected": protected, "image_size": image_size, "seed": seed}
    extra = {}
    if dataset == "illustrated":
        extra = {"n": options.pop("n", work.images), "correlation": options.pop("correlation", None)}
    train = helpers.load_faces(dataset, split="train", **shared, **extra, **options)
    validation, test = (helpers.load_faces(dataset, split=split, **shared, **options) for split in ("validation", "test"))
    batch = min(64, max(8, len(train) // 8))
    epochs = max(LEAST_EPOCHS, min(MOST_EPOCHS, round(work.steps * batch / len(train))))
    settings = {"epochs": epochs, "batch_size": batch, "seed": seed, "progress": progress}
    return Problem(train, validation, test, trained(train, dataset, **settings))


def trained(faces: FaceDataset, name: str, *, epochs: int, batch_size: int, seed: int, progress: bool = True) -> nn.Module:
    """The ResNet-18 that `helpers.train` makes of these faces: from the cache, or trained and kept there as `name`-….

    The same faces, labels and settings are the same model, whatever it is called.
    """
    content = [resume.fingerprint(faces.images, faces.targets), faces.classes, epochs, batch_size, seed]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    path = cache_dir("models") / f"{name}-{key}.safetensors"
    if not path.is_file():
        with FileLock(path.with_suffix(".lock")):  # of two notebooks side by side one trains, and the other takes its model
            if not path.is_file():
                part = path.with_suffix(".part")
                model = helpers.train(faces, epochs=epochs, batch_size=batch_size, seed=seed, progress=progress, checkpoint=part)
                checkpoint.save(model, path)
                part.unlink(missing_ok=True)
    return checkpoint.load(path)
