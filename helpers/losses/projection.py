"""Projection losses: how far predictions are from the nearest fair ones (Buyl, Defrance & De Bie, 2024, eq. 7).

With target c, the predictions p (N,) are held against their projection

    q* = argmin_q  sum_n d(q_n, p_n)   subject to   F_s(q) = c for every group s,   0 <= q_n <= 1,

and the loss is the mean distance (1 / N) sum_n d(q*_n, p_n). The projection is exact: a statistic fixed to a value is a linear
constraint, and `helpers.losses.dual` solves for its multipliers.

What the gradient holds fixed: the target c, and with it the set of fair predictions. Then the gradient of the loss in p_n is
that of d(q*_n, p_n) with q* held fixed too (the envelope theorem; Danskin, 1966), since moving q* changes nothing to first order.

Code written for `fairret.loss` (0.1.3) needs another import line and nothing else. What is different, beside exactness:

- fairret divides the projected probabilities by their mean, which makes them sum to 2, before it measures the distance; so its
  values are not near these even where its solver converges, unless it is told `force_proj_normalized=False`;
- its Jensen-Shannon objective halves one of two terms; its squared Euclidean distance pairs every row with every other; its
  total variation is twice the distance;
- it refuses a batch larger than the first, and runs on the CPU only.

References
----------
Buyl, Defrance & De Bie, "fairret: a Framework for Differentiable Fairness Regularization Terms", ICLR 2024.
Danskin, "The theory of max-min, with applications", SIAM Journal on Applied Mathematics 14, 1966.
"""

from __future__ import annotations

import abc
import math
import warnings
from collections.abc import Iterable

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from helpers.bias.statistics import LinearFractionalStatistic
from helpers.losses import dual, processes
from helpers.losses.base import SATURATED, FairnessLoss, exact, fitting

BISECTIONS = 60


