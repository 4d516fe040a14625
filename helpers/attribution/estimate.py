"""What a call of `attribute` will take: time, memory, passes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .explain import attribute, check_fit, check_options, check_values
from .feature_layer import feature_layer, watch
from .memory import readable
from .method import Method, Work, cost, find_method
from .score import Score, borrowed, check_images, check_model, dtype_of, trial
from .segments import number_of_segments
from .timing import duration, seconds_of

SOME = 16  # images at most that are timed
FEW = {"steps": 8, "samples": 8, "designs": 8}  # of a trial of a method that is not our own


@dataclass(frozen=True)
class Estimate:
    """What explaining some images takes.

    Attributes
    ----------
    images : how many
    forward, backward : passes of one image, with a `tolerance` the most there can be
    batch_size : images in one pass, which is what `attribute` would use
    seconds : for all images, without importing a library
    memory : bytes, of the images, of the maps, and of a pass
    """

    images: int
    forward: int
    backward: int
    batch_size: int
    seconds: float
    memory: int

    def __str__(self) -> str:
        return (
            f"about {duration(self.seconds)} and {readable(self.memory)} for {self.images} images: {self.forward} forward and "
            f"{self.backward} backward passes each, {self.batch_size} images a pass"
        )


def estimate(
    model: nn.Module,
    images: Tensor | np.ndarray | tuple[int, int, int, int],
    method: str = "integrated_gradients",
    backend: str = "auto",
    *,
    batch_size: int | None = None,
    memory: float | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> Estimate:
    """Time and memory of `attribute` for these images, from a few passes of this model on this device.

    Our own loops are timed by bare passes, of which they consist to a few per cent; other backends by a trial on a few
    images with few steps or samples. The first trial of a backend imports its library.

    Parameters
    ----------
    model, method, backend, batch_size, memory, device, **options : as in `attribute`
    images : as in `attribute`, or only their shape (N, C, H, W), for which random ones stand in

    Returns
    -------
    Estimate.

    Raises
    ------
    ValueError : as in `attribute`.

    Examples
    --------
    >>> print(estimate(model, (10_000, 3, 224, 224), "saliency"))  # doctest: +SKIP
    """
    chosen = find_method(method, backend)
    options = check_options(chosen, options)
    check_model(model)
    count, some = examples(images)
    check_values(options, some)
    options = {name: of_rows(name, value, count, slice(len(some))) for name, value in options.items()}
    score = Score(model)
    with torch.inference_mode(False), borrowed(score, device) as place:
        some = some.to(place, dtype_of(model), copy=some.is_inference())
        _, size = check_fit(chosen, score, some, batch_size, memory, options, count)
        _, each = trial(score, some, chosen.needs_gradient, chosen.room)
        channels = channels_of(chosen, score, some, options)
        forward, backward = cost(method, chosen.backend, tuple(some.shape[2:]), channels, **options)
        seconds = seconds_of(score, some, count, size, forward, backward) if chosen.backend == "torch" else None
    if seconds is None:
        seconds = tried(model, some, chosen, size, device, options) * count
    height, width = some.shape[2:]
    whole = count * (some[0].numel() * some.element_size() + height * width * 4)
    return Estimate(count, forward, backward, size, seconds, whole + min(size, count * forward) * each)


def examples(images: Tensor | np.ndarray | tuple[int, int, int, int]) -> tuple[int, Tensor]:
    """How many images there are, and up to `SOME` of them."""
    if isinstance(images, (tuple, list, torch.Size)):
        whole = all(isinstance(side, Integral) and not isinstance(side, bool) and side > 0 for side in images)
        if len(images) != 4 or not whole:
            raise ValueError(f"images: shape {tuple(images)!r}; expected four whole numbers above 0, (N, C, H, W)")
        shape = (min(SOME, int(images[0])), *map(int, images[1:]))
        return int(images[0]), torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return len(images), check_images(images[:SOME])


def of_rows(name: str, value: Any, count: int, rows: slice) -> Any:
    """Of an option with a baseline or segments for each of `count` images those of some."""
    ranks = {"baseline": 4, "segments": 3}
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == ranks.get(name) and len(value) == count:
        return value[rows]
    return value


def channels_of(chosen: Method, score: Score, images: Tensor, options: dict[str, Any]) -> int | None:
    """Channels of the layer, for a method that takes a pass for each."""
    if not chosen.by_channel:
        return None
    target = torch.zeros(1, dtype=torch.int64, device=images.device)
    place = feature_layer(score, options["layer"], images, target, Work(1, 0, 1))
    return watch(score, place, images[:1]).shape[1]


def tried(
    model: nn.Module, images: Tensor, chosen: Method, batch_size: int, device: str | torch.device | None, options: dict[str, Any]
) -> float:
    """Seconds for one image, from a trial with fewer steps, samples or windows."""
    few = {name: min(options[name], least) for name, least in FEW.items() if name in options}
    if "samples" in few and "segments" in options:
        orders = chosen.name == "shapley_value_sampling"
        few["samples"] = min(options["samples"], 1 if orders else number_of_segments(options["segments"]) + 8)
    if "stride" in options:
        few["stride"] = options["patch"]
    few, seconds = options | few, 0.0
    work = [cost(chosen.name, chosen.backend, tuple(images.shape[2:]), **part) for part in (options, few)]
    count = max(1, min(len(images), 2 * SOME // work[1][0]))  # a pass or two of some size
    few = {name: of_rows(name, value, len(images), slice(count)) for name, value in few.items()}
    for _ in range(2):  # the first imports, traces, warms up
        began = time.perf_counter()
        attribute(model, images[:count], 0, chosen.name, chosen.backend, batch_size=batch_size, device=device, **few)
        seconds = time.perf_counter() - began
    return seconds / count * sum(work[0]) / sum(work[1])
