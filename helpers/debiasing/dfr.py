"""DFR: retrain the last linear layer on features, every group x class cell counting equally."""

from __future__ import annotations

import copy

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from helpers.debiasing.holdout import stratified
from helpers.debiasing.method import Batch, method
from helpers.models.intake import is_linear, weights_of
from helpers.names import choose

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3)
BALANCE = ("subsample", "weights")


@method("DFR", needs={"features", "logits"})
def dfr(
    model: nn.Module,
    batch: Batch,
    *,
    C: float | None = None,
    balance: str = "weights",
    draws: int = 10,
) -> nn.Module:
    """Retrain the last layer by L2-penalised logistic regression on balanced data (deep feature reweighting).

    The features are standardised, the regression minimises sum_i c_i log(1 + exp(-y_i (w x_i + b))) + |w|^2 / (2 C)
    (Section 4; there with an L1 penalty), and the standardisation is folded into the weights.

    Parameters
    ----------
    C : float > 0, inverse penalty (scikit-learn's); None takes the value in `STRENGTHS` whose worst
        group x class cell is most accurate on a quarter of the batch set aside for it, as the paper tunes it
    balance : "weights" gives every cell the same total weight; "subsample" draws from every cell as many images as
        the smallest has and averages the weights of `draws` such regressions, as the paper does
    draws : int >= 1, used with "subsample"

    Returns
    -------
    A copy of `model` whose last `nn.Linear` has new weights, or which has itself, where that layer is a function of its own
    parameters `weight` and `bias`.

    Raises
    ------
    ValueError : the last layer is no `nn.Linear` fed by the penultimate layer, nor such a function; a class is missing;
        C or draws <= 0.

    References
    ----------
    Kirichenko, Izmailov & Wilson, "Last layer re-training is sufficient for robustness to spurious correlations",
    ICLR 2023, arXiv 2204.02937.
    """
    choose(balance, BALANCE, "balance")
    if C is not None and not C > 0:
        raise ValueError(f"C: got {C}; the inverse penalty is above 0")
    if draws < 1:
        raise ValueError(f"draws: got {draws}; at least 1 is needed")
    missing = sorted(set(range(batch.classes)) - set(batch.y.tolist()))
    if missing:
        raise ValueError(f"target: no image of class {missing} to fit on; the last layer has {batch.classes} classes")
    check_last_layer(model, batch)
    batch.note_few("the last layer was")
    x, cell = batch.features("penultimate")[1].flatten(1).double().numpy(), batch.group * batch.classes + batch.y
    rng = np.random.default_rng(batch.seed)
    C = C if C is not None else tuned(x, batch.y, cell, rng)
    weight, bias = regress(x, batch.y, cell, C, draws if balance == "subsample" else 0, rng)
    return with_head(copy.deepcopy(model), batch.last, weight, bias)


def with_head(model: nn.Module, name: str, weight: np.ndarray, bias: np.ndarray) -> nn.Module:
    """`model` itself, its last layer `name` having the weights of a regression."""
    own = weights_of(model.get_submodule(name))
    with torch.no_grad():
        for parameter, value in zip(own, as_logits(weight, bias, len(own[0])), strict=True):
            parameter.copy_(torch.from_numpy(value))
    return model


def check_last_layer(model: nn.Module, batch: Batch) -> None:
    """ValueError unless the last layer has a weight and a bias that turn the batch's features into its logits."""
    last = model.get_submodule(batch.last)
    weight, bias = weights_of(last)
    named = repr(batch.last) if batch.last else "a function in the model itself"
    if weight is None or bias is None:
        holds = ", ".join(dict(last.named_parameters(recurse=False))) or "no parameters of its own"
        raise ValueError(
            f"last layer: {named} is of {type(last).__name__}, which holds {holds}; an nn.Linear with bias is needed, "
            "or parameters `weight` (K, d) and `bias` (K,) as it has"
        )
    if not is_linear_head(model, batch):
        raise ValueError(
            f"last layer: {named} does not take the output of {batch.layer!r} as it is; "
            "a function without a module stands between or behind them"
        )


def is_linear_head(model: nn.Module, batch: Batch) -> bool:
    """Whether the logits are W x + b of the features, with the `weight` and `bias` that the last layer holds.

    Without a bias only of a Linear, which can be given one.
    """
    last, some = model.get_submodule(batch.last), slice(0, 64)
    if weights_of(last)[1] is None and not isinstance(last, nn.Linear):
        return False
    features = batch.features("penultimate")[1]
    return is_linear(last, features[some].flatten(1), batch.logits[some])


def regress(x: np.ndarray, y: np.ndarray, cell: np.ndarray, C: float, draws: int, rng: np.random.Generator, tol=1e-4):
    """Weights (1, d) or (C, d) and biases (1,) or (C,) on the features as they are, not standardised.

    `draws` 0 weights the cells equally; more averages over as many balanced subsamples.
    """
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-8 * (scale.max() or 1.0), scale, 1.0)  # a dead unit has no scale to divide by
    standard = (x - mean) / scale
    fits = []
    if draws == 0:
        fits.append(fit(standard, y, C, tol, weights=equal_weights(cell)))
    for _ in range(draws):
        rows = balanced_rows(cell, rng)
        fits.append(fit(standard[rows], y[rows], C, tol))
    weight = np.mean([f.coef_ for f in fits], axis=0) / scale
    bias = np.mean([f.intercept_ for f in fits], axis=0) - weight @ mean
    return weight, bias


def equal_weights(cell: np.ndarray) -> np.ndarray:
    """Weight of each row, summing to n, such that every cell that occurs has the same total."""
    counts = np.bincount(cell)
    return len(cell) / (np.count_nonzero(counts) * counts[cell])


def balanced_rows(cell: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of as many images of every cell as the smallest cell has."""
    codes, counts = np.unique(cell, return_counts=True)
    return np.concatenate([rng.choice(np.flatnonzero(cell == code), counts.min(), replace=False) for code in codes])


def fit(x: np.ndarray, y: np.ndarray, C: float, tol: float, weights: np.ndarray | None = None) -> LogisticRegression:
    """One regression; with several classes a multinomial one."""
    return LogisticRegression(C=C, tol=tol, max_iter=2000).fit(x, y, sample_weight=weights)


def tuned(x: np.ndarray, y: np.ndarray, cell: np.ndarray, rng: np.random.Generator) -> float:
    """The strength whose worst cell is most accurate on a quarter set aside; ties go to the stronger penalty.

    The middle one if cells are too small to set anything aside.
    """
    rest, aside = stratified(cell, 0.25, rng)
    best, best_accuracy = STRENGTHS[len(STRENGTHS) // 2], (-1.0, -1.0)
    if len(aside) == 0 or len(np.unique(y[rest])) < len(np.unique(y)):
        return best
    for C in STRENGTHS:
        weight, bias = regress(x[rest], y[rest], cell[rest], C, 0, rng, tol=1e-3)  # loosely: only the order counts
        score = x[aside] @ weight.T + bias
        predicted = score[:, 0] > 0 if len(bias) == 1 else score.argmax(1)
        right = predicted == y[aside]
        accuracy = [right[cell[aside] == code].mean() for code in np.unique(cell[aside])]
        if (found := (min(accuracy), float(np.mean(accuracy)))) > best_accuracy:
            best, best_accuracy = C, found
    return best


def as_logits(weight: np.ndarray, bias: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """The regression's one score as one logit, or as two whose difference it is; several rows stay as they are."""
    if len(bias) == 1 and outputs == 2:
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
