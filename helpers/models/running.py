"""Running a model without leaving a trace: its mode, its device, and the random state around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the block the model is in eval mode; afterwards each of its modules has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def untouched_random_state(seed: int | None = None) -> Iterator[None]:
    """Inside the block torch's global random state may be used (from `seed`); afterwards it is as before.

    Iterating any `DataLoader` draws a number from that state, so looking at data belongs in here too.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has none."""
    tensor = next((t for tensors in (model.parameters(), model.buffers()) for t in tensors), None)
    return torch.device("cpu") if tensor is None else tensor.device


def usable_device(device: str | torch.device) -> torch.device:
    """`device` as a torch.device that this machine has.

    Raises
    ------
    ValueError : the name is not a device, or the machine has no such device.
    """
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        has = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ValueError(f"device: {str(device)!r} is not available here; accepted: {', '.join(has)}") from error
    return chosen


def call(model: nn.Module, images: Tensor, group: Tensor | None = None) -> Tensor:
    """The model's logits, with `group=` passed to models that say `needs_group = True`."""
    if not getattr(model, "needs_group", False):
        return model(images)
    if group is None:
        group = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    return model(images, group=group)
