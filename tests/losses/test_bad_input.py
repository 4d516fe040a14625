"""What makes no loss is refused, naming the argument, what came and what is accepted."""

import math
import warnings

import pytest
import torch
from torch.nn import functional as F

from helpers import losses
from helpers.bias import statistics as of

PROJECTIONS = {
    "kl": losses.KLProjectionLoss,
    "js": losses.JensenShannonProjectionLoss,
    "se": losses.SquaredEuclideanProjectionLoss,
    "tv": losses.TotalVariationProjectionLoss,
}
FAIRRET = PROJECTIONS | {
    "norm": losses.NormLoss,
    "lse": losses.LSELoss,
    "unbiased": losses.UnbiasedSquareLoss,
    "lagrangian": losses.AugmentedLagrangianLoss,
    "moving": lambda statistic: losses.NormLoss(losses.MovingStatistic(statistic)),
}
FAIRTORCH = {"parity": losses.DemographicParityLoss, "odds": losses.EqualizedOddsLoss}
every = pytest.mark.parametrize("make", FAIRRET.values(), ids=FAIRRET)
targeted = pytest.mark.parametrize("kind", [*PROJECTIONS, "norm", "lse"])
constrained = pytest.mark.parametrize("kind", FAIRTORCH)

LOGIT = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
GROUP = torch.arange(40) % 3
SENS = F.one_hot(GROUP, 3).float()
LABEL = (torch.arange(40) % 2).float()[:, None]
STACK = of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate())


def changed(tensor, value, row=5):
    tensor = tensor.clone()
    tensor[row] = value
    return tensor


BAD_CALLS = [
    (ValueError, r"pred: shape \(N, 1\).*\(40,\) given", (LOGIT[:, 0], SENS, LABEL)),
    (ValueError, r"pred: shape .* \(40, 1, 1\) given", (LOGIT[..., None], SENS, LABEL)),
    (ValueError, r"pred: shape .* \(40, 0\) given", (LOGIT[:, :0], SENS, LABEL)),
    (ValueError, r"sens: shape \(40, S\) expected, \(40,\) given; one-hot", (LOGIT, GROUP, LABEL)),
    (ValueError, r"sens: shape \(40, S\) expected, \(39, 3\) given", (LOGIT, SENS[1:], LABEL)),
    (ValueError, r"label: 40 rows expected, as in pred, 39 given", (LOGIT, SENS, LABEL[1:])),
    (ValueError, r"label: shape \(40, 1\) expected, \(40,\) given", (LOGIT, SENS, LABEL[:, 0])),
    (ValueError, r"label: .*\(40, 2\)", (LOGIT, SENS, LABEL.repeat(1, 2))),
    (ValueError, r"label: nan at row 5 is missing", (LOGIT, SENS, changed(LABEL, math.nan))),
    (ValueError, r"label: 2 at row 5 is missing or outside \[0, 1\]", (LOGIT, SENS, changed(LABEL, 2.0))),
    (TypeError, r"pred: floats expected, torch.int64 given", (LOGIT.long(), SENS, LABEL)),
    (TypeError, r"pred: floats expected, torch.bool given", (LOGIT > 0, SENS, LABEL)),
    (TypeError, r"pred: a tensor expected, ndarray given", (LOGIT.numpy(), SENS, LABEL)),
    (TypeError, r"sens: a tensor expected, list given", (LOGIT, SENS.tolist(), LABEL)),
    (TypeError, r"label: a tensor expected, ndarray given", (LOGIT, SENS, LABEL.numpy())),
    (TypeError, r"TruePositiveRate: takes the labels \(label\), 0 by position", (LOGIT, SENS)),
    (TypeError, r"TruePositiveRate: takes the labels \(label\), 2 by position", (LOGIT, SENS, LABEL, LABEL)),
    (ValueError, r"sens: on meta, but pred is on cpu", (LOGIT, SENS.to("meta"), LABEL)),
    (ValueError, r"label: on meta, but pred is on cpu", (LOGIT, SENS, LABEL.to("meta"))),
    (ValueError, r"pred: the value \[nan\] at row 5 is not finite", (changed(LOGIT, math.nan), SENS, LABEL)),
    (ValueError, r"pred: the value \[inf\] at row 5 is not finite", (changed(LOGIT, math.inf), SENS, LABEL)),
    (ValueError, r"pred: the value \[-inf\] at row 5 is not finite", (changed(LOGIT, -math.inf), SENS, LABEL)),
    (ValueError, r"sens: the value \[nan, nan, nan\] at row 5 is missing", (LOGIT, changed(SENS, math.nan), LABEL)),
    (ValueError, r"sens: .* at row 5 is missing", (LOGIT, changed(SENS, math.inf), LABEL)),
]


