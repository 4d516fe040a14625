"""The state of an interrupted training run, kept in one file and taken up again."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import torch
from torch import nn

from helpers.files import whole


def fingerprint(*arrays) -> str:
    """Sixteen hexadecimal digits that differ where the tensors or arrays differ in shape, type or bytes.

    What has `blocks()`, as images in a file have, is read block by block, and is the same as an array of these images.
    """
    digest = hashlib.sha256()
    for array in arrays:
        if hasattr(array, "blocks"):
            digest.update(f"{array.shape}{array.dtype}".encode())
            for block in array.blocks():
                digest.update(block)
            continue
        if isinstance(array, torch.Tensor) and array.dtype == torch.bfloat16:
            array = array.view(torch.int16)  # NumPy has no such type
        array = np.ascontiguousarray(array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def weights_fingerprint(model: nn.Module) -> str:
    """The fingerprint of all parameters and buffers of a model."""
    return fingerprint(*model.state_dict().values())


def write(path: str | os.PathLike, configuration: dict, state: dict) -> None:
    """Write a run's configuration and its state after an epoch, through a temporary file and a rename."""
    # Into an open file: given a name, torch refuses one without a suffix.
    with whole(path) as temporary, open(temporary, "wb") as file:
        torch.save({"configuration": configuration, "state": state}, file)


def read(path: str | os.PathLike, configuration: dict) -> dict | None:
    """The state written at `path`, or None if there is no such file.

    Raises
    ------
    ValueError : the file is no checkpoint, or that of another configuration (what differs is named).
    """
    if not Path(path).exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        found, state = saved["configuration"], saved["state"]
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        KeyError,
        TypeError,
        IndexError,
    ) as error:
        raise ValueError(
            f"checkpoint: {path} is not a readable checkpoint of train() "
            f"({str(error).splitlines()[0]}); remove it or give another path"
        ) from error
    differing = [key for key in {**found, **configuration} if found.get(key) != configuration.get(key)]
    if differing:
        what = "; ".join(f"{key} was {found.get(key)!r}, is now {configuration.get(key)!r}" for key in differing)
        raise ValueError(
            f"checkpoint: {path} belongs to another run: {what}. Give another path, remove the file, "
            "or train with the settings it was begun with"
        )
    return state
