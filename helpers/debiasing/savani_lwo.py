"""SAVANILWO: layer by layer, weights searched for that are most accurate with little bias."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.optimize import differential_evolution
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.debiasing.common_threshold import shifted
from helpers.debiasing.method import Batch, method
from helpers.debiasing.objective import check_binary
from helpers.debiasing.phi import Found, Phi
from helpers.debiasing.tail import Tail, tail_of
from helpers.debiasing.tuning import check_whole
from helpers.models.intake import weights_of

POPULATION = 20


def passes(batch: Batch, *, n_layers: int, evaluations: int, **options) -> float:
    """The cost in forward passes over the batch, at most: more than the classifier runs what follows the earliest layer."""
    return 0.0 if n_layers == 1 else float(n_layers * evaluations)


@method("SAVANILWO", needs={"features", "logits", "binary"}, passes=passes)
def savani_lwo(
    model: nn.Module,
    batch: Batch,
    *,
    epsilon: float | None = 0.1,
    bias_metric: str = "equalized_odds",
    n_layers: int = 1,
    evaluations: int = 600,
    directions: int = 16,
    beta: float = 2.2,
) -> nn.Module:
    """Search the weights of the last layers, one layer after the other, for the best accuracy at little bias.

    With phi the best balanced accuracy that a threshold reaches while the gap is below epsilon, and 0 if none keeps it,
    each layer's weights W are replaced by argmax_c phi(W + beta sum_k c_k D_k), c in [-1, 1]^K (Section 4.2, layer-wise
    optimisation). phi has no gradient; the search is SciPy's differential evolution, there gradient-boosted trees over all
    single weights. It goes from the classifier backwards, each layer from the best weights found so far, and is read
    from features captured once.

    The D_k keep the search small enough for so few evaluations: at the classifier they follow the principal components
    of its features, scaled to change the score by its standard deviation; elsewhere they are random, scaled
    to the standard deviation of the weights.

    Parameters
    ----------
    epsilon : float in (0, 1], bound of the gap; None takes the largest (2 A - 1) (1 - D)^3 instead, see `SAVANIRP`
    bias_metric : name of the gap: those of `helpers.audit`, or a statistic followed by "_gap"
    n_layers : int >= 1, layers from the last one backwards. More than the classifier costs `evaluations` runs of what
        follows the earliest of them
    evaluations : int >= 1, of phi, a layer
    directions : int >= 1, K
    beta : float > 0, the size of the largest change

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
    for name, value in (("evaluations", evaluations), ("directions", directions)):
        check_whole(value, name)
    if not beta > 0:
        raise ValueError(f"beta: got {beta!r}; a number above 0 is accepted")
    phi = Phi(batch, bias_metric, epsilon)
    tail = tail_of(model, batch, n_layers)
    rng, best = np.random.default_rng(batch.seed), phi(batch.logits)
    for name in tqdm(list(reversed(tail.parts))[:n_layers], "SAVANILWO", unit="layer", leave=False):
        part = tail.parts[name]
        weight = max(part.parameters(recurse=False), key=torch.numel)
        moves = beta * directions_of(part, weight, name, batch, directions, rng)
        best = searched(tail, phi, weight, moves, best, evaluations, rng)
    phi.report(best)
    return shifted(tail.model, batch, best.threshold)


def directions_of(part: nn.Module, weight: Tensor, name: str, batch: Batch, number: int, rng: np.random.Generator) -> Tensor:
    """Changes of a layer's weights to search among, (K, *weight.shape)."""
    x = batch.features("penultimate")[1].flatten(1).double()
    if name == batch.last and weights_of(part)[0] is weight and weight.shape[1] == x.shape[1]:
        _, strength, components = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        kept = strength[:number] > 1e-6 * strength[0]
        unit = components[:number][kept] / strength[:number][kept, None] * len(x) ** 0.5  # scores of variance 1
        side = torch.ones(1) if len(weight) == 1 else torch.tensor([-0.5, 0.5])
        logits = batch.logits.double()
        scale = (logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0)).std()
        moves = scale * side[:, None] * unit[:, None]
    else:
        moves = torch.from_numpy(rng.standard_normal((number, *weight.shape)))
        moves *= weight.detach().double().std(correction=0).cpu() / number**0.5
    return moves.to(weight)


@torch.no_grad()
def searched(
    tail: Tail, phi: Phi, weight: nn.Parameter, moves: Tensor, best: Found, evaluations: int, rng: np.random.Generator
) -> Found:
    """Put into `weight` the best of the values tried, and return what was found with it; those it has if none is better."""
    start = kept = weight.detach().clone()

    def loss(coefficients: np.ndarray) -> float:
        nonlocal best, kept
        weight.copy_(start + torch.tensordot(torch.from_numpy(coefficients).to(moves), moves, 1))
        found = phi(tail.logits())
        if found.value > best.value:
            best, kept = found, weight.detach().clone()
        return -max(found.value, -2.0)  # finite, where everything is predicted to be one class

    size = max(5, min(POPULATION, evaluations // 2))
    first = rng.uniform(-1, 1, (size, len(moves)))
    first[0] = 0
    rounds = max(1, evaluations // size - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # differences of equal values
        differential_evolution(loss, [(-1, 1)] * len(moves), init=first, maxiter=rounds, tol=0, polish=False, rng=rng)
    weight.copy_(kept)
    return best
