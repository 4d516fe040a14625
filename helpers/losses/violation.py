"""Violation losses: how far every group's statistic is from a target, as a norm (Buyl, Defrance & De Bie, 2024, eq. 6).

The violation of group s is v_s = |F_s / c - 1|, the relative distance of its statistic from the target c. Gradients flow
through the statistics, and through c where it is the overall statistic, as in fairret.

References
----------
Buyl, Defrance & De Bie, "fairret: a Framework for Differentiable Fairness Regularization Terms", ICLR 2024.
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor

from helpers.bias.statistics import Statistic
from helpers.losses import processes
from helpers.losses.base import FairnessLoss, fitting, probabilities


class ViolationLoss(FairnessLoss):
    """Base of the losses of a violation vector; a subclass defines `penalize_violation`.

    Called `loss(pred, sens, *label, pred_as_logit=True, target_statistic=None)`; see `FairnessLoss.forward` for the shapes
    and what is refused. `target_statistic` is a number or a tensor that broadcasts to the statistic's shape, (S,), or (K, S)
    of a stack; by default the overall statistic. It needs to be given for a statistic that has none.

    - A group that is not in the batch, or has no value in it (no positives for a true positive rate), has no violation:
      it is left out, of the norms as of the number of groups.
    - Where the target is zero nothing can be relative to it, so the violation is |F_s|. (The overall statistic of soft
      predictions is zero only if every group's is, as rates have no negative parts.)
    - In training mode within a distributed run the sums behind the statistics are added up over the processes first, so that
      the loss is that of the whole batch, and the gradient too once DistributedDataParallel has averaged it.

    Parameters
    ----------
    statistic : Statistic, such as those of `helpers.bias.statistics`
    """

    def __init__(self, statistic: Statistic):
        super().__init__()
        if not isinstance(statistic, Statistic):
            raise TypeError(f"statistic: an instance of a Statistic expected, such as PositiveRate(), {statistic!r} given")
        self.statistic = statistic

    @abc.abstractmethod
    def penalize_violation(self, violation: Tensor) -> Tensor:
        """The loss, a scalar, of violations (S,), or (K, S) of a stack, of the groups that have one; zero or more each."""

    def binary(
        self,
        pred: Tensor,
        sens: Tensor,
        *label: Tensor,
        pred_as_logit: bool = True,
        target_statistic: Tensor | float | None = None,
        **named: Tensor,
    ) -> Tensor:
        pred = probabilities(pred, pred_as_logit)
        values, target = self._values(pred, sens.to(pred.dtype), label, named, target_statistic)
        known = ~(values + target).isnan()
        complete = bool(known.all())
        if not complete:  # before the division, whose gradient in the target would be NaN
            values, target = torch.where(known, values, 0.0), torch.where(target.isnan(), 1.0, target)
        zero = target == 0
        gaps = torch.where(zero, values, values / torch.where(zero, 1.0, target) - 1) if zero.any() else values / target - 1
        gaps = gaps.abs()
        if complete:
            return self.penalize_violation(gaps)
        gaps, known = torch.atleast_2d(gaps), torch.atleast_2d(known)
        # Row by row: a stack's statistics may have values for different groups.
        rows = [self.penalize_violation(gap[there]) for gap, there in zip(gaps, known, strict=True) if there.any()]
        return torch.stack(rows).sum() if rows else pred.sum() * 0

    def _values(self, pred, sens, label, named, target) -> tuple[Tensor, Tensor]:
        """The groups' statistics and the target, of all processes."""
        values, overall = processes.values(self.statistic, pred, sens, label, named, shared=self.training)
        if target is None:
            return values, overall
        return values, fitting(target, pred, values.shape)


class NormLoss(ViolationLoss):
    """The p-norm of the violations, (sum_s v_s^p)^(1/p); of a stack, the sum of its statistics' norms.

    Parameters
    ----------
    statistic : Statistic
    p : number above 0, or infinity (the largest violation). Below 1 it is no norm, but defined

    Examples
    --------
    >>> from helpers.bias.statistics import PositiveRate
    >>> sens = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    >>> NormLoss(PositiveRate())(torch.zeros(4, 1), sens)
    tensor(0.)
    """

    def __init__(self, statistic: Statistic, p: float = 1):
        super().__init__(statistic)
        if isinstance(p, bool) or not isinstance(p, int | float) or not p > 0:
            raise ValueError(f"p: {p!r} given; a number above 0, or float('inf'), expected")
        self.p = p

    def penalize_violation(self, violation: Tensor) -> Tensor:
        return torch.linalg.vector_norm(violation, ord=self.p, dim=-1).sum()

    def extra_repr(self) -> str:
        return f"p={self.p}"


class LSELoss(ViolationLoss):
    """A smooth maximum of the violations, log(mean_s exp(v_s)): log-sum-exp less the logarithm of the number of groups."""

    def penalize_violation(self, violation: Tensor) -> Tensor:
        return (torch.logsumexp(violation, dim=-1) - math.log(violation.shape[-1])).sum()