class ProjectionLoss(FairnessLoss):
    """Base of the losses that measure the distance to the fair projection.

    Called `loss(pred, sens, *label, pred_as_logit=True, target_statistic=None)`; see `FairnessLoss.forward` for the shapes and
    what is refused. `target_statistic` is a number or a tensor that broadcasts to the statistic's shape; by default the overall
    statistic of the batch. `project` gives the projection itself. All is computed in float64 and returned as it came.

    A distance of your own is a subclass with `torch_distance`: the mean over the rows of a distance that is strictly convex
    and differentiable in the projection. `torch_distance_with_logits` may be given too, and `responses` where the minimum
    that `dual.solve` asks for is known in closed form.

    - A group that is not in the batch, or a statistic that no prediction can move (a true positive rate without positives),
      makes no constraint: its rows are their own projection.
    - A target out of reach (a positive rate of 1.2, a target below what a group's labels allow) is replaced, group by group,
      by the nearest value within reach. Stacked statistics that contradict each other end as near as the solver came.
    - In training mode within a distributed run the rows of all processes are projected together.

    Parameters
    ----------
    statistic : LinearFractionalStatistic, such as those of `helpers.bias.statistics`, or a stack
    force_proj_normalized : accepted, as fairret takes it: a projection is a probability, whatever is said here
    proj_eps : number in [0, 0.5); the projection is moved into [proj_eps, 1 - proj_eps]
    **solver_kwargs : fairret's options of its solver. There is none to take them, which is said in a warning
    """

    smooth = False  # whether the responses have no kinks; see `dual.solve`

    def __init__(
        self,
        statistic: LinearFractionalStatistic,
        force_proj_normalized: bool = True,
        proj_eps: float = 0.0,
        **solver_kwargs,
    ):
        super().__init__()
        if not isinstance(statistic, LinearFractionalStatistic):
            raise TypeError(
                f"statistic: a LinearFractionalStatistic expected, such as PositiveRate(), {statistic!r} given; "
                "only of those is a fixed value a linear constraint"
            )
        if not 0 <= proj_eps < 0.5:
            raise ValueError(f"proj_eps: {proj_eps!r} given; a number in [0, 0.5) expected")
        if solver_kwargs:
            warnings.warn(
                f"{type(self).__name__} solves exactly and has no solver to take the options {', '.join(solver_kwargs)}",
                UserWarning,
                stacklevel=2,
            )
        self.statistic = statistic
        self.proj_eps = proj_eps

    @abc.abstractmethod
    def torch_distance(self, pred: Tensor, proj: Tensor) -> Tensor:
        """Mean distance, a scalar, of probabilities `pred` (N, 1) from `proj` (N, 2), the probabilities of 0 and of 1."""

    def torch_distance_with_logits(self, pred: Tensor, proj: Tensor) -> Tensor:
        """The same of logits `pred` (N, 1), where it can be computed with less loss."""
        return self.torch_distance(pred.sigmoid(), proj)

    def responses(self, logit: Tensor, prob: Tensor) -> Iterable[dual.Response]:
        """Solutions of min_q d(q, p_n) + tilt_n q as `dual.solve` takes them, of logits and probabilities (N,).

        Of several, each starts from the multipliers found with the one before: the last one counts.
        """
        yield _Searched(self.torch_distance, prob)

    def project(
        self,
        pred: Tensor,
        sens: Tensor,
        *label: Tensor,
        pred_as_logit: bool = True,
        target_statistic: Tensor | float | None = None,
        **named: Tensor,
    ) -> Tensor:
        """The nearest fair predictions: probabilities (N, 1) in the precision of `pred`, without gradient."""
        with torch.no_grad():
            if not len(pred):
                return pred.detach().clone()
            logit, prob = _point(pred, pred_as_logit)
            return self._project(logit, prob, sens, label, named, target_statistic)[0][:, 1:].to(pred.dtype)

    def binary(
        self,
        pred: Tensor,
        sens: Tensor,
        *label: Tensor,
        pred_as_logit: bool = True,
        target_statistic: Tensor | float | None = None,
        **named: Tensor,
    ) -> Tensor:
        if not len(pred) and (processes.count() == 1 or not self.training):
            return pred.sum()
        given = exact(pred)
        with torch.no_grad():
            logit, prob = _point(pred, pred_as_logit)
            proj, tilt = self._project(logit, prob, sens, label, named, target_statistic)
        value = self._value(given, proj, tilt, pred_as_logit) if len(pred) else given.sum()  # the mean of nothing is NaN
        return self._shared(value, len(pred)).to(pred.dtype)

    def _value(self, pred: Tensor, proj: Tensor, tilt: Tensor, pred_as_logit: bool) -> Tensor:
        return (self.torch_distance_with_logits if pred_as_logit else self.torch_distance)(pred, proj)

    def _shared(self, mean: Tensor, rows: int) -> Tensor:
        """The mean over the rows of all processes, of the mean over this one's."""
        if not self.training or processes.count() == 1:
            return mean
        return processes.total(mean * rows) / processes.total(mean.new_tensor(float(rows)))

    def _project(self, logit, prob, sens, label, named, target) -> tuple[Tensor, Tensor]:
        """Projected probabilities of 0 and of 1, (N, 2), and the tilts (N,)."""
        statistic, sens = self.statistic, sens.to(prob.dtype)
        shared = processes.total if self.training and processes.count() > 1 else None
        summed = shared or (lambda part: part)
        a0, a1, b0, b1 = statistic.coefficients(prob, *label, **named)
        stack = max(each.dim() for each in (a0, a1, b0, b1)) > 2
        rows = prob[:, None] if stack else prob  # (N, 1, 1) where coefficients are (N, K, 1)
        weight = sens[:, None] if stack else sens
        if target is None:
            num, denom = (summed((intercept + slope * rows).sum(0)) for intercept, slope in ((a0, a1), (b0, b1)))
            target = num / denom
            if not math.isfinite(target.sum()):  # without a target (nothing in the overall denominator) there is nothing to keep
                kept = target.isfinite()
                target, weight = torch.where(kept, target, 0.0), weight * kept
        else:
            parts = max(each.shape[1] for each in (a0, a1, b0, b1) if each.dim() > 2) if stack else 1
            target = fitting(target, prob, (parts, sens.shape[1]) if stack else (sens.shape[1],))
        # F_s = c is a0 + a1 q = c (b0 + b1 q), summed over the group.
        intercept, slope = (((a - target * b) * weight).flatten(1) for a, b in ((a0, b0), (a1, b1)))
        wanted = -summed(intercept.sum(0))
        slope, wanted = _blocks(slope, wanted, sens.shape[1], summed)
        value, tilt = self._solve(slope, wanted, logit[:, 0], prob[:, 0], shared)
        projected = value[:, None].clamp(self.proj_eps, 1 - self.proj_eps)
        return torch.cat([projected.neg() + 1, projected], dim=1), tilt

    def _solve(self, slope, wanted, logit, prob, shared) -> tuple[Tensor, Tensor]:
        """Projection and tilts, (N,) each, of constraints as `dual.solve` takes them."""
        found = None
        for response in self.responses(logit, prob):
            start = None if found is None else found.multipliers
            found = dual.solve(response, slope, wanted, start=start, summed=shared, smooth=self.smooth)
        return found.value, found.tilt

    def extra_repr(self) -> str:
        return f"proj_eps={self.proj_eps:g}" if self.proj_eps else ""


