"""Counts of true and false positives at every threshold, and the search for one threshold a group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree


@dataclass(frozen=True)
class Curve:
    """One group's counts at candidate thresholds: images with score > threshold[i] are predicted positive.

    Attributes
    ----------
    threshold : float64 (m,), ascending; from below all scores to above all
    found, false : int64 (m,), true and false positives at each threshold
    positives, negatives : int, images of each class in the group
    """

    threshold: np.ndarray
    found: np.ndarray
    false: np.ndarray
    positives: int
    negatives: int


def curve(score: np.ndarray, y: np.ndarray, at_most: int = 1000) -> Curve:
    """The `Curve` of a group's scores (n,) and labels (n,) in {0, 1}; thresholds lie midway between scores.

    More than `at_most` candidates are thinned to quantiles; the threshold 0, the model's own, always stays.
    """
    score = np.asarray(score, np.float64)
    values = np.unique(score)
    middle = (values[1:] + values[:-1]) / 2
    if len(middle) > at_most:
        middle = middle[np.linspace(0, len(middle) - 1, at_most).round().astype(int)]
    edges = np.array([values[0] - 1, 0.0, values[-1] + 1])
    threshold = np.unique(np.concatenate([middle, edges]))
    counts = []
    for label in (1, 0):
        of_label = np.sort(score[y == label])
        counts.append(len(of_label) - np.searchsorted(of_label, threshold, side="right"))
    return Curve(threshold, *counts, int((y == 1).sum()), int((y == 0).sum()))


def rates(count: np.ndarray, total: int) -> np.ndarray:
    """`count / total` as float64; NaN where the group has no image of that class."""
    return count / total if total else np.full(np.shape(count), np.nan)


def spread(values: np.ndarray) -> np.ndarray:
    """Largest minus smallest over the last axis, leaving out NaN; 0 where fewer than two values are left."""
    known = ~np.isnan(values)
    top = np.where(known, values, -np.inf).max(-1)
    bottom = np.where(known, values, np.inf).min(-1)
    return np.where(known.sum(-1) > 1, top - bottom, 0.0)


@dataclass(frozen=True)
class Objective:
    """Balanced accuracy of all images minus `weight` times the equalized-odds gap, for one threshold a group."""

    curves: tuple[Curve, ...]
    weight: float = 1.0

    def __call__(self, chosen: np.ndarray) -> np.ndarray:
        """Objective (S,) of S candidate choices `chosen`, int64 (S, G): indices into each group's thresholds."""
        balanced_accuracy, gap = self.parts(chosen)
        return balanced_accuracy - self.weight * gap

    def parts(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Balanced accuracy and equalized-odds gap, float64 (S,) each."""
        pairs = [(c, chosen[..., g]) for g, c in enumerate(self.curves)]
        found = np.stack([c.found[i] for c, i in pairs], -1)
        false = np.stack([c.false[i] for c, i in pairs], -1)
        true_positive = np.stack([rates(c.found[i], c.positives) for c, i in pairs], -1)
        false_positive = np.stack([rates(c.false[i], c.negatives) for c, i in pairs], -1)
        positives = sum(c.positives for c in self.curves)
        negatives = sum(c.negatives for c in self.curves)
        balanced_accuracy = (found.sum(-1) / positives + 1 - false.sum(-1) / negatives) / 2
        return balanced_accuracy, np.maximum(spread(true_positive), spread(false_positive))


def search(objective: Objective, *, grid: int = 64, starts: int = 32) -> np.ndarray:
    """Index of the threshold of each group that maximises the objective, int64 (G,).

    Every group is brought as near as its curve allows to a common target point (FPR, TPR); the target is swept over
    a `grid` x `grid` net. From the best `starts` of these, from the model's own thresholds and from the best single
    threshold, one group at a time is then set to its best threshold until nothing improves.
    """
    curves = objective.curves
    own = np.array([[np.searchsorted(c.threshold, 0.0) for c in curves]])
    swept = np.concatenate([nearest_to_targets(curves, grid), common(curves), own])
    order = np.argsort(-objective(swept), kind="stable")[:starts]
    candidates = np.unique(np.concatenate([swept[order], own]), axis=0)
    improved = np.array([ascend(objective, start) for start in candidates])
    return improved[np.argmax(objective(improved))]


def nearest_to_targets(curves: tuple[Curve, ...], grid: int) -> np.ndarray:
    """For every target (FPR, TPR) at or above the diagonal, the nearest threshold of each group, int64 (S, G)."""
    steps = np.linspace(0, 1, grid)
    targets = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    targets = targets[targets[:, 1] >= targets[:, 0]]
    chosen = []
    for c in curves:
        points = np.stack([rates(c.false, c.negatives), rates(c.found, c.positives)], -1)
        usable = ~np.isnan(points[0])  # a group of one class is matched on the rate that it has
        chosen.append(KDTree(points[:, usable]).query(targets[:, usable])[1])
    return np.stack(chosen, -1)


def common(curves: tuple[Curve, ...]) -> np.ndarray:
    """The same threshold for every group, one row for each distinct threshold of any group, int64 (S, G)."""
    values = np.unique(np.concatenate([c.threshold for c in curves]))
    return np.stack([np.clip(np.searchsorted(c.threshold, values), 0, len(c.threshold) - 1) for c in curves], -1)


def ascend(objective: Objective, start: np.ndarray, rounds: int = 50) -> np.ndarray:
    """Coordinate ascent: each group in turn takes its best threshold, the others held, until none moves."""
    chosen = start.copy()
    for _ in range(rounds):
        before = chosen.copy()
        for g, c in enumerate(objective.curves):
            trial = np.tile(chosen, (len(c.threshold) + 1, 1))
            trial[1:, g] = np.arange(len(c.threshold))  # row 0 keeps the present choice, which wins ties
            chosen = trial[np.argmax(objective(trial))]
        if np.array_equal(chosen, before):
            break
    return chosen
