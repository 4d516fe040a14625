"""What a layer still tells about the group: a linear probe, judged on images that it was not fitted on.

LEACE guarantees that no linear probe beats a constant guess on the very images that the eraser was fitted on, if the probe is
fitted and judged on them as a whole. Cross-fitting asks another question, what a probe learns from some images for others, and
has to be asked of images that the eraser has not seen: on its own images the groups' means are equal as a whole, so that they
differ in one part the other way round than in the rest, and a cross-fitted probe falls below chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from helpers.bias import uncertainty
from helpers.bias.inputs import read_people
from helpers.bias.people import change_of_rates, rate_of_people
from helpers.bias.settings import share, whole


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """How well the group is read from features of images that the probe was not fitted on.

    Attributes
    ----------
    accuracy, low, high : mean over the groups of the share of their images that are recognised, and its interval over images
        (people, where they are known). The chance of the folds and of fitting is not in it.
    chance : 1 / number of groups: what a constant guess reaches, and what random guesses do
    right : bool (N,), whether the image was recognised
    group, people : int64 (N,)
    folds : number of parts
    confidence : level of the interval
    """

    accuracy: float
    low: float
    high: float
    chance: float
    right: np.ndarray
    group: np.ndarray
    people: np.ndarray
    folds: int
    confidence: float

    def change(self, before: LinearProbe) -> tuple[float, float, float]:
        """(change, low, high) of the accuracy against another layer's or model's probe on the same images, paired."""
        if not np.array_equal(before.group, self.group):
            raise ValueError("before: a probe of other images; a paired change needs the same ones")
        parts = [
            change_of_rates(before.right[rows], self.right[rows], self.people[rows], self.confidence)
            for rows in _rows(self.group)
        ]
        return _mean(parts)


def probe(
    features: np.ndarray,
    group: np.ndarray,
    *,
    identity=None,
    folds: int = 5,
    C: float = 0.1,
    confidence: float = 0.95,
    seed: int = 0,
) -> LinearProbe:
    """Cross-fit a logistic regression of the group on features, and say how often it is right.

    Each image is judged by a probe that was fitted on the other parts of the data; all images of a person are in one part. Groups
    weigh the same however many images they have.

    Parameters
    ----------
    features : float (N, d); maps (N, C, H, W) and tokens (N, T, d) are averaged over their positions
    group : int (N,), codes
    identity : (N,), whose image each is; None: every image is taken for itself
    folds : parts of the data, at most as many as the smallest group has people
    C : inverse strength of the L2 penalty, for features scaled to a mean square of 1
    confidence : level of the interval
    seed : of the parts

    Returns
    -------
    LinearProbe

    Raises
    ------
    ValueError : lengths that differ, features that are not finite, fewer than two groups, a group of one image (or person).
    """
    features, group = pooled(features), np.asarray(group)
    if group.shape != (len(features),) or group.dtype.kind not in "iu":
        raise ValueError(f"group: {len(features)} codes expected, {group.dtype} of shape {group.shape} given")
    if not np.isfinite(features).all():
        raise ValueError(f"features: {int((~np.isfinite(features)).any(1).sum())} of {len(features)} rows are not finite")
    whole(folds, "folds", least=2)
    share(confidence, "confidence")
    if not C > 0:
        raise ValueError(f"C: {C!r} given; a number above 0 expected")
    people = np.arange(len(group)) if identity is None else read_people(identity)[0]
    if len(people) != len(group):
        raise ValueError(f"identity: {len(people)} rows given, but there are features of {len(group)} images")
    present = np.unique(group)
    if len(present) < 2:
        raise ValueError(f"group: all {len(group)} images are of group {present[0] if len(present) else '?'}; two are needed")
    fewest = min(len(np.unique(people[rows])) for rows in _rows(group))
    if fewest < 2:
        word = "image" if identity is None else "person"
        raise ValueError(f"group: one has a single {word}, which cannot both teach a probe and judge it")
    parts = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed)
    predicted = np.empty_like(group)
    for rest, judged in parts.split(features, group, people):
        centre = features[rest].mean(0)
        # One scale for all features: a scale of each would blow up the rounding error of those that an edit has emptied.
        scale = np.sqrt(np.mean((features[rest] - centre) ** 2)) or 1.0
        fitted = LogisticRegression(C=C, class_weight="balanced", max_iter=2000)
        fitted.fit((features[rest] - centre) / scale, group[rest])
        predicted[judged] = fitted.predict((features[judged] - centre) / scale)
    right = predicted == group
    accuracy, low, high = _mean([rate_of_people(right[rows], people[rows], confidence) for rows in _rows(group)])
    return LinearProbe(
        accuracy, low, high, 1 / len(present), right, group.astype(np.int64), people, min(folds, fewest), confidence
    )


def pooled(features: np.ndarray) -> np.ndarray:
    """Features (N, d) in float64; maps (N, C, H, W) and tokens (N, T, d) are averaged over their positions."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim not in (2, 3, 4) or not len(features):
        raise ValueError(f"features: (N, d), (N, T, d) or (N, C, H, W) expected, shape {features.shape} given")
    return features if features.ndim == 2 else features.mean(1) if features.ndim == 3 else features.mean((2, 3))


def _rows(group: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(group == code) for code in np.unique(group)]


def _mean(parts: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Mean of independent estimates, each with its limits."""
    value, low, high = (np.array(column)[:, None] for column in zip(*parts, strict=True))
    bottom, top = uncertainty.mover_mean(value, (low, high), np.eye(len(parts))[None])
    return float(value.mean()), float(bottom[0]), float(top[0])
