"""LEACE: the smallest affine edit after which no linear probe finds the group."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from helpers.debiasing.method import Batch, method
from helpers.debiasing.reading import rows
from helpers.debiasing.reread import refitted
from helpers.models.affine import LowRank
from helpers.models.layers import append_after

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # the package compiles a part not used here with torch.jit
    from concept_erasure import LeaceFitter

WIDEST = 8192  # a covariance of 8192 x 8192 doubles is 0.5 GB; wider layers need another method


@method("LEACE", needs={"features"})
def leace(
    model: nn.Module, batch: Batch, *, layer: str = "penultimate", shrinkage: bool = True, retrain: bool | None = None
) -> nn.Module:
    """Erase the group linearly from the features of a layer (LEACE).

    With Z the one-hot group, W = Sigma_xx^(-1/2) and P the orthogonal projection onto the column space of
    W Sigma_xz, the edit is r(x) = x - W^+ P W (x - E[x]) (Theorem 4.3). Afterwards every group has the same mean
    feature, which is equivalent to no linear probe beating the best constant guess. Where target and group go
    together in the batch, that erases the target's difference too: fit on rows in which they are unrelated.

    Parameters
    ----------
    layer : str, "penultimate", "last" or a layer's name; at a map the edit acts on the channels of every position
    shrinkage : bool, shrink Sigma_xx towards a multiple of the identity (steadier when rows are few); the
        group means are equal either way, only the size of the change differs
    retrain : bool or None, fit the classifier anew to the erased features, by the regression of DFR; where the edit stands
        right before a linear classifier, which has learned from what is erased. What it changes is put into the edit
        (`refitted`). None does so where every group has 50 images of every class

    Returns
    -------
    A copy of `model` with a `LowRank` edit after the layer, of rank at most groups - 1, and as many more as there are outputs
    if the classifier is fitted anew.

    Raises
    ------
    ValueError : the layer's output is wider than 8192.

    References
    ----------
    Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023, arXiv 2306.03819.
    """
    name, parts = rows(batch, layer)
    group = torch.from_numpy(batch.group)

    def checked():
        for features, image in parts:
            if features.shape[1] > WIDEST:
                raise ValueError(
                    f"layer: {name!r} has {features.shape[1]} features; LEACE's covariance is limited to {WIDEST}"
                )
            yield features, group[torch.from_numpy(image)]

    edit = fit_eraser(checked(), batch.groups, shrinkage)
    return append_after(model, name, refitted(edit, model, batch, retrain) if name == batch.layer else edit)


def fit_eraser(parts: Iterable[tuple[Tensor, Tensor]], groups: int, shrinkage: bool = True) -> LowRank:
    """The edit that makes the mean of every group the same, of rank at most groups - 1.

    Parameters
    ----------
    parts : pairs of features (m, d) and groups int64 (m,) in 0 … `groups` - 1
    """
    fitter = None
    for features, group in parts:
        fitter = fitter or LeaceFitter(
            features.shape[1],
            groups,
            dtype=torch.float64,
            shrinkage=shrinkage,
            svd_tol=1e-6,  # the default of 0.01 would keep the direction of a small group
            constrain_cov_trace=False,  # its mixture with an orthogonal projection leaves group means unequal
        )
        fitter.update(features, nn.functional.one_hot(group, groups))
    fitted = fitter.eraser
    used = fitted.proj_right.abs().sum(1) > 0
    down, up = fitted.proj_right[used].T, fitted.proj_left[:, used]
    return LowRank(len(fitted.bias), int(used.sum()), fitted.bias, down, up)
