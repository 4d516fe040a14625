"""The same picture twice, and who is in two splits: a perceptual hash finds candidates, the pixels decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.fft import dct
from torch.nn import functional

from helpers.data.labels import missing
from helpers.data.pictures import lumas

if TYPE_CHECKING:
    from helpers.data.base import FaceDataset

SIDE, LOW = 32, 8  # pixels a picture is brought to, and how many of its lowest frequencies each way are kept
DISTANCE = 3  # bits of 64
SAME = 0.97  # correlation of two pictures at 32 px; two moments of one sitting may have as much
FARTHEST = 7  # bits; beyond it the bands are so narrow that nearly all pairs would be looked at
CHUNK = 1 << 21  # pairs looked at together


@dataclass(frozen=True, repr=False)
class Leaks:
    """What two splits share.

    Attributes
    ----------
    identities : DataFrame `identity, train, test`: people in both and how many pictures of theirs each split has; None if a
        table has no column `identity`
    pictures : DataFrame `train, test, distance, correlation, train_path, test_path`: pictures in both, by row number. Every
        picture with a copy in the other split is listed once or more often, with its best copy. The paths are there where
        both tables have them.
    """

    identities: pd.DataFrame | None
    pictures: pd.DataFrame

    @property
    def n_train(self) -> int:
        """How many training pictures are in the test split as well."""
        return self.pictures["train"].nunique()

    @property
    def n_test(self) -> int:
        """How many test pictures are in the training split as well."""
        return self.pictures["test"].nunique()

    def __repr__(self) -> str:
        return f"Leaks({self})"

    def __str__(self) -> str:
        people = "" if self.identities is None else f"{len(self.identities):,} people are in both splits; "
        return f"{people}{self.n_train:,} training pictures and {self.n_test:,} test pictures have a copy in the other split"


def phash(images: np.ndarray) -> np.ndarray:
    """64-bit perceptual hash of every image: uint64 (N,).

    The luma is brought to 32×32 pixels by area, its 8×8 lowest DCT-II coefficients are taken, and bit k (row by row from the
    lowest, the constant one included) says whether coefficient k is above the median of the 64. Brightness and contrast
    change next to nothing, blur and compression a few bits.

    Parameters
    ----------
    images : uint8 (N, H, W, 3), in memory or memory-mapped; read block by block

    References
    ----------
    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
    """
    return _read(images)[1]


def duplicates(faces: FaceDataset | np.ndarray, *, distance: int = DISTANCE, same: float = SAME) -> pd.DataFrame:
    """Pictures that are there more than once: same file, or compressed, resized, lightened copies of it.

    Copies that were cropped, turned or mirrored need not be found.

    Parameters
    ----------
    faces : FaceDataset, or uint8 (N, H, W, 3)
    distance : most bits in which hashes may differ, 0 to 7. All such pairs are found, by bands: of `distance` + 1 parts of
        the hash one at least agrees. More bits find more copies and take longer.
    same : least correlation of the two lumas at 32×32 pixels, in (0, 1]; aligned faces have similar hashes, so the pixels
        decide

    Returns
    -------
    DataFrame `first, second, distance, correlation`, row numbers with first < second. Of pictures that are identical at 32×32
    pixels each is paired with the first of them only, so a picture that is there k times takes k - 1 rows.

    Raises
    ------
    ValueError : `distance` or `same` out of range.
    """
    distance, same = _settings(distance, same)
    small, hashes = _read(getattr(faces, "images", faces))
    first = _identical(small)
    again = np.flatnonzero(first != np.arange(len(first)))
    exact = pd.DataFrame({"first": first[again], "second": again, "distance": 0, "correlation": 1.0})
    found = pd.concat([exact, _near(small, hashes, first, distance, same)], ignore_index=True)
    return found.sort_values(["first", "second"], ignore_index=True)


def leaks(train: FaceDataset, test: FaceDataset, *, distance: int = DISTANCE, same: float = SAME) -> Leaks:
    """People and pictures that are in both of two splits.

    Parameters
    ----------
    train, test : FaceDataset
    distance, same : as in `duplicates`

    Raises
    ------
    ValueError : `distance` or `same` out of range.
    """
    distance, same = _settings(distance, same)
    parts = [_read(faces.images) for faces in (train, test)]
    small, hashes = (np.concatenate(both) for both in zip(*parts, strict=True))
    rows = np.arange(len(small))
    first = _identical(small)
    of_test = rows >= len(train)
    near = _near(small, hashes, first, distance, same)
    kept = np.unique(first)
    itself = pd.DataFrame({"first": kept, "second": kept, "distance": 0, "correlation": 1.0})
    links = pd.concat([itself, near, near.rename(columns={"first": "second", "second": "first"})], ignore_index=True)
    pairs = []
    for mine, theirs in ((~of_test, of_test), (of_test, ~of_test)):
        other = pd.Series(rows[theirs], index=first[theirs]).groupby(level=0).min()  # first copy of each on the other side
        each = pd.DataFrame({"row": rows[mine], "first": first[mine]}).merge(links, on="first")
        each = each.assign(copy=each["second"].map(other)).dropna(subset="copy")
        each = each.sort_values(["correlation", "distance"], ascending=[False, True], kind="stable").drop_duplicates("row")
        ends = np.sort(each[["row", "copy"]].to_numpy(dtype=np.int64), axis=1)
        pairs.append(each[["distance", "correlation"]].assign(train=ends[:, 0], test=ends[:, 1] - len(train)))
    pictures = pd.concat(pairs).drop_duplicates(["train", "test"]).sort_values(["train", "test"], ignore_index=True)
    pictures = pictures[["train", "test", "distance", "correlation"]]
    if "path" in train.table and "path" in test.table:
        for name, faces in (("train", train), ("test", test)):
            pictures[f"{name}_path"] = faces.table["path"].to_numpy()[pictures[name]]
    return Leaks(shared_identities(train.table, test.table), pictures)


def shared_identities(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame | None:
    """People in both tables: `identity, train, test` (numbers of rows); None without a column `identity` in both."""
    if "identity" not in train or "identity" not in test:
        return None
    known = [table["identity"][~missing(table["identity"])].astype(str) for table in (train, test)]
    counts = pd.concat([each.value_counts() for each in known], axis=1, join="inner", keys=["train", "test"])
    return counts.sort_index().rename_axis("identity").reset_index()


def _settings(distance: int, same: float) -> tuple[int, float]:
    if isinstance(distance, bool) or not isinstance(distance, int | np.integer) or not 0 <= distance <= FARTHEST:
        raise ValueError(f"distance: expected a whole number of bits from 0 to {FARTHEST}, got {distance!r}")
    if not 0 < same <= 1:
        raise ValueError(f"same: expected a correlation above 0 and up to 1, got {same!r}")
    return int(distance), float(same)


def _small(images: np.ndarray) -> Iterator[np.ndarray]:
    """Lumas at 32×32 pixels, block by block: float32 (n, 32, 32)."""
    for luma in lumas(images):
        yield functional.interpolate(luma, (SIDE, SIDE), mode="area")[:, 0].numpy()


def _hash(small: np.ndarray) -> np.ndarray:
    lowest = dct(dct(small, axis=1, norm="ortho")[:, :LOW], axis=2, norm="ortho")[:, :, :LOW].reshape(len(small), -1)
    bits = lowest > np.median(lowest, axis=1, keepdims=True)
    return np.packbits(bits, axis=1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)


def _read(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images at 32×32 pixels, uint8 (N, 1024), since floating-point ones would take four times the memory; and hashes."""
    small, hashes, start = np.empty((len(images), SIDE * SIDE), np.uint8), np.empty(len(images), np.uint64), 0
    for block in _small(images):
        rows = slice(start, start := start + len(block))
        small[rows], hashes[rows] = block.round().reshape(len(block), -1), _hash(block)
    return small, hashes


