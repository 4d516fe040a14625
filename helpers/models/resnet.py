"""Torchvision's ResNets as face classifiers, with normalisation as their first layer."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers.models.running import untouched_random_state
from helpers.names import choose

# The statistics of ImageNet, which torchvision's pretrained weights expect (RGB, values in [0, 1]).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """(x - mean) / std for each colour channel, on images (N, 3, H, W) in [0, 1]."""

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean[:, None, None]) / self.std[:, None, None]


class FaceClassifier(nn.Sequential):
    """Normalisation, then a network: images (N, 3, H, W) in [0, 1] -> logits (N, K).

    Attributes
    ----------
    normalise, network : the two children
    architecture : str, torchvision's name of the network
    classes : tuple of str, in the order of the target's codes (two of them if K = 1)
    outputs : int, K
    info : dict, json-able: what is known of the data and the training
    history : DataFrame, one row an epoch, or None before training
    """

    def __init__(self, network: nn.Module, architecture: str, classes: tuple[str, ...], outputs: int):
        super().__init__()
        self.normalise = Normalise()
        self.network = network
        self.architecture, self.classes, self.outputs = architecture, classes, outputs
        self.info: dict = {}
        self.history = None


def architectures() -> list[str]:
    """The names that `build` accepts: all of torchvision's ResNets, ResNeXts and wide ResNets."""
    families = ("resnet", "resnext", "wide_resnet")
    return [name for name in torchvision.models.list_models(module=torchvision.models) if name.startswith(families)]


def build(
    architecture: str = "resnet18",
    classes: int | Sequence[str] = ("no", "yes"),
    weights: str | os.PathLike | None = None,
    seed: int = 0,
) -> FaceClassifier:
    """Make a ResNet for a number of classes.

    Parameters
    ----------
    architecture : str, one of `architectures()`
    classes : the classes' names, or their number; 1 makes a single logit for two classes
    weights : None: random; "DEFAULT" or a name of torchvision's (`"IMAGENET1K_V1"`), which are
        downloaded once; or the path of a local `.pth`, `.pt` or `.safetensors` file. A head of another width
        is left random.
    seed : int, of the random weights; torch's global state is not touched

    Returns
    -------
    FaceClassifier on the CPU, in training mode, weights in `channels_last`

    Raises
    ------
    ValueError : unknown architecture or weights (the nearest name is given), bad classes, a file that
        does not fit.
    FileNotFoundError : `weights` is a path that does not exist.
    ConnectionError : the weights could not be downloaded.
    """
    architecture = choose(architecture, architectures(), "architecture")
    names, outputs = _named(classes)
    state = None if weights is None else _read_weights(architecture, weights)
    with untouched_random_state(seed):
        network = torchvision.models.get_model(architecture, weights=None, num_classes=outputs)
    model = FaceClassifier(network, architecture, names, outputs)
    if state is not None:
        _put_weights(model, state, weights)
    return model.to(memory_format=torch.channels_last)


def _named(classes) -> tuple[tuple[str, ...], int]:
    if isinstance(classes, int) and not isinstance(classes, bool) and classes >= 1:
        return tuple(str(code) for code in range(max(classes, 2))), classes
    if isinstance(classes, (list, tuple)) and len(classes) >= 2 and len(set(map(str, classes))) == len(classes):
        return tuple(map(str, classes)), len(classes)
    raise ValueError(
        f"classes: {classes!r} came; accepted: two or more different names, or a whole number of at least 1"
    )


def _is_path(weights) -> bool:
    text = os.fspath(weights)
    return (
        not isinstance(weights, str) or text.endswith((".pth", ".pt", ".safetensors")) or "/" in text or os.sep in text
    )


def _read_weights(architecture: str, weights) -> dict[str, Tensor]:
    if _is_path(weights):
        return _read_file(Path(weights))
    known = torchvision.models.get_model_weights(architecture)
    name = choose(weights.rpartition(".")[2], ["DEFAULT", *known.__members__], "weights")
    try:
        return known[name].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; a broken download fails its hash
        raise ConnectionError(
            f"weights: {architecture} {name} could not be downloaded from {known[name].url} ({error}). The "
            "download needs network access; weights=None starts from random weights, weights='a path' reads "
            "a local .pth or .safetensors file"
        ) from error


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"weights: there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"weights: {path} cannot be read as weights ({str(error).splitlines()[0]}). Accepted: a "
            "state dict of tensors, as torch.save(model.state_dict(), path) writes it, or safetensors; a "
            "pickled model is not loaded, since that would run code from the file"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} holds {type(state).__name__}, not a state dict of tensors")
    return state


def _put_weights(model: FaceClassifier, state: dict[str, Tensor], weights) -> None:
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if not any(key.startswith("network.") for key in state):
        state = {f"network.{key}": value for key, value in state.items()}
    own = model.state_dict()
    state = {**{key: own[key] for key in own if key.startswith("normalise.")}, **state}
    for key in ("network.fc.weight", "network.fc.bias"):
        if key not in state or state[key].shape != own[key].shape:
            state[key] = own[key]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"weights: {os.fspath(weights)} does not fit {model.architecture}: {' '.join(str(error).split())[:600]}"
        ) from error
