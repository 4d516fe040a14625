"""A statistic with a memory, for batches too small to tell unfairness from chance.

In a batch of 32 with eight groups, four people stand for a group. Their statistic is so noisy that a perfectly fair
predictor seems unfair, and a loss of it mostly punishes the noise. `MovingStatistic` remembers the sums of past batches: its
value is that of many batches, its gradient that of the present one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.bias.statistics import LinearFractionalStatistic, Statistic, divide
from helpers.losses import processes


class MovingStatistic(Statistic):
    """A linear-fractional statistic whose numerator and denominator are moving averages over batches.

    With the sums x_b over batch b of n_b rows, and weights that fall by `decay` a batch, the average row of the past has
    m_b = sum_k decay^(b - k) x_k / sum_k decay^(b - k) n_k. The value is m_num / m_denom. The gradient is taken as if the
    present batch's x_b / n_b stood in the place of m_b: an unbiased estimate of the gradient of the sums, evaluated where the
    memory says the statistics are (stochastic compositional gradient descent, algorithm 1 of Wang, Fang & Liu).

    A group without a value in the present batch has none here either (NaN), so that it adds nothing to a loss; it is still
    remembered. In evaluation mode the statistic is that of the batch at hand, and nothing is remembered. In training mode
    within a distributed run all processes remember the whole batch.

    Parameters
    ----------
    statistic : LinearFractionalStatistic, a stack included
    decay : number in [0, 1); the memory is about (1 + decay) / (1 - decay) batches long: 99 for 0.98. The longer, the less
        noise, and the longer the memory lags behind a model that changes

    Examples
    --------
    >>> from helpers.bias.statistics import PositiveRate
    >>> from helpers.losses import NormLoss
    >>> loss = NormLoss(MovingStatistic(PositiveRate(), decay=0.98))

    References
    ----------
    Wang, Fang & Liu, "Stochastic compositional gradient descent: algorithms for minimizing compositions of expected-value
    functions", Mathematical Programming 161, 2017.
    """

    shared = True  # it adds up over processes by itself

    def __init__(self, statistic: LinearFractionalStatistic, decay: float = 0.98):
        super().__init__()
        if not isinstance(statistic, LinearFractionalStatistic):
            raise TypeError(f"statistic: a LinearFractionalStatistic expected, such as PositiveRate(), {statistic!r} given")
        if not 0 <= decay < 1:
            raise ValueError(f"decay: {decay!r} given; a number in [0, 1) expected")
        self.statistic = statistic
        self.decay = float(decay)
        self.higher_is_better = statistic.higher_is_better
        self.slot = 0  # of several classes, the one whose turn it is
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.memory: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def forward(self, pred: Tensor, sens: Tensor | None, *label: Tensor, **named: Tensor) -> Tensor:
        num, denom = (part(pred, sens, *label, **named) for part in (self.statistic.num, self.statistic.denom))
        if not self.training:
            return divide(num, denom)
        rows = processes.total(num.new_tensor(float(len(pred))))
        num, denom = processes.total(num), processes.total(denom)
        past = self._remember(f"{'overall' if sens is None else 'groups'} {self.slot}", num, denom, rows)
        # The value of the past, the gradient of the present.
        num, denom = (
            (then / past[2]).to(now) + (now - now.detach()) / rows
            for now, then in zip((num, torch.where(denom == 0, torch.nan, denom)), past[:2], strict=True)
        )
        return divide(num, torch.where(denom.isnan(), 0, denom))

    @torch.no_grad()
    def _remember(self, key: str, num: Tensor, denom: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        new = tuple(each.detach().double() if each.device.type != "mps" else each.detach() for each in (num, denom, rows))
        if key in self.memory:
            old = self.memory[key]
            if old[0].shape != new[0].shape:
                raise ValueError(
                    f"sens: values of shape {tuple(new[0].shape)} now, of shape {tuple(old[0].shape)} in the batches remembered; "
                    "reset() forgets them"
                )
            new = tuple(now + self.decay * then.to(now) for now, then in zip(new, old, strict=True))
        self.memory[key] = new
        return new

    def get_extra_state(self) -> dict:
        return {key: list(sums) for key, sums in self.memory.items()}

    def set_extra_state(self, state: dict) -> None:
        self.memory = {key: tuple(sums) for key, sums in state.items()}

    def extra_repr(self) -> str:
        return f"decay={self.decay:g}"
