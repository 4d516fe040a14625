"""RR-ClArC: retrain what follows a layer so that its answer does not change along the direction of the group."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.debiasing.method import Batch, method
from helpers.debiasing.pclarc import apart, concept
from helpers.debiasing.reading import as_rows
from helpers.debiasing.tail import Tail
from helpers.models.training import task_loss
from helpers.names import choose

LOSSES = ("l2", "l1", "cosine")
MASKING = ("max_logit", "target_logit", "all_logits", "all_logits_random", "logprobs")
WEIGHT = 10.0  # of the squared change of a logit from one group to the other, against the cross-entropy


@method("RRCLARC", needs={"features"})
def rrclarc(
    model: nn.Module,
    batch: Batch,
    *,
    layer: str = "penultimate",
    cav_type: str = "signal",
    lambda_rr: float | None = None,
    rr_loss_type: str = "l2",
    masking_pattern: str = "all_logits_random",
    epochs: int = 30,
    lr: float = 0.05,
    batch_size: int | None = 64,
    balanced: bool = True,
    flatten: bool = False,
) -> nn.Module:
    """Retrain what follows a layer, penalising how its answer changes along the groups' concept vectors.

    With a the layer's output, v a unit vector of the concept and f a sum of logits, the loss is the cross-entropy plus
    lambda_rr E[(grad_a f . v)^2] (Eq. 5). Everything up to the layer stays as it is, so its output is computed once;
    after the penultimate layer that leaves a linear classifier to train.

    Parameters
    ----------
    layer : str, "penultimate" or a layer's name; at a map v are directions of the channels, and the changes at all
        positions are added
    cav_type : see `pclarc`
    lambda_rr : float >= 0; None takes 10 d^2 with d the distance between the groups' means along the concept, so that
        it is the logit's change from one group to the other that is weighed against the cross-entropy, whatever the
        scale of the features
    rr_loss_type : "l2" as above; "l1", |grad_a f . v|; "cosine", |cos(grad_a f, v)|
    masking_pattern : what f is: "max_logit", "target_logit" (of the true class), "all_logits" (their sum), "all_logits_random"
        (their sum with random signs, so that in expectation the change of every logit is penalised), "logprobs" (the mean
        of the log-probabilities)
    epochs, lr, batch_size : of AdamW with a one-cycle rate, relative to the size of each parameter
    balanced : bool, draw every group x class cell equally often
    flatten : bool, at a map: one direction of the whole map instead of its channels

    Returns
    -------
    A copy of `model` with new weights after the layer.

    Raises
    ------
    ValueError : an option that is not as above, or nothing to train after the layer.

    References
    ----------
    Dreyer et al., "From hope to safety: unlearning biases of deep models via gradient penalization in latent space",
    AAAI 2024, arXiv 2308.09437.
    """
    rr_loss_type = choose(rr_loss_type, LOSSES, "rr_loss_type")
    masking_pattern = choose(masking_pattern, MASKING, "masking_pattern")
    if lambda_rr is not None and not 0 <= lambda_rr < math.inf:
        raise ValueError(f"lambda_rr: got {lambda_rr!r}; None or a finite number of at least 0 is accepted")
    name, basis, cells = concept(batch, layer, cav_type, flatten)
    tail = Tail(model, batch, name)
    strength = lambda_rr if lambda_rr is not None else WEIGHT * apart(cells, basis)
    v = torch.tensor(basis, dtype=tail.parameters[0].dtype, device=tail.device)
    signs = torch.Generator().manual_seed(batch.seed)
    for logits, target, _ in tail.steps(epochs=epochs, lr=lr, batch_size=batch_size, balanced=balanced, name="RRCLARC"):
        answer = masked(logits, target, masking_pattern, signs)
        (gradient,) = torch.autograd.grad(answer.sum(), tail.between.seen, create_graph=True)
        (task_loss(logits, target) + strength * change(gradient, v, flatten, rr_loss_type)).backward()
    return tail.model


def masked(logits: Tensor, target: Tensor, pattern: str, signs: torch.Generator) -> Tensor:
    """The answer f whose change is penalised, (N,)."""
    if pattern == "max_logit":
        return logits.max(1).values
    if pattern == "target_logit":
        return logits[:, 0] if logits.shape[1] == 1 else logits.gather(1, target[:, None])[:, 0]
    if pattern == "all_logits":
        return logits.sum(1)
    if pattern == "all_logits_random":
        sign = torch.randint(0, 2, logits.shape, generator=signs) * 2 - 1
        return (logits * sign.to(logits)).sum(1)
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return logits.log_softmax(1).mean(1)


def change(gradient: Tensor, v: Tensor, flatten: bool, kind: str) -> Tensor:
    """How much the answer changes along the columns of v (d, r), mean over images, sum over positions and columns."""
    images = len(gradient)
    rows, _ = as_rows(gradient, flatten)
    if kind == "cosine":
        rows = F.normalize(rows, dim=1)
    along = rows @ v
    return (along.square() if kind == "l2" else along.abs()).sum() / images
