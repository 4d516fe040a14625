"""Constraint losses, called as FairTorch's: how far the parity constraints M mu <= c are from being kept.

mu holds the mean soft prediction under every condition (a group, or a group and a label, and everybody). With a row of M and
a sign for every group, the constraints say |mu_group - mu_everybody| <= tolerance, and the loss is

    alpha sum_i relu(M mu - c)_i^p_norm.

Code written for FairTorch (0.1.2) needs another import line and nothing else. What is different, because it was wrong:

- every group has its constraints, not the first alone (rates 0.5 / 0.1 / 0.9 had no loss), so with two groups of one size
  `DemographicParityLoss` has the published value, and in general counts each group once instead of the first twice;
- `EqualizedOddsLoss` holds every label's rates apart: a gap in true positive rates does not cancel the opposite one in false
  positive rates;
- `p_norm=1` is the sum of the violations, not half the gradient of their squares;
- a group without images in a batch is left out of it, where the loss became NaN;
- two logits an image (N, 2), which FairTorch's own example has, are taken: their difference is the logit of class 1.

References
----------
Agarwal, Beygelzimer, Dudik, Langford & Wallach, "A Reductions Approach to Fair Classification", ICML 2018, examples 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from helpers.bias.statistics import (
    FalsePositiveRate,
    LinearFractionalStatistic,
    PositiveRate,
    StackedLinearFractionalStatistic,
    TruePositiveRate,
)
from helpers.losses import processes
from helpers.losses.base import check_range, of_class, one_vs_rest, outside_autocast, probabilities


class ConstraintLoss(nn.Module):
    """Base of the losses of constraints M mu <= c; a subclass sets `M` (constraints, conditions) and `c`, and defines `mu_f`.

    Parameters
    ----------
    n_class : int, the number of groups
    alpha : number, the weight of the loss
    p_norm : 1, the sum of the violations, or 2, the sum of their squares
    """

    def __init__(self, n_class: int = 2, alpha: float = 1, p_norm: int = 2):
        super().__init__()
        if p_norm not in (1, 2):
            raise ValueError(f"p_norm: {p_norm!r} given; 1 or 2 expected")
        if not 0 <= alpha < float("inf"):
            raise ValueError(f"alpha: {alpha!r} given; a number of 0 or more expected")
        self.n_class, self.alpha, self.p_norm = n_class, alpha, p_norm
        self.n_constraints, self.dim_condition = 2, n_class + 1
        self.M = torch.zeros(self.n_constraints, self.dim_condition)
        self.c = torch.zeros(self.n_constraints)

    def mu_f(self, X=None, out: Tensor | None = None, sensitive: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """The mean prediction under every condition, (conditions,), NaN where a condition has no rows.

        `out` are probabilities (N,), `sensitive` and `y` (N,); `X` what the loss was called with.
        """
        return torch.zeros(self.dim_condition)

    def forward(self, X, out: Tensor, sensitive: Tensor, y: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        X : what the predictions were made from; handed on to `mu_f`, where the losses of this module do not use it
        out : float (N,) or (N, 1), logits; (N, 2), two logits an image, of which the difference counts; (N, C) of C classes:
            the mean of the losses of every class against the rest, of their softmax
        sensitive : (N,) or (N, 1), the group of each row, as one of `sensitive_classes`
        y : (N,) or (N, 1), labels, 0 and 1 (classes 0 to C - 1)

        Returns
        -------
        Tensor, a scalar, 0 or more, in the precision of `out`; computed outside autocast.

        Raises
        ------
        ValueError : lengths or devices that do not match, groups or labels that are none of the known ones, labels missing
            where they are needed, predictions that are not finite or visibly no logits.
        TypeError : predictions that are no floats.
        """
        name = type(self).__name__
        if not out.is_floating_point():
            raise TypeError(f"out: floats expected, {out.dtype} given")
        if out.dim() not in (1, 2):
            raise ValueError(f"out: shape (N,), (N, 1) or (N, C) expected, {tuple(out.shape)} given")
        rows = len(out)
        for argument, tensor in (("sensitive", sensitive), ("y", y)):
            if tensor is None:
                continue
            if tensor.numel() != rows:
                raise ValueError(f"{argument}: one value a row, {rows} in all, expected, shape {tuple(tensor.shape)} given")
            if tensor.device != out.device:
                raise ValueError(f"{argument}: on {tensor.device}, but out is on {out.device}")
        check_range(out, True, name, "out")
        given = out.dtype
        sensitive, y = sensitive.reshape(rows), None if y is None else y.reshape(rows)
        with outside_autocast(out):
            out = out.float() if given in (torch.float16, torch.bfloat16) else out
            if out.dim() == 2 and out.shape[1] == 2:
                out = out[:, 1:] - out[:, :1]
            if out.dim() == 1 or out.shape[1] == 1:
                return self._penalty(X, probabilities(out.reshape(rows), True), sensitive, y).to(given)
            classes = out.shape[1]
            each = []
            for k, one in enumerate(one_vs_rest(out, True)):
                own = None if y is None else of_class(y, k, classes)[:, 0]
                each.append(self._penalty(X, probabilities(one[:, 0], True), sensitive, own))
            return torch.stack(each).mean().to(given)

    def _penalty(self, X, prob: Tensor, sensitive: Tensor, y: Tensor | None) -> Tensor:
        mu = self.mu_f(X=X, out=prob, sensitive=sensitive, y=y).to(prob)
        coefficients, bound = self.M.to(mu), self.c.to(mu)
        missing = mu.isnan()
        if missing.any():
            met = (coefficients[:, missing] == 0).all(1)  # constraints all of whose conditions have rows
            gap = torch.where(met, coefficients @ torch.where(missing, 0.0, mu) - bound, 0.0).relu()
        else:
            gap = (coefficients @ mu - bound).relu()
        return self.alpha * (gap if self.p_norm == 1 else gap.square()).sum()

    def on_batch(self, logit: Tensor, sens: Tensor, label: Tensor) -> Tensor:
        """The loss as `helpers.train` calls losses: groups one-hot (N, S), in the order of `sensitive_classes`."""
        known = getattr(self, "sensitive_classes", range(self.n_class))
        if sens.shape[1] != len(known):
            raise ValueError(f"sensitive_classes: {len(known)} given, but the data have {sens.shape[1]} groups")
        codes = torch.tensor(list(known), device=sens.device)
        return self(None, logit, codes[sens.argmax(1)], label)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}, p_norm={self.p_norm}"