def _identical(small: np.ndarray) -> np.ndarray:
    """For each row the first row with the same pixels: int64 (N,)."""
    # A sum of the bytes with random weights modulo 2^64: to sort rows of a kilobyte would take longer than all the rest.
    weights = np.random.default_rng(0).integers(1 << 64, size=small.shape[1], dtype=np.uint64)
    codes = np.einsum("np,p->n", small, weights, dtype=np.uint64, casting="unsafe")
    first = pd.Series(np.arange(len(codes))).groupby(codes).transform("min").to_numpy(copy=True)
    again = np.flatnonzero(first != np.arange(len(first)))
    other = again[(small[first[again]] != small[again]).any(axis=1)]
    first[other] = other
    return first


def _near(small: np.ndarray, hashes: np.ndarray, first: np.ndarray, distance: int, same: float) -> pd.DataFrame:
    """Pairs of different pictures, each the first of its kind, that are alike in hash and pixels."""
    kept = np.flatnonzero(first == np.arange(len(first)))
    one, other = close_pairs(hashes[kept], distance)
    one, other = kept[one], kept[other]
    correlation = np.concatenate(
        [np.empty(0), *(_correlation(small, one[i : i + 8192], other[i : i + 8192]) for i in range(0, len(one), 8192))]
    )
    alike = correlation >= same  # False for NaN
    one, other, correlation = one[alike], other[alike], correlation[alike]
    bits = np.bitwise_count(hashes[one] ^ hashes[other]).astype(np.int64)
    return pd.DataFrame({"first": one, "second": other, "distance": bits, "correlation": correlation})


