"""GDRO: train the network on, the group x class cells with the largest loss counting most."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.debiasing.method import Batch, method
from helpers.debiasing.tuning import cell_weights, losses_of, passes, tune
from helpers.models.running import device_of


@method("GDRO", needs={"weights"}, passes=passes)
def gdro(
    model: nn.Module,
    batch: Batch,
    *,
    epochs: int = 6,
    lr: float = 1e-3,
    batch_size: int | None = 32,
    augment: str | None = "flip",
    step_size: float = 0.01,
    adjustment: float = 0.0,
) -> nn.Module:
    """Fine-tune for the worst cell by online group distributionally robust optimisation.

    Minimises max_q sum_g q_g (l_g + C / sqrt(n_g)) over distributions q on the group x class cells (eq. 4 and Section 3.3).
    With l_g the mean loss of the cell's images in the batch, each step first sets q_g to q_g exp(eta (l_g + C / sqrt(n_g))),
    normalised, and then descends along the gradient of sum_g q_g l_g (Algorithm 1). A cell that is not in the batch keeps
    its weight; batches are drawn so that every cell comes equally often, whatever its size n_g.

    Parameters
    ----------
    epochs, lr, batch_size, augment : see `tuning.steps`
    step_size : float > 0, eta
    adjustment : float >= 0, C: how much more small cells, which generalise worse, are to count

    Returns
    -------
    A copy of `model` with new weights. Frozen parameters stay as they are.

    Raises
    ------
    ValueError : an option outside its range, or a model all of whose parameters are frozen.

    References
    ----------
    Sagawa, Koh, Hashimoto & Liang, "Distributionally robust neural networks for group shifts: on the importance of
    regularization for worst-case generalization", ICLR 2020, arXiv 1911.08731.
    """
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size: got {step_size!r}; a finite number above 0 is accepted")
    if not 0 <= adjustment < math.inf:
        raise ValueError(f"adjustment: got {adjustment!r}; a finite number of 0 or more is accepted")
    cell = torch.from_numpy(batch.group * batch.classes + batch.y)
    sizes = torch.bincount(cell, minlength=batch.groups * batch.classes).float()
    worst = WorstCells(sizes.to(device_of(model)), step_size, adjustment)
    return tune(
        model,
        batch,
        lambda logits, target, group: worst(losses_of(logits, target), group * batch.classes + target),
        epochs=epochs, lr=lr, batch_size=batch_size, augment=augment, weights=cell_weights(batch), name="GDRO",
    )  # fmt: skip


class WorstCells:
    """The loss of a batch under adversarial weights of the cells, which it updates at every call.

    Parameters
    ----------
    sizes : float tensor (cells,), images of each; a cell of none takes no part
    step_size, adjustment : see `gdro`

    Attributes
    ----------
    q : tensor (cells,), the weights, which sum to 1
    """

    def __init__(self, sizes: Tensor, step_size: float = 0.01, adjustment: float = 0.0):
        occurs = (sizes > 0).to(sizes.dtype)
        self.step_size, self.extra = step_size, adjustment * occurs / sizes.clamp(min=1).sqrt()
        self.q = occurs / occurs.sum()

    def __call__(self, losses: Tensor, cell: Tensor) -> Tensor:
        """The weighted loss, a scalar, of `losses` (n,) of images from the cells `cell` (n,)."""
        member = F.one_hot(cell, len(self.q)).to(losses.dtype)
        count = member.sum(0)
        mean = losses @ member / count.clamp(min=1)
        grown = self.q * torch.exp(self.step_size * (mean.detach() + self.extra) * (count > 0))
        self.q = grown / grown.sum()
        return self.q.to(losses.dtype) @ mean
