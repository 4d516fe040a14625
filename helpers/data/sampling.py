"""Which images go where: splits that keep people apart, and balanced selections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from helpers.data.base import FaceDataset

SPLITS = ("train", "validation", "test")


def split_identities(
    identities: Sequence, fractions: Sequence[float] = (0.6, 0.2, 0.2), seed: int = 0
) -> np.ndarray:
    """Assign every identity, with all its images, to one split.

    The identities are sorted, shuffled by `seed` and cut, so the outcome depends on which identities there
    are and on the seed, not on the order of the rows nor on how many images a person has.

    Parameters
    ----------
    identities : array (N,), whose face each image shows; compared as strings
    fractions : three non-negative numbers that sum to 1, the shares of *identities* in train, validation and
        test. Each split whose fraction is above zero gets at least one identity.
    seed : int, non-negative

    Returns
    -------
    str array (N,) of "train", "validation" and "test"

    Raises
    ------
    ValueError : `fractions` do not fit, an identity is missing, or there are fewer identities than splits.
    """
    shares = np.asarray(fractions, dtype=float)
    if (
        shares.shape != (3,)
        or not np.isfinite(shares).all()
        or (shares < 0).any()
        or abs(shares.sum() - 1) > 1e-6
    ):
        raise ValueError(
            "fractions: expected three non-negative numbers that sum to 1 (train, validation, test), got "
            f"{fractions!r}"
        )
    column = pd.Series(identities)
    if column.isna().any():
        raise ValueError(
            f"identities: {column.isna().sum()} of {len(column)} are missing; a split needs to know whose "
            "face it is"
        )
    person, people = _people(column)
    wanted = np.flatnonzero(shares > 0)
    if len(people) < len(wanted):
        raise ValueError(
            f"identities: {len(people)} cannot fill {len(wanted)} splits without sharing a person; "
            'take split="all", bring more people, or set a fraction to 0'
        )
    return _deal(person, len(people), SPLITS, shares, seed)


def share_identities(identities: pd.Series, shares: Mapping[str, float], seed: int = 0) -> np.ndarray:
    """As `split_identities`, with splits of any names whose shares sum to 1 or less; "" for the people of none."""
    person, people = _people(identities)
    names, parts = [*shares, ""], np.array([*shares.values(), max(1 - sum(shares.values()), 0)])
    parts[parts < 1e-9] = 0
    if len(people) < (parts > 0).sum():
        raise ValueError(f"identities: {len(people)} cannot fill {', '.join(shares)} without sharing a person")
    return _deal(person, len(people), names, parts, seed)


def _deal(person: np.ndarray, people: int, names: Sequence[str], shares: np.ndarray, seed: int) -> np.ndarray:
    """str (N,): the people, in their sorted order, shuffled by seed and cut into shares."""
    split_of = np.empty(people, dtype=object)
    split_of[np.random.default_rng(seed).permutation(people)] = np.repeat(names, whole_shares(people, shares))
    return split_of[person].astype(str)


def _people(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Codes int64 (N,) of the identities as strings, and these in sorted order."""
    code, names = pd.factorize(column.astype(str))
    names = list(names)
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return rank[code], [names[i] for i in order]


def whole_shares(n: int, shares: np.ndarray) -> np.ndarray:
    """Cut n into whole parts proportional to `shares` (largest remainder), none of the wanted ones empty."""
    counts = np.floor(n * shares + 1e-9).astype(int)
    remainders = n * shares - counts
    for i in np.argsort(-remainders, kind="stable")[: n - counts.sum()]:
        counts[i] += 1
    for i in np.flatnonzero((shares > 0) & (counts == 0)):
        counts[np.argmax(counts)] -= 1
        counts[i] += 1
    return counts


def balanced(dataset: FaceDataset, seed: int = 0) -> np.ndarray:
    """Pick images so that every cell (target × group) holds equally many: as many as the smallest cell has.

    Parameters
    ----------
    dataset : FaceDataset, or anything with `targets`, `group`, `classes` and `groups`
    seed : int, non-negative

    Returns
    -------
    int64 (cells × smallest cell,), sorted indices for `dataset.subset`

    Raises
    ------
    ValueError : a cell is empty (it is named), so there is nothing to balance with.
    """
    generator = np.random.default_rng(seed)
    cell = dataset.targets * len(dataset.groups) + dataset.group
    sizes = np.bincount(cell, minlength=len(dataset.classes) * len(dataset.groups))
    if sizes.min() == 0:
        empty = "; ".join(
            f"{dataset.classes[i // len(dataset.groups)]} × {dataset.groups[i % len(dataset.groups)]}"
            for i in np.flatnonzero(sizes == 0)
        )
        raise ValueError(f"dataset: no image in the cell {empty}, so no selection of it is balanced")
    picks = [
        generator.choice(np.flatnonzero(cell == i), sizes.min(), replace=False) for i in range(len(sizes))
    ]
    return np.sort(np.concatenate(picks)).astype(np.int64)


def spread(faces, n: int, seed: int = 0) -> list[int]:
    """Row numbers of `n` faces: one of each group and class, then a second of each, and so on.

    Which ones is drawn by `seed`, since neighbours in a table are often the same person.
    """
    cell = faces.group.astype(np.int64) * len(faces.classes) + faces.targets
    order = np.random.default_rng(seed).permutation(len(cell))
    rank = np.empty(len(cell), np.int64)
    rank[order] = pd.Series(cell[order]).groupby(cell[order]).cumcount().to_numpy()
    return np.lexsort((cell, rank))[:n].tolist()
