"""SAVANIRP: of many random perturbations of the weights, those that are most accurate with little bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.debiasing.common_threshold import shifted
from helpers.debiasing.dfr import is_linear_head
from helpers.debiasing.method import Batch, method
from helpers.debiasing.objective import check_binary
from helpers.debiasing.phi import Phi
from helpers.debiasing.tail import Tail, tail_of
from helpers.debiasing.thresholds import score
from helpers.debiasing.tuning import check_whole

AT_THE_CLASSIFIER = {"T_iters": 2000, "std": 30.0}
DEEPER = {"T_iters": 15, "std": 0.1}
ONE_IN = 200  # candidates is taken into the mean


def passes(batch: Batch, *, n_layers: int, T_iters: int | None, **options) -> float:
    """The cost in forward passes over the batch, at most: more than the classifier runs what follows the earliest layer."""
    return 0.0 if n_layers == 1 else float(T_iters or DEEPER["T_iters"])


@method("SAVANIRP", needs={"features", "logits", "binary"}, passes=passes)
def savani_rp(
    model: nn.Module,
    batch: Batch,
    *,
    epsilon: float | None = None,
    T_iters: int | None = None,
    bias_metric: str = "equalized_odds",
    mean: float = 1.0,
    std: float | None = None,
    n_layers: int = 1,
    average: int | None = None,
) -> nn.Module:
    """Perturb the weights of the classifier at random, and keep the perturbations of best accuracy at little bias.

    With phi the best value that one threshold reaches, the candidates are the original weights theta and `T_iters` of
    theta * q, every entry of q ~ N(mean, std^2) (Algorithm 1). The model has the mean weights of the `average` candidates of
    largest phi, each scaled to scores of the same spread, and the threshold that is best for it.

    The paper perturbs all weights by a tenth, keeps the one best candidate, and lets phi be the balanced accuracy where the gap
    is below epsilon. A deviation of a tenth leaves scores that are nearly the original ones: in each of them hundreds of weights'
    deviations cancel out. All that is then left to keep the bound is a threshold near a constant prediction (0.53 of balanced
    accuracy at epsilon = 0.1 on the default problem, 0.79 before). So by default the classifier alone is perturbed, at a
    few milliseconds a candidate, and so much (std = 30) that its directions are new ones; there is no bound to be forced; and
    the mean of ten keeps what the best have in common: a single winner among thousands owes much to chance.

    Parameters
    ----------
    epsilon : float in (0, 1], bound of the gap, or None: phi is then the largest (2 A - 1) (1 - D)^3 of the balanced
        accuracy A and the gap D, as in `NT`
    T_iters : int >= 1; None takes 2000, or 15 where more than the classifier is perturbed
    bias_metric : name of the gap: those of `helpers.audit`, or a statistic followed by "_gap"
    mean, std : float, of the factors; std > 0, None takes 30, or 0.1 where more than the classifier is perturbed
    n_layers : int >= 1, layers with parameters that are perturbed, from the last one backwards (or more, where the network can
        be cut further to the front only), read from features captured once in front of them; a large number perturbs all but the
        first, for a run of the model each
    average : int >= 1, candidates whose mean is taken; None takes one in 200, so 10 of 2000, or 1 where there is a bound, which a
        mean need not keep, or where more than a linear classifier is perturbed, of which a mean says nothing

    The paper's search: `{"epsilon": 0.1, "std": 0.1, "T_iters": 15, "n_layers": 100}`.

    Returns
    -------
    A copy of `model` with new weights and its logits shifted by the threshold (an `Affine` edit).

    Raises
    ------
    ValueError : more than two classes, a class missing from the batch, an option that is not as above.

    Notes
    -----
    Where no candidate has a gap below epsilon, the one with the smallest is taken, and the result's note says so.

    References
    ----------
    Savani, White & Govindarajulu, "Intra-processing methods for debiasing neural networks", NeurIPS 2020,
    arXiv 2006.08564.
    """
    check_binary(batch)
    phi = Phi(batch, bias_metric, epsilon)
    for argument, value in (("T_iters", T_iters), ("average", average)):
        if value is not None:
            check_whole(value, argument)
    if std is not None and not 0 < std < math.inf:
        raise ValueError(f"std: got {std!r}; a finite number above 0 is accepted")
    tail = tail_of(model, batch, n_layers)
    linear = is_linear(tail)
    own = AT_THE_CLASSIFIER if linear else DEEPER
    T_iters, std = T_iters or own["T_iters"], std or own["std"]
    if average is None:
        average = max(1, T_iters // ONE_IN) if linear and epsilon is None else 1
    if average > 1 and not linear:
        raise ValueError(f"average: got {average}; 1 is accepted where more than a linear classifier is perturbed")
    drawn = torch.Generator().manual_seed(batch.seed)
    start = [p.detach().clone() for p in tail.parameters]
    kept = [(phi(batch.logits), spread(batch.logits), start)]
    for _ in tqdm(range(T_iters), "SAVANIRP", unit="perturbation", leave=False):
        noise = [torch.empty(p.shape).normal_(mean, std, generator=drawn).to(p) for p in start]
        trial = [p * n for p, n in zip(start, noise, strict=True)]
        tail.put(trial)
        logits = tail.logits()
        found = phi(logits)
        if len(kept) < average or found.value > kept[-1][0].value:
            kept.append((found, spread(logits), trial))
            kept = sorted(kept, key=lambda each: -each[0].value)[:average]
    best, _, weights = kept[0]
    kept = [each for each in kept if each[0].value > -math.inf]
    if len(kept) > 1:
        scaled = [[p * (spread(batch.logits) / width) for p in trial] for _, width, trial in kept]
        weights = [torch.stack(each).mean(0) for each in zip(*scaled, strict=True)]
    tail.put(weights)
    if len(kept) > 1:
        best = phi(tail.logits())
    phi.report(best)
    return shifted(tail.model, batch, best.threshold)


def is_linear(tail: Tail) -> bool:
    """Whether the tail is a linear layer on stored features that puts out the logits: scores are linear in its weights."""
    return tail.short and list(tail.parts) == [tail.batch.last] and is_linear_head(tail.model, tail.batch)


def spread(logits: Tensor) -> float:
    """Standard deviation of the score; 1 where there is none."""
    return float(score(logits).std()) or 1.0
