"""INLP: project out what a linear probe finds of the group, again and again, until it finds nothing."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from torch import nn

from helpers.debiasing.dfr import equal_weights
from helpers.debiasing.holdout import stratified
from helpers.debiasing.method import Batch, method
from helpers.debiasing.pclarc import shrunk
from helpers.debiasing.reading import sample
from helpers.debiasing.reread import refitted
from helpers.models.affine import LowRank
from helpers.models.layers import append_after

INVERSE_PENALTY = 0.01  # of the probes: with less of it a weak probe takes much of the target along, with more it follows noise
SURE = 1.64  # standard errors above chance that are still chance


@method("INLP", needs={"features"})
def inlp(
    model: nn.Module,
    batch: Batch,
    *,
    layer: str = "penultimate",
    iterations: int = 20,
    C: float = INVERSE_PENALTY,
    whiten: bool = True,
    retrain: bool | None = None,
) -> nn.Module:
    """Project the features onto the null space of one group probe after another (iterated nullspace projection).

    With W_1, W_2, … the probes' weights, each trained on what the projections before it leave, and B an orthonormal
    basis of all their rows, the edit is h(x) = x - R^-1 B B^T R (x - m) (Algorithm 1; there with R = 1 and m = 0). It stops
    when a probe is at chance on a quarter of the images set aside: its accuracy, each group counting equally, at
    most 1.64 standard errors above 1 / G.

    R = M^(-1/2), with M the covariance of the features within a group and class shrunk by a tenth, makes the projection
    orthogonal where features have the same spread and no correlation; otherwise it takes along what merely goes together with
    the group. m, the mean of the group x class cells, keeps the values that the next layer expects. Probes are logistic
    regressions in which every group x class cell has the same total weight, so that they do not find the group by way of a
    target that goes together with it.

    Parameters
    ----------
    layer : str, "penultimate", "last" or a layer's name; at a map the edit acts on the channels of every position
    iterations : int >= 1, probes at most
    C : float > 0, inverse penalty of the probes (scikit-learn's) on features of unit scale
    whiten : bool; False takes R = 1
    retrain : bool or None, fit the classifier anew to what is left of the features, as the paper does, by the regression of DFR;
        where the edit stands right before a linear classifier, which has learned from what is removed. What it changes is
        put into the edit (`refitted`). None does so where every group has 50 images of every class

    Returns
    -------
    A copy of `model` with a `LowRank` edit after the layer, which changes nothing if the first probe is at chance already
    (the result's note says so).

    Raises
    ------
    ValueError : `iterations` or `C` is not as above; one group only.

    References
    ----------
    Ravfogel et al., "Null it out: guarding protected attributes by iterative nullspace projection", ACL 2020,
    arXiv 2004.07667.
    """
    if not isinstance(iterations, (int, np.integer)) or iterations < 1:
        raise ValueError(f"iterations: got {iterations!r}; a whole number of at least 1 is accepted")
    if not C > 0:
        raise ValueError(f"C: got {C!r}; a number above 0 is accepted")
    if len(np.unique(batch.group)) < 2:
        raise ValueError("group: one group in the data; a probe needs two")
    name, x, image = sample(batch, layer)
    cell = batch.group * batch.classes + batch.y
    middle = np.mean([x[cell[image] == code].mean(0) for code in np.unique(cell)], axis=0)
    root, back = whitening(x, cell[image]) if whiten else 2 * (np.eye(x.shape[1]),)
    basis = null_basis((x - middle) @ root, image, cell, batch.group, iterations, C, np.random.default_rng(batch.seed))
    down, up = root @ basis, back @ basis
    if basis.shape[1] == 0:
        batch.note("the first probe is at chance already: nothing is projected out")
        down = up = np.zeros((x.shape[1], 1))  # an edit that changes nothing, of a shape that every exporter takes
    edit = LowRank(x.shape[1], down.shape[1], middle, down, up)
    return append_after(model, name, refitted(edit, model, batch, retrain) if name == batch.layer else edit)


def whitening(x: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M^(-1/2) and M^(1/2), float64 (d, d) each, of the covariance M within cells, shrunk by a tenth."""
    residual = x.copy()
    for code in np.unique(cell):
        residual[cell == code] -= residual[cell == code].mean(0)
    value, vector = np.linalg.eigh(shrunk(residual.T @ residual / len(x)))
    return (vector * value**-0.5) @ vector.T, (vector * value**0.5) @ vector.T


def null_basis(
    x: np.ndarray, image: np.ndarray, cell: np.ndarray, group: np.ndarray, iterations: int, C: float, rng: np.random.Generator
) -> np.ndarray:
    """Orthonormal basis (d, k) of the rows of the probes that beat chance.

    Parameters
    ----------
    x : float64 (m, d), rows of features, centred
    image : int64 (m,), the image of each row
    cell, group : int64 (n,), group x class cell and group of each image
    """
    rest, aside = stratified(cell, 0.25, rng)
    to_fit, to_judge = np.isin(image, rest), np.isin(image, aside if len(aside) else rest)
    z, weights = group[image], equal_weights(cell[image][to_fit])
    x = x / (np.sqrt((x**2).mean()) or 1.0)
    basis = np.zeros((x.shape[1], 0))
    for _ in range(iterations):
        probe = LogisticRegression(C=C, max_iter=300, tol=1e-3).fit(x[to_fit], z[to_fit], sample_weight=weights)
        if at_chance(probe.predict(x[to_judge]), z[to_judge], image[to_judge]):
            break
        rows = probe.coef_ - (probe.coef_ @ basis) @ basis.T
        left, strength, _ = np.linalg.svd(rows.T, full_matrices=False)
        new = left[:, strength > 1e-6 * strength[0]]
        basis = np.linalg.qr(np.concatenate([basis, new], axis=1))[0]
        x = x - (x @ new) @ new.T
        if basis.shape[1] == x.shape[1]:
            break
    return basis


def at_chance(predicted: np.ndarray, z: np.ndarray, image: np.ndarray) -> bool:
    """Whether the mean over groups of the share found is within `SURE` standard errors of 1 / G, or below.

    The error counts images, since the positions of one image tell the same.
    """
    codes = np.unique(z)
    found = np.mean([(predicted[z == code] == code).mean() for code in codes])
    chance = 1 / len(codes)
    images = np.array([len(np.unique(image[z == code])) for code in codes])
    error = np.sqrt(chance * (1 - chance) * (1 / images).sum()) / len(codes)
    return found <= chance + SURE * error
