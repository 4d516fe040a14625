"""The user's data, gone through again and again: whole and in one order, or in part and shuffled."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from helpers.models.data_in import loader_of, triple
from helpers.models.running import untouched_random_state

KEPT = ("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context")
USUAL_BATCH = 64


class Rows:
    """The rows that a loader gave in one pass, in that order: `all` repeats it, `part` draws batches from some of them.

    A `DataLoader` over a map-style data set is asked once what it draws, by its own sampler, and keeps its batch size, collate
    function and workers; nothing is read for that. Anything else (a list of batches, an iterable data set) is read once
    and kept in memory.

    Parameters
    ----------
    data : FaceDataset, or a loader of (image, target, group) batches; see `helpers.models.data_in.loader_of`

    Attributes
    ----------
    all : DataLoader, the same rows in the same order at every pass
    batch_size : int, of the largest batch

    Raises
    ------
    ValueError : `data` is no such thing, or gives no batch.
    """

    def __init__(self, data):
        loader = loader_of(data, USUAL_BATCH)
        drawn = _drawn(loader)
        if drawn is None:
            with untouched_random_state():
                batches = [tuple(part.cpu() for part in triple(batch)) for batch in loader]
            sizes = [len(batch[1]) for batch in batches]
            self._whole, self._options = True, {}
            self._data = _Kept(*map(torch.cat, zip(*batches, strict=True))) if batches else None
            drawn = [part.tolist() for part in torch.arange(sum(sizes)).split(sizes)] if batches else []
        else:
            # With batch_size=None the data set is given a whole batch of indices; else one index at a time.
            self._whole = loader.batch_sampler is None
            self._data, self._options = loader.dataset, {name: getattr(loader, name) for name in KEPT}
        if not drawn:
            raise ValueError("data: it gives no batch")
        self.batch_size = max(map(len, drawn))
        self._indices = np.concatenate([np.asarray(batch, np.int64) for batch in drawn])
        self.all = self._loader(drawn)

    def only(self, rows: np.ndarray) -> Rows:
        """Some rows, int (n,) numbers of a pass of `all`, as data of their own: in that order, in batches as large as before."""
        some = copy.copy(self)
        some._indices = self._indices[rows]
        some.all = self._loader([part.tolist() for part in torch.as_tensor(some._indices).split(self.batch_size)])
        return some

    def __len__(self) -> int:
        return len(self._indices)

    def part(self, rows: np.ndarray, *, seed: int = 0, batch_size: int | None = None) -> DataLoader:
        """Batches of some rows, in a new order at every pass.

        Parameters
        ----------
        rows : int (n,), row numbers of a pass of `all`
        seed : int, of the order
        batch_size : int, the loader's own by default
        """
        draw = Draw(self._indices[rows], batch_size or self.batch_size, seed)
        return self._loader(draw, torch.Generator().manual_seed(seed))

    def _loader(self, batches, generator: torch.Generator | None = None) -> DataLoader:
        # DataLoader draws a seed for its workers at every pass: a generator keeps that off the global state.
        options = self._options | {"generator": generator or torch.Generator().manual_seed(0)}
        if self._whole:
            return DataLoader(self._data, sampler=batches, batch_size=None, **options)
        return DataLoader(self._data, batch_sampler=batches, **options)


class Draw:
    """Batches of indices, shuffled anew at every pass by a generator of its own."""

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int):
        self.indices, self.batch_size = torch.as_tensor(indices), batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.indices), generator=self.generator)
        for rows in order.split(self.batch_size):
            yield self.indices[rows].tolist()

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)


class _Kept(TensorDataset):
    """Rows in memory, looked up a batch at a time."""

    def __len__(self) -> int:
        return len(self.tensors[0])


def _drawn(loader) -> list | None:
    """The batches of indices that a DataLoader draws in one pass; None where rows have no indices."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    with untouched_random_state():
        drawn = list(sampler)
    batched = all(isinstance(batch, (list, tuple)) or getattr(batch, "ndim", 0) == 1 for batch in drawn)
    return [list(map(int, batch)) for batch in drawn] if batched else None
