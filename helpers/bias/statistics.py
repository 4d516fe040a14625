"""Group statistics as linear-fractional functions of the predictions (Buyl, Defrance & De Bie, 2024).

A statistic maps predictions to one value a group:

    F_s = sum_n sens[n, s] (a0_n + a1_n pred_n)  /  sum_n sens[n, s] (b0_n + b1_n pred_n)

where the intercepts `a0, b0` and the slopes `a1, b1` depend on the labels only. The same object reports a rate on
hard predictions, is differentiable in soft ones, and is evaluated by `helpers.bias.audit` on the cells of a
contingency table (each cell is one row, and its counts by group are its `sens`), so that no rate has a second formula.

Wherever the denominator is zero the value is NaN, for an absent group and for FN / FP without false positives alike,
and no gradient flows from it: a missing value can be left out, a made-up zero cannot be told from a true one.

Code written for `fairret.statistic` (0.1.3) needs another import line and nothing else. What is different:

- a zero denominator makes NaN, where fairret returns 0 for 0 / 0 and raises ZeroDivisionError for the rest; a missing
  prediction makes every value NaN, where fairret raises ValueError;
- integers and booleans are taken for predictions, sensitive features and labels; labels reach a statistic's functions
  in the precision of the predictions;
- what fairret computes without a word is refused by name: a label (N,), labels outside [0, 1] in the statistics below
  (your own take any), coefficients that are not finite or depend on the predictions, a negative `FScore.beta`;
- `PositiveRate` accepts labels and ignores them, so that it can be called, and stacked, like the others.

References
----------
Buyl, Defrance & De Bie, "fairret: a Framework for Differentiable Fairness Regularization Terms", ICLR 2024.
"""

from __future__ import annotations

import abc
import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Coefficient = Tensor | float
COEFFICIENTS = ("num_intercept", "num_slope", "denom_intercept", "denom_slope")


class Statistic(torch.nn.Module, abc.ABC):
    """A map from predictions to one value a group, called `statistic(pred, sens, *label) -> (S,)`.

    `higher_is_better` says which group an audit calls the worst; it has no part in the value.
    """

    higher_is_better: bool = True

    @abc.abstractmethod
    def forward(self, pred: Tensor, sens: Tensor | None, *label: Tensor, **named: Tensor) -> Tensor:
        """The statistic of every column of `sens`; see `LinearFractionalStatistic.forward` for shapes."""

    def overall_statistic(self, pred: Tensor, *label: Tensor, **named: Tensor) -> Tensor:
        """The statistic of all rows together, (1,): what every group would have if none differed."""
        return self.forward(pred, None, *label, **named)