class KLProjectionLoss(ProjectionLoss):
    """Kullback-Leibler divergence of the projection from the predictions, KL(q || p) = sum over {0, 1} of q log(q / p), in nats.

    The projection is a shift of every row's logit by its tilt.
    """

    smooth = True

    def torch_distance(self, pred: Tensor, proj: Tensor) -> Tensor:
        return self.torch_distance_with_logits(_logit(pred), proj)

    def torch_distance_with_logits(self, pred: Tensor, proj: Tensor) -> Tensor:
        # -q log p - (1 - q) log(1 - p) is one softplus for both logarithms.
        crossed = torch.nn.functional.softplus(pred) - proj[:, 1:] * pred
        return (crossed.sum() + torch.xlogy(proj, proj).sum()) / len(pred)

    def responses(self, logit: Tensor, prob: Tensor) -> Iterable[dual.Response]:
        def response(tilt: Tensor) -> tuple[Tensor, Tensor]:
            moved = logit - tilt
            positive = moved.sigmoid()
            return positive, positive * (-moved).sigmoid()

        yield response


class JensenShannonProjectionLoss(ProjectionLoss):
    """Jensen-Shannon divergence, (KL(q || m) + KL(p || m)) / 2 with m = (q + p) / 2, in nats; at most log 2."""

    smooth = True

    def torch_distance(self, pred: Tensor, proj: Tensor) -> Tensor:
        return self.torch_distance_with_logits(_logit(pred), proj)

    def torch_distance_with_logits(self, pred: Tensor, proj: Tensor) -> Tensor:
        pred = pred.clamp(-SATURATED, SATURATED)
        pred = torch.cat([(-pred).sigmoid(), pred.sigmoid()], dim=1)
        log_middle = ((pred + proj) / 2).log()
        divergence = lambda a: torch.xlogy(a, a) - a * log_middle
        return (divergence(pred) + divergence(proj)).sum(1).mean() / 2

    def responses(self, logit: Tensor, prob: Tensor) -> Iterable[dual.Response]:
        logit = logit.clamp(-SATURATED, SATURATED)
        positive, negative = logit.sigmoid(), (-logit).sigmoid()

        def response(tilt: Tensor) -> tuple[Tensor, Tensor]:
            # logit(q) = logit(m) - 2 tilt is a quadratic equation in q. Solved for whichever of q and 1 - q shrinks, so that
            # nothing cancels: factor is at most 1.
            down = tilt >= 0
            factor = (tilt.abs() * -2).exp()
            fall = factor.neg() + 1  # PyTorch takes several times as long for 1 - factor
            own, other = torch.where(down, positive, negative), torch.where(down, negative, positive)
            most, half = factor * own, other * fall + 1  # the root of fall q^2 - half q + most = 0 in [0, own]
            root = (half * half - fall * most * 4).clamp(min=1e-300).sqrt()
            shrunk = most * 2 / (half + root)
            grown = shrunk.neg() + 1
            steepness = factor * grown * (shrunk + own) * 2 / root  # the derivative of the equation
            return torch.where(down, shrunk, grown), steepness

        yield response


class SquaredEuclideanProjectionLoss(ProjectionLoss):
    """Squared Euclidean distance (q - p)^2 of the probabilities of 1."""

    def torch_distance(self, pred: Tensor, proj: Tensor) -> Tensor:
        return (pred - proj[:, 1:]).square().mean()

    def responses(self, logit: Tensor, prob: Tensor) -> Iterable[dual.Response]:
        def response(tilt: Tensor) -> tuple[Tensor, Tensor]:
            moved = prob.sub(tilt, alpha=0.5)
            value = moved.clamp(0, 1)
            return value, (value == moved).to(prob.dtype) / 2

        yield response


