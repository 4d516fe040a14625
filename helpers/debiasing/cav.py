"""Concept activation vectors: the directions in feature space along which groups differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from helpers.names import choose


def signal(features: np.ndarray, member: np.ndarray, seed: int) -> np.ndarray:
    """cov(x, t) / var(t): the pattern of the concept, deaf to distractors that a filter would have to cancel."""
    centred = member - member.mean()
    return centred @ (features - features.mean(0)) / (centred @ centred)


def mean_difference(features: np.ndarray, member: np.ndarray, seed: int) -> np.ndarray:
    """Mean of the members minus mean of the others; equal to `signal` as long as membership is 0 or 1."""
    return features[member == 1].mean(0) - features[member == 0].mean(0)


def ridge(features: np.ndarray, member: np.ndarray, seed: int) -> np.ndarray:
    """Coefficients of ridge regression on membership, penalty 0.01 per row."""
    return Ridge(alpha=0.01 * len(features)).fit(features, member).coef_


def lasso(features: np.ndarray, member: np.ndarray, seed: int) -> np.ndarray:
    """Coefficients of L1-penalised regression on membership, with a twentieth of the penalty that leaves none."""
    centred = features - features.mean(0)
    largest = np.abs(centred.T @ (member - member.mean())).max() / len(features)
    return Lasso(alpha=0.05 * largest or 1.0, max_iter=5000, tol=1e-3).fit(features, member).coef_


def logistic(features: np.ndarray, member: np.ndarray, seed: int) -> np.ndarray:
    """Coefficients of L2-penalised logistic regression, classes weighted equally."""
    return LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000).fit(features, member).coef_[0]


def svm(features: np.ndarray, member: np.ndarray, seed: int) -> np.ndarray:
    """Coefficients of a linear support vector machine, classes weighted equally."""
    machine = LinearSVC(C=0.01, class_weight="balanced", max_iter=5000, random_state=seed)
    return machine.fit(features, member).coef_[0]


def lda(features: np.ndarray, member: np.ndarray, seed: int) -> np.ndarray:
    """Fisher's direction, within-class covariance shrunk by the Ledoit-Wolf rule."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features, member).coef_[0]


DIRECTIONS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "signal": signal,
    "mean_difference": mean_difference,
    "ridge": ridge,
    "lasso": lasso,
    "logistic": logistic,
    "svm": svm,
    "lda": lda,
}
ALIASES = {"mmp": "mean_difference", "mean-mass": "mean_difference"}  # DetoxAI's names
OF_MEANS = ("signal", "mean_difference")  # known from the groups' means alone


def kind_of(cav_type: str) -> str:
    """The name in `DIRECTIONS` that `cav_type` means.

    Raises
    ------
    ValueError : there is none; the nearest is named.
    """
    return choose(ALIASES.get(str(cav_type).casefold(), cav_type), DIRECTIONS, "cav_type")


def directions(features: np.ndarray, group: np.ndarray, cav_type: str = "signal", seed: int = 0) -> np.ndarray:
    """Orthonormal basis of the span of the groups' concept vectors.

    Two groups give one vector (group 1 against group 0), more give one vector a group, that group against the rest.

    Parameters
    ----------
    features : float array (n, d)
    group : int array (n,), codes; at least two values
    cav_type : one of `DIRECTIONS`
    seed : int, for solvers that draw

    Returns
    -------
    float64 array (d, r), orthonormal columns; r = 1 for two groups, at most the number of groups otherwise.

    Raises
    ------
    ValueError : unknown `cav_type`; fewer than two groups; all vectors are zero (the groups do not differ here).

    References
    ----------
    Kim et al., "Interpretability beyond feature attribution: TCAV", ICML 2018 (concept vectors by a classifier).
    Pahde et al., "Navigating neural space: revisiting concept activation vectors to overcome directional
    divergence", ICLR 2025, arXiv 2202.03482, Eq. 4 (`signal`).
    """
    find = DIRECTIONS[kind_of(cav_type)]
    wanted = compared(np.unique(group))
    centred = np.asarray(features, np.float64)
    centred = centred - centred.mean(0)  # lbfgs stops early on uncentred features
    scale = np.sqrt((centred**2).mean()) or 1.0  # one number for all: the penalties mean the same on every model
    return spanned(np.stack([find(centred / scale, (group == code).astype(float), seed) for code in wanted], axis=1))


def directions_of_means(mean: np.ndarray, count: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """`directions` of type "signal", known from the groups' means (G, d) and numbers of images (G,)."""
    wanted = compared(np.flatnonzero(count))
    mean, total = np.where(count[:, None] > 0, mean, 0.0) / scale, count.sum()
    overall = count @ mean / total
    vectors = [(mean[code] - overall) * total / (total - count[code]) for code in wanted]  # against all the others
    return spanned(np.stack(vectors, axis=1))


def compared(codes: np.ndarray) -> np.ndarray:
    """The groups that are set against all the others: the second of two, each of several."""
    if len(codes) < 2:
        raise ValueError(f"group: {len(codes)} group in the data; a concept vector needs two")
    return codes[1:] if len(codes) == 2 else codes


def spanned(vectors: np.ndarray) -> np.ndarray:
    """Orthonormal basis (d, r) of the columns (d, k)."""
    left, strength, _ = np.linalg.svd(vectors, full_matrices=False)
    if not strength[0] > 1e-9:
        raise ValueError("group: the groups have the same features at this layer, so there is no concept vector")
    return left[:, strength > 1e-6 * strength[0]]  # one-vs-rest signals are linearly dependent: drop the null one
