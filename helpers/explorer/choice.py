"""What a visitor chooses, and opening it: a model, the faces it is judged on, and its predictions."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from helpers.data import SOURCES, FaceDataset
from helpers.names import choose

from . import kept

MOST_LEVELS = 8  # a column with more values makes groups too small to audit
NOT_GROUPS = ("split", "path", "file", "filename", "identity")


@dataclass(frozen=True)
class Choice:
    """What is looked at.

    Attributes
    ----------
    data : name of a data set, or the path of a folder or table within the folder that may be read; "": what the model was
        trained on, else the drawn faces
    model : path of a model within that folder; "": the ResNet-18 that `helpers.problem.load_problem` trains on the data
    target : column to predict, "" for the model's or the data's own.  protected : column whose groups are compared, likewise
    image_size, seed : as in `helpers.load_faces`
    """

    data: str = ""
    model: str = ""
    target: str = ""
    protected: str = ""
    image_size: int = 64
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Opened:
    """A choice once it is read: the model, faces to fit mitigation on and faces to judge by, and the answers to the latter.

    Attributes
    ----------
    logits : float32 (N, K), of `test`.  key : of the model and its images, for what is kept on disk
    note : a sentence about what was found, or ""
    """

    choice: Choice
    model: nn.Module
    fit: FaceDataset
    test: FaceDataset
    logits: np.ndarray
    key: str
    note: str = ""

    def relabel(self, protected: str) -> Opened:
        """The same model and images, groups made by another column."""
        fit, test = (faces.relabel(protected=protected) for faces in (self.fit, self.test))
        return replace(self, fit=fit, test=test, choice=replace(self.choice, protected=protected))


def inside(root: str | Path, text: str, argument: str) -> Path:
    """The path that `text` names within the folder `root`.

    Raises
    ------
    ValueError : it leads out of the folder, by "..", as an absolute path or through a link.
    FileNotFoundError : there is nothing there.
    """
    root = Path(root).resolve()
    path = (root / Path(text.strip()).expanduser()).resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"{argument}: {text!r} lies outside the folder that this page may read; `--data-root` names that folder")
    if not path.exists():
        near = sorted(entry.name for entry in path.parent.iterdir() if entry.name[0] != ".")[:5] if path.parent.is_dir() else []
        hint = f"; beside it are {', '.join(near)}" if near else ""
        raise FileNotFoundError(f"{argument}: there is no {text!r} in the folder that this page may read{hint}")
    return path


def is_path(text: str) -> bool:
    """Whether data is named by a path: not the name of a data set, and with a folder or an ending."""
    return text.casefold() not in SOURCES and (len(Path(text).parts) > 1 or Path(text).suffix != "" or text.startswith("."))


def open_choice(choice: Choice, root: str | Path = ".") -> Opened:
    """Read what was chosen, and predict; predictions that were made before come from the cache.

    Parameters
    ----------
    choice : Choice
    root : the folder that paths lie in

    Raises
    ------
    ValueError, FileNotFoundError : a path outside `root` or without a file, an unknown data set or column, a model that does
        not fit the data; before anything is trained.
    """
    from helpers.models import predict
    from helpers.models.resume import fingerprint, weights_fingerprint

    model = read_model(choice.model, root) if choice.model.strip() else None
    before = (getattr(model, "info", None) or {}).get("loaded") or {}
    data = choice.data.strip() or before.get("data") or "illustrated"
    if is_path(data) or (data.casefold() not in SOURCES and (Path(root) / data).exists()):
        path = inside(root, data, "data")
        name, place = ("folder" if path.is_dir() else "table"), path
    else:
        name, place = choose(data, SOURCES, "data"), None
    if model is not None:
        fit, test = faces_for(model, before if before.get("data") == data else {}, choice, name, place)
    else:
        from helpers.problem import load_problem

        wanted = {"target": choice.target or None, "protected": choice.protected or None}
        with quiet():
            _, fit, test, model = load_problem(
                name, place, **wanted, image_size=choice.image_size, seed=choice.seed, progress=False
            )
    key = fingerprint(np.asarray(test.images), np.frombuffer(weights_fingerprint(model).encode(), np.uint8))
    logits = kept.logits(key, lambda: predict(model, test).logits)
    if logits.shape[1] not in (1, len(test.classes)) or (logits.shape[1] == 1 and len(test.classes) != 2):
        raise ValueError(f"model: it has {logits.shape[1]} outputs, and {test.target} has the classes {', '.join(test.classes)}")
    read = replace(choice, data=data, target=test.target, protected=protected_of(test))
    return Opened(read, model, fit, test, logits, key, noted(test))


def read_model(text: str, root: str | Path) -> nn.Module:
    """The model that a path within `root` names: one of ours, or another library's."""
    from helpers import models

    path = inside(root, text, "model")
    described = path.with_suffix(".json").is_file()
    return models.load(path) if path.suffix == ".safetensors" and described else models.foreign.load(path)


def faces_for(model: nn.Module, before: dict, choice: Choice, name: str, place: Path | None) -> tuple[FaceDataset, FaceDataset]:
    """Validation and test faces for a model: of the target, seed and options that it was trained with (`before`, if the data is
    the same), unless something else is asked for."""
    import helpers

    protected = choice.protected or before.get("protected") or None
    settings = {
        "root": place,
        "target": choice.target or before.get("target") or None,
        "protected": protected[0] if isinstance(protected, list) and len(protected) == 1 else protected,
        # the seed decides who is in which split: another one would let people of its training into the model's test
        "seed": before.get("seed", choice.seed),
        "image_size": before.get("image_size") or size_of(model) or choice.image_size,
        **(before.get("option") or {}),
    }
    with quiet():
        fit, test = (helpers.load_faces(name, split=split, **settings) for split in ("validation", "test"))
    known = tuple(getattr(model, "classes", None) or test.classes)
    if set(known) != set(test.classes):
        raise ValueError(
            f"model: {choice.model} tells {' from '.join(known)}, and the target {test.target} is {' or '.join(test.classes)}; "
            "choose the target that it learned, or another model"
        )
    return fit, test


def size_of(model: nn.Module) -> int | None:
    """The side of the images that a model was trained on, if it says."""
    loaded = (getattr(model, "info", None) or {}).get("loaded") or {}
    return loaded.get("image_size")


def protected_of(faces: FaceDataset) -> str:
    """The protected attribute as one name."""
    return faces.protected if isinstance(faces.protected, str) else ", ".join(faces.protected)


def noted(faces: FaceDataset) -> str:
    """What a visitor should know of the faces that were read."""
    if not faces.skipped:
        return ""
    path, reason = faces.skipped[0]
    return f"{len(faces.skipped)} files were skipped, such as {Path(path).name}: {reason}."


def columns(faces: FaceDataset) -> list[str]:
    """Columns whose groups could be compared: two to eight values, each of at least one face."""
    found = []
    for name in faces.table:
        values = faces.table[name]
        few = 2 <= values.nunique(dropna=True) <= MOST_LEVELS and not values.isna().any()
        numbers = pd.api.types.is_float_dtype(values)
        if name != faces.target and str(name) not in NOT_GROUPS and few and not numbers:
            found.append(str(name))
    now = protected_of(faces)
    return found if now in found else [now, *found]


@contextlib.contextmanager
def quiet():
    """Bars and remarks for a terminal have no place on a page."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
