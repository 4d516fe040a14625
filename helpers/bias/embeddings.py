"""How close together a model puts the images of a group: mean pairwise distances and similarities of embeddings.

A group whose images lie close together is one in which the model tells people apart less well: a proxy for recognition
errors that needs no pairs and no threshold. Two of its three forms are exact in one pass over the images.

    squared distance    2 / (n - 1) sum_i |x_i - mean|^2
    cosine similarity   (|sum_i u_i|^2 - n) / (n (n - 1)),  u_i = x_i / |x_i|
    distance            a mean of square roots, for which there is no such form

All are means over pairs of distinct images, that is U-statistics. Where there are too many pairs to go through, the mean
distance is an incomplete U-statistic (Blom, 1976): the images are put in random order on a circle, and each is compared
with the ones at k random steps from it, so that every image is in equally many pairs and no pair is taken twice. With
every image equally often, leaving out most pairs adds little to the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers.bias.columns import read_numbers
from helpers.bias.inputs import read_groups, read_people
from helpers.bias.settings import share, whole

MEASURES = ("squared_distance", "cosine_similarity", "distance")
EXACT_UP_TO = 500_000  # pairs of images in a group, or between two: about a second at 128 dimensions
BLOCK = 1 << 22  # numbers held at a time by a block of pairwise work


@dataclass(frozen=True)
class Sums:
    """Sums over pairs of images, in all and by the clusters (images or people) that take part in a pair.

    A pair within one cluster counts once for that cluster, a pair between two counts for both.
    """

    total: float
    pairs: int
    touching: np.ndarray  # float64 (C,), sum over the pairs that a cluster takes part in
    touched: np.ndarray  # int64 (C,), how many these are
    exact: bool


def spread(
    embeddings: Any,
    group: Any,
    *,
    identity: Any = None,
    partners: int = 64,
    exact_up_to: int = EXACT_UP_TO,
    confidence: float = 0.95,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Mean pairwise squared distance, cosine similarity and distance within every group.

    Parameters
    ----------
    embeddings : float (N, d), such as `helpers.models.features(...).features`
    group : (N,), or a DataFrame whose columns are crossed
    identity : (N,), whose image it is: the intervals are then for other people, not just for other images of these people
    partners : with more pairs than `exact_up_to`, how many others each image is compared with for the mean distance
    exact_up_to : number of pairs in a group up to which the mean distance is taken over all of them, in blocks
    confidence : level of the intervals
    seed : of the choice of partners
    groups : names that integer codes stand for

    Returns
    -------
    DataFrame `group, measure, value, low, high, n, people, pairs, exact`: `measure` is "squared_distance",
    "cosine_similarity" (in [-1, 1]) or "distance" (all Euclidean, in units of the embedding); `n` images; `people`, without
    `identity` the same; `pairs` that the mean was taken over, which is all of them if `exact`. One image has no pair: NaN.
    Two images, or the images of one person, have a value and no interval: NaN. An embedding of length zero has no direction,
    so its group has no cosine similarity.

    Raises
    ------
    ValueError : embeddings that are not a finite (N, d), lengths that differ, fewer than two partners; the argument is named.

    Notes
    -----
    Intervals are value -/+ t s.e. with the jackknife's standard error, leaving out one image, or one person, at a time; each
    leave-one-out mean follows from the sums over the pairs in which the image or person takes part, so this costs no more than
    the value. With sampled pairs these sums are noisy, which makes the interval slightly too wide. It includes the variance
    that comes from not taking all pairs.

    References
    ----------
    Blom, "Some properties of incomplete U-statistics", Biometrika 1976.
    Arvesen, "Jackknifing U-statistics", Annals of Mathematical Statistics 1969.

    Examples
    --------
    >>> spread([[0.0, 0], [3, 4], [0, 4]], ["a"] * 3)["value"].round(3).tolist()[::2]
    [16.667, 4.0]
    """
    x, codes, levels, people = _read(embeddings, group, identity, groups, confidence, partners)
    rng = np.random.default_rng(seed)
    rows = []
    for g in np.unique(codes):
        mine = np.flatnonzero(codes == g)
        cluster = _recode(people[mine])
        for measure, sums in _within(x[mine], cluster, partners, exact_up_to, rng).items():
            degrees = cluster.max(initial=-1)
            rows.append((levels[g], measure, *_interval(sums, measure, confidence, degrees), len(mine), degrees + 1,
                         sums.pairs, sums.exact))  # fmt: skip
    return pd.DataFrame(rows, columns=["group", "measure", "value", "low", "high", "n", "people", "pairs", "exact"])