def _parameters(function: Callable) -> inspect.Signature:
    """What a method takes after `self`, without types: the labels."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return inspect.Signature([each.replace(annotation=inspect.Parameter.empty) for each in parameters])


class LinearFractionalStatistic(Statistic):
    """Base of the statistics that are a ratio of two linear functions of the predictions.

    A subclass defines the four functions below. All four take the same label tensors, by the same names, and return a
    number, or a tensor (N, 1), that does not depend on the predictions. Labels may be given by position or by name.

    Raises
    ------
    TypeError : when a subclass is defined, if one of the functions takes other parameters than `num_intercept`, or the
        predictions; when a statistic is called, if it gets other labels than its functions take, or one of them returns
        no number. Class, function and parameters are named.
    ValueError : when a statistic is called and a function returns what is no coefficient: of another shape, not finite,
        or computed from the predictions.

    Examples
    --------
    >>> class PositiveShare(LinearFractionalStatistic):
    ...     def num_intercept(self): return 0.0
    ...     def num_slope(self): return 1.0
    ...     def denom_intercept(self): return 1.0
    ...     def denom_slope(self): return 0.0
    >>> PositiveShare()(torch.tensor([[1.0], [0.0], [1.0]]), torch.tensor([[1.0, 0], [1, 0], [0, 1]]))
    tensor([0.5000, 1.0000])
    """

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if any(getattr(getattr(cls, name), "__isabstractmethod__", False) for name in COEFFICIENTS):
            return  # Python itself names what is missing when somebody makes one
        cls._takes = _parameters(cls.num_intercept)
        for name in COEFFICIENTS:
            takes = _parameters(getattr(cls, name))
            if list(takes.parameters) != list(cls._takes.parameters):
                raise TypeError(
                    f"{cls.__name__}.{name}: takes {takes}, but num_intercept takes {cls._takes}; all four functions "
                    "need the same labels"
                )
            if given := {"pred", "sens"} & set(takes.parameters):
                raise TypeError(f"{cls.__name__}.{name}: takes {min(given)!r}, but may depend on the labels only")
            if any(each.kind is each.KEYWORD_ONLY for each in takes.parameters.values()):
                raise TypeError(f"{cls.__name__}.{name}: takes {takes}, but labels come by position; leave out the *")

    @abc.abstractmethod
    def num_intercept(self, *label: Tensor) -> Coefficient:
        """The part of the numerator that does not depend on the prediction, `a0`."""

    @abc.abstractmethod
    def num_slope(self, *label: Tensor) -> Coefficient:
        """What one unit of prediction adds to the numerator, `a1`."""

    @abc.abstractmethod
    def denom_intercept(self, *label: Tensor) -> Coefficient:
        """The part of the denominator that does not depend on the prediction, `b0`."""

    @abc.abstractmethod
    def denom_slope(self, *label: Tensor) -> Coefficient:
        """What one unit of prediction adds to the denominator, `b1`."""

    def num(self, pred: Tensor, sens: Tensor | None, *label: Tensor, **named: Tensor) -> Tensor:
        """Numerator of every group, (S,); shapes as in `forward`. Numerators add up over batches."""
        pred, sens, label = self._arguments(pred, sens, label, named)
        return _total(_line(pred, *(self._coefficient(name, pred, label) for name in COEFFICIENTS[:2])), sens)

    def denom(self, pred: Tensor, sens: Tensor | None, *label: Tensor, **named: Tensor) -> Tensor:
        """Denominator of every group, (S,); shapes as in `forward`. Denominators add up over batches."""
        pred, sens, label = self._arguments(pred, sens, label, named)
        return _total(_line(pred, *(self._coefficient(name, pred, label) for name in COEFFICIENTS[2:])), sens)

    def _arguments(
        self, pred: Tensor, sens: Tensor | None, label: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        """Predictions, groups and labels that can be computed with, the labels by position as `num_intercept` takes them."""
        if named or len(label) != len(self._takes.parameters):
            label = self._by_position(label, named)
        pred, sens, label = _checked(pred, sens, label)
        self._check_labels(pred, label)
        return pred, sens, label

    def _by_position(self, label: tuple[Tensor, ...], named: dict[str, Tensor]) -> tuple[Tensor, ...]:
        if _any_labels(self):
            if len(named) > 1:  # which of them is first?
                raise TypeError(f"{type(self).__name__}: takes the labels {self._takes} by position, ({', '.join(named)}) given")
            return (*label, *named.values())
        try:
            return self._takes.bind(*label, **named).args
        except TypeError as error:
            raise TypeError(
                f"{type(self).__name__}: takes the labels {self._takes}, "
                f"{len(label)} by position and ({', '.join(named)}) by name given: {error}"
            ) from None

    def _check_labels(self, pred: Tensor, label: tuple[Tensor, ...]) -> None:
        """Raise ValueError for labels that the statistic has no meaning for; any will do in one of your own."""

    def _coefficient(self, name: str, pred: Tensor, label: tuple[Tensor, ...]) -> Tensor:
        where, given = f"{type(self).__name__}.{name}", getattr(self, name)(*label)
        if isinstance(given, numbers.Real):
            if not math.isfinite(given):
                raise ValueError(f"{where}: {given} returned, which is not finite")
            return pred.new_full((), float(given))
        if not isinstance(given, Tensor):
            raise TypeError(f"{where}: a number or a tensor expected, {type(given).__name__} returned")
        value = given.to(pred)  # precision and device
        if value.dim() and (value.dim() == 1 or value.shape[-1] != 1 or value.shape[0] not in (1, len(pred))):
            raise ValueError(f"{where}: a number or shape ({len(pred)}, 1) expected, {tuple(value.shape)} returned")
        # A sum tells cheaply that all are finite; one that overflows tells nothing.
        if not math.isfinite(value.detach().sum()) and not value.isfinite().all():
            raise ValueError(f"{where}: {int((~value.isfinite()).sum())} of {value.numel()} coefficients are not finite")
        if value.requires_grad and pred.requires_grad:
            if torch.autograd.grad(value.sum(), pred, retain_graph=True, allow_unused=True)[0] is not None:
                raise ValueError(f"{where}: depends on the predictions, but may depend on the labels only")
        return value

    def forward(self, pred: Tensor, sens: Tensor | None, *label: Tensor, **named: Tensor) -> Tensor:
        """The statistic of every group.

        Parameters
        ----------
        pred : (N, 1), probabilities in [0, 1] or hard predictions 0 and 1; integers and booleans are made floats. For
            predictions of C classes see `one_vs_rest`
        sens : (N, S), one column a group: one-hot membership, the columns of several attributes side by side, or any
            weights (of a continuous feature: the value is then the weighted one); None takes all rows as one group
        *label, **named : (N, 1) each, what the statistic needs besides. Most need `label`, the target: 0 or 1, or the
            probability of 1

        Returns
        -------
        Tensor (S,) in the precision of `pred`; NaN where the denominator is zero, and throughout if a prediction is
        missing. (1,) if `sens` is None.

        Raises
        ------
        ValueError : a tensor has another shape (it is named), which would else broadcast to nonsense in silence; a label
            is missing or outside [0, 1].
        TypeError : too few or too many labels, or one of another name.
        """
        own = type(self)
        if own.num is not LinearFractionalStatistic.num or own.denom is not LinearFractionalStatistic.denom:
            return divide(self.num(pred, sens, *label, **named), self.denom(pred, sens, *label, **named))
        # What `num` and `denom` do, with the arguments looked at once.
        pred, sens, label = self._arguments(pred, sens, label, named)
        a0, a1, b0, b1 = (self._coefficient(name, pred, label) for name in COEFFICIENTS)
        return divide(_total(_line(pred, a0, a1), sens), _total(_line(pred, b0, b1), sens))

    def coefficients(self, pred: Tensor, *label: Tensor, **named: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`a0, a1, b0, b1` of every row, in the precision of `pred`: each (N, 1), or what broadcasts to it; (N, K, 1) of a stack.

        Parameters and exceptions are those of `forward`.
        """
        pred, _, label = self._arguments(pred, None, label, named)
        return tuple(self._coefficient(name, pred, label) for name in COEFFICIENTS)

    def fixed_constraint(
        self, fix_value: Tensor | float, sens: Tensor, *label: Tensor, **named: Tensor
    ) -> tuple[Tensor, Tensor]:
        """"Every group's value is `fix_value`" as a linear constraint on the predictions.

        F_s = c is equivalent to sum_n sens[n, s] ((a0_n - c b0_n) + (a1_n - c b1_n) pred_n) = 0.

        Parameters
        ----------
        fix_value : number, or a tensor that broadcasts to the statistic's own shape, (1,) or (S,)
        sens, label : as in `forward`

        Returns
        -------
        intercept, slope : (N, S) each ((N, K S) for a stack of K), such that the constraint of column s is
            `(intercept + slope * pred).sum(0)[s] == 0`.
        """
        # The intercepts are the lines at prediction 0, the slopes what is added by prediction 1.
        like = sens if sens.is_floating_point() else sens.to(torch.get_default_dtype())
        zero = torch.zeros_like(like[:, :1])
        zero, sens, label = self._arguments(zero, like, label, named)

        def fixed(num: str, denom: str) -> Tensor:
            num, denom = (_line(zero, self._coefficient(name, zero, label), zero.new_zeros(())) for name in (num, denom))
            term = num - denom * fix_value  # (N, ..., 1) or (N, ..., S)
            weight = sens.reshape(len(sens), *[1] * (term.dim() - 2), sens.shape[1])
            return (term * weight).flatten(start_dim=1)

        return fixed("num_intercept", "denom_intercept"), fixed("num_slope", "denom_slope")