@every
@pytest.mark.parametrize(("error", "message", "arguments"), BAD_CALLS, ids=[message for _, message, _ in BAD_CALLS])
def test_what_no_loss_can_be_computed_from_is_refused_by_name(make, error, message, arguments):
    with pytest.raises(error, match=message):
        make(of.TruePositiveRate())(*arguments)


def test_a_named_label_on_another_device_is_refused_too():
    with pytest.raises(ValueError, match="label: on meta, but pred is on cpu"):
        losses.NormLoss(of.TruePositiveRate())(LOGIT, SENS, label=LABEL.to("meta"))


@every
def test_values_that_are_no_probabilities_are_refused(make):
    with pytest.raises(ValueError, match=r"pred: probabilities in \[0, 1\] expected, values from .* given; leave out pred_as"):
        make(of.PositiveRate())(LOGIT, SENS, pred_as_logit=False)
    with pytest.raises(ValueError, match=r"pred: probabilities"):
        make(of.PositiveRate())(torch.full((4, 1), 1.001), SENS[:4], pred_as_logit=False)


@every
@pytest.mark.parametrize("squash", [torch.sigmoid, lambda x: x.softmax(1)], ids=["sigmoid", "softmax"])
def test_the_output_of_a_sigmoid_is_not_squashed_again(make, squash):
    logit = torch.cat([-LOGIT, LOGIT], dim=1) if squash is not torch.sigmoid else LOGIT
    prob = squash(logit[:3].clone().requires_grad_())
    with pytest.raises(ValueError, match="pred: logits expected, the output of a (sigmoid|softmax) given.*pred_as_logit=False"):
        make(of.PositiveRate())(prob, SENS[:3])
    assert make(of.PositiveRate())(prob, SENS[:3], pred_as_logit=False).isfinite()


@pytest.mark.parametrize("make", (FAIRRET | FAIRTORCH).values(), ids=FAIRRET | FAIRTORCH)
def test_many_logits_that_look_like_probabilities_are_worth_a_warning_and_few_are_not(make):
    def called(pred):
        if make in FAIRTORCH.values():
            return make([0, 1, 2])(None, pred, GROUP[: len(pred)], LABEL[: len(pred)])
        return make(of.PositiveRate())(pred, SENS[: len(pred)])

    with pytest.warns(UserWarning, match=r"takes logits, but all 32 predictions lie in \[.*probabilities\?"):
        assert called(torch.linspace(0, 1, 32)[:, None]).isfinite()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        called(torch.linspace(0, 1, 31)[:, None])
        called(torch.zeros(40, 1))  # a model that starts at zero
        called(torch.linspace(-0.01, 1, 40)[:, None])
        called(torch.linspace(0, 1.01, 40)[:, None])


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_only_a_linear_fractional_statistic_is_projected_onto(kind):
    for statistic in (of.BalancedAccuracy(), of.PositiveRate, "selection_rate", None, losses.MovingStatistic(of.PositiveRate())):
        with pytest.raises(TypeError, match="statistic: a LinearFractionalStatistic expected"):
            PROJECTIONS[kind](statistic)