def _correlation(small: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    a, b = (torch.from_numpy(small[rows]).float() for rows in (one, other))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).double().numpy()


def close_pairs(hashes: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of hashes that differ in `distance` bits at most: int64 (P,), int64 (P,), the first before the second.

    Cut into `distance` + 1 bands, two such hashes agree in one band at least (the pigeonhole principle), so only rows that
    share a band's value are compared.
    """
    bands = distance + 1
    found = []
    for band in range(bands):
        # Every bands-th bit: neighbouring frequencies are related, so bands of neighbours would hold less and sort worse.
        mask = np.uint64(sum(1 << bit for bit in range(band, 64, bands)))
        key = hashes & mask
        order = np.argsort(key, kind="stable")
        ordered, sorted_key = hashes[order], key[order]
        end = np.searchsorted(sorted_key, sorted_key, side="right")
        after = end - np.arange(len(order)) - 1  # partners that follow within the bucket
        before = np.concatenate([[0], np.cumsum(after)])
        for start in _starts(before):
            stop = max(np.searchsorted(before, before[start] + CHUNK, side="right") - 1, start + 1)
            count = after[start:stop]
            one = np.repeat(np.arange(start, stop), count)
            other = one + 1 + np.arange(len(one)) - np.repeat(before[start:stop] - before[start], count)
            near = np.bitwise_count(ordered[one] ^ ordered[other]) <= distance
            found.append(np.sort(np.stack([order[one[near]], order[other[near]]]), axis=0))
    pairs = np.concatenate([np.empty((2, 0), dtype=np.int64), *found], axis=1)
    code = np.unique(pairs[0] * len(hashes) + pairs[1])  # found in several bands, kept once
    return code // max(len(hashes), 1), code % max(len(hashes), 1)


def _starts(before: np.ndarray) -> Iterator[int]:
    """Where the chunks of at most `CHUNK` pairs begin; a row with more partners than that is a chunk of its own."""
    start = 0
    while start < len(before) - 1:
        yield start
        start = max(int(np.searchsorted(before, before[start] + CHUNK, side="right")) - 1, start + 1)
