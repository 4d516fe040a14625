"""What the models take as data: a FaceDataset, or any loader of (image, target, group) batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.crew import Crew, crew_of
from helpers.models.running import device_of, evaluating, untouched_random_state

TRIPLE = "(image float (N, 3, H, W), target int (N,), group int (N,))"


def loader_of(data, batch_size: int, shuffle: bool = False, seed: int = 0, balance: str | None = None) -> Iterable:
    """The batches of a data set in the order asked for; a loader is returned as it is.

    Parameters
    ----------
    data : FaceDataset (anything with `.loader(batch_size=, shuffle=, seed=)`), DataLoader or other iterable
        of batches with a length, a list of batches, or a map-style torch data set or list of single triples
    batch_size, shuffle, seed : for data sets only; a loader has its own
    balance : as in `FaceDataset.loader`, for these only

    Raises
    ------
    ValueError : `data` is none of these, or it is empty, or it knows no groups to balance.
    """
    try:
        size = len(data)
    except TypeError as error:
        raise ValueError(
            f"data: {type(data).__name__} has no length; accepted: a FaceDataset, or a loader of "
            f"{TRIPLE} batches that knows its length"
        ) from error
    if size == 0:
        raise ValueError(f"data: the {type(data).__name__} given is empty")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: {batch_size!r} came, accepted is a whole number of at least 1")
    if hasattr(data, "loader"):
        further = {} if balance is None else {"balance": balance}
        return data.loader(batch_size=batch_size, shuffle=shuffle, seed=seed, **further)
    if balance is not None:
        raise ValueError(f"balance: {type(data).__name__} has an order of its own; accepted: a FaceDataset")
    if isinstance(data, DataLoader) or not hasattr(data, "__getitem__") or _is_list_of_batches(data):
        return data
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(data, batch_size=batch_size, shuffle=shuffle, generator=generator)


def _is_list_of_batches(data) -> bool:
    first = data[0] if isinstance(data, (list, tuple)) else None
    return isinstance(first, (list, tuple)) and len(first) > 0 and np.ndim(first[0]) == 4


def _source(data):
    return data if hasattr(data, "loader") else getattr(data, "dataset", data)


def _names_of(data, which: str):
    """`.classes` or `.groups` of the data, or of what it is a loader, a subset or a subset's loader of."""
    while data is not None and getattr(data, which, None) is None:
        data = getattr(data, "dataset", None)
    return None if data is None else getattr(data, which)


def classes_of(data) -> tuple[str, ...] | None:
    """The names of the classes, of a data set or of the one behind a loader; None if it has none."""
    classes = _names_of(data, "classes")
    return None if classes is None else tuple(map(str, classes))


def recipe_of(data) -> dict | None:
    """The recipe of a data set, or of the one behind a loader, from which `helpers.data.recall` loads it; None if it has none."""
    return getattr(_source(data), "recipe", None)


def generators_of(loader) -> list[torch.Generator]:
    """The generators that a loader and its samplers draw from: their state is the order to come."""
    found, parts = [], [loader]
    while parts:
        part = parts.pop(0)
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator) and not any(generator is other for other in found):
            found.append(generator)
        parts += [inner for name in ("sampler", "batch_sampler") if (inner := getattr(part, name, None)) is not None]
    return found


def codes_of(data, which: str) -> np.ndarray | None:
    """All targets ("targets") or groups ("group") where they can be had without reading images; else None."""
    source = _source(data)
    position = {"targets": 1, "group": 2}[which]
    if hasattr(source, which):
        return np.asarray(getattr(source, which))
    if isinstance(source, TensorDataset) and len(source.tensors) > position:
        return source.tensors[position].numpy()
    if isinstance(source, list) and source and isinstance(source[0], (tuple, list)) and len(source[0]) > position:
        return np.array([int(row[position]) for row in source]) if np.ndim(source[0][position]) == 0 else None
    return None


def group_count(data) -> int | None:
    """How many groups there are, by the data's `.groups` or its largest code; None if neither is known."""
    groups = _names_of(data, "groups")
    if groups is not None:
        return len(groups)
    codes = codes_of(data, "group")
    return None if codes is None or len(codes) == 0 else int(codes.max()) + 1


