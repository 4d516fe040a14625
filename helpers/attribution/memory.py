"""How many images a pass can take: the memory that one needs, the memory there is, and what to do when it runs out after all."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHARE = 0.5  # of the memory that is free, for the passes of one call
COPIES = 8  # of an image, that methods hold beside the pass: noise, changed copies, sums


class Peak(TorchDispatchMode):
    """Inside the block, how many bytes the tensors made there take at one time at most (`most`), and the largest one (`largest`).

    Counted by storage, from the operation that makes it until it is freed, on any device. What a kernel needs within an operation
    is not seen.
    """

    def __init__(self):
        super().__init__()
        self.now = self.most = self.largest = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for storage in storages((args, kwargs)):
            self.watch(storage, 0)  # weights and images were there before
        output = func(*args, **kwargs)
        for storage in storages(output):
            self.watch(storage, storage.nbytes())
        return output

    def watch(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        weakref.finalize(storage, self.forget, key, size).atexit = False
        self.now += size
        self.most, self.largest = max(self.most, self.now), max(self.largest, size)

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and not leaf.is_meta]


def bytes_each(peak: Peak, images: Tensor, backward: bool) -> int:
    """What an image takes in a pass, from the `Peak` of a forward pass of one: with a graph, if the pass goes back too.

    On the way back the values kept for it are still there, and beside them few gradients at a time, none larger than what the
    forward pass made.
    """
    own = COPIES * images[0].numel() * max(4, images.element_size())
    return peak.most + (2 * peak.largest if backward else 0) + own


def free_bytes(place: torch.device) -> int:
    """Memory that is free on a device, with what PyTorch holds there without using it."""
    if place.type == "cuda":
        held = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
        return torch.cuda.mem_get_info(place)[0] + held
    return psutil.virtual_memory().available


def check_memory(memory: float | None) -> float | None:
    """ValueError unless None or a number of bytes above zero."""
    if memory is None or (isinstance(memory, (int, float)) and not isinstance(memory, bool) and memory > 0):
        return memory
    raise ValueError(f"memory: {memory!r}; expected a number of bytes above 0, such as 2e9, or None for half of what is free")


def fitting(most: int, each: int, place: torch.device, memory: float | None, needed: int | None = None) -> int:
    """The images of a pass: `most`, or as many as fit if that is fewer; then a warning, unless the user has set the limit.

    There is none either if no pass of the call holds more images than fit, since there are only `needed` in all.

    The usual number does not depend on how much memory happens to be free, because maps of Captum's and Xplique's sampled methods
    depend on it.
    """
    limit = SHARE * free_bytes(place) if memory is None else memory
    fits = max(1, int(limit // max(1, each)))
    if each > limit or (memory is None and fits < min(most, needed or most)):
        size = f"one image takes about {readable(each)} in a pass"
        said = "more than" if each > limit else f"so that {fits} of {most} fit into"
        said = f"memory: {size}, {said} {'half of what is free' if memory is None else 'what was allowed'}, {readable(limit)}"
        warnings.warn(f"{said}; passes hold {min(fits, most)} images", stacklevel=4)
    return min(fits, most)


def readable(size: float) -> str:
    """A number of bytes for people: "350 MB"."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def with_less(batch_size: int, run: Callable[[int], Any]) -> tuple[Any, int]:
    """`run(batch_size)`, with half as many images again and again while the device's memory runs out; and how many it were."""
    while True:
        try:
            return run(batch_size), batch_size
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
        # after the except block, because until its end the error holds the tensors of the pass
        batch_size //= 2
        warnings.warn(f"memory: the device has no more; going on with passes of {batch_size} images", stacklevel=3)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
