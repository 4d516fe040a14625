"""Newton's method on the dual of a projection: as many unknowns as constraints, however many rows.

The projection of predictions p onto M linear constraints is

    min_q  sum_n d(q_n, p_n)   subject to   sum_n a_nm q_n = b_m,   0 <= q_n <= 1.

With multipliers lambda (M,) every row answers for itself: q_n(tilt_n) = argmin_q d(q, p_n) + tilt_n q, tilt_n = a_n . lambda.
What is left is to find the lambda at which these answers keep the constraints. The residual r(lambda) = sum_n a_n q_n - b is
the gradient of the concave dual, and its Jacobian is -sum_n a_n a_n^T s_n, s_n = -dq_n / dtilt_n >= 0. (Where q has a kink,
as at the ends of [0, 1], s_n is an element of the generalised derivative: the method is then called semi-smooth.)

References
----------
Boyd & Vandenberghe, "Convex Optimization", 2004, chapter 5. Qi & Sun, "A nonsmooth version of Newton's method",
Mathematical Programming 58, 1993. Levenberg 1944 and Marquardt 1963 for the damping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Response = Callable[[Tensor], tuple[Tensor, Tensor]]

ITERATIONS = 200
TOLERANCE = 1e-13  # of the largest residual that the constraint could have, sum |a|
DAMPING = 1e-3, 1e-60  # at first, and the least
REDUNDANT = 1e-13
CLOSER = 0.25  # what a step past the top has to make of the squared residual
EASED, RAISED = 1e-2, 30.0  # what an accepted and a refused step make of the damping


@dataclass(frozen=True)
class Dual:
    """What `solve` found: q (N,), tilts (N,), multipliers (B, K), and the number of Newton steps it took."""

    value: Tensor
    tilt: Tensor
    multipliers: np.ndarray
    steps: int


def solve(
    response: Response,
    slope: Tensor,
    wanted: Tensor,
    *,
    start: np.ndarray | None = None,
    summed: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = TOLERANCE,
    smooth: bool = False,
    iterations: int = ITERATIONS,
) -> Dual:
    """The multipliers at which the rows' answers keep every constraint `sum_n slope_n q_n = wanted`.

    Parameters
    ----------
    response : tilt (N,) -> (q (N,) in [0, 1], falling in the tilt; s (N,) = -dq / dtilt, zero or more)
    slope : (N, B, K), the coefficients of B blocks of K constraints. No row may have coefficients in two blocks, so that
        each block is a problem of its own; they are solved side by side
    wanted : (B, K). A value that no q in [0, 1] reaches is moved to the nearest that one does
    start : (B, K) multipliers to begin with; zero by default
    summed : adds a total up over processes, each of which has some of the rows; None if there is but one
    tolerance : the residual that is small enough, as a part of the largest that the constraint could have
    smooth : whether q has no kinks. A Newton step then leaves about the residual times the tilts that it adds, and where that is
        small enough, nobody looks whether it does
    iterations : the most Newton steps to take

    Returns
    -------
    Dual. Constraints that contradict each other leave the residual of the last step; rows without coefficients have tilt 0.
    """
    rows, blocks, size = slope.shape
    shared, summed = summed is not None, summed or (lambda total: total)
    sums = _host(summed(torch.stack([slope, slope.abs(), slope.square()]).sum(1)))  # (3, B, K)
    wanted = np.clip(_host(wanted), (sums[0] - sums[1]) / 2, (sums[0] + sums[1]) / 2)  # what q = 0 or 1 by sign can reach
    enough = tolerance * sums[1]
    scale = np.where(sums[2] > 0, sums[2], 1.0)  # in units of the tilts: a small group takes steps as long as a large one

    # The constraints are few: what concerns them alone is worked out on the CPU, at one transfer a step. There NumPy spends
    # less than torch on each call.
    flat = slope.reshape(rows, blocks * size)
    products = flat.square() if size == 1 else (slope[..., :, None] * slope[..., None, :]).flatten(start_dim=1)
    cpu = slope.device.type == "cpu"
    here = (flat.numpy(), products.numpy()) if cpu else (flat, products)
    largest = float(flat.abs().amax()) if smooth and rows else 0.0

    def tilts(multipliers: np.ndarray) -> Tensor:
        moved = multipliers.reshape(-1)
        return torch.from_numpy(here[0] @ moved) if cpu else flat @ torch.from_numpy(moved).to(flat)

    def look(multipliers: np.ndarray) -> _Look:
        tilt = tilts(multipliers)
        answers = response(tilt)
        if cpu and not shared:
            residual, curvature = (answer.numpy() @ part for answer, part in zip(answers, here, strict=True))
        else:
            totals = torch.cat([answer @ part for answer, part in zip(answers, (flat, products), strict=True)])
            residual, curvature = np.split(_host(summed(totals)), [blocks * size])
        return _Look(tilt, *answers, residual.reshape(blocks, size) - wanted, curvature.reshape(blocks, size, size))

    multipliers = np.zeros_like(wanted) if start is None else start
    damping = np.full((blocks, 1), DAMPING[0])
    seen = look(multipliers)
    residual, curvature, steps, current = seen.residual, seen.curvature, 0, True
    size_of = lambda residual: (residual * residual / scale).sum(1)
    so_far = size_of(residual)
    while True:
        step, off = _step(curvature, damping * scale, residual), np.abs(residual)
        if steps == iterations or (off <= enough).all():
            break
        if smooth and current and (off * np.abs(step).sum(1, keepdims=True) * largest <= enough).all():
            break
        steps += 1
        there = multipliers + step
        seen = look(there)
        # The dual is concave: if it still rises at the end of a step, it rose all the way. Past the top a step is kept
        # if it came closer.
        now = size_of(seen.residual)
        kept = now < CLOSER * so_far
        current = kept.all()
        if not current:
            kept |= (seen.residual * step).sum(1) >= 0
            current = kept.all()
        if current:
            multipliers, residual, curvature, so_far = there, seen.residual, seen.curvature, now
            damping = np.maximum(damping * EASED, DAMPING[1])
        else:
            so_far, kept = np.where(kept, now, so_far), kept[:, None]
            multipliers, residual = np.where(kept, there, multipliers), np.where(kept, seen.residual, residual)
            curvature = np.where(kept[..., None], seen.curvature, curvature)
            damping = np.where(kept, np.maximum(damping * EASED, DAMPING[1]), np.maximum(damping * RAISED, 1e-6))
    if not current:
        seen = look(multipliers)
    # What is left of the residual, the last step takes to first order.
    last = tilts(step)
    return Dual((seen.value - seen.steepness * last).clamp(0, 1), seen.tilt, multipliers, steps)


class _Look(NamedTuple):
    """What a response to multipliers amounts to."""

    tilt: Tensor
    value: Tensor
    steepness: Tensor
    residual: np.ndarray
    curvature: np.ndarray


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().astype(np.float64, copy=False)


def _step(curvature: np.ndarray, damping: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """The damped Newton step of every block, (curvature + damping)^-1 residual."""
    if residual.shape[1] == 1:
        return residual / (curvature[:, 0] + damping)
    # Constraints that repeat each other make the curvature singular to rounding.
    damping = damping + REDUNDANT * curvature.diagonal(axis1=1, axis2=2)
    return np.linalg.solve(curvature + damping[:, None] * np.eye(residual.shape[1]), residual[..., None])[..., 0]
