"""A classifier that was fitted anew on edited features, put into the edit, so that the edit is all that changes."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from helpers.debiasing.dfr import as_logits, is_linear_head, regress, tuned
from helpers.debiasing.method import LEAST_CELL, Batch
from helpers.models.affine import LowRank
from helpers.models.intake import weights_of


def refitted(edit: LowRank, model: nn.Module, batch: Batch, retrain: bool | None) -> LowRank:
    """An edit right before the classifier, with what a regression on the edited features (that of DFR) makes of it.

    The edit as it is, where `retrain` is False, a linear classifier does not follow, or a class is missing from the batch; and
    for None also where a cell that occurs has fewer than `LEAST_CELL` images, which the result's note says.
    """
    if retrain is False or not is_linear_head(model, batch) or len(np.unique(batch.y)) < batch.classes:
        return edit
    if retrain is None and batch.smallest_cell < LEAST_CELL:
        few = f"a group has {batch.smallest_cell} images of a class, and {LEAST_CELL} are needed"
        batch.note(f"the classifier is left as it is: {few}")
        return edit
    with torch.no_grad():
        x = copy.deepcopy(edit).double()(batch.features("penultimate")[1].flatten(1).double()).numpy()
    cell, rng = batch.group * batch.classes + batch.y, np.random.default_rng(batch.seed)
    fitted = regress(x, batch.y, cell, tuned(x, batch.y, cell, rng), 0, rng)
    return reread(edit, model.get_submodule(batch.last), *fitted)


def reread(edit: LowRank, head: nn.Module, weight: np.ndarray, bias: np.ndarray) -> LowRank:
    """An edit after which a linear head, as it is, gives the logits of another one on the edited features.

    With r the edit, (W, w) the head and (V, v) the other one, both centred over the classes (what all logits have in common
    decides nothing), it is

        x -> r(x) + W^+ ((V - W) r(x) + v - w),

    again x minus something of low rank. It is affine in r(x), so what r erased stays erased; and the head keeps its weights, so
    that the model is as it was when the edit is switched off.

    Parameters
    ----------
    edit : LowRank on the d features that the head takes
    head : nn.Module with parameters `weight` (K, d) and maybe `bias` (K,)
    weight, bias : float (1, d) and (1,), or (K, d) and (K,): a regression on the edited features, as `dfr.regress` gives it

    Returns
    -------
    LowRank of the rank of `edit` and at most K more
    """
    W, w = (None if part is None else part.detach().double().cpu().numpy() for part in weights_of(head))
    V, v = as_logits(weight, bias, len(W))
    W, w, V, v = (part - part.mean(0) if len(W) > 1 else part for part in (W, np.zeros(len(W)) if w is None else w, V, v))
    mean, down, up = (part.double().cpu().numpy() for part in (edit.mean, edit.down, edit.up))
    inverse = np.linalg.pinv(W)
    basis, inner = np.linalg.qr(inverse)  # W^+ (V - W) without a d x d matrix
    left, size, right = np.linalg.svd(inner @ (V - W), full_matrices=False)
    kept = size > 1e-9 * size.max(initial=0)
    left, right = basis @ left[:, kept], size[kept, None] * right[kept]
    # x - (x - mean - shift)(down, more)(up, -left)^T is the sum above for a shift that the first term does not see.
    more = (right - right @ up @ down.T).T
    wanted = np.concatenate([np.zeros(down.shape[1]), -(right @ mean + left.T @ inverse @ (v - w))])
    shift = np.linalg.lstsq(np.concatenate([down.T, right]), wanted, rcond=None)[0]
    rank = down.shape[1] + more.shape[1]
    return LowRank(len(mean), rank, mean + shift, np.concatenate([down, more], 1), np.concatenate([up, -left], 1))
