"""GT: a decision threshold of its own for every group."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from helpers.debiasing.curves import Objective, candidates, curve, rate, search
from helpers.debiasing.inference import by_inferred_group
from helpers.debiasing.method import Batch, method
from helpers.debiasing.mixing import equal_rates
from helpers.debiasing.objective import check_binary
from helpers.models.group_thresholds import GroupThresholds
from helpers.models.layers import append_after
from helpers.models.randomised_thresholds import RandomisedThresholds
from helpers.names import choose

GROUP = ("given", "inferred")
LEAST_GAIN = 0.02  # of TPR over FPR: with less a prediction says next to nothing


@method("GT", needs={"logits", "binary"})
def group_thresholds(
    model: nn.Module, batch: Batch, *, gap_weight: float = 3.0, randomised: bool = False, group: str = "given"
) -> nn.Module:
    """Choose a threshold for every group so that true and false positive rates agree (equalized odds).

    Maximises (2 A - 1) (1 - D)^gap_weight over deterministic thresholds t_g, with A the balanced accuracy of all images
    and D the larger of the spreads (largest minus smallest over groups) of TPR_g and FPR_g. Hardt et al.
    (Section 4.2) meet the constraint exactly by mixing thresholds at random; a deterministic rule treats the
    same image alike every time and leaves a small gap.

    Parameters
    ----------
    gap_weight : float >= 0; 0 maximises accuracy alone. At 3 and a balanced accuracy of 0.83, closing the gap by
        0.01 is worth 0.01 of balanced accuracy; less of it where the accuracy is low already
    randomised : bool; True mixes up to three thresholds for each group so that D = 0 on the images to fit on, at the best
        A that allows for (a linear program; see `mixing.equal_rates`). The draw is a function of the image's own
        score, so that the same image is always treated alike; see `RandomisedThresholds`. `gap_weight` plays no part.
    group : "given", the model that comes back is called with the group; or "inferred", a linear probe reads it from the
        features before the classifier (as OxonFair does with a second head) and no group is needed

    Returns
    -------
    A copy of `model` followed by `GroupThresholds` or `RandomisedThresholds`, called `model(images, group=codes)`; or
    one with an `InferredThresholds` edit before its classifier, called `model(images)`.

    Raises
    ------
    ValueError : more than two classes, a class missing from the batch, an option that is not as above, randomised
        thresholds by inferred group; for "inferred", a last layer that is no `nn.Linear` fed by the penultimate layer.

    References
    ----------
    Hardt, Price & Srebro, "Equality of opportunity in supervised learning", NeurIPS 2016, arXiv 1610.02413.
    Delaney et al., "OxonFair: a flexible toolkit for algorithmic fairness", NeurIPS 2024, arXiv 2407.13710.
    """
    if not gap_weight >= 0:
        raise ValueError(f"gap_weight: got {gap_weight}; 0 or more is accepted")
    group = choose(group, GROUP, "group")
    if randomised and group == "inferred":
        raise ValueError('randomised: True is accepted with group="given" only')
    check_binary(batch)
    scores, width = score(batch.logits), batch.logits.shape[1]
    if group == "inferred":
        return by_inferred_group(model, batch, scores, common(scores, batch.y), gap_weight)
    if randomised:
        return append_after(model, "", mixed(scores, batch, width))
    thresholds, pooled = fit_thresholds(scores, batch.y, batch.group, batch.groups, gap_weight)
    return append_after(model, "", GroupThresholds(width, thresholds, pooled))


def mixed(scores: np.ndarray, batch: Batch, width: int) -> RandomisedThresholds:
    """The edit that draws thresholds with which all groups have the same rates."""
    present = np.unique(batch.group)
    rows = [batch.group == g for g in present]
    curves = tuple(curve(scores[r], batch.y[r], candidates(scores[r], len(scores))) for r in rows)
    thresholds, weights, false, found = equal_rates(curves)
    if found - false < LEAST_GAIN:
        raise ValueError(
            f"randomised: the rates that all groups can share, TPR {found:.3f} and FPR {false:.3f}, are no better than chance; "
            "thresholds that differ a little (randomised=False) may do"
        )
    pooled = common(scores, batch.y)
    most = max(map(len, thresholds))
    values, share = np.full((batch.groups, most), pooled), np.eye(1, most).repeat(batch.groups, 0)
    for g, own, weight in zip(present, thresholds, weights, strict=True):
        values[g], share[g] = own[-1], 0
        values[g, : len(own)], share[g, : len(own)] = own, weight
    return RandomisedThresholds(width, values, share, pooled, float(scores.std()) or 1.0, batch.seed)


def score(logits: Tensor) -> np.ndarray:
    """Score of class 1, float64 (N,): the single logit, or the second minus the first."""
    logits = logits.double()
    return (logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]).numpy()


def common(scores: np.ndarray, y: np.ndarray) -> float:
    """The one threshold of best balanced accuracy."""
    everybody = curve(scores, y, candidates(scores))
    return float(everybody.threshold[np.argmax(rate("balanced_accuracy", everybody.cells))])


def fit_thresholds(
    scores: np.ndarray, y: np.ndarray, group: np.ndarray, groups: int, gap_weight: float = 3.0
) -> tuple[np.ndarray, float]:
    """Threshold of each group (G,), and the common one of best balanced accuracy, which a group without images gets."""
    pooled = common(scores, y)
    present = [g for g in range(groups) if (group == g).any()]
    rows = [group == g for g in present]
    own = Objective(tuple(curve(scores[r], y[r], candidates(scores[r])) for r in rows), gap_weight)
    thresholds = np.full(groups, pooled)
    thresholds[present] = [c.threshold[i] for c, i in zip(own.curves, search(own), strict=True)]
    return thresholds, pooled
