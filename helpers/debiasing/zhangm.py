"""ZHANGM: train the network on against an adversary that guesses the group from the logits."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.debiasing.method import Batch, method
from helpers.debiasing.result import metric_name
from helpers.debiasing.savani_aft import with_threshold
from helpers.debiasing.tuning import STEP, cell_weights, check_share, check_whole, perceptron, rounds, size_of, steps, trainable
from helpers.models.running import call, device_of
from helpers.models.training import task_loss

PASSES = 5
CRITERIA = ("equalized_odds", "demographic_parity")
FIRST_STEPS = 200  # of the adversary, on the logits of the model as it was
RECENT = 16  # batches whose logits the adversary learns from


def passes(
    batch: Batch, *, iterations: int | None, model_iterations: int, batch_size: int | None, warm_up: float, **options
) -> float:
    """What the training costs in forward passes over the batch: two gradients a step, after the warm-up; `iterations` None is
    `PASSES` passes."""
    step = STEP * (warm_up + (1 - warm_up) * 5 / 3)
    if iterations is None:
        return step * PASSES
    return step * iterations * model_iterations * size_of(batch, batch_size) / len(batch)


@method("ZHANGM", needs={"logits", "weights"}, passes=passes)
def zhangm(
    model: nn.Module,
    batch: Batch,
    *,
    bias_metric: str = "equalized_odds",
    alpha: float = 1.0,
    iterations: int | None = None,
    model_iterations: int = 1,
    lr: float = 1e-3,
    warm_up: float = 0.6,
    batch_size: int | None = 16,
    augment: str | None = "flip",
    critic_iterations: int = 5,
    critic_lr: float = 1e-2,
    critic_linear: tuple[int, ...] = (),
) -> nn.Module:
    """Fine-tune so that an adversary cannot tell the group from the logits (adversarial learning).

    The weights W of the network move along

        grad_W L_P - proj_{grad_W L_A} grad_W L_P - alpha grad_W L_A        (eq. 1)

    with L_P the cross-entropy of the target, L_A that of the adversary for the group, and the projection taken over all
    weights together: no step helps the adversary, even where that would help the target. The adversary has the form of
    Section 5: with s = softmax((1 + |c|) logits), it is linear in s, and for equalized odds in s, y and their products
    (in the paper without y itself; with it, what the label alone says of the group is not held against the logits).
    The first steps are on L_P alone while the adversary learns: a network that has confused target and group cannot please
    both, and held to the adversary from the start it ends at chance (on drawn faces with a correlation of 0.97).
    Batches are drawn so that every group x class cell comes equally often. At the end one threshold for everybody is chosen
    as `NT` does, because an adversary does not mind where the decision lies.

    Parameters
    ----------
    bias_metric : "equalized_odds", the adversary is shown the label; or "demographic_parity", it is not
    alpha : float >= 0, how strongly to work against the adversary
    iterations, model_iterations : int, rounds, and steps of the network in each; `iterations` None takes as many rounds as
        make `PASSES` passes over the images
    lr, batch_size, augment : see `tuning.steps`
    warm_up : float in [0, 1], share of the steps without the adversary's part; 0 in the paper
    critic_iterations : int, steps of the adversary in each round, on the logits of the last 16 batches; before the first
        round it is trained on the logits of the model as it was
    critic_lr : float > 0, of the adversary
    critic_linear : widths of hidden layers of the adversary; none in the paper, which finds a simple one enough

    Returns
    -------
    A copy of `model` with new weights, and with two classes an `Affine` edit of the logits that moves the threshold.
    Frozen parameters stay as they are.

    Raises
    ------
    ValueError : an unknown metric, an option outside its range, or a model all of whose parameters are frozen.

    References
    ----------
    Zhang, Lemoine & Mitchell, "Mitigating unwanted biases with adversarial learning", AIES 2018, arXiv 1801.07593.
    """
    criterion = metric_name(bias_metric, CRITERIA, "bias_metric")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha: got {alpha!r}; a finite number of 0 or more is accepted")
    check_share(warm_up, "warm_up")
    if not 0 < critic_lr < math.inf:
        raise ValueError(f"critic_lr: got {critic_lr!r}; a finite number above 0 is accepted")
    check_whole(model_iterations, "model_iterations")
    check_whole(critic_iterations, "critic_iterations")
    count = rounds(batch, batch_size, PASSES, iterations, model_iterations) * model_iterations
    tuned, weights = trainable(model), cell_weights(batch)
    parameters = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    shown = batch.classes if criterion == "equalized_odds" else 0
    adversary = Adversary(max(2, batch.logits.shape[1]), shown, batch.groups, critic_linear).to(device_of(tuned))
    optimizer = torch.optim.Adam(adversary.parameters(), lr=critic_lr)
    known = (batch.logits, torch.from_numpy(batch.y), torch.from_numpy(batch.group), torch.from_numpy(weights).float())
    known = [part.to(device_of(tuned)) for part in known]
    for _ in range(FIRST_STEPS):
        train_adversary(adversary, optimizer, *known)
    recent = deque(maxlen=RECENT)
    how = {"lr": lr, "batch_size": batch_size, "augment": augment, "weights": weights, "name": "ZHANGM"}
    for step, (images, target, group) in enumerate(steps(tuned, batch, count=count, **how), start=1):
        logits = call(tuned, images, group)
        if step <= warm_up * count:
            task_loss(logits, target).backward()
        else:
            helps = torch.autograd.grad(task_loss(logits, target), parameters, retain_graph=True, allow_unused=True)
            tells = torch.autograd.grad(F.cross_entropy(adversary(logits, target), group), parameters, allow_unused=True)
            for parameter, direction in zip(parameters, away_from(helps, tells, alpha), strict=True):
                parameter.grad = direction
        # After the gradients, for an adversary that has seen this batch would tell its noise too.
        recent.append((logits.detach(), target, group))
        if step % model_iterations == 0:
            seen = [torch.cat(parts) for parts in zip(*recent, strict=True)]
            for _ in range(critic_iterations):
                train_adversary(adversary, optimizer, *seen)
    return with_threshold(tuned, batch, criterion)


class Adversary(nn.Module):
    """Scores of the groups (n, G) from logits (n, K) and, if it is shown them, targets (n,).

    Parameters
    ----------
    outputs : int, classes of the target
    shown : int, `outputs` if the adversary is shown the label, else 0
    groups : int, G
    hidden : widths of hidden layers
    """

    def __init__(self, outputs: int, shown: int, groups: int, hidden: tuple[int, ...] = ()):
        super().__init__()
        self.shown = shown
        self.c = nn.Parameter(torch.ones(()))  # not 0, where |c| has no slope
        self.scores = perceptron(outputs + shown * (outputs + 1), hidden, groups)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            logits = torch.cat([-logits, logits], 1) / 2
        s = ((1 + self.c.abs()) * logits.float()).softmax(1)
        if self.shown:
            y = F.one_hot(target, self.shown).to(s.dtype)
            s = torch.cat([s, y, (s[:, :, None] * y[:, None]).flatten(1)], 1)
        return self.scores(s)


def train_adversary(adversary: Adversary, optimizer, logits: Tensor, target: Tensor, group: Tensor, weights=None) -> None:
    """One step of the adversary on logits that are taken as they are; `weights` (n,) sum to n."""
    losses = F.cross_entropy(adversary(logits, target), group, reduction="none")
    optimizer.zero_grad(set_to_none=True)
    (losses if weights is None else losses * weights).mean().backward()
    optimizer.step()


def away_from(helps, tells, alpha: float) -> list[Tensor | None]:
    """g - proj_h g - alpha h for gradients g = `helps`, h = `tells`, each a list over the parameters, None for no part.

    The projection is that of the whole vectors: one coefficient <g, h> / |h|^2 for all parameters.
    """
    along = sum((g * h).sum() for g, h in zip(helps, tells, strict=True) if g is not None and h is not None)
    size = sum(h.square().sum() for h in tells if h is not None)
    share = along / max(size, torch.finfo(torch.float32).tiny) + alpha
    return [g if h is None else (0 if g is None else g) - share * h for g, h in zip(helps, tells, strict=True)]
