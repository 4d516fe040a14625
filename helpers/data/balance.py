"""Passes over the data in which every group, class or cell comes equally often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Sampler

from helpers.names import choose

if TYPE_CHECKING:
    from helpers.data.base import FaceDataset

BALANCES = ("group", "class", "cell")


class BalancedSampler(Sampler[int]):
    """As many draws as there are rows, shared out equally among the kinds of row (to within one).

    A kind with fewer rows than its share repeats them, each as often as the others (to within one); of a larger kind a part
    comes, at each pass another one. The order is random, so a batch holds each kind with equal probability.

    Parameters
    ----------
    kinds : int64 array (N,), the kind of each row, every one of 0 … K-1 at least once
    generator : torch.Generator, whose state is the order to come; the global random state is neither read nor changed
    """

    def __init__(self, kinds: np.ndarray, generator: torch.Generator) -> None:
        self.rows = [torch.from_numpy(np.flatnonzero(kinds == kind)) for kind in range(int(kinds.max()) + 1)]
        self.generator = generator
        self._length = len(kinds)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        draw = lambda n: torch.randperm(n, generator=self.generator)
        each, over = divmod(len(self), len(self.rows))
        favoured = set(draw(len(self.rows))[:over].tolist())
        chosen = []
        for kind, rows in enumerate(self.rows):
            need = each + (kind in favoured)
            rounds = [rows[draw(len(rows))] for _ in range(-(-need // len(rows)))]
            chosen.append(torch.cat(rounds or [rows[:0]])[:need])
        order = torch.cat(chosen)
        yield from order[draw(len(order))].tolist()


def kinds_of(faces: FaceDataset, balance: str) -> np.ndarray:
    """int64 (N,): the group, class or cell (class × group) of each row.

    Raises
    ------
    ValueError : another `balance`, or a kind without any row (it is named).
    """
    balance = choose(balance, BALANCES, "balance")
    if balance == "cell":
        kinds = faces.targets * len(faces.groups) + faces.group
        names = [f"{label} × {group}" for label in faces.classes for group in faces.groups]
    else:
        kinds, names = (faces.group, faces.groups) if balance == "group" else (faces.targets, faces.classes)
    counts = np.bincount(kinds, minlength=len(names))
    if counts.min() == 0:
        empty = "; ".join(name for name, n in zip(names, counts, strict=True) if n == 0)
        raise ValueError(f"balance: no image in the {balance} {empty}, so it cannot come as often as the others")
    return kinds
