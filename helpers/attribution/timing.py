"""How long passes take: a few of them are timed on this model, these images and this device."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from .method import Method, cost
from .passes import scores, slopes
from .score import Score, channels_last

TRIAL = 0.5  # seconds that one timed pass may take
LONG = 60  # seconds from which on it is said beforehand how long a call takes


def seconds_of(model: Score, images: Tensor, count: int, batch_size: int, forward: int, backward: int) -> float:
    """How long `forward` passes of each of `count` images take, of which `backward` go back to the image, in full batches.

    The model is borrowed; `images` (n, C, H, W) are some of those to come.
    """
    total = 0.0
    for passes, function in ((backward, slopes), (forward - backward, scores)):
        if passes > 0:
            alone = timed(model, images, 1, function)
            size = max(1, min(batch_size, count * passes, int(TRIAL / alone)))
            if size > 1:
                timed(model, images, size, function)  # the first pass of a size is slower
            total += count * passes * min(alone, timed(model, images, size, function) / size)
    return total


def timed(model: Score, images: Tensor, size: int, function: Any) -> float:
    """Seconds for one pass of `size` images."""
    some = channels_last(images[torch.arange(size, device=images.device) % len(images)])
    target = torch.zeros(size, dtype=torch.int64, device=images.device)
    began = clock(images)
    function(model, some, target)
    return max(1e-9, clock(images) - began)


def clock(images: Tensor) -> float:
    """Seconds, when all that was asked of the device is done."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter()


def how_long(chosen: Method, model: Score, images: Tensor, batch_size: int, options: dict[str, Any]) -> str:
    """", about 3 min" before a call that takes a minute or more, else an empty text."""
    if not chosen.counted:
        return ""
    forward, backward = cost(chosen.name, chosen.backend, tuple(images.shape[2:]), **options)
    function, passes = (slopes, backward) if backward else (scores, forward)
    if timed(model, images, 1, function) * passes * len(images) < LONG / 2:
        return ""
    seconds = seconds_of(model, images, len(images), batch_size, forward, backward)
    if seconds < LONG:
        return ""
    most = options.get("tolerance") is not None
    return f", {'at most ' if most else 'at least ' if chosen.backend != 'torch' else ''}about {duration(seconds)}"


def duration(seconds: float) -> str:
    """Seconds for people: "40 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 90 * 60 else f"{seconds / 3600:.2g} h"
