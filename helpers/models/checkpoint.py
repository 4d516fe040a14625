"""Models on disk: weights as safetensors, everything else as a small JSON file beside them."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import helpers
from helpers.files import whole
from helpers.models import affine  # noqa: F401  importing registers the edits that a file may name
from helpers.models.editing import EDITS, append_after, edits, unedited
from helpers.models.resnet import FaceClassifier, build
from helpers.names import choose

FORMAT = 1


def files_of(path: str | os.PathLike) -> tuple[Path, Path]:
    """The weights file and the description file of a model saved at `path` (with either suffix or none)."""
    text = os.fspath(path)
    stem = text.removesuffix(".safetensors").removesuffix(".json")
    return Path(f"{stem}.safetensors"), Path(f"{stem}.json")


def save(model: nn.Module, path: str | os.PathLike, **metadata) -> Path:
    """Write `path`.safetensors and `path`.json, each through a temporary file and a rename.

    The JSON holds the architecture, classes, image size, edits, history, the versions of torch, torchvision
    and candor, a checksum of the weights, `metadata`, and what `train` wrote down: its settings, and recipes of
    the rows of training and validation (`info: rows`), which `helpers.data.recall(path)` loads again.

    Parameters
    ----------
    model : nn.Module; a FaceClassifier, with or without edits, can be loaded from the files alone
    path : where to; missing folders are made
    **metadata : json-able values; `data` (by default that of the training) and `metrics` are the usual ones

    Returns
    -------
    Path of the weights file

    Raises
    ------
    ValueError : a value of `metadata` is not json-able, an edit's class is not registered, or the model comes from another
        library and has no weights here. Nothing is written.
    """
    if getattr(model, "opaque", False) and not edits(model):
        raise ValueError("model: PyTorch sees no weights in it that could be saved; keep its own file, which foreign.load reads")
    weights, description = files_of(path)
    info = dict(getattr(model, "info", None) or {}) | metadata
    history = getattr(model, "history", None)
    base = unedited(model)
    about = {
        "format": FORMAT,
        **_architecture(base),
        "classes": list(getattr(model, "classes", None) or ()) or None,
        "image_size": (info.get("data") or {}).get("image_size") if isinstance(info.get("data"), dict) else None,
        "channels_last": _channels_last(model),
        "edits": _described(model),
        "history": None if history is None else history.to_dict("records"),
        "versions": {
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "candor": helpers.__version__,
        },
        "info": info,
    }
    _check_json(info)
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    with whole(weights) as new_weights, whole(description) as new_description:
        save_file(tensors, new_weights)
        about["sha256"] = _digest(new_weights)
        new_description.write_text(json.dumps(about, indent=1, default=_plain) + "\n", encoding="utf-8")
    return weights


def load(path: str | os.PathLike, model: nn.Module | None = None, device=None) -> nn.Module:
    """Read a model that `save` wrote; no code from the file is run.

    Parameters
    ----------
    path : with or without `.safetensors` or `.json`
    model : for a model that `build` did not make: an instance of it, unedited. A copy receives the
        weights and edits.
    device : where to, by default the CPU

    Returns
    -------
    nn.Module in eval mode, with `.classes`, `.info`, `.history`; bit for bit the outputs of the model saved,
    on the same machine and versions.

    Raises
    ------
    FileNotFoundError : one of the two files is missing (it is named).
    ValueError : a damaged file, two files that do not belong together, weights that do not fit the
        description, an unknown edit, or a foreign model without `model=`.
    """
    weights, description = files_of(path)
    for file, what in ((weights, "weights"), (description, "description")):
        if not file.is_file():
            raise FileNotFoundError(
                f"path: the {what} file {file} is missing; a saved model is {weights.name} and "
                f"{description.name} in one folder"
            )
    about = _read_description(description)
    if _digest(weights) != about["sha256"]:
        raise ValueError(
            f"path: {weights} is not the file that {description.name} describes (its checksum differs): "
            "it is damaged, or the two come from different saves"
        )
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"path: {weights} is not a readable safetensors file ({error})") from error

    loaded = _base(about, model, path)
    for number, entry in enumerate(about["edits"]):
        loaded = _with_edit(loaded, entry, f"{description.name}, edit {number}")
    if about.get("channels_last"):  # the order of additions in a convolution, so the last bits, depends on it
        loaded = loaded.to(memory_format=torch.channels_last)
    try:
        loaded.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"path: the weights in {weights.name} do not fit the model that {description.name} describes: "
            f"{' '.join(str(error).split())[:600]}"
        ) from error
    for key, value in (
        ("classes", tuple(about["classes"]) if about["classes"] else None),
        ("info", about["info"]),
        ("history", None if about["history"] is None else pd.DataFrame(about["history"])),
    ):
        if value is not None or hasattr(loaded, key):
            setattr(loaded, key, value)
    return loaded.eval().to(device or "cpu")


def _architecture(base: nn.Module) -> dict:
    """What `build` needs to make the unedited model again; None where it could not."""
    if isinstance(base, FaceClassifier):
        with torch.device("meta"):
            again = build(base.architecture, base.outputs)
        if {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in base.state_dict().items()}:
            return {"architecture": base.architecture, "outputs": base.outputs}
    return {"architecture": None, "outputs": None, "module": type(base).__qualname__}


def _described(model: nn.Module) -> list[dict]:
    entries = []
    for layer, module in edits(model):
        kind = type(module).__name__
        if EDITS.get(kind) is not type(module):
            raise ValueError(
                f"model: the edit {kind} after {layer!r} is not registered, so it could not be loaded; "
                f"put @edit before its class. Registered: {', '.join(sorted(EDITS))}"
            )
        entries.append(
            {
                "layer": layer,
                "type": kind,
                "config": module.config(),
                "enabled": bool(getattr(module, "enabled", True)),
            }
        )
        _check_json({f"{kind}.config()": entries[-1]["config"]})
    return entries


def _with_edit(model: nn.Module, entry: dict, where: str) -> nn.Module:
    try:
        kind = choose(entry["type"], EDITS, "edit")
        module = EDITS[kind](**entry["config"])
        module.enabled = entry["enabled"]
        return append_after(model, entry["layer"], module)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"path: {where} cannot be built again ({error}); import the module that defines it before loading"
        ) from error


def _base(about: dict, model: nn.Module | None, path) -> nn.Module:
    if model is not None:
        return copy.deepcopy(model)
    if about["architecture"] is None:
        raise ValueError(
            f"model: {os.fspath(path)} holds a model of class {about.get('module')}, which build() cannot make; make one "
            "yourself and call load(path, model=it)"
        )
    return build(about["architecture"], about["outputs"])


def _read_description(file: Path) -> dict:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"path: {file} is not readable JSON ({error})") from error
    needed = ("format", "architecture", "outputs", "classes", "edits", "history", "info", "sha256")
    missing = [key for key in needed if not isinstance(about, dict) or key not in about]
    if missing:
        raise ValueError(f"path: {file} does not describe a saved model; it lacks {', '.join(missing)}")
    if about["format"] != FORMAT:
        raise ValueError(f"path: {file} has format {about['format']!r}; this version reads {FORMAT}")
    return about


def _channels_last(model: nn.Module) -> bool:
    kernels = [p for p in model.parameters() if p.dim() == 4 and min(p.shape[1], p.shape[2] * p.shape[3]) > 1]
    return bool(kernels) and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value):
    """NumPy numbers and arrays as Python's, for JSON."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(type(value).__name__)


def _check_json(values: dict) -> None:
    for key, value in values.items():
        try:
            json.dumps(value, default=_plain)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{key}: cannot be written as JSON ({error}); accepted are numbers, text, lists and "
                "dicts with text as keys"
            ) from error
