"""SAVANIRP: of many random perturbations of the weights, the one that is most accurate with little bias."""

from __future__ import annotations

import torch
from torch import nn
from tqdm.auto import tqdm

from helpers.debiasing.common_threshold import shifted
from helpers.debiasing.method import Batch, method
from helpers.debiasing.objective import check_binary
from helpers.debiasing.phi import Phi
from helpers.debiasing.tail import tail_of
from helpers.debiasing.tuning import check_whole


@method("SAVANIRP", needs={"features", "logits", "binary"})
def savani_rp(
    model: nn.Module,
    batch: Batch,
    *,
    epsilon: float = 0.1,
    T_iters: int = 15,
    bias_metric: str = "equalized_odds",
    mean: float = 1.0,
    std: float = 0.1,
    n_layers: int = 4,
) -> nn.Module:
    """Perturb the weights of the last layers at random, and keep the perturbation of best accuracy at little bias.

    With phi the best balanced accuracy that a threshold reaches while the gap is below epsilon, and 0 if none keeps it, the
    model is the one of largest phi among the original and `T_iters` of theta * q, every entry of q ~ N(mean, std^2)
    (Algorithm 1). There all weights are perturbed; here those of the last layers, read from features captured once in front
    of them, which costs one pass over the data and `T_iters` runs of these layers.

    Parameters
    ----------
    epsilon : float in (0, 1], bound of the gap
    T_iters : int >= 1
    bias_metric : name of the gap: those of `helpers.audit`, or a statistic followed by "_gap"
    mean, std : float, of the factors; std > 0
    n_layers : int >= 1, layers with parameters that are perturbed, from the last one backwards (or more, where the network can
        be cut further to the front only); a large number perturbs all but the first, for a run of the model each

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
    check_whole(T_iters, "T_iters")
    if not std > 0:
        raise ValueError(f"std: got {std!r}; a number above 0 is accepted")
    phi = Phi(batch, bias_metric, epsilon)
    tail = tail_of(model, batch, n_layers)
    drawn = torch.Generator().manual_seed(batch.seed)
    start = [p.detach().clone() for p in tail.parameters]
    best, weights = phi(batch.logits), start
    for _ in tqdm(range(T_iters), "SAVANIRP", unit="perturbation", leave=False):
        noise = [torch.empty(p.shape).normal_(mean, std, generator=drawn).to(p) for p in start]
        trial = [p * n for p, n in zip(start, noise, strict=True)]
        tail.put(trial)
        found = phi(tail.logits())
        if found.value > best.value:
            best, weights = found, trial
    phi.report(best)
    tail.put(weights)
    return shifted(tail.model, batch, best.threshold)
