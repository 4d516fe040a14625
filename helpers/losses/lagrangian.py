"""A wanted gap, met instead of tuned for: the augmented Lagrangian of "no two groups differ by more than `gap`".

References
----------
Hestenes, "Multiplier and gradient methods", Journal of Optimization Theory and Applications 4, 1969; Rockafellar, "Augmented
Lagrange multiplier functions and duality in nonconvex programming", SIAM Journal on Control 12, 1974, for inequalities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.bias.statistics import LinearFractionalStatistic
from helpers.losses.base import FairnessLoss
from helpers.losses.moving import MovingStatistic


class AugmentedLagrangianLoss(FairnessLoss):
    """Keeps the largest difference between two groups' statistics below a wanted gap, by multipliers that learn.

    For every ordered pair of groups s, t the constraint is h = F_s - F_t - gap <= 0, and the loss

        sum over pairs of (max(0, multiplier + penalty h)^2 - multiplier^2) / (2 penalty).

    After every batch in training mode, multiplier <- max(0, multiplier + penalty (1 - decay) h): it grows for as long as the
    gap is too wide, by what the classical schedule adds at once spread over the length of the statistic's memory, and comes
    down once the gap is narrower than wanted. So the strength of the loss is found, not given: leave `strength` of
    `helpers.train` at 1. The statistics are those of soft predictions with a memory (`MovingStatistic`); the gap of hard
    decisions, and the gap on other data, can differ.

    Called `loss(pred, sens, *label, pred_as_logit=True)`; see `FairnessLoss.forward`. Pairs with a group that has no value in
    a batch are left out of it, and their multipliers stay.

    Parameters
    ----------
    statistic : LinearFractionalStatistic, or a stack: then each of its statistics has to meet the gap
    gap : number, 0 or more, in units of the statistic
    penalty : number above 0, the weight of squared violations and the speed of the multipliers
    decay : of the memory; see `MovingStatistic`

    Attributes
    ----------
    multipliers : dict of Tensor (..., S, S), 0 or more, by class (0 unless there are several). Row s, column t: the price,
        in units of the loss, of one unit of F_s - F_t
    """

    def __init__(self, statistic: LinearFractionalStatistic, gap: float = 0.05, *, penalty: float = 10.0, decay: float = 0.98):
        super().__init__()
        if not 0 <= gap < float("inf"):
            raise ValueError(f"gap: {gap!r} given; a number of 0 or more expected")
        if not 0 < penalty < float("inf"):
            raise ValueError(f"penalty: {penalty!r} given; a number above 0 expected")
        self.statistic = MovingStatistic(statistic, decay)
        self.gap, self.penalty = float(gap), float(penalty)
        self.slot = 0
        self.reset()

    def reset(self) -> None:
        """All multipliers zero, all batches forgotten."""
        self.multipliers: dict[int, Tensor] = {}
        self.statistic.reset()

    def binary(self, pred: Tensor, sens: Tensor, *label: Tensor, pred_as_logit: bool = True, **named: Tensor) -> Tensor:
        values = self.statistic(pred.sigmoid() if pred_as_logit else pred, sens, *label, **named)
        known = ~values.isnan()
        values = torch.where(known, values, 0.0)
        pairs = known[..., :, None] & known[..., None, :] & ~torch.eye(values.shape[-1], dtype=torch.bool, device=pred.device)
        excess = torch.where(pairs, values[..., :, None] - values[..., None, :] - self.gap, 0.0)
        multipliers = self.multipliers.get(self.slot, torch.zeros_like(excess)).to(excess)
        if multipliers.shape != excess.shape:
            raise ValueError(f"sens: {values.shape[-1]} groups given, {multipliers.shape[-1]} before; reset() begins anew")
        pushed = (multipliers + self.penalty * excess).clamp(min=0)
        loss = torch.where(pairs, pushed.square() - multipliers.square(), 0.0).sum() / (2 * self.penalty)
        if self.training:
            learned = (multipliers + self.penalty * (1 - self.statistic.decay) * excess.detach()).clamp(min=0)
            self.multipliers[self.slot] = torch.where(pairs, learned, multipliers)
        return loss

    def get_extra_state(self) -> dict:
        return {str(slot): multipliers for slot, multipliers in self.multipliers.items()}

    def set_extra_state(self, state: dict) -> None:
        self.multipliers = {int(slot): multipliers for slot, multipliers in state.items()}

    def extra_repr(self) -> str:
        return f"gap={self.gap:g}, penalty={self.penalty:g}"