class PositiveRate(LinearFractionalStatistic):
    """Share of positive predictions, P(pred = 1 | S), also called selection rate. Labels are accepted and not used."""

    def num_intercept(self, *label: Tensor) -> Coefficient:
        return 0.0

    def num_slope(self, *label: Tensor) -> Coefficient:
        return 1.0

    def denom_intercept(self, *label: Tensor) -> Coefficient:
        return 1.0

    def denom_slope(self, *label: Tensor) -> Coefficient:
        return 0.0


class _OfTarget(LinearFractionalStatistic):
    """Base of the statistics whose one label is the target, 0 or 1 or the probability of 1."""

    def _check_labels(self, pred: Tensor, label: tuple[Tensor, ...]) -> None:
        (target,) = label
        # A target (N,) against predictions (N, 1) would broadcast to (N, N) without a word, and labels -1 and 1 or 1 and
        # 2 would make rates that look like rates.
        if getattr(target, "shape", ()) != pred.shape:
            raise ValueError(f"label: shape {tuple(pred.shape)} expected, {tuple(getattr(target, 'shape', ()))} given")
        if not target.numel():
            return
        least, most = torch.stack(target.aminmax()).tolist()  # NaN if one is there
        if not (least >= 0 and most <= 1):
            row = int((~((target >= 0) & (target <= 1)))[:, 0].nonzero()[0])
            raise ValueError(f"label: {target[row].item():g} at row {row} is missing or outside [0, 1]; the target is 0 or 1")


