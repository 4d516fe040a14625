"""Pairs of face images to verify: who is in them, which subgroups, and how similar a model finds the two.

Pairs are numbered, not listed: with a subgroup's images sorted by person, the impostor partners of an image are the images of
later persons, so the k-th pair is found by a search in cumulative counts. Any number of pairs can then be drawn without
replacement, and scored block by block, with no N x N matrix and no genuine pair to reject.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from helpers.bias.columns import read_numbers
from helpers.bias.inputs import read_groups, read_people
from helpers.bias.settings import share, whole
from helpers.names import choose

CROSS = " × "  # between the names of two subgroups that a pair joins
BLOCK = 1 << 21  # numbers of each side's embeddings held at a time while scoring


@dataclass(frozen=True, eq=False)
class Pairs:
    """Scored pairs of images: P rows, of the same person (genuine) or of two persons (impostor).

    Attributes
    ----------
    score : float64 (P,), similarity; a pair is accepted as one person if its score >= the threshold
    same : bool (P,), True where both images show one person
    person1, person2 : int32 (P,), codes into `people`
    group1, group2 : int16 (P,), codes into `groups`, of the subgroup of each *image*
    groups : names of subgroups
    people : names of persons
    fold : int (P,), or None
    skipped : (what, why) that was left out in reading

    A *cell* is what rates are reported for: a subgroup, of which both images must be ("a"), or two subgroups that a pair
    joins ("a × b", the order of the images does not matter).

    Raises
    ------
    ValueError : lengths differ, a score is not finite, a code is outside its names, or `same` contradicts the persons.
    """

    score: np.ndarray
    same: np.ndarray
    person1: np.ndarray
    person2: np.ndarray
    group1: np.ndarray
    group2: np.ndarray
    groups: tuple[str, ...]
    people: tuple[str, ...]
    fold: np.ndarray | None = None
    skipped: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        kinds = {"score": np.float64, "same": bool, "person1": np.int32, "person2": np.int32, "group1": np.int16,
                 "group2": np.int16}  # fmt: skip
        for name, kind in kinds.items():
            object.__setattr__(self, name, _column(getattr(self, name), name, kind))
        object.__setattr__(self, "groups", tuple(str(name) for name in self.groups))
        object.__setattr__(self, "people", tuple(str(name) for name in self.people))
        if self.fold is not None:
            object.__setattr__(self, "fold", np.asarray(self.fold))
        for name in (*kinds, *(("fold",) if self.fold is not None else ())):
            if len(getattr(self, name)) != len(self.score):
                raise ValueError(f"{name}: {len(getattr(self, name))} rows given, but score has {len(self.score)}")
        if len(set(self.groups)) < len(self.groups):
            raise ValueError(f"groups: different names expected, {list(self.groups)} given")
        bad = ~np.isfinite(self.score)
        if bad.any():
            raise ValueError(f"score: {bad.sum()} of {len(bad)} are not finite (first at row {np.flatnonzero(bad)[0]})")
        for name, names in (("person1", "people"), ("person2", "people"), ("group1", "groups"), ("group2", "groups")):
            codes, several = getattr(self, name), getattr(self, names)
            if len(codes) and not (codes.min() >= 0 and codes.max() < len(several)):
                wrong = codes[(codes < 0) | (codes >= len(several))][0]
                raise ValueError(f"{name}: code {wrong} is outside the {len(several)} names in `{names}`")
        contradicted = self.same != (self.person1 == self.person2)
        if contradicted.any():
            row = np.flatnonzero(contradicted)[0]
            raise ValueError(
                f"same: contradicts the persons in {contradicted.sum()} of {len(self)} pairs (first at row {row}: same is "
                f"{self.same[row]}, persons {self.people[self.person1[row]]!r} and {self.people[self.person2[row]]!r})"
            )

    def __len__(self) -> int:
        return len(self.score)

    def __repr__(self) -> str:
        genuine = int(self.same.sum())
        return (
            f"Pairs({genuine:,} genuine, {len(self) - genuine:,} impostor; {len(self.people)} people; "
            f"{', '.join(self.groups[:8])}{', …' if len(self.groups) > 8 else ''})"
        )

    @cached_property
    def cell(self) -> np.ndarray:
        """int16 (P,): code into `cell_names`; the codes of subgroups come first and are those of `groups`."""
        low, high = np.minimum(self.group1, self.group2), np.maximum(self.group1, self.group2)
        crossing = _triangle(len(self.groups))[low, high]
        return np.where(low == high, low, crossing).astype(np.int16)

    @cached_property
    def cell_names(self) -> tuple[str, ...]:
        """Names of all subgroups, then of all twos of them, whether or not there are such pairs."""
        count = len(self.groups)
        twos = (f"{self.groups[a]}{CROSS}{self.groups[b]}" for a in range(count) for b in range(a + 1, count))
        return (*self.groups, *twos)

    @cached_property
    def cells(self) -> tuple[int, ...]:
        """Codes of the cells that are reported: every subgroup, and those twos of which there are pairs."""
        found = np.flatnonzero(np.bincount(self.cell, minlength=len(self.cell_names)))
        return (*range(len(self.groups)), *(int(code) for code in found if code >= len(self.groups)))

    def select(self, rows: np.ndarray) -> Pairs:
        """The pairs in `rows` (bool (P,) or indices), with the codes and names of all."""
        fold = None if self.fold is None else self.fold[rows]
        columns = {name: getattr(self, name)[rows] for name in ("score", "same", "person1", "person2", "group1", "group2")}
        return replace(self, **columns, fold=fold)

    def scores(self, group: str, same: bool) -> np.ndarray:
        """Scores of the genuine (`same`) or impostor pairs of one cell, ascending.

        Raises
        ------
        ValueError : no cell is called so.
        """
        name = choose(group, [self.cell_names[code] for code in self.cells], "group")
        return np.sort(self.score[(self.cell == self.cell_names.index(name)) & (self.same == same)])


def pairs(
    embeddings: Any,
    identity: Any,
    group: Any,
    *,
    impostors: str = "within",
    max_impostors: int | None = None,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Pairs:
    """All genuine pairs of some images, and their impostor pairs or a sample of them, scored by cosine similarity.

    Parameters
    ----------
    embeddings : (N, d), of any layer
    identity : (N,), who is in the image
    group : (N,), or a DataFrame whose columns are crossed: the subgroup of the image
    impostors : "within" pairs images of one subgroup only, as Robinson et al. do (a look-alike is more likely there);
        "all" adds the pairs across two subgroups, genuine ones included where a person has images in both
    max_impostors : at most so many impostor pairs of each subgroup (and each two of them), drawn without replacement and with
        equal chances; None: all of them. They take 29 bytes each.
    seed : of the draw
    groups : names that integer codes stand for

    Returns
    -------
    Pairs, subgroup by subgroup, genuine pairs first; no image is paired with itself, and no two images twice

    Raises
    ------
    ValueError : embeddings that are not a finite (N, d) or have length zero (no direction), lengths that differ, missing
        identities, an unknown kind of impostors, `max_impostors` below 1.

    References
    ----------
    Robinson et al., "Face Recognition: Too Bias, or Not Too Bias?", CVPR Workshops 2020, section 4.

    Examples
    --------
    Embeddings come from any layer of any model, in one pass:

    >>> from helpers import load_faces                                     # doctest: +SKIP
    >>> from helpers.models import features
    >>> faces = load_faces("orl", target="glasses", protected="facial_hair", split="all")
    >>> seen = features(model, faces, layer="penultimate")                 # or layer="network.layer3", …
    >>> found = pairs(seen.features, faces.table["identity"], faces.group, groups=faces.groups)
    """
    x, lengths = _embeddings(embeddings)
    person, people = read_people(identity)
    codes, levels = read_groups(group, groups)
    for argument, column in (("identity", person), ("group", codes)):
        if len(column) != len(x):
            raise ValueError(f"{argument}: {len(column)} rows given, but embeddings has {len(x)}")
    choose(impostors, ("within", "all"), "impostors")
    if max_impostors is not None:
        whole(max_impostors, "max_impostors")
    rng = np.random.default_rng(seed)
    spaces = [space for cell in _cells(len(levels), impostors) for space in _spaces(codes, person, *cell)]
    wanted = [
        len(space) if space.same or max_impostors is None else min(len(space), max_impostors) for space in spaces
    ]
    total = sum(wanted)
    score, first, second = np.empty(total), np.empty(total, np.int32), np.empty(total, np.int32)
    start = 0
    for space, count in zip(spaces, wanted, strict=True):
        for i, j in _drawn(space, count, rng, max(1, BLOCK // x.shape[1])):
            part = slice(start, start + len(i))
            score[part] = np.einsum("pd,pd->p", x[i], x[j], dtype=np.float64) / (lengths[i] * lengths[j])
            first[part], second[part] = i, j
            start += len(i)
    np.clip(score, -1, 1, out=score)
    same = np.repeat([space.same for space in spaces], wanted) if spaces else np.empty(0, bool)
    return Pairs(score, same, person[first], person[second], codes[first], codes[second], levels, people)


def split_people(pairs: Pairs, fraction: float = 0.5, seed: int = 0) -> tuple[Pairs, Pairs]:
    """Two sets of pairs that share no person: to fit thresholds on one, and to report on the other.

    People are split within their subgroup (of a person with images in several: the first of them). Impostor pairs of one
    person from either set are in neither.

    Parameters
    ----------
    pairs : Pairs
    fraction : share of each subgroup's people in the first set, in (0, 1); rounded, but each set gets at least one
    seed : of the draw

    Raises
    ------
    ValueError : a fraction outside (0, 1), or a subgroup of one person, who cannot be in both sets (it is named).
    """
    share(fraction, "fraction")
    home = np.full(len(pairs.people), np.iinfo(np.int16).max)
    np.minimum.at(home, pairs.person1, pairs.group1)
    np.minimum.at(home, pairs.person2, pairs.group2)
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(pairs.people), dtype=bool)
    for g, name in enumerate(pairs.groups):
        mine = np.flatnonzero(home == g)
        if len(mine) == 1:
            raise ValueError(f"pairs: subgroup {name!r} has pairs of one person only, who cannot be in both sets")
        count = min(max(round(fraction * len(mine)), 1), len(mine) - 1) if len(mine) else 0
        chosen[rng.permutation(mine)[:count]] = True
    one, two = chosen[pairs.person1], chosen[pairs.person2]
    return pairs.select(one & two), pairs.select(~one & ~two)


@dataclass(frozen=True)
class _Space:
    """All genuine, or all impostor, pairs of one cell by number: image `left[i]` with `right[first[i] + offset]`.

    Offsets from `skip_at[i]` on jump over the `skip[i]` images of the same person.
    """

    left: np.ndarray
    right: np.ndarray
    first: np.ndarray
    skip_at: np.ndarray
    skip: np.ndarray
    upto: np.ndarray  # cumulative numbers of partners
    same: bool

    def __len__(self) -> int:
        return int(self.upto[-1]) if len(self.upto) else 0

    def locate(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i = np.searchsorted(self.upto, number, side="right")
        offset = number - np.where(i > 0, self.upto[i - 1], 0)
        j = self.first[i] + offset + np.where(offset >= self.skip_at[i], self.skip[i], 0)
        return self.left[i], self.right[j]


def _cells(groups: int, impostors: str) -> list[tuple[int, int]]:
    within = [(g, g) for g in range(groups)]
    return within if impostors == "within" else within + [(g, h) for g in range(groups) for h in range(g + 1, groups)]


def _spaces(codes: np.ndarray, person: np.ndarray, g: int, h: int) -> tuple[_Space, _Space]:
    left, right = (mine[np.argsort(person[mine], kind="stable")] for mine in (np.flatnonzero(codes == c) for c in (g, h)))
    start = np.searchsorted(person[right], person[left], side="left")
    end = np.searchsorted(person[right], person[left], side="right")
    none = np.zeros(len(left), dtype=np.int64)
    if g == h:  # each two images once: partners come later in the order
        after = np.arange(1, len(left) + 1)
        genuine, impostor = (after, none, none, end - after), (end, none, none, len(right) - end)
    else:
        genuine, impostor = (start, none, none, end - start), (none, start, end - start, len(right) - (end - start))
    return tuple(
        _Space(left, right, first, skip_at, skip, np.cumsum(count), same)
        for (first, skip_at, skip, count), same in ((genuine, True), (impostor, False))
    )


def _drawn(space: _Space, count: int, rng: np.random.Generator, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of `count` pairs of a space, in order of their numbers."""
    numbers = None if count == len(space) else _distinct(len(space), count, rng)
    for begin in range(0, count, step):
        stop = min(begin + step, count)
        yield space.locate(np.arange(begin, stop) if numbers is None else numbers[begin:stop])


