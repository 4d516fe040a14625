"""The audit as `torchmetrics` metrics: counts and sums that add up over batches and processes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torchmetrics
from torch import Tensor

from helpers.bias.audit import Audit, audit_counts, wanted_statistics
from helpers.bias.counts import Counts
from helpers.bias.inputs import read_positive
from helpers.bias.settings import share, whole
from helpers.bias.statistics import LinearFractionalStatistic, divide


class GroupStatistics(torchmetrics.Metric):
    """Group statistics and gaps of hard predictions, accumulated as one contingency table.

    The state is the table of counts alone (int64, summed over processes), so any split of the data into batches and
    processes gives the same counts to the last bit, and with them the same audit. A process that saw no batch adds
    nothing; what no process saw has no audit (ValueError). `forward` returns the audit of its batch. As with every
    torchmetrics metric, the state enters a `state_dict` after `metric.persistent(True)`.

    Parameters
    ----------
    groups : names of the groups in the order of their codes, or how many there are
    classes : names of the classes in the order of their codes, or how many there are
    statistics, positive, confidence, n_boot, seed : as in `helpers.bias.audit`
    **options : of `torchmetrics.Metric` (such as `process_group`)

    Raises
    ------
    ValueError : fewer than one group or two classes, names that repeat, an unknown `positive` or statistic, a level or a
        number of replicates out of range.

    Examples
    --------
    >>> metric = GroupStatistics(groups=("female", "male"))
    >>> metric.update(torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0]), torch.tensor([0, 0, 1]))
    >>> metric.compute()["true_positive_rate/female"]
    tensor(0.5000, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    table: Tensor

    def __init__(
        self,
        groups: Sequence[str] | int,
        classes: Sequence[str] | int = 2,
        *,
        statistics: Any = "all",
        positive: Any = 1,
        confidence: float = 0.95,
        n_boot: int = 1000,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(**options)
        self.groups, self.classes = _names(groups, "groups", 1), _names(classes, "classes", 2)
        # What a whole epoch would else be counted for, to be refused at its end.
        read_positive(positive, tuple(range(len(self.classes))), self.classes)
        wanted_statistics(statistics, with_scores=False)
        share(confidence, "confidence")
        whole(n_boot, "n_boot")
        self.audit_options = {
            "statistics": statistics,
            "positive": positive,
            "confidence": confidence,
            "n_boot": n_boot,
            "seed": seed,
        }
        c = len(self.classes)
        self.add_state("table", torch.zeros(len(self.groups), c, c, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, group: Tensor) -> None:
        """Count one batch.

        Parameters
        ----------
        preds, target, group : integer or boolean (N,), hard predictions, labels and groups by code

        Raises
        ------
        ValueError : no tensor, shapes differ, a tensor is of floats (take the arg max first), a code is out of range.
        """
        limits = {"preds": (preds, self.classes), "target": (target, self.classes), "group": (group, self.groups)}
        for argument, (codes, names) in limits.items():
            if not isinstance(codes, Tensor):
                raise ValueError(f"{argument}: a tensor expected, {type(codes).__name__} given")
            if codes.dim() != 1 or len(codes) != len(preds):
                raise ValueError(f"{argument}: shape ({len(preds)},) expected, {tuple(codes.shape)} given")
            if codes.is_floating_point():
                raise ValueError(f"{argument}: integer codes expected, {codes.dtype} given")
            if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < len(names):
                raise ValueError(
                    f"{argument}: codes {int(codes.min())} to {int(codes.max())} are not within 0 to {len(names) - 1}"
                )
        cell = (group.long() * len(self.classes) + target) * len(self.classes) + preds
        self.table += torch.bincount(cell, minlength=self.table.numel()).reshape(self.table.shape)

    def counts(self) -> Counts:
        """The table counted so far by this process (inside `compute`: by all of them)."""
        return Counts(self.table.cpu().numpy(), self.groups, self.classes)

    def audit(self) -> Audit:
        """The full `Audit` of what was counted, by all processes together."""
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return audit_counts(self.counts(), **self.audit_options)

    def compute(self) -> dict[str, Tensor]:
        """Values by `statistic/group` and gaps by `gap/name`, float64 scalars ready for a logger.

        With three classes or more the class stands in the name: `statistic/class/group`, `gap/name/class`.
        """
        result = audit_counts(self.counts(), **self.audit_options)

        def name(row: Any, *ends: str) -> str:
            label = getattr(row, "label", "")
            return "/".join(part for part in (row.statistic, label, *ends) if part)

        values = result.by_group.rename(columns={"class": "label"}).itertuples(index=False)
        gaps = result.gaps.rename(columns={"class": "label"}).itertuples(index=False)
        found = {name(row, row.group): row.value for row in values}
        found |= {f"gap/{name(row)}": row.difference for row in gaps}
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in found.items()}


def gap_abs_max(values: Tensor, target: Tensor) -> Tensor:
    """Largest absolute difference between the groups' values (..., S) and the overall value; NaN groups left out."""
    return _largest((values - target).abs())


def gap_relative_abs_max(values: Tensor, target: Tensor) -> Tensor:
    """Largest absolute value of value / overall - 1 over the groups (..., S); NaN groups left out."""
    return _largest((values / target - 1).abs())


class LinearFractionalParity(torchmetrics.Metric):
    """Gap between each group's statistic and the overall value (fairret's metric of this name).

    Code written for `fairret.metric` (0.1.3) needs another import line and nothing else. What is different: numerators and
    denominators accumulate in float64, soft predictions included; a group without a value is left out of the gap, where
    fairret counts it as 0, and the gap is NaN if none has one; a stack of K statistics has an overall value each, whatever
    the number of groups; in a `MetricCollection`, metrics of different statistics keep their own sums, even if the first
    batch gives them the same.

    Parameters
    ----------
    statistic : LinearFractionalStatistic; a stack of K gives K gaps
    stat_shape : shape of its value: S groups, or (K, S) for a stack
    gap_fn : maps values (..., S) and the overall value (..., 1) to gaps (...); `gap_relative_abs_max` or
        `gap_abs_max`
    **options : of `torchmetrics.Metric`

    Raises
    ------
    ValueError : `statistic` is no LinearFractionalStatistic, or `stat_shape` not of positive whole numbers.
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    num: Tensor
    denom: Tensor
    overall_num: Tensor
    overall_denom: Tensor

    def __init__(
        self,
        statistic: LinearFractionalStatistic,
        stat_shape: int | tuple[int, ...],
        gap_fn: Callable[[Tensor, Tensor], Tensor] = gap_relative_abs_max,
        **options: Any,
    ):
        super().__init__(**options)
        if not isinstance(statistic, LinearFractionalStatistic):
            raise ValueError(f"statistic: a LinearFractionalStatistic expected, {statistic!r} given")
        several = isinstance(stat_shape, tuple | list | torch.Size)
        self.stat = statistic
        self.stat_shape = tuple(whole(size, "stat_shape") for size in (stat_shape if several else (stat_shape,)))
        self.gap_fn = gap_fn
        for name, shape in (("", self.stat_shape), ("overall_", (*self.stat_shape[:-1], 1))):
            for part in ("num", "denom"):
                self.add_state(name + part, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        # A MetricCollection lets metrics share sums for good if they agree on the first batch, as those of two statistics
        # may; what this state holds is equal for equal statistics only.
        self.add_state("of", torch.tensor(_fingerprint(statistic)), dist_reduce_fx="max")

    def update(self, pred: Tensor, sens: Tensor, *label: Tensor, **named: Tensor) -> None:
        """Add one batch: `pred (N, 1)`, `sens (N, S)`, labels (N, 1) by position or name, as the statistic is called.

        Raises
        ------
        ValueError : no tensors; `sens` has another number of columns, or the statistic another shape, than `stat_shape`
            says.
        """
        for argument, tensor in (("pred", pred), ("sens", sens)):
            if not isinstance(tensor, Tensor):
                raise ValueError(f"{argument}: a tensor expected, {type(tensor).__name__} given")
        if sens.shape[-1] != self.stat_shape[-1]:
            raise ValueError(f"sens: {self.stat_shape[-1]} columns expected, {sens.shape[-1]} given")
        pred = pred.double()
        num = self.stat.num(pred, sens, *label, **named)
        if num.shape != self.num.shape:
            raise ValueError(f"stat_shape: {self.stat_shape} given, but the statistic has shape {tuple(num.shape)}")
        self.num += num
        self.denom += self.stat.denom(pred, sens, *label, **named)
        self.overall_num += self.stat.num(pred, None, *label, **named)
        self.overall_denom += self.stat.denom(pred, None, *label, **named)

    def compute(self) -> Tensor:
        """The gap of `gap_fn`, float64: a scalar, or (K,) for a stack."""
        return self.gap_fn(divide(self.num, self.denom), divide(self.overall_num, self.overall_denom))


def _names(names: Sequence[str] | int, argument: str, fewest: int) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        return tuple(map(str, range(whole(names, argument, fewest))))
    found = tuple(map(str, names))
    if len(found) < fewest or len(set(found)) < len(found):
        raise ValueError(f"{argument}: {fewest} or more different names, or their number, expected; {list(found)} given")
    return found


def _fingerprint(statistic: LinearFractionalStatistic) -> int:
    """A number for a statistic's class and attributes, and for those of the statistics that it is made of."""
    parts = [
        (type(each).__module__, type(each).__qualname__, {k: v for k, v in vars(each).items() if not k.startswith("_")})
        for each in statistic.modules()
    ]
    return zlib.crc32(repr(parts).encode())


def _largest(distance: Tensor) -> Tensor:
    """Largest over the last axis, NaN entries left out, NaN if all of them are."""
    found = torch.where(distance.isnan(), -torch.inf, distance).amax(-1)
    return torch.where(distance.isnan().all(-1), torch.nan, found)
