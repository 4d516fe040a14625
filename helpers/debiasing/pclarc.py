"""P-ClArC: project the direction of the group out of the features."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from torch import nn

from helpers.debiasing.cav import OF_MEANS, directions, directions_of_means, kind_of
from helpers.debiasing.method import Batch, method
from helpers.debiasing.reading import CellMeans, cell_means, sample
from helpers.models.affine import LowRank
from helpers.models.layers import append_after
from helpers.names import choose

WIDEST = 4096  # features whose covariance is taken into account: 0.13 GB
LEAST_OUTSIDE = 0.05  # of a concept vector, outside the span of the target: with less it cannot be told from it
SHRINKAGE = 0.1  # of the covariance, towards the mean variance of a feature
PROJECTIONS = ("oblique", "orthogonal")


@method("PCLARC", needs={"features"})
def pclarc(
    model: nn.Module,
    batch: Batch,
    *,
    layer: str = "penultimate",
    cav_type: str = "signal",
    projection: str = "oblique",
    reference: int | str = "balanced",
    alpha: float = 1.0,
    flatten: bool = False,
) -> nn.Module:
    """Project the groups' concept vectors out of the features of a layer (projective ClArC).

    With V an orthonormal basis of the concept vectors, the edit is h(x) = x - alpha V F^T (x - z): along V every image gets
    the value that the reference z has there. In the paper F = V ("orthogonal"). Groups are compared within
    each class, because where target and group go together their plain difference is the target's direction too.

    An orthogonal projection also removes whatever of the target lies along V, and a classifier that has learned
    target and group as nearly one direction (their cosine is 0.97 on the default problem) loses most of what it knew
    of the target (0.58 of balanced accuracy are left of 0.78 there). So by default F reads the concept by what sets
    it apart: of all F with F^T V = 1 and F^T U = 0, U the differences of the classes, it is the one whose value
    varies least within a group and class, F = M^-1 B (B^T M^-1 B)^-1 [1 0]^T with B = [V U] and M the covariance
    within cells, shrunk by a tenth. Either way the groups' means agree along V afterwards, and the edit takes O(d)
    memory; a layer of more than 4096 features takes M = 1.

    Parameters
    ----------
    layer : str, "penultimate", "last" or a layer's name; at a map the edit acts on the channels of every position
    cav_type : "signal", "mean_difference", "ridge", "lasso", "logistic", "svm" or "lda". All but the first two are filters: they
        turn away from what groups and other features share, so projecting them out orthogonally leaves the groups'
        means nearly where they were.
    projection : "oblique" or "orthogonal", as above
    reference : "balanced" or the code of a group. A code takes that group's mean as z, as in the paper, where one
        group is free of the artefact. No group of people is; sending everybody to one group's mean also passes
        that group's bias on to everybody, down to a constant prediction. "balanced" takes the middle: the mean
        of the group x class cells, each counted equally.
    alpha : float, how much of the way to the reference
    flatten : bool, at a map: one direction of the whole map instead of its channels. Concept vectors other than "signal" and
        "mean_difference" then need the maps of all images at once

    Returns
    -------
    A copy of `model` with a `LowRank` edit after the layer.

    Raises
    ------
    ValueError : an option that is not as above, or features that do not differ between groups of the same class.

    References
    ----------
    Anders et al., "Finding and removing Clever Hans: using explanation methods to debug and improve deep models",
    Information Fusion 77, 2022. Pahde et al. (see `cav.directions`) on filters against `signal`.
    """
    projection = choose(projection, PROJECTIONS, "projection")
    name, basis, cells = concept(batch, layer, cav_type, flatten, WIDEST if projection == "oblique" else 0)
    z = reference_point(cells, reference)
    reader = basis if projection == "orthogonal" else reading(basis, cells)
    return append_after(model, name, LowRank(len(z), basis.shape[1], z, reader, alpha * basis))


def reading(basis: np.ndarray, cells: CellMeans) -> np.ndarray:
    """F (d, r) by which the concept vectors V (d, r) are read, as `pclarc` has it.

    Where (nearly) nothing of V is outside the span of the classes' differences, F may see the target.
    """
    classes = centres(cells)[cells.count.any(0)]
    left, strength, _ = np.linalg.svd((classes - classes.mean(0)).T, full_matrices=False)
    target = left[:, strength > 1e-6 * max(strength[0], cells.scale)]
    outside = np.linalg.svd(basis - target @ (target.T @ basis), compute_uv=False)
    both = np.concatenate([basis, target], axis=1) if outside.min() > LEAST_OUTSIDE else basis
    weighed = both
    if cells.within is not None:
        weighed = scipy.linalg.solve(shrunk(cells.within), both, assume_a="pos")
    return (weighed @ np.linalg.inv(both.T @ weighed))[:, : basis.shape[1]]


def shrunk(covariance: np.ndarray) -> np.ndarray:
    """A covariance (d, d) moved by `SHRINKAGE` towards equal variances without correlation."""
    even = np.trace(covariance) / len(covariance) or 1.0
    return (1 - SHRINKAGE) * covariance + SHRINKAGE * even * np.eye(len(covariance))


def concept(batch: Batch, layer: str, cav_type: str, flatten: bool, widest: int = 0) -> tuple[str, np.ndarray, CellMeans]:
    """Name of the layer, orthonormal basis (d, r) of the groups' concept vectors within each class, and the cells' means."""
    cav_type = kind_of(cav_type)
    name, cells = cell_means(batch, layer, flatten, widest)
    if cav_type in OF_MEANS:
        within = np.where(cells.count[..., None] > 0, cells.mean - centres(cells), 0.0)
        groups = np.einsum("gc,gcd->gd", cells.count, within) / np.maximum(cells.count.sum(1), 1)[:, None]
        return name, directions_of_means(groups, cells.count.sum(1), cells.scale), cells
    _, x, image = sample(batch, layer, flatten)
    x -= centres(cells)[batch.y[image]]
    return name, directions(x, batch.group[image], cav_type, batch.seed), cells


def centres(cells: CellMeans) -> np.ndarray:
    """The centre of each class, the mean of its groups' means, float64 (C, d): less it, only groups differ in the features."""
    filled = (cells.count > 0)[..., None]
    with np.errstate(invalid="ignore"):  # a class without images has no centre: NaN
        return np.where(filled, cells.mean, 0.0).sum(0) / filled.sum(0)


def reference_point(cells: CellMeans, reference: int | str) -> np.ndarray:
    """The point z (d,) whose value along the concept every image is given."""
    if reference == "balanced":
        return cells.mean[cells.count > 0].mean(0)
    check_group(cells, reference, "'balanced'")
    own = cells.count[reference] > 0
    return cells.count[reference, own] @ cells.mean[reference, own] / cells.count[reference].sum()


def group_points(cells: CellMeans) -> np.ndarray:
    """The mean of each group that occurs, its classes counting equally, float64 (g, d)."""
    return np.stack([mean[count > 0].mean(0) for mean, count in zip(cells.mean, cells.count, strict=True) if count.any()])


def check_group(cells: CellMeans, code: int, otherwise: str) -> None:
    """ValueError unless a reference is the code of a group with images."""
    present = np.flatnonzero(cells.count.sum(1))
    if isinstance(code, str) or code not in present:
        raise ValueError(f"reference: {code!r} is neither {otherwise} nor one of {present.tolist()}")


def apart(cells: CellMeans, basis: np.ndarray) -> float:
    """Mean squared distance between two groups along the concept vectors (d, r)."""
    points = group_points(cells) @ basis
    return 2 * len(points) / (len(points) - 1) * float(points.var(0).sum())
