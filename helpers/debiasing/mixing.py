"""Mixtures of thresholds with which all groups have the same true and false positive rate (a linear program)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, QhullError

from helpers.debiasing.curves import Curve

KEPT = 1e-9  # of a mixture: less is rounding


def equal_rates(curves: tuple[Curve, ...]) -> tuple[list[np.ndarray], list[np.ndarray], float, float]:
    """The mixture of thresholds of each group that gives all of them the same (FPR, TPR), the best that they can share.

    With one weight l_gi >= 0 for each threshold t_gi, sum_i l_gi = 1, the program is: maximise v - u subject to
    sum_i l_gi FPR_g(t_gi) = u and sum_i l_gi TPR_g(t_gi) = v for all groups g (Hardt et al., Section 4.2, with the
    loss 1 - balanced accuracy). Only corners of the convex hull of a group's curve can have a weight, three at most.

    Parameters
    ----------
    curves : one `Curve` a group; a group without positives (negatives) has a say in u (v) only

    Returns
    -------
    thresholds, weights : for each group, float64 (k,), ascending thresholds and their weights
    false, found : float, u and v

    Raises
    ------
    ValueError : the solver found no solution (its message is told).
    """
    corners = [hull(c) for c in curves]
    sizes = [len(i) for i in corners]
    starts = np.cumsum([0, *sizes])
    rows, right = [], []
    for c, index, start in zip(curves, corners, starts, strict=False):
        own = slice(start, start + len(index))
        row = np.zeros(starts[-1] + 2)
        row[own] = 1
        rows.append(row)
        right.append(1.0)
        for number, values in ((0, c.false), (1, c.found)):
            if np.isnan(values[0]):
                continue
            row = np.zeros(starts[-1] + 2)
            row[own], row[starts[-1] + number] = values[index], -1
            rows.append(row)
            right.append(0.0)
    cost = np.zeros(starts[-1] + 2)
    cost[-2:] = 1, -1
    solved = linprog(cost, A_eq=np.array(rows), b_eq=np.array(right), bounds=(0, 1), method="highs-ds")
    if solved.x is None:
        raise ValueError(f"randomised: no mixture of thresholds was found ({solved.message})")
    thresholds, weights = [], []
    for c, index, start in zip(curves, corners, starts, strict=False):
        weight = solved.x[start : start + len(index)]
        used = weight > KEPT
        thresholds.append(c.threshold[index[used]])
        weights.append(weight[used] / weight[used].sum())
    return thresholds, weights, float(solved.x[-2]), float(solved.x[-1])


def hull(curve: Curve) -> np.ndarray:
    """Numbers of the thresholds at the corners of the convex hull of a curve, ascending."""
    points = np.nan_to_num(np.stack([curve.false, curve.found], 1))
    _, first = np.unique(points, axis=0, return_index=True)
    try:
        return np.sort(first[ConvexHull(points[first]).vertices])
    except QhullError:  # all points on one line: its ends
        order = np.lexsort((points[first][:, 1], points[first][:, 0]))
        return np.unique(first[order[[0, -1]]])