def triple(batch) -> tuple[Tensor, Tensor, Tensor]:
    """A batch as tensors: images as they came, targets and groups as int64 (N,).

    Raises
    ------
    ValueError : the batch is not a triple, or its parts have the wrong type, rank or length.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 3:
        came = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise ValueError(f"data: a batch of {came} came; each batch has to be {TRIPLE}")
    images = torch.as_tensor(batch[0])
    if not images.is_floating_point():
        raise ValueError(
            f"data: images of type {images.dtype} came; accepted are floats in [0, 1] (divide uint8 images by 255)"
        )
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        hint = (
            "; images.permute(0, 3, 1, 2) puts the channels first"
            if images.dim() == 4 and images.shape[3] in (1, 3)
            else ""
        )
        raise ValueError(f"data: images of shape {tuple(images.shape)} came; accepted (N, 3, H, W){hint}")
    codes = []
    for name, part in (("targets", batch[1]), ("groups", batch[2])):
        code = torch.as_tensor(part)
        if code.is_floating_point() or code.is_complex() or code.shape != images.shape[:1]:
            raise ValueError(
                f"data: {name} of type {code.dtype} and shape {tuple(code.shape)} came for "
                f"{len(images)} images; accepted are whole numbers of shape ({len(images)},)"
            )
        codes.append(code.to(torch.int64))
    return images, codes[0], codes[1]


def check_range(images: Tensor) -> None:
    """Raise ValueError unless all values are in [0, 1] (a hair of resampling overshoot is let through)."""
    if images.numel() == 0:
        return
    low, high = images.min().item(), images.max().item()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        hint = (
            "divide by 255" if high > 3 and low >= 0 else "normalisation is the model's first layer, leave it out here"
        )
        raise ValueError(f"data: image values from {low:.4g} to {high:.4g} came; accepted are [0, 1] ({hint})")


def check_targets(targets, outputs: int, classes: tuple[str, ...] | None = None) -> None:
    """Raise ValueError, naming the value and how often it comes, if a target is no class of the model."""
    count = 2 if outputs == 1 else outputs
    targets = np.asarray(targets)
    outside = targets[(targets < 0) | (targets >= count)]
    if len(outside):
        named = f" ({', '.join(classes)})" if classes else ""
        raise ValueError(
            f"data: target {int(outside[0])} is outside the {count} classes{named}, {len(outside)} of "
            f"{len(targets)} rows are; accepted 0 to {count - 1}. Build the model with "
            f"build(classes={int(targets.max()) + 1}) if there are more classes"
        )


def check_classes(model: nn.Module, classes: tuple[str, ...] | None) -> None:
    """Raise ValueError if the model's classes are those of the data in another order: their codes would be mixed up."""
    known = tuple(map(str, getattr(model, "classes", None) or ()))
    if classes is not None and known != classes and sorted(known) == sorted(classes):
        raise ValueError(
            f"data: its classes are {', '.join(classes)}, the model's the same in another order, {', '.join(known)}; "
            "accepted is the model's order, as FaceDataset(classes=model.classes) gives it"
        )


def check_logits(logits, images: Tensor, classes: tuple[str, ...] | None = None) -> int:
    """The number K of outputs of a model.

    Raises
    ------
    ValueError : the output is not (N, K), or K does not fit the data's classes (K = 1 fits two).
    """
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
        came = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model: output of {came} came for {len(images)} images; accepted are logits (N, classes)")
    outputs = logits.shape[1]
    if classes is not None and outputs != len(classes) and not (outputs == 1 and len(classes) == 2):
        raise ValueError(
            f"model: {outputs} outputs do not fit the target's {len(classes)} classes "
            f"({', '.join(classes)}); accepted: {len(classes)} outputs{' or 1' if len(classes) == 2 else ''}"
        )
    return outputs


@contextmanager
def batches(model: nn.Module, data, *, device=None, batch_size: int = 256) -> Iterator[tuple[nn.Module, Iterator]]:
    """The model in eval mode and the data's batches beside it; mode and random state come back afterwards.

    With a `Crew` of several processes for `device` the batches are this process's shares, which the caller puts together.

    Yields
    ------
    model : the one given, or a copy on `device` if that is another device
    iterator of (images channels_last in the model's precision, target, group), all on that device

    Raises
    ------
    ValueError : `data` is empty or not made of triples, or `device` is not available.
    """
    own = device_of(model)
    crew = Crew(own) if device is None else crew_of(device)
    if crew.size > 1 and not isinstance(device, Crew):
        raise ValueError(f"device: a Fabric of {crew.size} processes; this runs on one, accepted is the name of a device")
    device = crew.device
    loader = loader_of(data, batch_size)
    if device != own:
        model = copy.deepcopy(model).to(device)
    dtype = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)

    def read():
        for batch in crew.batches(loader):
            images, target, group = triple(batch)
            yield (
                images.to(device, dtype, memory_format=torch.channels_last),
                target.to(device),
                group.to(device),
            )

    with evaluating(model), untouched_random_state():
        yield model, read()