@pytest.mark.parametrize("make", [losses.UnbiasedSquareLoss, losses.MovingStatistic, losses.AugmentedLagrangianLoss])
def test_only_sums_are_remembered_and_squared(make):
    for statistic in (of.BalancedAccuracy(), of.PositiveRate, "selection_rate"):
        with pytest.raises(TypeError, match="statistic: a LinearFractionalStatistic expected"):
            make(statistic)


@pytest.mark.parametrize("make", [losses.NormLoss, losses.LSELoss])
def test_a_violation_is_of_a_statistic(make):
    for statistic in (of.PositiveRate, "selection_rate", lambda pred, sens: pred):
        with pytest.raises(TypeError, match="statistic: an instance of a Statistic expected"):
            make(statistic)


@pytest.mark.parametrize(
    ("name", "make", "values"),
    [
        ("p", lambda v: losses.NormLoss(of.PositiveRate(), p=v), [0, -1, math.nan, "2", None, True, -math.inf]),
        ("proj_eps", lambda v: losses.KLProjectionLoss(of.PositiveRate(), proj_eps=v), [-0.1, 0.5, 1, math.nan]),
        ("decay", lambda v: losses.MovingStatistic(of.PositiveRate(), v), [-0.1, 1, 1.5, math.nan]),
        ("gap", lambda v: losses.AugmentedLagrangianLoss(of.PositiveRate(), v), [-0.1, math.inf, math.nan]),
        ("penalty", lambda v: losses.AugmentedLagrangianLoss(of.PositiveRate(), penalty=v), [0, -1, math.inf, math.nan]),
        ("rate", lambda v: losses.AugmentedLagrangianLoss(of.PositiveRate(), rate=v), [0, -1, math.inf, math.nan]),
        ("decay", lambda v: losses.AugmentedLagrangianLoss(of.PositiveRate(), decay=v), [-0.1, 1, math.nan]),
        *[
            (argument, lambda v, kind=kind, argument=argument: kind(**{argument: v}), values)
            for kind in (losses.DemographicParityLoss, losses.EqualizedOddsLoss)
            for argument, values in {
                "p_norm": [0, 3, 1.5, math.inf, "2"],
                "alpha": [-1, math.inf, math.nan],
                "tolerance": [-0.1, math.inf, math.nan],
                "sensitive_classes": [[], [0], [1, 1], [0, 1, 0]],
            }.items()
        ],
    ],
)
def test_an_option_without_meaning_is_refused_by_name(name, make, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{name}: .*(given|expected)"):
            make(value)


@targeted
@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor([0.1, math.nan, 0.2])])
def test_a_target_that_is_missing_is_refused(kind, value):
    with pytest.raises(ValueError, match="target_statistic: .*finite numbers expected"):
        FAIRRET[kind](of.PositiveRate())(LOGIT, SENS, target_statistic=value)


@targeted
@pytest.mark.parametrize(
    ("statistic", "shape"),
    [
        (of.TruePositiveRate(), (2,)),
        (of.TruePositiveRate(), (4,)),
        (STACK, (2,)),
        (STACK, (3, 1)),
        (STACK, (2, 2)),
        # These broadcast with the statistic's values, but not to their shape.
        (of.TruePositiveRate(), (5, 3)),
        (of.TruePositiveRate(), (40, 1)),
        (STACK, (7, 2, 3)),
    ],
)
def test_a_target_of_another_shape_is_refused(kind, statistic, shape):
    with pytest.raises(ValueError, match=r"target_statistic: shape \("):
        FAIRRET[kind](statistic)(LOGIT, SENS, LABEL, target_statistic=torch.full(shape, 0.5))


@targeted
def test_of_one_group_there_is_one_target(kind):
    with pytest.raises(ValueError, match=r"target_statistic: shape \(3,\)"):
        FAIRRET[kind](of.PositiveRate())(LOGIT, SENS[:, :1], target_statistic=torch.full((3,), 0.5))


