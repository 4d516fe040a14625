"""From a file, or an object of another library, to a network; nothing that a file holds is run as code, unless it is trusted."""

from __future__ import annotations

import copy
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helpers.models.keras_network import KerasNetwork, load_keras
from helpers.models.networks import Exported, FunctionNetwork, OnnxNetwork

WEIGHTS = (".pth", ".pt", ".safetensors")
ALONE = (".onnx", ".keras", ".h5", ".hdf5", ".pt2")  # files that hold the network as well as its weights
PICKLES = (".pkl", ".pickle", ".joblib", ".sav", ".dill")


def opened(source, output, architecture, custom_objects, tensors, trusted) -> tuple[nn.Module, tuple[str, ...] | None]:
    """The network of a source, and the names of its classes if it knows them."""
    if isinstance(source, (str, os.PathLike)):
        return from_file(Path(source).expanduser(), output, architecture, custom_objects, trusted)
    if architecture is not None:
        raise ValueError(f"architecture: only with a file of weights ({', '.join(WEIGHTS)}); source is a {type(source).__name__}")
    if isinstance(source, torch.export.ExportedProgram):
        return Exported(source, output), None
    if any(base.__module__.partition(".")[0] in ("keras", "tf_keras") for base in type(source).__mro__):
        return KerasNetwork(source, output), None
    if isinstance(source, nn.Module):
        return copy.deepcopy(source), tuple(map(str, getattr(source, "classes", None) or ())) or None
    if callable(source):
        return FunctionNetwork(source, output, tensors), None
    raise ValueError(
        f"source: {type(source).__name__} came; accepted is a path ({', '.join(ALONE + WEIGHTS)}), an nn.Module, a Keras model, "
        "an ExportedProgram or a function of an array"
    )


def from_file(path: Path, output, architecture, custom_objects, trusted) -> tuple[nn.Module, tuple[str, ...] | None]:
    kind = path.suffix.casefold()
    if kind in PICKLES:
        raise ValueError(
            f"source: {path} is a pickle, and loading one runs code of whoever wrote it; load it yourself, if you trust it, and "
            "give the function (model.predict_proba) instead of the file"
        )
    if kind not in ALONE + WEIGHTS:
        raise ValueError(f"source: {str(path)!r} ends with {kind or 'nothing'!r}; accepted: {', '.join(ALONE + WEIGHTS)}")
    if not path.is_file():
        raise FileNotFoundError(f"source: there is no file {str(path)!r}")
    if kind in WEIGHTS:
        if is_torchscript(path):
            raise ValueError(f"source: {path} is a TorchScript program; give torch.jit.load({path.name!r}) instead of the file")
        if architecture is None:
            ours = kind == ".safetensors" and path.with_suffix(".json").is_file()
            hint = "; what helpers.models.save wrote is read by helpers.models.load" if ours else ""
            raise ValueError(
                f"architecture: {path} holds weights alone; give the nn.Module that they are of, or what makes it{hint}"
            )
        return with_weights(path, architecture), None
    if architecture is not None:
        raise ValueError(f"architecture: only with a file of weights ({', '.join(WEIGHTS)}); {path} holds the network itself")
    if kind == ".onnx":
        return from_onnx(path, output)
    if kind != ".pt2":
        return KerasNetwork(load_keras(path, custom_objects), output), None
    if not trusted:
        raise ValueError(
            f"trusted: {path} can make PyTorch run code of whoever wrote it (torch.export.load uses pickle); give trusted=True "
            "if you know where it comes from"
        )
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise ValueError(f"source: {path} is damaged or no program of torch.export ({str(error)[:200]})") from error
    return Exported(program, output), None


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive that holds code of TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def from_onnx(path: Path, output) -> tuple[nn.Module, tuple[str, ...] | None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"source: onnxruntime cannot read {path}: {' '.join(str(error).split())[:300]}") from error
    named = session.get_modelmeta().custom_metadata_map.get("classes")
    try:
        names = json.loads(named) if named else None
    except json.JSONDecodeError:
        names = None  # somebody else's entry of that name
    network = OnnxNetwork(path, session, output)
    return network, tuple(map(str, names)) if isinstance(names, list) else None


def with_weights(path: Path, architecture: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """A copy of the architecture with the weights of a file; ValueError if they do not belong together."""
    network = copy.deepcopy(architecture) if isinstance(architecture, nn.Module) else architecture()
    if not isinstance(network, nn.Module):
        came = type(network).__name__
        raise ValueError(f"architecture: it gives a {came}; accepted is an nn.Module or a function that makes one")
    try:
        if path.suffix.casefold() == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"source: {path} holds more than weights, a whole pickled model perhaps, and loading that runs code of whoever wrote "
            "it; save model.state_dict() instead, or load it yourself and give the model"
        ) from error
    except Exception as error:
        raise ValueError(f"source: {path} is damaged or no file of weights ({' '.join(str(error).split())[:200]})") from error
    try:
        network.load_state_dict(weights_in(found, path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"source: the weights of {path} do not fit the architecture: {reason}") from error
    return network


def weights_in(found: Any, path: Path) -> dict[str, Tensor]:
    """The weights by name, of a file that may hold more (a checkpoint), or that DataParallel wrote."""
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"source: {path} holds no weights by name; accepted is what torch.save(model.state_dict(), path) writes")
    if found and all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): value for name, value in found.items()}
    return dict(found)
