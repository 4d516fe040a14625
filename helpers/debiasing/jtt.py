"""JTT: train the network on, what it gets wrong counting more; no group is looked at."""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from helpers.debiasing.method import Batch, method
from helpers.debiasing.tuning import STEP, plain, tune
from helpers.models.prediction import hard


@method("JTT", needs={"logits", "weights"}, passes=lambda batch, epochs, identify_epochs, **_: STEP * (epochs + identify_epochs))
def jtt(
    model: nn.Module,
    batch: Batch,
    *,
    epochs: int = 6,
    lr: float = 1e-3,
    batch_size: int | None = 32,
    augment: str | None = "flip",
    upweight: float | None = None,
    identify_epochs: int = 0,
) -> nn.Module:
    """Fine-tune with the images that a plainly trained model gets wrong upweighted (just train twice).

    With E the images that the identification model gets wrong, minimises lambda sum_{i in E} l_i + sum_{i not in E} l_i
    (eq. 3), by drawing those of E lambda times as often. A biased model errs where target and group are not as they
    usually are, so its errors stand for the groups, which this method never sees.

    Parameters
    ----------
    epochs, lr, batch_size, augment : see `tuning.steps`
    upweight : float > 0, lambda; None makes the errors together count as much as the rest: lambda = (n - |E|) / |E|. The
        paper's 20 to 100 are for training sets with a few per cent of errors
    identify_epochs : int; 0 takes the errors of `model` itself, which has been plainly trained already. Otherwise those of a
        copy that is first trained on plainly for so many epochs, as is needed for images on which the model was not trained
        to its task

    Returns
    -------
    A copy of `model` with new weights. Frozen parameters stay as they are. If there are no errors, or nothing else, all
    images count equally, and the result's note says so.

    Raises
    ------
    ValueError : an option outside its range, or a model all of whose parameters are frozen.

    References
    ----------
    Liu, Haghgoo, Chen, Raghunathan, Koh, Sagawa, Liang & Finn, "Just train twice: improving group robustness without
    training group information", ICML 2021, arXiv 2107.09044.
    """
    if upweight is not None and not 0 < upweight < math.inf:
        raise ValueError(f"upweight: got {upweight!r}; a finite number above 0, or None, is accepted")
    if not isinstance(identify_epochs, (int, np.integer)) or identify_epochs < 0:
        raise ValueError(f"identify_epochs: got {identify_epochs!r}; a whole number of 0 or more is accepted")
    how = {"lr": lr, "batch_size": batch_size, "augment": augment}
    logits = batch.logits
    if identify_epochs:
        logits = batch.of(tune(model, batch, plain, epochs=identify_epochs, name="JTT identifies", **how)).logits
    wrong = hard(logits.numpy()) != batch.y
    if wrong.all() or not wrong.any():
        batch.note(f"{'every' if wrong.any() else 'no'} image is an error: all count equally, as in fine-tuning")
    weights = error_weights(wrong, upweight)
    return tune(model, batch, plain, epochs=epochs, weights=weights, name="JTT", **how)


def error_weights(wrong: np.ndarray, upweight: float | None) -> np.ndarray:
    """Weight of each row, float64 (n,): `upweight` where `wrong` (bool (n,)), 1 elsewhere."""
    errors = int(wrong.sum())
    if errors in (0, len(wrong)):
        return np.ones(len(wrong))
    return np.where(wrong, (len(wrong) - errors) / errors if upweight is None else upweight, 1.0)