class TotalVariationProjectionLoss(ProjectionLoss):
    """Total variation distance |q - p|, half the absolute difference summed over {0, 1}. (fairret reports it twice as large.)

    With one statistic and one group a row, rows are moved in the order of how much they matter to the constraint, as far as
    they go, until it is kept: rows that matter alike share the rest by what they have room for, whatever their order. With
    several constraints a row it is a linear program, solved through a logarithmic barrier that is lowered step by step, to
    within 1e-6 of the value. Where so few predictions keep the constraints that none is clear of every wall, the barrier cannot
    stand; such a program, which has few rows, goes to the simplex method of SciPy's HiGHS.

    The gradient is that of the loss's value, the tilt within [-1, 1], also for rows that stay where they are: moving one of
    them changes what the others have to make up for.

    References
    ----------
    Dantzig, "Discrete-variable extremum problems", Operations Research 5, 1957, for the order. Boyd & Vandenberghe, "Convex
    Optimization", 2004, chapter 11, for the barrier.
    """

    CLOSE = 1e-6
    KEPT = 1e-9  # what may be left of a constraint, as a part of the largest residual that it could have

    def torch_distance(self, pred: Tensor, proj: Tensor) -> Tensor:
        return (pred - proj[:, 1:]).abs().mean()

    def _value(self, pred: Tensor, proj: Tensor, tilt: Tensor, pred_as_logit: bool) -> Tensor:
        prob = pred.sigmoid() if pred_as_logit else pred
        value = self.torch_distance(prob.detach(), proj)
        slope = tilt.clamp(-1, 1)[:, None]
        return value + ((prob - prob.detach()) * slope).mean()

    def _solve(self, slope, wanted, logit, prob, shared) -> tuple[Tensor, Tensor]:
        if slope.shape[2] == 1 and shared is None:
            return _in_order(slope[..., 0], wanted[:, 0], prob)
        forced = None
        if shared is None:
            slope, wanted, forced = _forced(slope, wanted)
        barrier, start, before = 1.0, None, None
        while True:
            response = _barrier(prob, barrier)
            found = dual.solve(response, slope, wanted, start=start, summed=shared, tolerance=max(1e-13, 1e-16 / barrier))
            # Each of a row's four walls costs at most `barrier`.
            gap, value = 4 * barrier * len(prob), (found.value - prob).abs().sum()
            gap, value = (shared or (lambda part: part))(torch.stack([value.new_tensor(gap), value])).tolist()
            if gap <= self.CLOSE * value or barrier < 1e-13:
                break
            # The multipliers approach their limit nearly in proportion to the barrier: a tenth of the last change is left.
            start = found.multipliers if before is None else found.multipliers + (found.multipliers - before) / 10
            barrier, before = barrier / 10, found.multipliers
        answer = found.value, found.tilt
        if shared is None:
            left = (torch.einsum("nbk,n->bk", slope, found.value) - wanted).abs()
            if (left > self.KEPT * slope.abs().sum(0)).any():
                answer = _by_simplex(slope.flatten(1), wanted.flatten(), prob) or answer
        if forced is None:
            return answer
        return torch.where(forced.isnan(), answer[0], forced), answer[1]


def _by_simplex(slope: Tensor, wanted: Tensor, prob: Tensor) -> tuple[Tensor, Tensor] | None:
    """The linear program of q = p + up - down with constraints slope (N, M), wanted (M,); None where nothing keeps them."""
    matrix, given = slope.cpu().double().numpy().T, prob.cpu().double().numpy()
    bounds = np.stack([np.zeros(2 * len(given)), np.concatenate([1 - given, given])], axis=1)
    wanted = wanted.cpu().double().numpy() - matrix @ given
    found = linprog(np.ones(2 * len(given)), A_eq=np.hstack([matrix, -matrix]), b_eq=wanted, bounds=bounds, method="highs")
    if found.status != 0:
        return None
    up, down = np.split(found.x, 2)
    return tuple(torch.from_numpy(part).to(prob) for part in (given + up - down, -(found.eqlin.marginals @ matrix)))


def _in_order(slope: Tensor, wanted: Tensor, prob: Tensor) -> tuple[Tensor, Tensor]:
    """The total variation projection for constraints that share no row: slope (N, S), wanted (S,)."""
    missing = wanted - prob @ slope
    weight = slope.abs()
    upwards = slope * missing > 0
    room = torch.where(upwards, 1 - prob[:, None], prob[:, None])
    gain = weight * room
    ordered, order = weight.sort(dim=0, descending=True)
    reached = gain.gather(0, order).cumsum(0)
    last = (reached < missing.abs()).sum(0).clamp(max=len(prob) - 1)
    level = ordered.gather(0, last[None])  # the weight at which the constraint is kept, (1, S)
    above, at = weight > level, weight == level
    rest = missing.abs() - (gain * above).sum(0)
    share = (rest / (gain * at).sum(0)).nan_to_num(nan=0.0, posinf=0.0).clamp(0, 1)
    moved = torch.where(above, 1.0, torch.where(at, share, 0.0)) * room
    value = prob + torch.where(upwards, moved, -moved).mul(weight > 0).sum(1)
    tilt = -(slope / level.clamp(min=torch.finfo(slope.dtype).tiny) * missing.sign()).sum(1)
    return value.clamp(0, 1), tilt


