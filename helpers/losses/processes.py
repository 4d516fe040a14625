"""Totals over all processes of a distributed run, so that a loss of sums is the loss of the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from helpers.bias.statistics import LinearFractionalStatistic, Statistic, divide
from helpers.crew import count


def total(part: Tensor) -> Tensor:
    """The sum of every process's `part`, with a gradient that N averaging processes turn into one process's.

    The value is the total. The gradient flows into this process's part alone, times the number of processes, because
    DistributedDataParallel divides the summed gradients by that number. Every process has to call it.
    """
    processes = count()
    if processes == 1:
        return part
    value = part.detach().clone()
    distributed.all_reduce(value)
    return value + processes * (part - part.detach()) if part.requires_grad else value


def values(
    statistic: Statistic, pred: Tensor, sens: Tensor, label: tuple[Tensor, ...], named: dict | None = None, *, shared: bool
) -> tuple[Tensor, Tensor]:
    """A statistic's value for every group, (S,) or (K, S), and for all rows together, (1,) or (K, 1).

    With `shared`, of the rows of all processes, where there are several.

    Raises
    ------
    TypeError : several processes share the batch, and the statistic is no ratio of sums that they could add up.
    """
    named, several = named or {}, shared and count() > 1
    own = type(statistic)
    if own.forward is LinearFractionalStatistic.forward and own.overall_statistic is Statistic.overall_statistic:
        everybody = torch.cat([sens, torch.ones_like(sens[:, :1])], dim=1)  # all rows, as one more group
        if several:
            num, denom = (total(part(pred, everybody, *label, **named)) for part in (statistic.num, statistic.denom))
            found = divide(num, denom)
        else:
            found = statistic(pred, everybody, *label, **named)
        return found[..., :-1], found[..., -1:]
    if several and not getattr(statistic, "shared", False):
        raise TypeError(f"statistic: {own.__name__} has no sums that several processes could add up")
    return statistic(pred, sens, *label, **named), statistic.overall_statistic(pred, *label, **named)