class TruePositiveRate(_OfTarget):
    """Share of the positives that are found, P(pred = 1 | label = 1, S), also called recall: TP / (TP + FN)."""

    def num_intercept(self, label: Tensor) -> Coefficient:
        return 0.0

    def num_slope(self, label: Tensor) -> Coefficient:
        return label

    def denom_intercept(self, label: Tensor) -> Coefficient:
        return label

    def denom_slope(self, label: Tensor) -> Coefficient:
        return 0.0


class FalsePositiveRate(_OfTarget):
    """Share of the negatives that are called positive, P(pred = 1 | label = 0, S): FP / (FP + TN)."""

    higher_is_better = False

    def num_intercept(self, label: Tensor) -> Coefficient:
        return 0.0

    def num_slope(self, label: Tensor) -> Coefficient:
        return 1 - label

    def denom_intercept(self, label: Tensor) -> Coefficient:
        return 1 - label

    def denom_slope(self, label: Tensor) -> Coefficient:
        return 0.0


class PositivePredictiveValue(_OfTarget):
    """Share of the positive predictions that are right, P(label = 1 | pred = 1, S), or precision: TP / (TP + FP)."""

    def num_intercept(self, label: Tensor) -> Coefficient:
        return 0.0

    def num_slope(self, label: Tensor) -> Coefficient:
        return label

    def denom_intercept(self, label: Tensor) -> Coefficient:
        return 0.0

    def denom_slope(self, label: Tensor) -> Coefficient:
        return 1.0


class FalseOmissionRate(_OfTarget):
    """Share of the negative predictions that are wrong, P(label = 1 | pred = 0, S): FN / (FN + TN)."""

    higher_is_better = False

    def num_intercept(self, label: Tensor) -> Coefficient:
        return label

    def num_slope(self, label: Tensor) -> Coefficient:
        return -label

    def denom_intercept(self, label: Tensor) -> Coefficient:
        return 1.0

    def denom_slope(self, label: Tensor) -> Coefficient:
        return -1.0


class Accuracy(_OfTarget):
    """Share of right predictions, P(pred = label | S): (TP + TN) / N."""

    def num_intercept(self, label: Tensor) -> Coefficient:
        return 1 - label

    def num_slope(self, label: Tensor) -> Coefficient:
        return 2 * label - 1

    def denom_intercept(self, label: Tensor) -> Coefficient:
        return 1.0

    def denom_slope(self, label: Tensor) -> Coefficient:
        return 0.0