def _forced(slope: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The constraints without the rows that they leave no choice, and what those have to be, (N,), NaN for the others.

    A constraint whose wanted value is the most or the least that it can have puts all its rows at an end of [0, 1] (precision in
    a group without positives: no prediction may be positive). There no room is left for a barrier.
    """
    forced = torch.full_like(slope[:, 0, 0], torch.nan)
    while True:
        most, least = slope.clamp(min=0).sum(0), slope.clamp(max=0).sum(0)  # (B, K)
        close = 1e-12 * (most - least)
        at_most, at_least = wanted >= most - close, wanted <= least + close
        up = ((slope > 0) & at_most | (slope < 0) & at_least).any(2).any(1)
        down = ((slope < 0) & at_most | (slope > 0) & at_least).any(2).any(1)
        if not (up | down).any():
            return slope, wanted, forced
        forced = torch.where(up, 1.0, torch.where(down, 0.0, forced))
        wanted = wanted - (slope * up[:, None, None]).sum(0)
        slope = torch.where((up | down)[:, None, None], 0.0, slope)


def _barrier(prob: Tensor, height: float) -> dual.Response:
    """The response of |q - p| with walls: q = p + up - down, each within its room, minus `height` times the logarithms of the
    distances to the walls."""

    def part(rate: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
        # rate = height / x - height / (room - x), solved for the smaller of x and room - x.
        pull = rate.abs() * room
        near = 2 * height * room / (pull + 2 * height + (pull.square() + 4 * height**2).sqrt())
        far = room - near
        steepness = (near * far).square() / (height * (near.square() + far.square()).clamp(min=1e-300))
        return torch.where(rate > 0, near, far), steepness

    def response(tilt: Tensor) -> tuple[Tensor, Tensor]:
        (up, faster), (down, slower) = part(1 + tilt, 1 - prob), part(1 - tilt, prob)
        return prob + up - down, faster + slower

    return response


def _blocks(slope: Tensor, wanted: Tensor, groups: int, summed) -> tuple[Tensor, Tensor]:
    """Constraints (N, K S) and (K S,) as blocks (N, B, K) and (B, K) that share no row, as many as there are."""
    used = slope != 0
    if summed((used.sum(1) > 1).any().long()) == 0:
        return slope[..., None], wanted[:, None]
    used = used.unflatten(1, (-1, groups))
    if summed((used.any(1).sum(1) > 1).any().long()) == 0:
        return slope.unflatten(1, (-1, groups)).transpose(1, 2).contiguous(), wanted.reshape(-1, groups).T
    return slope[:, None], wanted[None]


class _Searched:
    """The response of a distance known only by its value: the root of d'(q) + tilt by bisection, all rows at once."""

    def __init__(self, distance, prob: Tensor):
        self.distance, self.prob = distance, prob[:, None]

    def __call__(self, tilt: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.zeros_like(tilt), torch.ones_like(tilt)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            rises = self._slopes(middle)[0] + tilt > 0
            low, high = torch.where(rises, low, middle), torch.where(rises, middle, high)
        value = (low + high) / 2
        curvature = self._slopes(value, twice=True)[1]
        inside = (value > 1e-15) & (value < 1 - 1e-15)
        return value, torch.where(inside, 1 / curvature.clamp(min=1e-12), 0.0)

    def _slopes(self, value: Tensor, twice: bool = False) -> tuple[Tensor, Tensor | None]:
        with torch.enable_grad():
            value = value.detach().requires_grad_()
            proj = torch.stack([1 - value, value], dim=1)
            total = self.distance(self.prob, proj) * len(value)
            (first,) = torch.autograd.grad(total, value, create_graph=twice)
            second = torch.autograd.grad(first.sum(), value)[0] if twice else None
        return first.detach(), second


def _point(pred: Tensor, pred_as_logit: bool) -> tuple[Tensor, Tensor]:
    """Logits and probabilities (N, 1) in float64, where the device has it."""
    given = exact(pred)
    return (given, given.sigmoid()) if pred_as_logit else (_logit(given, pred.dtype), given)


def _logit(prob: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """Logits of probabilities, 0 and 1 moved inside by what `precision` can tell from them."""
    return torch.logit(prob, eps=torch.finfo(precision or prob.dtype).eps)
