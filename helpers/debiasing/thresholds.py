"""GT: a decision threshold of its own for every group."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from helpers.debiasing.curves import Objective, candidates, curve, search
from helpers.debiasing.method import Batch, method
from helpers.models.layers import append_after, edit


@edit
class GroupThresholds(nn.Module):
    """Logits shifted so that their argmax (or sign, for one logit) applies a threshold for each group.

    With s the score of class 1 (the logit, or the difference of two logits), a row of group g becomes positive
    where s > t_g; logits stay logits, and sigmoid or softmax of them stay strictly between 0 and 1.

    Parameters
    ----------
    logits : int, 1 or 2, width of the model's output
    thresholds : float (G,), t_g of each group code, on the scale of s; or G itself, for zeros to be filled in
    pooled : float, the threshold of rows whose group is not given or unknown

    Notes
    -----
    Called without `group`, every row gets the pooled threshold and a `UserWarning` says so (not while the model is
    being compiled or exported). A code outside 0 … G - 1 gets the pooled threshold too.
    """

    needs_group = True
    enabled = True

    def __init__(self, logits: int, thresholds: int | np.ndarray, pooled: float = 0.0):
        super().__init__()
        if logits not in (1, 2):
            raise ValueError(f"logits: {logits} outputs; thresholds by group are defined for 1 or 2")
        values = np.zeros(thresholds) if isinstance(thresholds, int) else np.asarray(thresholds, float)
        self.logits = logits
        # The last entry serves all rows without a known group, so that the forward pass has no branch on data.
        self.register_buffer("thresholds", torch.tensor([*values, pooled], dtype=torch.float32))
        self.register_buffer("share", torch.tensor([1.0] if logits == 1 else [-0.5, 0.5]))

    def config(self) -> dict:
        return {"logits": self.logits, "thresholds": len(self.thresholds) - 1}

    def forward(self, logits: Tensor, group: Tensor | None = None) -> Tensor:
        """`logits` (N, K), `group` int64 (N,) of codes or None -> shifted logits (N, K)."""
        if group is None:
            if not torch.compiler.is_compiling():
                warnings.warn(
                    "group: not given, so every image gets the pooled threshold and the correction by group is lost; "
                    "call model(images, group=codes)",
                    UserWarning,
                    stacklevel=2,
                )
            shift = self.thresholds[-1:].expand(len(logits))
        else:
            pooled = len(self.thresholds) - 1
            known = (group >= 0) & (group < pooled)
            shift = self.thresholds[torch.where(known, group, pooled)]
        return logits - (shift[:, None] * self.share).to(logits.dtype)


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
