"""P-ClArC: project the direction of the group out of the features."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from helpers.debiasing.cav import directions
from helpers.debiasing.method import Batch, method
from helpers.models.layers import LowRank, append_after


@method("PCLARC", needs={"features"})
def pclarc(
    model: nn.Module,
    batch: Batch,
    *,
    layer: str = "penultimate",
    cav_type: str = "signal",
    reference: int | str = "balanced",
) -> nn.Module:
    """Project the groups' concept vectors out of the features of a layer (projective ClArC).

    With V an orthonormal basis of the concept vectors, the edit is h(x) = x - V V^T (x - z) (Eq. 7, there with one
    vector v / |v|): along V every image gets the value that the reference z has there.

    Parameters
    ----------
    layer : str, "penultimate", "last" or a layer's name
    cav_type : "signal", "mean_difference", "ridge", "logistic", "svm" or "lda"
    reference : "balanced" or the code of a group. A code takes that group's mean as z, as in the paper, where one
        group is free of the artefact. No group of people is; sending everybody to one group's mean also passes
        that group's bias on to everybody, down to a constant prediction. "balanced" takes the middle: the mean
        of the group x class cells, each counted equally.

    Returns
    -------
    A copy of `model` with a `LowRank` edit after the layer.

    Raises
    ------
    ValueError : unknown `cav_type` or `reference`, or features that do not differ between groups.

    References
    ----------
    Anders et al., "Finding and removing Clever Hans: using explanation methods to debug and improve deep models",
    Information Fusion 77, 2022.
    """
    name, features = batch.features(layer)
    x = features.double().numpy()
    basis = directions(x, batch.group, cav_type, batch.seed)
    left = torch.from_numpy(basis).float()
    z = torch.from_numpy(reference_point(x, batch, reference)).float()
    return append_after(model, name, LowRank(left, left.T.contiguous(), z))


def reference_point(x: np.ndarray, batch: Batch, reference: int | str) -> np.ndarray:
    """The point z (d,) whose value along the concept every image is given."""
    if reference == "balanced":
        cells = batch.group * batch.classes + batch.y
        return np.mean([x[cells == cell].mean(0) for cell in np.unique(cells)], axis=0)
    if isinstance(reference, str) or reference not in batch.group:
        raise ValueError(f"reference: {reference!r} is neither 'balanced' nor one of {np.unique(batch.group).tolist()}")
    return x[batch.group == reference].mean(0)
