"""GT: a decision threshold of its own for every group."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from helpers.debiasing.curves import Objective, candidates, curve, search
from helpers.debiasing.method import Batch, method
from helpers.models.group_thresholds import GroupThresholds
from helpers.models.layers import append_after


@method("GT", needs={"logits", "binary"})
def group_thresholds(model: nn.Module, batch: Batch, *, gap_weight: float = 3.0) -> nn.Module:
    """Choose a threshold for every group so that true and false positive rates agree (equalized odds).

    Maximises (2 A - 1) (1 - D)^gap_weight over deterministic thresholds t_g, with A the balanced accuracy of all images
    and D the larger of the spreads (largest minus smallest over groups) of TPR_g and FPR_g. Hardt et al.
    (Section 4.2) meet the constraint exactly by mixing two thresholds at random; a deterministic rule treats the
    same image alike every time and leaves a small gap.

    Parameters
    ----------
    gap_weight : float >= 0; 0 maximises accuracy alone. At 3 and a balanced accuracy of 0.83, closing the gap by
        0.01 is worth 0.01 of balanced accuracy; less of it where the accuracy is low already

    Returns
    -------
    A copy of `model` followed by `GroupThresholds`, called `model(images, group=codes)`.

    Raises
    ------
    ValueError : more than two classes, a class missing from the batch, or a negative `gap_weight`.

    References
    ----------
    Hardt, Price & Srebro, "Equality of opportunity in supervised learning", NeurIPS 2016, arXiv 1610.02413.
    """
    if not gap_weight >= 0:
        raise ValueError(f"gap_weight: got {gap_weight}; 0 or more is accepted")
    if batch.classes > 2:
        raise ValueError(f"target: {batch.classes} classes; thresholds by group are defined for two")
    if len(np.unique(batch.y)) < 2:
        raise ValueError("target: one class only in the images to fit on; thresholds need both")
    thresholds, pooled = fit_thresholds(score(batch.logits), batch.y, batch.group, batch.groups, gap_weight)
    return append_after(model, "", GroupThresholds(batch.logits.shape[1], thresholds, pooled))


def score(logits: Tensor) -> np.ndarray:
    """Score of class 1, float64 (N,): the single logit, or the second minus the first."""
    logits = logits.double()
    return (logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]).numpy()


def fit_thresholds(
    scores: np.ndarray, y: np.ndarray, group: np.ndarray, groups: int, gap_weight: float = 3.0
) -> tuple[np.ndarray, float]:
    """Threshold of each group (G,), and the common one of best balanced accuracy, which a group without images gets."""
    common = candidates(scores)
    present = [g for g in range(groups) if (group == g).any()]
    rows = [group == g for g in present]
    everybody = Objective((curve(scores, y, common),), weight=0)
    pooled = float(common[np.argmax(everybody(np.arange(len(common))[:, None]))])
    own = Objective(tuple(curve(scores[r], y[r], candidates(scores[r])) for r in rows), gap_weight)
    thresholds = np.full(groups, pooled)
    thresholds[present] = [c.threshold[i] for c, i in zip(own.curves, search(own), strict=True)]
    return thresholds, pooled