class FalseNegativeFalsePositiveFraction(_OfTarget):
    """False negatives over false positives, FN / FP, the ratio that treatment equality compares; in [0, inf).

    Neither end is good: high values say that errors withhold the positive prediction, low ones that they grant it.
    An audit calls the group with the highest value the worst, as for a positive prediction that is a benefit.
    """

    higher_is_better = False

    def num_intercept(self, label: Tensor) -> Coefficient:
        return label

    def num_slope(self, label: Tensor) -> Coefficient:
        return -label

    def denom_intercept(self, label: Tensor) -> Coefficient:
        return 0.0

    def denom_slope(self, label: Tensor) -> Coefficient:
        return 1 - label


class FScore(_OfTarget):
    """F-score, (1 + beta^2) TP / ((1 + beta^2) TP + beta^2 FN + FP): recall weighs beta times as much as precision.

    Parameters
    ----------
    beta : number, 0 (precision alone) or more

    Raises
    ------
    ValueError : `beta` is negative or not finite.
    """

    def __init__(self, beta: float = 1.0):
        super().__init__()
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta: {beta!r} is no weight of recall; a number from 0 on expected")
        self.beta = float(beta)

    def num_intercept(self, label: Tensor) -> Coefficient:
        return 0.0

    def num_slope(self, label: Tensor) -> Coefficient:
        return (1 + self.beta**2) * label

    def denom_intercept(self, label: Tensor) -> Coefficient:
        return self.beta**2 * label

    def denom_slope(self, label: Tensor) -> Coefficient:
        return 1.0

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}"


class _Complement(_OfTarget):
    """One minus the statistic `of`: the same denominator, and what its numerator leaves of it."""

    of: LinearFractionalStatistic

    def num_intercept(self, label: Tensor) -> Coefficient:
        return self.of.denom_intercept(label) - self.of.num_intercept(label)

    def num_slope(self, label: Tensor) -> Coefficient:
        return self.of.denom_slope(label) - self.of.num_slope(label)

    def denom_intercept(self, label: Tensor) -> Coefficient:
        return self.of.denom_intercept(label)

    def denom_slope(self, label: Tensor) -> Coefficient:
        return self.of.denom_slope(label)


class TrueNegativeRate(_Complement):
    """Share of the negatives that are left alone, P(pred = 0 | label = 0, S), or specificity: TN / (TN + FP)."""

    of = FalsePositiveRate()


class FalseNegativeRate(_Complement):
    """Share of the positives that are missed, P(pred = 0 | label = 1, S): FN / (FN + TP)."""

    higher_is_better = False
    of = TruePositiveRate()


class NegativePredictiveValue(_Complement):
    """Share of the negative predictions that are right, P(label = 0 | pred = 0, S): TN / (TN + FN)."""

    of = FalseOmissionRate()


class FalseDiscoveryRate(_Complement):
    """Share of the positive predictions that are wrong, P(label = 0 | pred = 1, S): FP / (FP + TP)."""

    higher_is_better = False
    of = PositivePredictiveValue()


class ErrorRate(_Complement):
    """Share of wrong predictions, P(pred != label | S): (FP + FN) / N."""

    higher_is_better = False
    of = Accuracy()


class MeanStatistic(Statistic):
    """The plain mean of several statistics; NaN where any of them is. The weights are equal: 1 / K each."""

    def __init__(self, *parts: LinearFractionalStatistic):
        super().__init__()
        _all_linear_fractional(parts)
        self.parts = torch.nn.ModuleList(parts)

    def forward(self, pred: Tensor, sens: Tensor | None, *label: Tensor, **named: Tensor) -> Tensor:
        return torch.stack([part(pred, sens, *label, **named) for part in self.parts]).mean(0)


class BalancedAccuracy(MeanStatistic):
    """Mean of the true positive and the true negative rate, weighing both labels equally: (TPR + TNR) / 2."""

    def __init__(self):
        super().__init__(TruePositiveRate(), TrueNegativeRate())


