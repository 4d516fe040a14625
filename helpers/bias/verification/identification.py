"""Rank-1 confusion: whom a model takes for whom when it searches all other images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.bias.inputs import read_groups, read_people
from helpers.bias.settings import share, whole
from helpers.bias.verification.intervals import limits, over_people, sidak
from helpers.bias.verification.pairing import _embeddings
from helpers.names import choose

BLOCK = 1 << 22  # similarities held at a time


def rank1_confusion(
    embeddings: Any,
    identity: Any,
    group: Any,
    *,
    own: str = "exclude",
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """For every image the most similar other image, and how often its subgroup is which.

    Parameters
    ----------
    embeddings, identity, group, groups : as in `pairs`
    own : "exclude": the nearest image of *another* person, for every image: who looks like whom. "include": rank-1
        identification, where the image's own person is among those searched, and only wrong answers are counted; images of a
        person with no other image cannot be found and are not searched for, but others can be taken for them.
    confidence : of the intervals, which hold for all cells of a row together (Šidák's level)
    n_boot, seed : of the bootstrap over the people searched for; those searched among are taken as they are

    Returns
    -------
    DataFrame `group, match, value, low, high, n, count, people`: the share `value` = count / n of the n images of `group` whose
    nearest (with own="include": whose wrong nearest) image is of subgroup `match`. With "exclude" the shares of a group sum to
    1, with "include" to its rank-1 error rate. NaN for a group without images. Of several equally similar images
    the first counts.

    Raises
    ------
    ValueError : as `pairs`; fewer than two people.

    References
    ----------
    Robinson et al., "Face Recognition: Too Bias, or Not Too Bias?", CVPR Workshops 2020, figure 4 (errors at rank 1).
    """
    x, lengths = _embeddings(embeddings)
    person, people = read_people(identity)
    codes, levels = read_groups(group, groups)
    for argument, column in (("identity", person), ("group", codes)):
        if len(column) != len(x):
            raise ValueError(f"{argument}: {len(column)} rows given, but embeddings has {len(x)}")
    choose(own, ("exclude", "include"), "own")
    share(confidence, "confidence")
    whole(n_boot, "n_boot", least=100)
    if len(people) < 2:
        raise ValueError(f"identity: at least two people expected, {len(people)} given")
    nearest = _nearest(x / lengths[:, None].astype(x.dtype), person, own == "exclude")
    wrong = person[nearest] != person
    searched = np.ones(len(x), bool) if own == "exclude" else np.bincount(person)[person] > 1
    rng = np.random.default_rng(seed)
    level = sidak(confidence, len(levels))
    rows = []
    for g, name in enumerate(levels):
        mine = searched & (codes == g)
        trials = np.bincount(person[mine], minlength=len(people))
        for h, match in enumerate(levels):
            hit = mine & wrong & (codes[nearest] == h)
            found = over_people(np.bincount(person[hit], minlength=len(people)), trials, n_boot, rng)
            rows.append((name, match, found.value, *limits(found, level)[:2], found.n, int(hit.sum()), found.people))
    return pd.DataFrame(rows, columns=["group", "match", "value", "low", "high", "n", "count", "people"])


def _nearest(u: np.ndarray, person: np.ndarray, others_only: bool) -> np.ndarray:
    """Index of the most similar other image, block by block; `u` has rows of length one."""
    nearest = np.empty(len(u), dtype=np.int64)
    step = max(1, BLOCK // len(u))
    for start in range(0, len(u), step):
        stop = min(start + step, len(u))
        similarity = u[start:stop] @ u.T
        if others_only:
            similarity[person[start:stop, None] == person[None]] = -np.inf
        else:
            similarity[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        nearest[start:stop] = similarity.argmax(1)
    return nearest
