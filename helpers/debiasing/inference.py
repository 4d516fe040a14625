"""Thresholds by a group that is read from the image: the probe, and the search that allows for its errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import nn

from helpers.debiasing.curves import Objective, candidates, counts, curve, rate, search, spread
from helpers.debiasing.dfr import check_last_layer, equal_weights
from helpers.debiasing.method import Batch
from helpers.models.inferred_thresholds import InferredThresholds
from helpers.models.layers import append_after

FOLDS = 5


@dataclass(frozen=True)
class InferredObjective(Objective):
    """`Objective` where thresholds go by inferred group, and gaps are between true groups.

    Attributes
    ----------
    curves : for each inferred group, the curve of its images
    cells : for each inferred group, int64 (G, 4, m): the counts of its images by true group
    """

    cells: tuple[np.ndarray, ...] = ()

    def parts(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = sum(cells[..., i] for cells, i in zip(self.cells, np.asarray(chosen).T, strict=True))
        groups, _, candidates = total.shape
        flat = np.moveaxis(total, 0, 1).reshape(4, -1)
        gaps = [spread(rate(f"{sign}_positive_rate", flat).reshape(groups, candidates).T) for sign in ("true", "false")]
        return rate("balanced_accuracy", total.sum(0)), np.maximum(*gaps)


def by_inferred_group(model: nn.Module, batch: Batch, scores: np.ndarray, pooled: float, gap_weight: float) -> nn.Module:
    """A copy of `model` with an `InferredThresholds` edit before the classifier.

    The probe is a logistic regression of the group on standardised features, every group x class cell having the same
    total weight. Thresholds are chosen with the groups that it infers for images left out of its fit (5 folds), so that
    they allow for the errors that it makes on new images.
    """
    features = batch.features("penultimate")[1].flatten(1)
    check_last_layer(model, batch)
    x, codes = features.double().numpy(), np.unique(batch.group)
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-8 * (scale.max() or 1.0), scale, 1.0)
    standard, weights = (x - mean) / scale, equal_weights(batch.group * batch.classes + batch.y)
    probe = LogisticRegression(C=0.01, max_iter=1000, tol=1e-3)
    folds = min(FOLDS, np.bincount(batch.group)[codes].min())
    if folds < 2:
        raise ValueError("group: a group of one image; inferring the group needs two of each to be tried out")
    shuffled = StratifiedKFold(folds, shuffle=True, random_state=batch.seed)
    inferred = cross_val_predict(probe, standard, batch.group, cv=shuffled, params={"sample_weight": weights})
    seen = np.unique(inferred)
    rows = [inferred == code for code in seen]
    grids = [candidates(scores[r]) for r in rows]
    curves = tuple(curve(scores[r], batch.y[r], grid) for r, grid in zip(rows, grids, strict=True))
    cells = tuple(
        np.stack([counts(scores[r & (batch.group == g)], batch.y[r & (batch.group == g)], grid) for g in codes])
        for r, grid in zip(rows, grids, strict=True)
    )
    chosen = search(InferredObjective(curves, gap_weight, cells))
    probe.fit(standard, batch.group, sample_weight=weights)
    weight, bias = probe.coef_ / scale, probe.intercept_
    bias = bias - weight @ mean
    if len(codes) == 2:  # one row of scores: of the second group against the first
        weight, bias = np.concatenate([0 * weight, weight]), np.append(0.0, bias)
    found = {code: c.threshold[i] for code, c, i in zip(seen, curves, chosen, strict=True)}
    thresholds = np.array([found.get(code, pooled) for code in codes])
    out = model.get_submodule(batch.last).weight.detach().double().cpu()
    w = (out[0] if len(out) == 1 else out[1] - out[0]).numpy()
    if not w.any():
        raise ValueError("last layer: its weights are the same for both classes, so there is no threshold to move")
    edit = InferredThresholds(x.shape[1], len(codes), weight, bias, thresholds, w / (w @ w))
    return append_after(model, batch.layer, edit)

