"""A wanted gap, met instead of tuned for: the augmented Lagrangian of "no two groups differ by more than `gap`".

References
----------
Hestenes, "Multiplier and gradient methods", Journal of Optimization Theory and Applications 4, 1969; Rockafellar, "Augmented
Lagrange multiplier functions and duality in nonconvex programming", SIAM Journal on Control 12, 1974, for inequalities.
Cotter, Jiang & Sridharan, "Two-player games for efficient non-convex constrained optimization", ALT 2019, for multipliers that
look at the decisions while the gradient needs probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.bias.statistics import LinearFractionalStatistic
from helpers.losses.base import FairnessLoss, probabilities
from helpers.losses.moving import MovingStatistic


class AugmentedLagrangianLoss(FairnessLoss):
    """Keeps the largest difference between two groups' statistics below a wanted gap, by multipliers that learn.

    For every ordered pair of groups s, t the constraint is h = F_s - F_t - gap <= 0, and the loss

        sum over pairs of (max(0, multiplier + penalty h)^2 - multiplier^2) / (2 penalty).

    After every batch in training mode, multiplier <- max(0, multiplier + rate penalty h): it grows for as long as the gap is
    too wide, by what the classical schedule adds at once spread over many batches, and comes down once the gap is narrower
    than wanted. So the strength of the loss is found, not given: leave `strength` of `helpers.train` at 1. It takes some
    hundreds of batches, and settles as the learning rate falls.

    The loss needs probabilities to have a gradient. A network can make the groups' mean probabilities equal and leave its
    decisions apart, by becoming less sure of one group. So the multipliers look at the decisions, h of `pred > 0.5`, unless
    `decisions=False`. The gap is met on the data trained on; on others it can differ.

    Called `loss(pred, sens, *label, pred_as_logit=True)`; see `FairnessLoss.forward`. Pairs with a group that has no value in
    a batch are left out of it, and their multipliers stay.

    Parameters
    ----------
    statistic : LinearFractionalStatistic, or a stack: then each of its statistics has to meet the gap
    gap : number, 0 or more, in units of the statistic
    penalty : number above 0, the weight of squared violations
    rate : number above 0, what part of the violation times the penalty a batch adds to the multiplier. A multiplier that is
        faster than the model overshoots
    decay : of the memory of the statistics, for batches with few rows of a group; see `MovingStatistic`. A memory lags behind
        the model, so that a long one makes the gap swing
    decisions : whether the multipliers look at decisions, or at probabilities as the loss does

    Attributes
    ----------
    multipliers : dict of Tensor (..., S, S), 0 or more, by class (0 unless there are several). Row s, column t: the price,
        in units of the loss, of one unit of F_s - F_t
    """

    def __init__(
        self,
        statistic: LinearFractionalStatistic,
        gap: float = 0.05,
        *,
        penalty: float = 10.0,
        rate: float = 0.01,
        decay: float = 0.0,
        decisions: bool = True,
    ):
        super().__init__()
        if not 0 <= gap < float("inf"):
            raise ValueError(f"gap: {gap!r} given; a number of 0 or more expected")
        for name, value in (("penalty", penalty), ("rate", rate)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: {value!r} given; a number above 0 expected")
        self.statistic = MovingStatistic(statistic, decay)
        self.decided = MovingStatistic(statistic, decay) if decisions else None
        self.gap, self.penalty, self.rate = float(gap), float(penalty), float(rate)
        self.slot = 0
        self.reset()

    def reset(self) -> None:
        """All multipliers zero, all batches forgotten."""
        self.multipliers: dict[int, Tensor] = {}
        for each in (self.statistic, self.decided):
            if each is not None:
                each.reset()

    def binary(self, pred: Tensor, sens: Tensor, *label: Tensor, pred_as_logit: bool = True, **named: Tensor) -> Tensor:
        pred = probabilities(pred, pred_as_logit)
        sens = sens.to(pred.dtype)
        excess, pairs = self._excess(self.statistic(pred, sens, *label, **named))
        multipliers = self.multipliers.get(self.slot, torch.zeros_like(excess)).to(excess)
        if multipliers.shape != excess.shape:
            raise ValueError(f"sens: {excess.shape[-1]} groups given, {multipliers.shape[-1]} before; reset() begins anew")
        pushed = (multipliers + self.penalty * excess).clamp(min=0)
        loss = torch.where(pairs, pushed.square() - multipliers.square(), 0.0).sum() / (2 * self.penalty)
        if self.training:
            seen = excess.detach()
            if self.decided is not None:
                seen, counted = self._excess(self.decided((pred.detach() > 0.5).to(pred), sens, *label, **named))
                pairs = pairs & counted
            learned = (multipliers + self.rate * self.penalty * seen).clamp(min=0)
            self.multipliers[self.slot] = torch.where(pairs, learned, multipliers)
        return loss

    def _excess(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """F_s - F_t - gap of every ordered pair, (..., S, S), zero where it is not defined, and where it is."""
        known = ~values.isnan()
        values = torch.where(known, values, 0.0)
        pairs = known[..., :, None] & known[..., None, :] & ~torch.eye(values.shape[-1], dtype=torch.bool, device=values.device)
        return torch.where(pairs, values[..., :, None] - values[..., None, :] - self.gap, 0.0), pairs

    def get_extra_state(self) -> dict:
        return {str(slot): multipliers for slot, multipliers in self.multipliers.items()}

    def set_extra_state(self, state: dict) -> None:
        self.multipliers = {int(slot): multipliers for slot, multipliers in state.items()}

    def extra_repr(self) -> str:
        return f"gap={self.gap:g}, penalty={self.penalty:g}, rate={self.rate:g}"