def between(
    embeddings: Any,
    group: Any,
    *,
    identity: Any = None,
    partners: int = 64,
    exact_up_to: int = EXACT_UP_TO,
    confidence: float = 0.95,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The same means over pairs with one image of each of two groups, for every pair of groups.

    Parameters and errors as in `spread`. The squared distance and the cosine similarity are exact: with the groups' means
    m and mean squared distances v from them |m_a - m_b|^2 + v_a + v_b, and the product of the mean directions.

    Returns
    -------
    DataFrame `group, other, measure, value, low, high, n, n_other, pairs, exact`
    """
    x, codes, levels, people = _read(embeddings, group, identity, groups, confidence, partners)
    rng = np.random.default_rng(seed)
    rows = []
    for a, b in combinations(np.unique(codes), 2):
        first, second = np.flatnonzero(codes == a), np.flatnonzero(codes == b)
        cluster = _recode(np.concatenate([people[first], people[second]]))
        first_cluster, second_cluster = cluster[: len(first)], cluster[len(first) :]
        degrees = min(len(np.unique(first_cluster)), len(np.unique(second_cluster))) - 1
        found = _across(x[first], x[second], first_cluster, second_cluster, partners, exact_up_to, rng)
        for measure, sums in found.items():
            rows.append((levels[a], levels[b], measure, *_interval(sums, measure, confidence, degrees), len(first),
                         len(second), sums.pairs, sums.exact))  # fmt: skip
    columns = ["group", "other", "measure", "value", "low", "high", "n", "n_other", "pairs", "exact"]
    return pd.DataFrame(rows, columns=columns)


def _read(
    embeddings: Any, group: Any, identity: Any, groups: Sequence[str] | None, confidence: float, partners: int
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]:
    """Embeddings float64 (N, d), group codes and names, cluster codes (N,)."""
    x = read_numbers(embeddings, "embeddings").astype(np.float64, copy=False)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"embeddings: shape (N, d) expected, {x.shape} given; flatten feature maps first")
    bad = ~np.isfinite(x).all(1)
    if bad.any():
        raise ValueError(f"embeddings: {bad.sum()} of {len(x)} rows are not finite (first row {np.flatnonzero(bad)[0]})")
    share(confidence, "confidence")
    whole(partners, "partners", least=2)
    codes, levels = read_groups(group, groups)
    people = np.arange(len(x)) if identity is None else read_people(identity)[0]
    for argument, column in (("group", codes), ("identity", people)):
        if len(column) != len(x):
            raise ValueError(f"{argument}: {len(column)} rows given, but embeddings has {len(x)}")
    return x, codes, levels, people


def _recode(codes: np.ndarray) -> np.ndarray:
    return np.unique(codes, return_inverse=True)[1]


def _interval(sums: Sums, measure: str, confidence: float, degrees: int) -> tuple[float, float, float]:
    """Mean over pairs with the jackknife's t interval, within the measure's range."""
    if not sums.pairs or np.isnan(sums.total):
        return np.nan, np.nan, np.nan
    value = sums.total / sums.pairs
    left = sums.pairs - sums.touched
    if degrees < 1 or (left == 0).any():  # without this image or person there would be no pair
        return value, np.nan, np.nan
    without = (sums.total - sums.touching) / left
    size = len(without)
    error = np.sqrt((size - 1) / size * ((without - without.mean()) ** 2).sum())
    reach = stats.t.isf((1 - confidence) / 2, degrees) * error
    least, most = (-1.0, 1.0) if measure == "cosine_similarity" else (0.0, np.inf)
    return value, max(value - reach, least), min(value + reach, most)


def _within(
    x: np.ndarray, cluster: np.ndarray, partners: int, exact_up_to: int, rng: np.random.Generator
) -> dict[str, Sums]:
    n = len(x)
    centred = x - x.mean(0)
    squares = (centred**2).sum(1)
    u = _directions(x)
    size = np.bincount(cluster)
    pairs = n * (n - 1) // 2
    inside = size * (size - 1) // 2
    touched = size * n - size - inside  # pairs of a member and anyone, less those of two members counted twice

    def sums(of_image: np.ndarray, inside_sum: np.ndarray) -> Sums:
        """From each image's sum over its pairs, and each cluster's over its own pairs."""
        return Sums(of_image.sum() / 2, pairs, np.bincount(cluster, of_image) - inside_sum, touched, True)

    # sum_j |x_i - x_j|^2 = n |c_i|^2 + sum_j |c_j|^2, and the same within a cluster about its own mean
    own = centred - _means(centred, cluster, size)[cluster]
    squared = sums(n * squares + squares.sum(), size * np.bincount(cluster, (own**2).sum(1)))
    of_cluster = _means(u, cluster, size) * size[:, None]
    cosine = sums(u @ u.sum(0) - 1, ((of_cluster**2).sum(1) - size) / 2)
    if pairs <= exact_up_to:
        i, j = None, None
    else:
        i, j = _circle(n, partners, rng)
    return {"squared_distance": squared, "cosine_similarity": cosine,
            "distance": _all_pairs(x, cluster) if i is None else _some_pairs(x, x, i, j, cluster, cluster)}  # fmt: skip


def _across(
    x: np.ndarray, y: np.ndarray, x_cluster: np.ndarray, y_cluster: np.ndarray, partners: int, exact_up_to: int,
    rng: np.random.Generator,
) -> dict[str, Sums]:  # fmt: skip
    clusters = max(x_cluster.max(), y_cluster.max()) + 1
    x_size, y_size = (np.bincount(each, minlength=clusters) for each in (x_cluster, y_cluster))
    pairs = len(x) * len(y)
    shared = x_size * y_size  # a person may have images in both groups
    touched = x_size * len(y) + y_size * len(x) - shared

    def sums(of_x: np.ndarray, of_y: np.ndarray, inside: np.ndarray) -> Sums:
        touching = np.bincount(x_cluster, of_x, clusters) + np.bincount(y_cluster, of_y, clusters) - inside
        return Sums(of_x.sum(), pairs, touching, touched, True)

    origin = (x.mean(0) + y.mean(0)) / 2
    a, b = x - origin, y - origin
    a2, b2 = (a**2).sum(1), (b**2).sum(1)
    a_sum, b_sum = _totals(a, x_cluster, clusters), _totals(b, y_cluster, clusters)
    inside = (
        y_size * np.bincount(x_cluster, a2, clusters) + x_size * np.bincount(y_cluster, b2, clusters)
        - 2 * (a_sum * b_sum).sum(1)
    )  # fmt: skip
    squared = sums(
        len(y) * a2 + b2.sum() - 2 * a @ b.sum(0), len(x) * b2 + a2.sum() - 2 * b @ a.sum(0), inside
    )
    u, v = _directions(x), _directions(y)
    cosine = sums(
        u @ v.sum(0), v @ u.sum(0), (_totals(u, x_cluster, clusters) * _totals(v, y_cluster, clusters)).sum(1)
    )
    if pairs <= exact_up_to:
        i, j = np.divmod(np.arange(pairs), len(y))
        distance = _some_pairs(x, y, i, j, x_cluster, y_cluster, exact=True)
    else:
        i, j = _two_circles(len(x), len(y), partners, rng)
        distance = _some_pairs(x, y, i, j, x_cluster, y_cluster, exact=len(i) == pairs)
    return {"squared_distance": squared, "cosine_similarity": cosine, "distance": distance}


def _directions(x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0 / 0: a zero embedding has no direction, and its group no mean of them
        return x / np.linalg.norm(x, axis=1, keepdims=True)


def _totals(x: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    total = np.zeros((clusters, x.shape[1]))
    np.add.at(total, cluster, x)
    return total


def _means(x: np.ndarray, cluster: np.ndarray, size: np.ndarray) -> np.ndarray:
    return _totals(x, cluster, len(size)) / size[:, None]


def _circle(n: int, partners: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs of n images in which each takes part `partners` times (rounded up to even, n - 1 at most)."""
    half = (n - 1) // 2  # steps beyond would meet the same pairs from the other side
    steps = rng.choice(np.arange(1, half + 1), size=min(-(-partners // 2), half), replace=False)
    order = rng.permutation(n)
    place = np.arange(n)
    return np.tile(order, len(steps)), order[(place[None, :] + steps[:, None]) % n].ravel()


def _two_circles(n: int, m: int, partners: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs between n and m images: each of the larger side has `partners`, each of the smaller about n / m as many."""
    if n < m:
        j, i = _two_circles(m, n, partners, rng)
        return i, j
    steps = rng.choice(m, size=min(partners, m), replace=False)
    first, second = rng.permutation(n), rng.permutation(m)
    return np.tile(first, len(steps)), second[(np.arange(n)[None, :] + steps[:, None]) % m].ravel()


def _some_pairs(
    x: np.ndarray, y: np.ndarray, i: np.ndarray, j: np.ndarray, x_cluster: np.ndarray, y_cluster: np.ndarray, *,
    exact: bool = False,
) -> Sums:  # fmt: skip
    """Sums of the distances of the pairs (x[i], y[j])."""
    distance = np.empty(len(i))
    step = max(1, BLOCK // x.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        distance[part] = np.linalg.norm(x[i[part]] - y[j[part]], axis=1)
    a, b = x_cluster[i], y_cluster[j]
    clusters = max(x_cluster.max(), y_cluster.max()) + 1
    other = b != a  # a pair within one cluster counts once
    touching = np.bincount(a, distance, clusters) + np.bincount(b, distance * other, clusters)
    touched = np.bincount(a, minlength=clusters) + np.bincount(b[other], minlength=clusters)
    return Sums(float(distance.sum()), len(i), touching, touched, exact)


def _all_pairs(x: np.ndarray, cluster: np.ndarray) -> Sums:
    """The same for every pair of distinct rows, in blocks of rows."""
    n, clusters = len(x), cluster.max() + 1
    size = np.bincount(cluster)
    of_image, inside = np.zeros(n), np.zeros(clusters)
    step = max(1, BLOCK // (n * x.shape[1]))
    for start in range(0, n, step):
        # Differences first: |x|^2 + |y|^2 - 2 x.y loses the small distances to rounding.
        distance = np.linalg.norm(x[start : start + step, None] - x[None], axis=2)
        of_image[start : start + step] = distance.sum(1)
        same = cluster[start : start + step, None] == cluster[None]
        inside += np.bincount(cluster[start : start + step], (distance * same).sum(1), clusters) / 2
    touched = size * n - size - size * (size - 1) // 2
    return Sums(of_image.sum() / 2, n * (n - 1) // 2, np.bincount(cluster, of_image) - inside, touched, True)