class StackedLinearFractionalStatistic(LinearFractionalStatistic):
    """K statistics at once, called on the same labels: values (K, S), overall value (K, 1).

    Raises
    ------
    ValueError : nothing to stack, or something that is no `LinearFractionalStatistic`.
    TypeError : the statistics take different labels; both are named.

    Examples
    --------
    >>> odds = StackedLinearFractionalStatistic(TruePositiveRate(), FalsePositiveRate())
    """

    def __init__(self, *statistics: LinearFractionalStatistic):
        super().__init__()
        _all_linear_fractional(statistics)
        self.statistics = torch.nn.ModuleList(statistics)
        definite = [each for each in statistics if not _any_labels(each)]
        for each in definite:
            if list(each._takes.parameters) != list(definite[0]._takes.parameters):
                raise TypeError(
                    f"statistics: {type(each).__name__} takes {each._takes}, but {type(definite[0]).__name__} takes "
                    f"{definite[0]._takes}; a stack is called on the same labels"
                )
        if definite:
            self._takes = definite[0]._takes

    def _check_labels(self, pred: Tensor, label: tuple[Tensor, ...]) -> None:
        for each in self.statistics:
            each._check_labels(pred, label)

    def num_intercept(self, *label: Tensor) -> Coefficient:
        return _stack([each.num_intercept(*label) for each in self.statistics], label)

    def num_slope(self, *label: Tensor) -> Coefficient:
        return _stack([each.num_slope(*label) for each in self.statistics], label)

    def denom_intercept(self, *label: Tensor) -> Coefficient:
        return _stack([each.denom_intercept(*label) for each in self.statistics], label)

    def denom_slope(self, *label: Tensor) -> Coefficient:
        return _stack([each.denom_slope(*label) for each in self.statistics], label)


def divide(num: Tensor, denom: Tensor) -> Tensor:
    """`num / denom`, NaN where `denom` is zero, with no gradient from there.

    Dividing first and masking later would send 0 * inf = NaN back into every prediction.
    """
    empty = denom == 0
    return torch.where(empty, torch.nan, num / torch.where(empty, 1, denom))


def one_vs_rest(statistic: LinearFractionalStatistic, pred: Tensor, sens: Tensor | None, label: Tensor) -> Tensor:
    """A binary statistic of every one of C classes, each held against the rest.

    Parameters
    ----------
    statistic : called `statistic(pred (N, 1), sens, label (N, 1))`, such as every statistic of this module
    pred : (N, C) probabilities, or integer (N,) predicted classes
    sens : (N, S), or None
    label : integer (N,) true classes, or one-hot (N, C) (or probabilities)

    Returns
    -------
    Tensor (C, S); row k is the statistic of `pred[:, k]` with the label "is of class k". C is that of whichever of the
        two has columns, else one more than the largest class.

    Raises
    ------
    ValueError : lengths or numbers of classes differ, a class is negative or has no column, no rows to find the classes
        of, or neither has the right number of dimensions.

    Examples
    --------
    >>> one_vs_rest(TruePositiveRate(), torch.tensor([0, 1, 2, 2]), None, torch.tensor([0, 1, 2, 1]))[:, 0]
    tensor([1.0000, 0.5000, 1.0000])
    """
    for argument, tensor in (("pred", pred), ("label", label)):
        if tensor.dim() not in (1, 2) or len(tensor) != len(pred):
            raise ValueError(f"{argument}: shape ({len(pred)},) or ({len(pred)}, C) expected, {tuple(tensor.shape)} given")
        if tensor.dim() == 1 and tensor.is_floating_point():
            raise ValueError(f"{argument}: classes as integers, or a column a class, expected; {tensor.dtype} (N,) given")
    columns = {tensor.shape[1] for tensor in (pred, label) if tensor.dim() == 2}
    if len(columns) == 2:
        raise ValueError(f"label: {label.shape[1]} classes given, but pred has {pred.shape[1]}")
    if not columns and not len(pred):
        raise ValueError("pred: empty; without rows or columns there are no classes")
    classes = columns.pop() if columns else int(max(pred.max(), label.max())) + 1
    for argument, tensor in (("pred", pred), ("label", label)):
        if tensor.dim() == 1 and len(tensor) and not 0 <= int(tensor.min()) <= int(tensor.max()) < classes:
            raise ValueError(f"{argument}: classes {int(tensor.min())} to {int(tensor.max())} are not within 0 to {classes - 1}")
    pred, label = (
        tensor if tensor.dim() == 2 else torch.nn.functional.one_hot(tensor.long(), classes) for tensor in (pred, label)
    )
    return torch.stack([statistic(pred[:, k : k + 1], sens, label[:, k : k + 1]) for k in range(classes)])