@pytest.mark.parametrize("kind", ["unbiased", "lagrangian"])
def test_losses_without_a_target_take_none(kind):
    with pytest.raises(TypeError, match="target_statistic"):
        FAIRRET[kind](of.TruePositiveRate())(LOGIT, SENS, LABEL, target_statistic=0.5)


BAD_CONSTRAINTS = [
    (TypeError, r"out: floats expected, torch.int64 given", (LOGIT.long(), GROUP, LABEL)),
    (ValueError, r"out: shape .* \(40, 1, 1\) given", (LOGIT[..., None], GROUP, LABEL)),
    (ValueError, r"sensitive: one value a row, 40 in all, expected, shape \(39,\)", (LOGIT, GROUP[1:], LABEL)),
    (ValueError, r"sensitive: one value a row.*\(40, 3\) given", (LOGIT, SENS, LABEL)),
    (ValueError, r"sensitive: on meta, but out is on cpu", (LOGIT, GROUP.to("meta"), LABEL)),
    (ValueError, r"out: the value \[nan\] at row 5 is not finite", (changed(LOGIT, math.nan), GROUP, LABEL)),
    (ValueError, r"out: .*not finite", (changed(LOGIT[:, 0], math.inf), GROUP, LABEL)),
    (ValueError, r"sensitive: 9 is none of sensitive_classes \[0, 1, 2\]", (LOGIT, changed(GROUP, 9), LABEL)),
    (ValueError, r"sensitive: nan is none of", (LOGIT, changed(GROUP.float(), math.nan), LABEL)),
    (ValueError, r"out: logits expected, the output of a sigmoid", (LOGIT.clone().requires_grad_().sigmoid(), GROUP, LABEL)),
]


@constrained
@pytest.mark.parametrize(("error", "message", "arguments"), BAD_CONSTRAINTS, ids=[each[1] for each in BAD_CONSTRAINTS])
def test_what_no_constraint_can_be_computed_from_is_refused_by_name(kind, error, message, arguments):
    with pytest.raises(error, match=message):
        FAIRTORCH[kind]([0, 1, 2])(None, *arguments)


def test_the_row_of_a_logit_that_is_not_finite_is_named_in_one_dimension_too():
    with pytest.raises(ValueError, match="out: the value inf at row 5 is not finite"):
        losses.DemographicParityLoss([0, 1, 2])(None, changed(LOGIT[:, 0], math.inf), GROUP)


def test_equalized_odds_needs_labels_that_are_zero_and_one():
    loss = losses.EqualizedOddsLoss([0, 1, 2])
    with pytest.raises(ValueError, match="y: missing"):
        loss(None, LOGIT, GROUP)
    with pytest.raises(ValueError, match=r"y: one value a row.*\(39, 1\)"):
        loss(None, LOGIT, GROUP, LABEL[1:])
    with pytest.raises(ValueError, match="y: on meta, but out is on cpu"):
        loss(None, LOGIT, GROUP, LABEL.to("meta"))
    for bad in (2.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"(y|label): {bad:g}"):
            loss(None, LOGIT, GROUP, changed(LABEL, bad))
    with pytest.raises(ValueError, match="(y|label): 3 is none of the classes 0 to 2"):
        loss(None, LOGIT.repeat(1, 3), GROUP, changed(LABEL, 3.0))


@constrained
def test_data_with_another_number_of_groups_are_refused_in_training(kind):
    with pytest.raises(ValueError, match=r"sensitive_classes: 2 given, but the data have 3 groups"):
        FAIRTORCH[kind]().on_batch(LOGIT, SENS, LABEL)


def test_a_name_that_is_no_loss_or_statistic_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="loss.*'?unbiased"):
        losses.named("unbaised")
    with pytest.raises(ValueError, match="true_positive_rate"):
        losses.named("kl", "true_positive_rat")
    for name, kind in losses.LOSSES.items():
        assert isinstance(losses.named(name, "equalized_odds"), kind)
    assert losses.named("lagrangian", gap=0.2).gap == 0.2
