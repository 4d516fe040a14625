"""FINETUNE: train the network on, every group x class cell counting equally."""

from __future__ import annotations

from torch import nn

from helpers.debiasing.method import Batch, method
from helpers.debiasing.tuning import cell_weights, passes, plain, tune


@method("FINETUNE", needs={"weights"}, passes=passes)
def finetune(
    model: nn.Module,
    batch: Batch,
    *,
    epochs: int = 6,
    lr: float = 1e-3,
    batch_size: int | None = 32,
    augment: str | None = "flip",
    balanced: bool = True,
) -> nn.Module:
    """Train the whole network on with cross-entropy, every group x class cell counting equally.

    Minimises sum_g mean_{i in g} l_i over the cells g that occur, by drawing batches in which they come equally often: what
    bound target and group together in the training data does not pay any more. The plainest of the methods that train, and
    the yardstick for the others.

    Parameters
    ----------
    epochs : int, passes; each takes as many images as there are, rare cells several times and frequent ones in part
    lr, batch_size, augment : see `tuning.steps`
    balanced : bool; False takes the images as they are, every one once a pass

    Returns
    -------
    A copy of `model` with new weights. Frozen parameters stay as they are.

    Raises
    ------
    ValueError : an option outside its range, or a model all of whose parameters are frozen.

    References
    ----------
    Idrissi, Arjovsky, Pezeshki & Lopez-Paz, "Simple data balancing achieves competitive worst-group-accuracy", CLeaR 2022,
    arXiv 2110.14503, on balanced draws.
    """
    how = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "augment": augment}
    return tune(model, batch, plain, weights=cell_weights(batch) if balanced else None, name="FINETUNE", **how)
