"""FAIRRET: train the network on with a fairness loss called as fairret's are."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

from torch import Tensor, nn

from helpers.debiasing.method import Batch, method
from helpers.debiasing.tuning import cell_weights, passes, tune
from helpers.losses import named
from helpers.models.running import device_of
from helpers.models.training import Task


@method("FAIRRET", needs={"weights"}, passes=passes)
def fairret(
    model: nn.Module,
    batch: Batch,
    *,
    loss: str | Callable[..., Tensor] = "kl",
    statistic: str = "equalized_odds",
    strength: float = 0.3,
    epochs: int = 6,
    lr: float = 1e-3,
    batch_size: int | None = 32,
    augment: str | None = "flip",
) -> nn.Module:
    """Fine-tune with cross-entropy plus a fairness regularisation term.

    Minimises mean cross-entropy + strength R(h, sens, label) (eq. 1), where R is a loss of `helpers.losses` of a
    linear-fractional statistic: by default the KL divergence of the nearest predictions that have equal true and equal
    false positive rates (eq. 8) from the model's. Batches are drawn so that every group x class cell comes equally often.

    Parameters
    ----------
    loss : a key of `helpers.losses.LOSSES`, or a callable `loss(logit, sens, label)` such as a loss made with its own
        options, of which a copy is used; see `helpers.train(fairness=…)`
    statistic : what is to become equal, see `helpers.losses.named`; not used with a loss of your own
    strength : float >= 0
    epochs, lr, batch_size, augment : see `tuning.steps`. Statistics of small batches are noisy: not below 32 or so

    Returns
    -------
    A copy of `model` with new weights. Frozen parameters stay as they are.

    Raises
    ------
    ValueError : an unknown loss or statistic, an option outside its range, or a model all of whose parameters are frozen.

    References
    ----------
    Buyl, Defrance & De Bie, "fairret: a framework for differentiable fairness regularization terms", ICLR 2024,
    arXiv 2310.17256.
    """
    made = named(loss, statistic) if isinstance(loss, str) else loss
    task = with_fairness(made, strength, model, batch)
    how = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "augment": augment}
    return tune(model, batch, task, weights=cell_weights(batch), name="FAIRRET", **how)


def with_fairness(loss: Callable[..., Tensor], strength: float, model: nn.Module, batch: Batch) -> Task:
    """Cross-entropy plus `strength` times a copy of `loss`, on the model's device, that remembers nothing yet."""
    if not callable(loss):
        raise ValueError(f"loss: got {loss!r}; a name or a callable (logit, sens, label) is accepted")
    if not 0 <= strength < math.inf:
        raise ValueError(f"strength: got {strength!r}; a finite number of 0 or more is accepted")
    loss = copy.deepcopy(loss)
    if isinstance(loss, nn.Module):
        loss.to(device_of(model)).train()
        for part in loss.modules():
            getattr(part, "reset", lambda: None)()
    return Task(loss, strength, batch.groups)
