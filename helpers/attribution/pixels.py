"""Where do the mean maps of two groups differ by more than noise? Pixel by pixel, with the error of the whole picture controlled.

A map has thousands of pixels, and some differ between any two groups. So each pixel's t is compared with the largest |t| of
the picture after people have been dealt out to the groups anew: p = (1 + #{draws with max |t*| >= |t|}) / (1 + draws). The chance
that anything is marked where the groups are alike is then at most 1 - confidence, however the pixels depend on one another
(Westfall & Young 1993; Nichols & Holmes 2002, eq. 2). With several methods the largest is over all of them.

References
----------
Westfall & Young, "Resampling-based multiple testing", Wiley 1993.
Nichols & Holmes, "Nonparametric permutation tests for functional neuroimaging: a primer with examples", Human Brain Mapping 2002.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from helpers.bias.by_people import BLOCK, CLOSE, Draws, Members, _contributions, _dealt, _signs, _sums, _welch, read_members

from .regions import read_maps


@dataclass(frozen=True, eq=False)
class PixelDifferences:
    """Difference of the mean maps of two groups, with p-values that hold for the picture as a whole.

    Attributes
    ----------
    group, other : names.  n, n_other : images of each that have a finite map under every method
    difference : method -> float64 (H, W), mean of `group` minus that of `other`; NaN where a group has no image
    p : method -> float64 (H, W), corrected; NaN where a group has fewer than two people
    confidence : 1 minus the accepted chance of marking any pixel, of any method, if the groups are alike
    """

    group: str
    other: str
    n: int
    n_other: int
    difference: Mapping[str, np.ndarray]
    p: Mapping[str, np.ndarray]
    confidence: float

    @property
    def beyond(self) -> dict[str, np.ndarray]:
        """Method -> bool (H, W), the pixels that differ by more than noise."""
        return {name: np.nan_to_num(p, nan=1.0) <= 1 - self.confidence for name, p in self.p.items()}

    def __repr__(self) -> str:
        """How many pixels differ, method by method."""
        said = ", ".join(f"{name or 'maps'} {mask.sum():,} of {mask.size:,}" for name, mask in self.beyond.items())
        return f"PixelDifferences({self.group} (n = {self.n}) − {self.other} (n = {self.n_other}), pixels beyond noise: {said})"


def pixel_differences(
    maps: Any,
    group: Any,
    pair: tuple[str, str] | None = None,
    *,
    groups: Sequence[str] | None = None,
    identity: Any = None,
    confidence: float = 0.95,
    n_permutations: int = 1000,
    seed: int = 0,
) -> PixelDifferences:
    """Pixels where the mean maps of two groups differ by more than noise, by the largest |t| of permuted pictures.

    Parameters
    ----------
    maps : float (N, H, W), signed, of aligned faces; or several methods' by name. A map that is not finite is left out
    group : (N,), or a DataFrame whose columns are crossed.  groups : names that integer codes stand for
    pair : the two groups, first minus second; None if there are but two
    identity : (N,), who is shown; needed where one person has several images. If somebody has images in both groups, what
        each person adds to the difference gets a random sign instead of another group
    confidence, n_permutations, seed : of the threshold

    Raises
    ------
    ValueError : maps, groups or identities that do not fit, a pair that is not two of the groups, too few draws for `confidence`.

    Examples
    --------
    >>> maps = np.random.default_rng(0).normal(size=(40, 6, 6)); maps[:20, 0, 0] += 5
    >>> found = pixel_differences(maps, ["a"] * 20 + ["b"] * 20)
    >>> np.argwhere(found.beyond[""]).tolist()
    [[0, 0]]
    """
    draws = Draws(confidence=confidence, n_permutations=n_permutations, seed=seed)
    if 1 / (1 + n_permutations) > 1 - confidence:
        raise ValueError(f"n_permutations: {n_permutations} are too few for confidence {confidence:g}: nothing could be marked")
    named = read_maps(maps, "maps")
    shape = next(iter(named.values())).shape
    members = read_members(group, groups, identity, shape[0])
    first, second = (members.names.index(name) for name in _pair(pair, members.names))
    values = np.concatenate([each.reshape(shape[0], -1) for each in named.values()], axis=1).astype(np.float64)
    rows = np.flatnonzero(np.isin(members.code, (first, second)) & np.isfinite(values).all(1))
    values, members = values[rows], members[rows]
    inside = members.code == first
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = inside @ values / inside.sum() - ~inside @ values / (~inside).sum()
    split = lambda flat: {name: part.reshape(shape[1:]) for name, part in zip(named, np.split(flat, len(named)), strict=True)}
    p = _corrected(values, inside, members, draws)
    names, counts = (members.names[first], members.names[second]), (int(inside.sum()), int((~inside).sum()))
    return PixelDifferences(*names, *counts, split(difference), split(p), confidence)


def _corrected(values: np.ndarray, inside: np.ndarray, members: Members, draws: Draws) -> np.ndarray:
    """P-values (K,) of the columns of values (N, K), corrected for the largest of all; NaN for fewer than two people a side."""
    person = members.person
    if min(len(np.unique(person[inside])), len(np.unique(person[~inside]))) < 2:
        return np.full(values.shape[1], np.nan)
    values = values - values.mean(0)  # about zero and of size one: sums of squares then lose no digits
    values /= np.where(values.any(0), np.abs(values).max(0), 1.0)
    seen, drawn = None, []
    for size, ways in _statistics(values, inside, person, draws):
        seen = size if seen is None else np.concatenate([seen, size])
        drawn = ways if not len(drawn) else np.maximum(drawn, ways)  # the largest of all columns, draw by draw
    exact = _ways(inside, person) <= draws.n_permutations
    at_least = len(drawn) - np.searchsorted(np.sort(drawn), seen * CLOSE)
    return at_least / len(drawn) if exact else (1 + at_least) / (1 + len(drawn))


def _statistics(
    values: np.ndarray, inside: np.ndarray, person: np.ndarray, draws: Draws
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some columns at a time: |t| of each as it is, and the largest |t| of these columns in every draw."""
    people = person.max() + 1
    rows = min(draws.n_permutations, _ways(inside, person))
    step = max(1, BLOCK // (8 * max(rows, people)))
    member, other = (np.bincount(person, side, people) > 0 for side in (inside, ~inside))
    for start in range(0, values.shape[1], step):
        part = values[:, start : start + step]
        counts = [np.bincount(person, side, people)[:, None] * np.ones_like(part[:1]) for side in (inside, ~inside)]
        sums = [_sums(part * side[:, None], person) for side in (inside, ~inside)]
        if (member & other).any():
            contribution = _contributions(*zip(sums, counts, strict=True))
            spread = np.sqrt((contribution**2).sum(0))
            contribution /= np.where(spread > 0, spread, 1.0)
            signs = _signs(people, draws.n_permutations, draws.seed, 2**people <= draws.n_permutations)
            yield np.abs(contribution.sum(0)), np.concatenate([np.abs(each @ contribution).max(1) for each in signs])
            continue
        total, count = sums[0] + sums[1], counts[0] + counts[1]
        parts = np.concatenate([total, count, total**2, total * count, count**2, count > 0], axis=1)
        dealt = _dealt(member, draws.n_permutations, draws.seed)
        seen = np.abs(_welch(member[None].astype(float), parts))[0]
        yield seen, np.concatenate([np.abs(_welch(labels, parts)).max(1) for labels in dealt])


def _ways(inside: np.ndarray, person: np.ndarray) -> int:
    """How many ways there are to deal people out to the groups or, with somebody in both, to give them signs."""
    member, other = (np.bincount(person, side, person.max() + 1) > 0 for side in (inside, ~inside))
    return 2 ** len(member) if (member & other).any() else comb(len(member), int(member.sum()))


def _pair(pair: tuple[str, str] | None, names: Sequence[str]) -> tuple[str, str]:
    if pair is None and len(names) == 2:
        return names[0], names[1]
    if len(names) < 2:
        raise ValueError(f"group: all images are in {names[0]!r}; expected two groups or more, to compare")
    if pair is None or isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(names):
        raise ValueError(f"pair: {pair!r} given; expected two of the groups {', '.join(map(repr, names))}, first minus second")
    return pair[0], pair[1]