def _distinct(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the numbers below `total`, sorted, each set equally likely, in memory of order `count`."""
    if 2 * count > total:
        return np.sort(rng.permutation(total)[:count])
    found = np.empty(0, dtype=np.int64)
    while len(found) < count:  # as many as still lack are drawn, so none has to be thrown away, which could favour some
        found = np.sort(np.concatenate([found, rng.integers(total, size=count - len(found))]))
        found = found[np.diff(found, prepend=-1) > 0]  # np.unique hashes, at ten times the cost
    return found


def _triangle(groups: int) -> np.ndarray:
    """(G, G): code of the cell that joins two different subgroups."""
    table = np.zeros((groups, groups), dtype=np.int64)
    a, b = np.triu_indices(groups, 1)
    table[a, b] = groups + np.arange(len(a))
    return table


def _column(values: Any, name: str, kind: type) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name}: shape (P,) expected, {array.shape} given")
    if kind is bool and array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name}: booleans, or 0 and 1, expected; {array[~np.isin(array, (0, 1))][0]!r} given")
    return array.astype(kind, copy=False)


def _embeddings(embeddings: Any) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, d) in a floating type, and their lengths float64 (N,)."""
    x = read_numbers(embeddings, "embeddings")
    if x.ndim != 2 or not x.size:
        raise ValueError(f"embeddings: shape (N, d) expected, {x.shape} given; flatten feature maps first")
    lengths = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
    for bad, what in ((~np.isfinite(lengths), "not finite"), (lengths == 0, "zero and have no direction")):
        if bad.any():
            raise ValueError(f"embeddings: {bad.sum()} of {len(x)} rows are {what} (first row {np.flatnonzero(bad)[0]})")
    return x, lengths
