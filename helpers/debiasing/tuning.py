"""What the methods that train the network have in common: which rows an epoch takes, and the steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from helpers.crew import Crew, whole_batch
from helpers.debiasing.dfr import equal_weights
from helpers.debiasing.method import Batch
from helpers.models.data_in import triple
from helpers.models.running import call, device_of
from helpers.models.synchronised import synchronised
from helpers.models.training import Objective, task_loss
from helpers.names import choose

AUGMENT = ("flip",)
WEIGHT_DECAY = 0.01
STEP = 3.5  # forward passes over its images that a step of training costs (ResNet-18, 64 px, one core: 3.4)
LARGEST_NORM = 1.0  # of the gradient: one odd batch does not throw a trained network off


def trainable(model: nn.Module) -> nn.Module:
    """A copy of `model` to train, laid out for fast convolutions.

    Raises
    ------
    ValueError : all its parameters are frozen.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("model: no parameter has requires_grad=True, so there is nothing to train")
    return copy.deepcopy(model).to(memory_format=torch.channels_last)


def tune(model: nn.Module, batch: Batch, loss: Objective, *, epochs: int, batch_size: int | None, **how) -> nn.Module:
    """A copy of `model` trained on for some passes; `loss(logits, target, group)` is a scalar, `how` goes to `steps`.

    Several processes share each batch; every one has all its logits, so that the loss is that of one process.
    """
    check_whole(epochs, "epochs")
    if batch_size is not None:
        check_whole(batch_size, "batch_size")
    tuned, size = trainable(model), size_of(batch, batch_size)
    each = len(batch) // size + (len(batch) % size > 1)
    crew = batch.crew or Crew(device_of(tuned))
    with synchronised(tuned, crew.size):
        running = tuned if crew.fabric is None else crew.fabric.setup(tuned)
        for images, target, group in steps(tuned, batch, count=epochs * each, batch_size=batch_size, **how):
            (logits,) = crew.whole(call(running, *crew.share(images, group)))
            with whole_batch():
                value = loss(logits, target, group)
            value.backward()
    return tuned


def passes(batch: Batch, *, epochs: int, **options) -> float:
    """What training for some epochs costs in forward passes over the batch."""
    return STEP * epochs


def plain(logits: Tensor, target: Tensor, group: Tensor) -> Tensor:
    """Mean cross-entropy, whatever the group."""
    return task_loss(logits, target)


def losses_of(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each image, (n,), of logits (n, K); binary cross-entropy of one logit."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, target, reduction="none")


def cell_weights(batch: Batch) -> np.ndarray:
    """Weight of each row, float64 (n,), such that every group x class cell that occurs counts equally."""
    return equal_weights(batch.group * batch.classes + batch.y)


def drawn(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """n row numbers in proportion to `weights` (n,): row i comes n w_i / sum(w) times, rounded up or down.

    Systematic sampling: with equal weights every row comes once, where independent draws would leave out a third.
    """
    order = rng.permutation(len(weights))
    ends = np.cumsum(weights[order])
    points = (np.arange(len(weights)) + rng.random()) * ends[-1] / len(weights)
    return order[np.searchsorted(ends, points, side="right").clip(max=len(weights) - 1)]


def steps(
    model: nn.Module,
    batch: Batch,
    *,
    count: int,
    lr: float,
    batch_size: int | None,
    augment: str | None,
    weights: np.ndarray | None = None,
    name: str = "tune",
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches (images, target, group) on the model's device; after each, a step along the gradients that the caller left.

    AdamW with a one-cycle learning rate, gradients clipped to a norm of 1. The model is in training mode meanwhile and
    in evaluation mode afterwards.

    Parameters
    ----------
    model : nn.Module, changed in place
    batch : Batch, the rows to draw from
    count : int, steps in all
    lr : float, the peak of the one-cycle schedule
    batch_size : int, or None for the loader's own
    augment : None, or "flip": each image is mirrored with probability 1/2
    weights : float (n,), how often each row is to come; None for once in every `n` images
    name : str, before the progress bar

    Raises
    ------
    ValueError : an option that is not as above (before the first batch).
    FloatingPointError : a gradient is NaN or infinite.
    """
    check_options(lr, batch_size, augment)
    batch.note_few("the network was")
    rng, device = np.random.default_rng(batch.seed), device_of(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=count)
    endless = batches(batch, batch_size, weights, rng)
    model.train()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for _ in tqdm(range(count), name, unit="batch", leave=False):
            images, target, group = next(endless)
            if augment == "flip":
                mirrored = torch.from_numpy(rng.random(len(images)) < 0.5)
                images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
            optimizer.zero_grad(set_to_none=True)
            images = images.to(device, parameters[0].dtype, memory_format=torch.channels_last)
            yield images, target.to(device), group.to(device)
            norm = nn.utils.clip_grad_norm_(parameters, LARGEST_NORM).item()
            if not math.isfinite(norm):
                raise FloatingPointError(
                    f"lr: a gradient became {norm} at {schedule.get_last_lr()[0]:.2g}; a smaller peak may help"
                )
            optimizer.step()
            schedule.step()
    model.eval()


def batches(batch: Batch, batch_size: int | None, weights: np.ndarray | None, rng: np.random.Generator) -> Iterator:
    """Batches (images, target, group), without an end, in a new order every time round.

    A last batch of one image is left out: batch normalisation has no variance from it.
    """
    size = size_of(batch, batch_size)
    while True:
        rows = np.arange(len(batch)) if weights is None else drawn(weights, rng)
        for part in batch.take(rows).loader(seed=int(rng.integers(2**31)), batch_size=size):
            images, target, group = triple(part)
            if len(images) > 1 or size == 1:
                yield images, target, group


def size_of(batch: Batch, batch_size: int | None) -> int:
    """How many images a step takes: the loader's own number by default, and never more than there are."""
    return min(batch_size or batch.data.batch_size, len(batch))


def perceptron(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers with rectifiers in between; one linear layer if there are no `hidden` widths."""
    widths = [inputs, *hidden, outputs]
    made = [nn.Linear(before, after) for before, after in pairwise(widths)]
    return nn.Sequential(*[part for layer in made for part in (layer, nn.ReLU())][:-1])


def rounds(
    batch: Batch, batch_size: int | None, passes: int, given: int | None, steps_each: int, argument: str = "iterations"
) -> int:
    """How many rounds of so many steps: as many as are `given`, or for None as make some passes over the images."""
    if given is not None:
        check_whole(given, argument)
        return given
    if batch_size is not None:
        check_whole(batch_size, "batch_size")
    return max(1, round(passes * len(batch) / (size_of(batch, batch_size) * steps_each)))


def check_whole(value, argument: str, least: int = 1) -> None:
    """ValueError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{argument}: got {value!r}; a whole number of at least {least} is accepted")


def check_share(value, argument: str) -> None:
    """ValueError unless `value` is a number from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{argument}: got {value!r}; a share from 0 to 1 is accepted")


def check_options(lr, batch_size, augment) -> None:
    """ValueError that names the option that `steps` does not take."""
    if not 0 < lr < math.inf:
        raise ValueError(f"lr: got {lr!r}; a finite number above 0 is accepted")
    if batch_size is not None:
        check_whole(batch_size, "batch_size")
    if augment is not None:
        choose(augment, AUGMENT, "augment")
