"""The logits of an edited model from stored features, without running the backbone again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.debiasing.method import Batch
from helpers.models.intake import take
from helpers.models.layers import EDITS, Edited, capture
from helpers.models.prediction import predict
from helpers.models.running import call, device_of


@dataclass(frozen=True)
class Probe:
    """A few images with what a replay starts from, on which it is checked: the unedited model's features before the classifier,
    or its logits where PyTorch sees no layers."""

    images: Tensor
    group: Tensor
    features: Tensor


@torch.inference_mode()
def make_probe(model: nn.Module, batch: Batch, images: Tensor, group: Tensor) -> Probe:
    """Run the unedited `model` on images (n, 3, H, W) of groups (n,)."""
    device = device_of(model)
    if batch.opaque:
        return Probe(images, group, call(model, images.to(device), group.to(device)).float().cpu())
    with capture(model, batch.layer) as seen:
        call(model, images.to(device), group.to(device))
    return Probe(images, group, take(seen[batch.layer], batch.intake).flatten(1).float().cpu())


@torch.inference_mode()
def replay(model: nn.Module, changed: tuple, batch: Batch, features: Tensor, group: Tensor) -> Tensor:
    """Edits at the penultimate layer, the last layer and edits of the logits, applied to features (n, d) -> (n, K).

    Of a model that PyTorch cannot see into the "features" are the logits, and there are only edits of these.

    Where the classifier is a function of weights that the model itself holds, it is taken to be x -> W x + b.
    """
    device = device_of(model)
    x, group = features.to(device), group.to(device)
    changed = [(name, part) for name, part in changed if isinstance(part, tuple(EDITS.values()))]  # not what has new weights
    logits = x if batch.opaque else classified(model, changed, batch, x)
    for name, edit in changed:
        if name == "":
            logits = edit(logits, group=group) if getattr(edit, "needs_group", False) else edit(logits)
    return logits.float().cpu()


def classified(model: nn.Module, changed: list, batch: Batch, x: Tensor) -> Tensor:
    """Features (n, d) after the edits at the penultimate layer and the classifier, (n, K)."""
    for name, edit in changed:
        if name == batch.layer:
            x = edit(x)
    whole = model
    while isinstance(whole, Edited):
        whole = whole.layer
    return whole.get_submodule(batch.last)(x) if batch.last else F.linear(x, whole.weight, whole.bias)


def replays(model: nn.Module, changed: tuple, batch: Batch, probe: Probe) -> bool:
    """Whether `replay` gives what the model itself gives on the probe's images, up to rounding."""
    device = device_of(model)
    try:
        short = replay(model, changed, batch, probe.features, probe.group)
    except (RuntimeError, ValueError, AttributeError, TypeError):  # an architecture whose end is not edit, layer, edit
        return False
    with torch.inference_mode():
        full = call(model, probe.images.to(device), probe.group.to(device)).float().cpu()
    return short.shape == full.shape and torch.allclose(
        short, full, rtol=1e-3, atol=1e-3 * max(1.0, full.abs().max().item())
    )


def logits_of(model: nn.Module, changed: tuple, batch: Batch, probe: Probe) -> np.ndarray:
    """Logits of `model` for every row of `batch`, float32 (N, K): from features where that is exact, else by a run.

    Raises
    ------
    ValueError : the model had to be run, and the data gave other rows than before.
    """
    if replays(model, changed, batch, probe):
        start = batch.logits if batch.opaque else batch.features("penultimate")[1].flatten(1)
        return replay(model, changed, batch, start, torch.from_numpy(batch.group)).numpy()
    again = predict(model, batch.own.all, device=batch.crew)
    if not (np.array_equal(again.y_true, batch.y) and np.array_equal(again.group, batch.group)):
        raise ValueError(
            "dataloader: a second pass gave other rows, so predictions cannot be matched; "
            "give a data set whose rows stay what they are"
        )
    return again.logits
