"""One run on several processes: each takes its share of every batch, and what they find comes together in the order of the rows.

A run is begun the way Lightning Fabric begins one: `torchrun`, `fabric run`, or `fabric.launch()` in the script. Every process
then calls the same verb with the same data and `device=fabric`, and gets the same result. One process is a crew of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed

_WHOLE: ContextVar[bool] = ContextVar("every process has the whole batch", default=False)


@dataclass(frozen=True)
class Crew:
    """The processes of a run, seen from one of them.

    Attributes
    ----------
    device : where this process computes
    rank, size : its number, from 0, and how many there are
    fabric : the `Fabric` it came from; None for a device alone
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    fabric: Any = None

    def launched(self) -> Crew:
        """The same crew with a `Fabric` to train with: the one given, or one for this device alone."""
        if self.fabric is not None:
            return self
        from lightning_fabric import Fabric  # a second that looking at a model need not take

        devices = 1 if self.device.index is None or self.device.type == "cpu" else [self.device.index]
        return replace(self, fabric=Fabric(accelerator=self.device.type, devices=devices))

    def batches(self, loader: Iterable) -> Iterator:
        """This process's share of every batch of (images, target, group); of a FaceDataset's loader no other images are read."""
        own = getattr(loader, "batch_size", 0) is None and getattr(loader, "num_workers", 0) == 0  # samples whole batches
        if self.size > 1 and own and hasattr(loader, "sampler") and hasattr(loader.dataset, "loader"):
            for rows in loader.sampler:
                yield loader.dataset[rows[self.rank :: self.size]]
            return
        for batch in loader:
            yield self.share(*batch) if self.size > 1 and isinstance(batch, tuple | list) else batch

    def share(self, *parts: Any) -> tuple:
        """Every `size`-th row, this process's first one first, of arrays or tensors that all processes have."""
        return parts if self.size == 1 else tuple(part[self.rank :: self.size] for part in parts)

    def whole(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """The rows of all processes' shares, in the order in which they were shared out; every process has to call it.

        Gradients flow back to the shares: the sum over processes, which averaging the gradients of parameters turns into the
        gradient of one process that has all rows.

        Raises
        ------
        RuntimeError : another process is gone.
        """
        if self.size == 1:
            return parts
        with self._reached():
            counts = total(torch.eye(self.size, dtype=torch.int64, device=self.device)[self.rank] * len(parts[0]))
            longest, rows = int(counts.max()), int(counts.sum())
            padded = (part.to(self.device) for part in parts)
            padded = (torch.cat([part, part.new_zeros(longest - len(part), *part.shape[1:])]) for part in padded)
            return tuple(_Gathered.apply(part, self.rank, self.size).flatten(0, 1)[:rows] for part in padded)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            with self._reached():
                self.fabric.barrier()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, distributed.DistError) and "peer" not in str(error) and "imed out" not in str(error):
                raise
            others = [number for number in range(self.size) if number != self.rank]
            raise RuntimeError(
                f"device: process {self.rank} of {self.size} does not reach the others ({', '.join(map(str, others))}) any more; "
                f"one of them has ended, and its own output says why. {str(error).splitlines()[0]}"
            ) from error


class _Gathered(torch.autograd.Function):
    """All processes' parts, (n, size, …); backwards the sum over processes of the gradient of this process's part."""

    @staticmethod
    def forward(context, part: Tensor, rank: int, size: int) -> Tensor:
        context.rank = rank
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(size)]
        distributed.all_gather(parts, part.contiguous())
        return torch.stack(parts, 1)

    @staticmethod
    def backward(context, gradient: Tensor):
        return total(gradient)[:, context.rank], None, None


class _Total(torch.autograd.Function):
    """The sum over processes; backwards as well, since what each of them makes of the sum counts."""

    @staticmethod
    def forward(context, part: Tensor) -> Tensor:
        found = part.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(found)
        return found

    @staticmethod
    def backward(context, gradient: Tensor):
        return total(gradient)


def total(part: Tensor) -> Tensor:
    """The sum of all processes' tensors, for each of them; the gradient is that of the sum of what all make of it."""
    return _Total.apply(part)


def crew_of(device: Any = None) -> Crew:
    """The crew of a device, or of a launched `lightning_fabric.Fabric`.

    Raises
    ------
    ValueError : no device of this machine and no Fabric; several processes that were not launched.
    """
    if isinstance(device, Crew):
        return device
    if hasattr(device, "all_gather") and hasattr(device, "global_rank"):
        if device.world_size > 1 and not (distributed.is_available() and distributed.is_initialized()):
            raise ValueError(f"device: a Fabric of {device.world_size} processes, not launched yet; call fabric.launch() first")
        return Crew(device.device, device.global_rank, device.world_size, device)
    from helpers.models.running import usable_device  # which imports all of helpers.models

    return Crew(usable_device(device))


def count() -> int:
    """How many processes share a batch: 1 outside a distributed run, and where each has the whole batch."""
    if _WHOLE.get() or not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


@contextmanager
def whole_batch() -> Iterator[None]:
    """Inside the block every process has all rows of the batch, so that a loss adds nothing up over processes."""
    token = _WHOLE.set(True)
    try:
        yield
    finally:
        _WHOLE.reset(token)