class _ParityLoss(ConstraintLoss):
    """The constraints |mu_group - mu_everybody| <= tolerance of every group, for each value of a statistic."""

    def __init__(self, statistic: LinearFractionalStatistic, values: int, sensitive_classes, alpha, p_norm, tolerance):
        sensitive_classes = list(sensitive_classes)
        if len(sensitive_classes) < 2 or len(set(sensitive_classes)) < len(sensitive_classes):
            raise ValueError(f"sensitive_classes: {sensitive_classes} given; two groups or more, each once, expected")
        if not 0 <= tolerance < float("inf"):
            raise ValueError(f"tolerance: {tolerance!r} given; a number of 0 or more expected")
        super().__init__(n_class=len(sensitive_classes), alpha=alpha, p_norm=p_norm)
        self.sensitive_classes, self.tolerance, self.statistic = sensitive_classes, tolerance, statistic
        # mu: the groups, each with all its values, then everybody.
        apart = torch.eye(self.n_class * values)
        everybody = torch.eye(values).repeat(self.n_class, 1)
        away = torch.cat([apart, -everybody], dim=1)
        self.M = torch.stack([away, -away], dim=1).flatten(end_dim=1)
        self.n_constraints, self.dim_condition = self.M.shape
        self.c = torch.full((self.n_constraints,), tolerance, dtype=torch.float64)

    def mu_f(self, X=None, out: Tensor | None = None, sensitive: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        pred = out[:, -1:] if out.dim() == 2 else out[:, None]  # of two columns, that of class 1
        sensitive = sensitive.reshape(-1, 1)
        wide = torch.float32 if sensitive.device.type == "mps" else torch.float64  # float32 is too coarse for large codes
        member = sensitive.to(wide) == torch.tensor(self.sensitive_classes, dtype=wide, device=sensitive.device)
        if not member.any(1).all():
            stranger = sensitive[~member.any(1)][0].item()
            raise ValueError(f"sensitive: {stranger!r} is none of sensitive_classes {self.sensitive_classes}")
        label = () if y is None else (y.reshape(-1, 1).to(pred),)
        values, overall = processes.values(self.statistic, pred, member.to(pred), label, shared=self.training)
        return torch.cat([values.reshape(-1, self.n_class).T.flatten(), overall.flatten()])

    def extra_repr(self) -> str:
        return f"sensitive_classes={self.sensitive_classes}, {super().extra_repr()}, tolerance={self.tolerance:g}"


class DemographicParityLoss(_ParityLoss):
    """Every group's mean prediction is that of everybody: |E[f | group] - E[f]| <= tolerance.

    Parameters
    ----------
    sensitive_classes : the groups, as the values that `sensitive` takes
    alpha, p_norm : as in `ConstraintLoss`
    tolerance : number, 0 or more: what a group may differ from everybody without loss

    Examples
    --------
    >>> loss = DemographicParityLoss(sensitive_classes=[0, 1], alpha=100)
    >>> logit, sensitive = torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1])
    >>> loss(None, logit, sensitive)
    tensor(0.)
    """

    def __init__(self, sensitive_classes: Sequence = (0, 1), alpha: float = 1, p_norm: int = 2, *, tolerance: float = 0.0):
        super().__init__(PositiveRate(), 1, sensitive_classes, alpha, p_norm, tolerance)

    def mu_f(self, X=None, out: Tensor | None = None, sensitive: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        return super().mu_f(X=X, out=out, sensitive=sensitive)  # labels are accepted and not used


class EqualizedOddsLoss(_ParityLoss):
    """Every group's mean prediction is that of everybody with the same label: |E[f | group, y] - E[f | y]| <= tolerance.

    Also under its published name, `EqualiedOddsLoss`. Parameters as in `DemographicParityLoss`.
    """

    def __init__(self, sensitive_classes: Sequence = (0, 1), alpha: float = 1, p_norm: int = 2, *, tolerance: float = 0.0):
        rates = StackedLinearFractionalStatistic(FalsePositiveRate(), TruePositiveRate())
        super().__init__(rates, 2, sensitive_classes, alpha, p_norm, tolerance)
        self.y_classes, self.n_y_class = [0, 1], 2

    def mu_f(self, X=None, out: Tensor | None = None, sensitive: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        if y is None:
            raise ValueError("y: missing; equalized odds compares groups among rows of the same label")
        return super().mu_f(X=X, out=out, sensitive=sensitive, y=y)


EqualiedOddsLoss = EqualizedOddsLoss
