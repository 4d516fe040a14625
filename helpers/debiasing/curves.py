"""Counts at every threshold, and the search for one threshold a group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree

from helpers.bias.statistics import STATISTICS

LABEL = torch.tensor([[0.0], [0.0], [1.0], [1.0]], dtype=torch.float64)  # the four cells of a binary table …
PREDICTION = torch.tensor([[0.0], [1.0], [0.0], [1.0]], dtype=torch.float64)  # … as four weighted rows


def rate(name: str, cells: np.ndarray) -> np.ndarray:
    """The statistic `name` of every column of `cells`, counts (4, S) in the order of `LABEL`: float64 (S,)."""
    weights = torch.from_numpy(np.ascontiguousarray(cells, dtype=np.float64))
    return STATISTICS[name](PREDICTION, weights, LABEL).numpy()


@dataclass(frozen=True)
class Curve:
    """One group's counts at candidate thresholds: images with score > threshold[i] are predicted positive.

    Attributes
    ----------
    threshold : float64 (m,), ascending; from below all scores to above all
    cells : int64 (4, m), images by (label, prediction): (0, 0), (0, 1), (1, 0), (1, 1)
    found, false : float64 (m,), true and false positive rate; NaN where the group has no image of that class
    """

    threshold: np.ndarray
    cells: np.ndarray
    found: np.ndarray
    false: np.ndarray


def candidates(score: np.ndarray, at_most: int = 1000) -> np.ndarray:
    """Thresholds midway between neighbouring scores (n,), one below all, one above all and 0, the model's own.

    More than `at_most` are thinned to quantiles.
    """
    values = np.unique(np.asarray(score, np.float64))
    middle = (values[1:] + values[:-1]) / 2
    if len(middle) > at_most:
        middle = middle[np.linspace(0, len(middle) - 1, at_most).round().astype(int)]
    return np.unique(np.concatenate([middle, [values[0] - 1, 0.0, values[-1] + 1]]))


def counts(score: np.ndarray, y: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Images of a group by (label, prediction) at the thresholds (m,), int64 (4, m), in the order of `LABEL`."""
    cells = []
    for label in (0, 1):
        of_label = np.sort(np.asarray(score, np.float64)[y == label])
        below = np.searchsorted(of_label, threshold, side="right")
        cells += [below, len(of_label) - below]
    return np.stack(cells)


def curve(score: np.ndarray, y: np.ndarray, threshold: np.ndarray) -> Curve:
    """The `Curve` of a group's scores (n,) and labels (n,) in {0, 1} at the thresholds (m,)."""
    cells = counts(score, y, threshold)
    return Curve(threshold, cells, rate("true_positive_rate", cells), rate("false_positive_rate", cells))


def spread(values: np.ndarray) -> np.ndarray:
    """Largest minus smallest over the last axis, leaving out NaN; 0 where fewer than two values are left."""
    known = ~np.isnan(values)
    top = np.where(known, values, -np.inf).max(-1)
    bottom = np.where(known, values, np.inf).min(-1)
    return np.where(known.sum(-1) > 1, top - bottom, 0.0)


@dataclass(frozen=True)
class Objective:
    """(2 balanced accuracy - 1) (1 - equalized-odds gap)^weight, for one threshold a group.

    A product, because a difference of the two would put a constant prediction (0.5 and no gap) above every useful
    model whose gap cannot be closed; here a constant scores 0.
    """

    curves: tuple[Curve, ...]
    weight: float = 3.0

    def __call__(self, chosen: np.ndarray) -> np.ndarray:
        """Objective (S,) of S candidate choices `chosen`, int64 (S, G): indices into each group's thresholds."""
        balanced_accuracy, gap = self.parts(chosen)
        return (2 * balanced_accuracy - 1) * (1 - gap) ** self.weight

    def parts(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Balanced accuracy and equalized-odds gap, float64 (S,) each."""
        pairs = list(zip(self.curves, np.asarray(chosen).T, strict=True))
        balanced_accuracy = rate("balanced_accuracy", sum(c.cells[:, i] for c, i in pairs))
        found = spread(np.stack([c.found[i] for c, i in pairs], -1))
        false = spread(np.stack([c.false[i] for c, i in pairs], -1))
        return balanced_accuracy, np.maximum(found, false)


def search(objective: Objective, *, grid: int = 64, starts: int = 32) -> np.ndarray:
    """Index of the threshold of each group that maximises the objective, int64 (G,).

    Every group is brought as near as its curve allows to a common target point (FPR, TPR); the target is swept over
    a `grid` x `grid` net. From the best `starts` of these and from the model's own thresholds, one group at a time
    is then set to its best threshold until nothing improves. On small problems this finds the exhaustive optimum.
    """
    curves = objective.curves
    own = np.array([[np.searchsorted(c.threshold, 0.0) for c in curves]])
    swept = nearest_to_targets(curves, grid)
    best = np.argsort(-objective(swept), kind="stable")[:starts]
    improved = np.array([ascend(objective, start) for start in np.unique(np.concatenate([own, swept[best]]), axis=0)])
    return improved[np.argmax(objective(improved))]


def nearest_to_targets(curves: tuple[Curve, ...], grid: int) -> np.ndarray:
    """For every target (FPR, TPR) at or above the diagonal, the nearest threshold of each group, int64 (S, G)."""
    steps = np.linspace(0, 1, grid)
    targets = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    targets = targets[targets[:, 1] >= targets[:, 0]]
    chosen = []
    for c in curves:
        points = np.stack([c.false, c.found], -1)
        usable = ~np.isnan(points[0])  # a group of one class is matched on the rate that it has
        chosen.append(KDTree(points[:, usable]).query(targets[:, usable])[1])
    return np.stack(chosen, -1)


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