def _line(pred: Tensor, intercept: Tensor, slope: Tensor) -> Tensor:
    """`intercept + slope * pred`, a value a row: (N, 1), or (N, K, 1) for a stack."""
    between = max(intercept.dim(), slope.dim(), 2) - 2
    return intercept + slope * pred.reshape(len(pred), *[1] * between, 1)


def _total(line: Tensor, sens: Tensor | None) -> Tensor:
    """Weighted sum over the rows: line (N, ..., 1), sens (N, S) -> (..., S).

    A product and a sum, not a matrix product: that one would run in half precision under autocast and TF32, and it adds
    float32 numbers one by one.
    """
    if sens is None:
        return line.sum(0)
    return (line * sens.to(line.dtype).reshape(len(sens), *[1] * (line.dim() - 2), sens.shape[1])).sum(0)


def _checked(
    pred: Tensor, sens: Tensor | None, label: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
    if pred.dim() != 2 or pred.shape[1] != 1:
        hint = "; one_vs_rest takes a column a class" if pred.dim() == 2 else ""
        raise ValueError(f"pred: shape (N, 1) expected, {tuple(pred.shape)} given{hint}")
    if sens is not None and (sens.dim() != 2 or len(sens) != len(pred)):
        raise ValueError(f"sens: shape ({len(pred)}, S) expected, {tuple(sens.shape)} given")
    for each in label:
        # A label (N,) against predictions (N, 1) would broadcast to (N, N) without a word.
        if isinstance(each, Tensor) and each.dim() and (each.dim() == 1 or len(each) != len(pred)):
            raise ValueError(f"label: shape {tuple(pred.shape)} expected, {tuple(each.shape)} given")
    if not pred.is_floating_point():
        pred = pred.to(torch.get_default_dtype())
    return pred, sens, tuple(each.to(pred.dtype) if isinstance(each, Tensor) else each for each in label)


def _stack(values: list[Coefficient], label: tuple[Tensor, ...]) -> Tensor:
    """Coefficients of K statistics, each a number or (N, 1), as one (N, K, 1) or (1, K, 1)."""
    like = next((each for each in label if isinstance(each, Tensor)), torch.zeros(()))
    tensors = [torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in values]
    tensors = [value.reshape(1, 1) if value.dim() == 0 else value for value in tensors]
    return torch.stack(torch.broadcast_tensors(*tensors), dim=-2)


def _any_labels(statistic: LinearFractionalStatistic) -> bool:
    """Whether a statistic takes whatever labels it is given, as `PositiveRate` does."""
    return any(each.kind is each.VAR_POSITIONAL for each in statistic._takes.parameters.values())


def _all_linear_fractional(statistics: tuple[Callable, ...]) -> None:
    if not statistics:
        raise ValueError("statistics: at least one is needed")
    for each in statistics:
        if not isinstance(each, LinearFractionalStatistic):
            raise ValueError(f"statistics: {each!r} is no LinearFractionalStatistic")


#: What `audit` calls each statistic. One object a name: the audit evaluates these and nothing else.
STATISTICS: dict[str, Statistic] = {
    "selection_rate": PositiveRate(),
    "true_positive_rate": TruePositiveRate(),
    "false_positive_rate": FalsePositiveRate(),
    "true_negative_rate": TrueNegativeRate(),
    "false_negative_rate": FalseNegativeRate(),
    "positive_predictive_value": PositivePredictiveValue(),
    "negative_predictive_value": NegativePredictiveValue(),
    "false_omission_rate": FalseOmissionRate(),
    "false_discovery_rate": FalseDiscoveryRate(),
    "accuracy": Accuracy(),
    "balanced_accuracy": BalancedAccuracy(),
    "f1": FScore(1.0),
    "treatment_equality": FalseNegativeFalsePositiveFraction(),
    "error_rate": ErrorRate(),
}
