"""Squared violations less what chance alone would make of them: no memory, and no punishment for small batches."""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.bias.statistics import LinearFractionalStatistic
from helpers.losses import processes
from helpers.losses.base import FairnessLoss, probabilities


class UnbiasedSquareLoss(FairnessLoss):
    """An estimate of sum_s (F_s - F)^2 that small groups do not inflate; it can be negative.

    With F_r the statistic of everybody but group s, and w_s the group's share of the denominator, F_s - F is
    (1 - w_s) (F_s - F_r). Chance adds the variances of both to the expected square, so the loss is

        sum_s (1 - w_s)^2 [(F_s - F_r)^2 - Var(F_s) - Var(F_r)],   Var(F) = m / (m - 1) sum_n (num_n - F denom_n)^2 / denom^2

    over the m rows that count in the denominator. Where the denominator does not depend on the predictions (positive rate,
    true and false positive rate, accuracy) the expectation is exactly that of infinitely large groups with these shares,
    zero for a fair predictor, and the same holds of the gradient; elsewhere it holds to first order (the delta method).

    Called `loss(pred, sens, *label, pred_as_logit=True)`; see `FairnessLoss.forward`. A group, or its complement, with fewer
    than two rows has no variance to speak of and is left out. In training mode within a distributed run the sums are those
    of all processes.

    Parameters
    ----------
    statistic : LinearFractionalStatistic, or a stack (the sum over its statistics)
    """

    def __init__(self, statistic: LinearFractionalStatistic):
        super().__init__()
        if not isinstance(statistic, LinearFractionalStatistic):
            raise TypeError(f"statistic: a LinearFractionalStatistic expected, such as PositiveRate(), {statistic!r} given")
        self.statistic = statistic

    def binary(self, pred: Tensor, sens: Tensor, *label: Tensor, pred_as_logit: bool = True, **named: Tensor) -> Tensor:
        pred = probabilities(pred, pred_as_logit)
        a0, a1, b0, b1 = self.statistic.coefficients(pred, *label, **named)
        stack = max(each.dim() for each in (a0, a1, b0, b1)) > 2
        rows = pred[:, None] if stack else pred
        sens = sens.to(pred)
        weight = torch.stack([sens, 1 - sens])  # of the group, and of everybody else: (2, N, S)
        weight = weight[:, :, None] if stack else weight
        num, denom = (a0 + a1 * rows) * weight, (b0 + b1 * rows) * weight  # (2, N, S) or (2, N, K, S)
        parts = torch.stack([num, denom, num.square(), num * denom, denom.square(), (denom != 0).to(pred)])
        total = parts.sum(2)
        if self.training:
            total = processes.total(total)
        num, denom, num2, cross, denom2, count = total  # (2, S) or (2, K, S) each
        enough = (count >= 2).all(0) & (denom != 0).all(0)
        safe = torch.where(enough, denom, 1.0)
        value = num / safe
        variance = (num2 - 2 * value * cross + value.square() * denom2) / safe.square() * count / (count - 1).clamp(min=1)
        share = safe[1] / safe.sum(0)
        excess = share.square() * ((value[0] - value[1]).square() - variance.sum(0))
        return torch.where(enough, excess, 0.0).sum()
