"""The aim of Savani et al.: the best balanced accuracy that one threshold reaches while the bias is below epsilon.

Or, without a bound, the best compromise of the two that one threshold reaches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from helpers.debiasing.common_threshold import by_group
from helpers.debiasing.curves import candidates
from helpers.debiasing.method import Batch
from helpers.debiasing.objective import measured, statistics_of, useful, youden_and_gap
from helpers.debiasing.thresholds import score

MOST_THRESHOLDS = 200


@dataclass(frozen=True)
class Found:
    """What one threshold makes of a candidate's scores.

    Attributes
    ----------
    value : float; the balanced accuracy if the gap is below epsilon, else minus the gap, so that a candidate which keeps
        the bound is above every one that does not, and among the latter the smaller gap is better; without a bound,
        (2 A - 1) (1 - D)^3
    threshold : float, on the scale of the score
    gap, accuracy : float
    """

    value: float
    threshold: float = 0.0
    gap: float = math.nan
    accuracy: float = math.nan


@dataclass(frozen=True)
class Phi:
    """phi(scores) = max over thresholds of the balanced accuracy, where the gap is below epsilon (Eq. 1 and Algorithm 1).

    With epsilon None, max over thresholds of (2 A - 1) (1 - D)^3, A the balanced accuracy and D the gap.
    """

    batch: Batch
    metric: str
    epsilon: float | None

    def __post_init__(self):
        statistics_of(self.metric)
        if self.epsilon is not None and not 0 < self.epsilon <= 1:
            raise ValueError(f"epsilon: got {self.epsilon!r}; a number above 0 and at most 1, or None, is accepted")

    def __call__(self, logits: Tensor) -> Found:
        """The best threshold for logits (n, K); value -inf where every one leaves (nearly) all images in one class."""
        scores = score(logits)
        if not np.isfinite(scores).all():
            return Found(-math.inf)
        grid = candidates(scores, MOST_THRESHOLDS)
        cells = by_group(scores, self.batch, grid)
        rows = np.flatnonzero(useful(cells))
        if len(rows) == 0:
            return Found(-math.inf)
        gap, accuracy = measured(cells[..., rows], self.metric)
        if self.epsilon is None:
            value = youden_and_gap(gap, accuracy)
        else:
            value = np.where(gap < self.epsilon, accuracy, -gap)
        best = int(np.argmax(value))
        return Found(float(value[best]), float(grid[rows[best]]), float(gap[best]), float(accuracy[best]))

    def report(self, found: Found) -> None:
        """Note where the bound was not kept; ValueError where there is no candidate at all."""
        if found.value == -math.inf:
            raise ValueError("logits: no candidate tells images apart, every one predicts a single class")
        if self.epsilon is not None and found.value < 0:
            self.batch.note(
                f"epsilon: no candidate has a gap below {self.epsilon:g}; the one with the smallest, {found.gap:.3f}, is taken"
            )

