"""SAVANIAFT: train the network on against a critic that foretells the bias of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.debiasing.common_threshold import by_group, shifted
from helpers.debiasing.curves import candidates, spread
from helpers.debiasing.method import Batch, method
from helpers.debiasing.objective import measured, youden_and_gap
from helpers.debiasing.result import metric_name
from helpers.debiasing.thresholds import score
from helpers.debiasing.tuning import (
    STEP,
    cell_weights,
    check_share,
    check_whole,
    drawn,
    perceptron,
    rounds,
    size_of,
    steps,
    trainable,
)
from helpers.models.data_in import batches
from helpers.models.intake import take
from helpers.models.prediction import hard
from helpers.models.running import call, device_of
from helpers.models.training import task_loss

PASSES = 3
CRITERIA = ("equalized_odds", "demographic_parity")
WIDTH = 32  # of the critic's embedding of an image
POOL = 256  # images from whose activations its minibatches are drawn, anew every round
MINIBATCH = 64  # images on which it learns a bias: the gap that a fair model shows on a few is mostly chance


def passes(batch: Batch, *, iterations: int, model_iterations: int | None, batch_size: int | None, **options) -> float:
    """What the training costs in forward passes over the batch; `model_iterations` None stands for `PASSES` passes in all."""
    if model_iterations is None:
        return STEP * PASSES
    return STEP * iterations * model_iterations * size_of(batch, batch_size) / len(batch)


@method("SAVANIAFT", needs={"features", "logits"}, passes=passes)
def savani_aft(
    model: nn.Module,
    batch: Batch,
    *,
    bias_metric: str = "equalized_odds",
    epsilon: float = 0.05,
    lam: float = 1.0,
    delta: float = 0.01,
    iterations: int = 5,
    model_iterations: int | None = None,
    critic_iterations: int = 100,
    warm_up: float = 0.6,
    lr: float = 1e-3,
    critic_lr: float = 1e-2,
    critic_linear: tuple[int, ...] = (32,),
    batch_size: int | None = 16,
    augment: str | None = "flip",
) -> nn.Module:
    """Adversarial fine-tuning: a critic learns how biased the model is on a batch, and the model to please it.

    In each of `iterations` rounds the critic g is fitted to the bias mu of the model's decisions on minibatches, from the
    activations f'(X) of the penultimate layer, by minimising (g(f'(X)) - mu)^2; then the model takes `model_iterations`
    steps down

        max{1, lam (|g(f'(X))| - epsilon + delta) + 1} CE(f(X), y)

    (Algorithm 3). The first rounds have no critic, so that the few passes first undo what the network has confused. At the end
    one threshold for everybody is chosen, as in all methods of the paper; here as `NT` does.
    The paper's critic takes a minibatch as one long row and so depends on the order of its images; this one takes the means
    over each group x class cell of an embedding of the activations.

    Parameters
    ----------
    bias_metric : "equalized_odds" or "demographic_parity": the largest difference between groups in the probability of any
        decision, given the label or not
    epsilon : float >= 0, the bias that is put up with
    lam, delta : float >= 0, weight of the critic and margin
    iterations, model_iterations, critic_iterations : int, rounds, and steps of the model and of the critic in each;
        `model_iterations` None takes as many as make `PASSES` passes over the images in all
    warm_up : float in [0, 1], share of the rounds without the critic; 0 in the paper
    lr, batch_size, augment : see `tuning.steps`
    critic_lr : float > 0
    critic_linear : widths of the hidden layers between the critic's means and its answer

    Returns
    -------
    A copy of `model` with new weights, and with two classes an `Affine` edit of the logits that moves the threshold.
    Frozen parameters stay as they are.

    Raises
    ------
    ValueError : an unknown metric, an option outside its range, or a model all of whose parameters are frozen.

    References
    ----------
    Savani, White & Govindarajulu, "Intra-processing methods for debiasing neural networks", NeurIPS 2020, arXiv 2006.08564.
    """
    criterion = metric_name(bias_metric, CRITERIA, "bias_metric")
    for argument, value in (("epsilon", epsilon), ("lam", lam), ("delta", delta)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{argument}: got {value!r}; a finite number of 0 or more is accepted")
    check_share(warm_up, "warm_up")
    if not 0 < critic_lr < math.inf:
        raise ValueError(f"critic_lr: got {critic_lr!r}; a finite number above 0 is accepted")
    check_whole(iterations, "iterations")
    check_whole(critic_iterations, "critic_iterations")
    model_iterations = rounds(batch, batch_size, PASSES, model_iterations, iterations, "model_iterations")
    how = {"lr": lr, "batch_size": batch_size, "augment": augment, "weights": cell_weights(batch), "name": "SAVANIAFT"}
    tuned, rng = trainable(model), np.random.default_rng(batch.seed)
    features = batch.features("penultimate")[1].flatten(1)
    critic = Critic(features, batch.groups * batch.classes, critic_linear).to(device_of(tuned))
    optimizer = torch.optim.Adam(critic.parameters(), lr=critic_lr)
    pool = features, batch.logits, batch.y, batch.group
    first = round(warm_up * iterations) * model_iterations  # step with a critic
    with watched(tuned, batch.layer, batch.intake) as seen:
        for step, (images, target, group) in enumerate(steps(tuned, batch, count=iterations * model_iterations, **how)):
            if step < first:
                task_loss(call(tuned, images, group), target).backward()
                continue
            if step % model_iterations == 0:
                pool = pool if step == 0 else activations(tuned, seen, batch, rng)
                fit_critic(critic, optimizer, pool, critic_iterations, MINIBATCH, batch, criterion, rng)
            logits = call(tuned, images, group)
            foretold = critic(seen["features"], group * batch.classes + target)
            factor = (lam * (foretold.abs() - epsilon + delta) + 1).clamp(min=1)
            (factor * task_loss(logits, target)).backward()
    return with_threshold(tuned, batch, criterion)


class Critic(nn.Module):
    """Foretells the bias on a minibatch, a scalar, from its activations (n, d) and the cells (n,) of its images.

    Parameters
    ----------
    features : float tensor (m, d), by whose means and spreads activations are standardised
    cells : int, group x class cells
    hidden : widths of the layers after the means
    """

    def __init__(self, features: Tensor, cells: int, hidden: tuple[int, ...] = (32,)):
        super().__init__()
        self.cells = cells
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("scale", features.std(0).clamp(min=1e-6 + 1e-3 * features.std()))
        self.embed = nn.Sequential(nn.Linear(features.shape[1], WIDTH), nn.ReLU())
        self.judge = perceptron(cells * WIDTH, hidden, 1)

    def forward(self, features: Tensor, cell: Tensor) -> Tensor:
        embedded = self.embed((features.float() - self.mean) / self.scale)
        member = F.one_hot(cell, self.cells).to(embedded.dtype)
        return self.judge((member.T @ embedded / member.sum(0).clamp(min=1)[:, None]).flatten())[0]


@contextmanager
def watched(model: nn.Module, layer: str, intake: str = "") -> Iterator[dict[str, Tensor]]:
    """Inside the block `["features"]` of the dict yielded is what the classifier takes of the layer, (n, d), with a gradient."""
    seen: dict[str, Tensor] = {}
    # A copy: an in-place ReLU after the layer would otherwise rewrite what the critic's gradient needs.
    hook = model.get_submodule(layer).register_forward_hook(
        lambda module, args, output: seen.update(features=take(output, intake).flatten(1).clone())
    )
    try:
        yield seen
    finally:
        hook.remove()


@torch.no_grad()
def activations(model: nn.Module, seen: dict, batch: Batch, rng: np.random.Generator) -> tuple:
    """Features and logits of the model as it is now, targets and groups, of `POOL` images drawn with equal cells."""
    rows = drawn(cell_weights(batch), rng)[:POOL]
    parts = []
    with batches(model, batch.take(rows).loader()) as (model, loop):
        for images, target, group in loop:
            logits = call(model, images, group)
            parts.append((seen["features"].cpu(), logits.float().cpu(), target.cpu(), group.cpu()))
    features, logits, target, group = (torch.cat(part) for part in zip(*parts, strict=True))
    return features, logits, target.numpy(), group.numpy()


def fit_critic(critic: Critic, optimizer, pool: tuple, count: int, size: int, batch: Batch, criterion: str, rng) -> None:
    """`count` steps of the critic, each on a minibatch of `size` images of the pool."""
    features, logits, y, group = pool
    device, decided = device_of(critic), hard(logits.numpy())
    for _ in range(count):
        rows = rng.choice(len(y), min(size, len(y)), replace=False)
        mu = bias(decided[rows], y[rows], group[rows], batch.groups, batch.classes, criterion)
        cell = torch.from_numpy(group[rows] * batch.classes + y[rows]).to(device)
        optimizer.zero_grad(set_to_none=True)
        (critic(features[torch.from_numpy(rows)].to(device), cell) - mu).square().backward()
        optimizer.step()


def bias(decided: np.ndarray, y: np.ndarray, group: np.ndarray, groups: int, classes: int, criterion: str) -> float:
    """The largest difference between groups in the share of any decision: among images of one label, or among all."""
    table = np.bincount((group * classes + y) * classes + decided, minlength=groups * classes**2)
    table = table.reshape(groups, classes, classes)
    if criterion == "demographic_parity":
        table = table.sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares = table / table.sum(-1, keepdims=True)  # a cell without images has none: NaN, which `spread` leaves out
    return float(spread(np.moveaxis(shares, 0, -1)).max())


def with_threshold(model: nn.Module, batch: Batch, metric: str) -> nn.Module:
    """The model with the decision threshold moved to where (2 A - 1) (1 - D)^3 of the batch is largest (see `NT`).

    Of equally good thresholds, the nearest to the model's own: rows that it was trained on often leave a wide choice. With
    more than two classes, or rows of one class only, there is none to move, and the model comes back as it is.
    """
    if batch.classes > 2 or len(np.unique(batch.y)) < 2:
        return model
    seen = batch.of(model)
    scores = score(seen.logits)
    grid = candidates(scores)
    value = youden_and_gap(*measured(by_group(scores, seen, grid), metric))
    best = grid[value >= value.max() - 1e-12]
    return shifted(model, seen, float(best[np.abs(best).argmin()]))
