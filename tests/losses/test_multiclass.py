"""Several classes: each against the rest, with the probabilities of the softmax."""

import pytest
import torch
from torch.nn import functional as F

from helpers import losses
from helpers.bias import statistics as of

ODDS = of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate())
PROJECTIONS = {
    "kl": losses.KLProjectionLoss,
    "js": losses.JensenShannonProjectionLoss,
    "se": losses.SquaredEuclideanProjectionLoss,
    "tv": losses.TotalVariationProjectionLoss,
}
ALL = PROJECTIONS | {
    "norm": losses.NormLoss,
    "norm, p=2": lambda statistic: losses.NormLoss(statistic, p=2),
    "lse": losses.LSELoss,
    "unbiased": losses.UnbiasedSquareLoss,
    "lagrangian": lambda statistic: losses.AugmentedLagrangianLoss(statistic, 0.01),
    "moving": lambda statistic: losses.NormLoss(losses.MovingStatistic(statistic)),
}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


def batch(classes, seed=0, rows=60, groups=3, dtype=torch.float64):
    dice = torch.Generator().manual_seed(seed)
    logit = torch.randn(rows, classes, generator=dice, dtype=torch.float64).to(dtype)
    sens = F.one_hot(torch.randint(groups, (rows,), generator=dice), groups).to(dtype)
    return logit, sens, torch.randint(classes, (rows,), generator=dice)


def both(loss, logit, *rest, **options):
    logit = logit.detach().clone().requires_grad_()
    value = loss(logit, *rest, **options)
    return value.detach(), torch.autograd.grad(value, logit)[0]


#: Which losses see a class and its complement alike: a share and the share of the rest differ by as much, but not by as much
#: relative to the overall one.
SYMMETRIC = [
    *[(kind, name) for kind in PROJECTIONS for name in ("rate", "accuracy", "odds")],
    *[(kind, name) for kind in ("unbiased", "lagrangian") for name in ("rate", "accuracy", "odds")],
    *[(kind, "accuracy") for kind in ("norm", "norm, p=2", "lse", "moving")],
]


@pytest.mark.parametrize(("kind", "name"), SYMMETRIC)
def test_two_logits_make_the_loss_of_their_difference(kind, name):
    statistic = {"rate": of.PositiveRate(), "accuracy": of.Accuracy(), "odds": ODDS}[name]
    logit, sens, label = batch(2)
    value, gradient = both(ALL[kind](statistic), logit, sens, label)
    one, slope = both(ALL[kind](statistic), logit[:, 1:] - logit[:, :1], sens, label[:, None])
    torch.testing.assert_close(value, one, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(gradient, torch.cat([-slope, slope], dim=1), rtol=1e-4, atol=1e-7)


@every
@pytest.mark.parametrize("statistic", [of.PositiveRate(), of.TruePositiveRate(), of.PositivePredictiveValue(), ODDS])
@pytest.mark.parametrize("classes", [2, 4])
def test_it_is_the_mean_over_the_classes_each_against_the_rest(make, statistic, classes):
    logit, sens, label = batch(classes)
    soft = logit.softmax(1)
    apart = [
        make(statistic)(soft[:, [k]], sens, (label == k)[:, None].double(), pred_as_logit=False) for k in range(classes)
    ]
    torch.testing.assert_close(make(statistic)(logit, sens, label), torch.stack(apart).mean(), rtol=1e-8, atol=1e-12)


@every
def test_labels_come_as_classes_in_a_row_in_a_column_or_one_hot_by_position_or_name(make):
    logit, sens, label = batch(3)
    expected = make(of.TruePositiveRate())(logit, sens, label)
    for form in (label[:, None], label.double(), label[:, None].float(), label.int(), F.one_hot(label, 3)):
        torch.testing.assert_close(make(of.TruePositiveRate())(logit, sens, form), expected)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", ["norm", "kl"])
def test_labels_by_name_are_labels_by_position(kind, classes):
    # Of two classes this would else be a wrong value without a word: 0 and 1 are labels that a binary statistic takes.
    logit, sens, label = batch(classes)
    expected = ALL[kind](of.TruePositiveRate())(logit, sens, label[:, None])
    torch.testing.assert_close(ALL[kind](of.TruePositiveRate())(logit, sens, label=label[:, None]), expected)


def test_labels_of_two_classes_may_be_booleans():
    logit, sens, label = batch(2)
    loss = losses.NormLoss(of.TruePositiveRate())
    torch.testing.assert_close(loss(logit, sens, label.bool()), loss(logit, sens, label))


@every
def test_probabilities_of_several_classes_are_taken_as_they_are(make):
    logit, sens, label = batch(3)
    for statistic in (of.PositiveRate(), of.Accuracy()):
        torch.testing.assert_close(
            make(statistic)(logit.softmax(1), sens, label, pred_as_logit=False), make(statistic)(logit, sens, label)
        )


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sure_predictions_give_finite_losses_and_gradients(make, dtype):
    _, sens, label = batch(3, dtype=dtype)
    for size in (80.0, 1000.0):
        right, wrong, one = F.one_hot(label, 3) * size, F.one_hot((label + 1) % 3, 3) * size, torch.tensor([[size, 0, 0]])
        for logit in (right, wrong, one.repeat(60, 1)):
            for statistic in (of.PositiveRate(), of.PositivePredictiveValue(), ODDS):
                value, gradient = both(make(statistic), logit.to(dtype), sens, label)
                assert value.isfinite() and gradient.isfinite().all()


@every
def test_adding_the_same_to_all_logits_of_a_row_changes_nothing(make):
    logit, sens, label = batch(3)
    shifted = logit + torch.arange(60)[:, None]
    torch.testing.assert_close(both(make(ODDS), shifted, sens, label), both(make(ODDS), logit, sens, label), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["kl", "js", "se", "norm", "unbiased"])
def test_the_gradient_is_that_of_finite_differences(kind):
    logit, sens, label = batch(3, rows=15, groups=2)
    loss = ALL[kind](of.PositiveRate())
    target = {} if kind == "unbiased" else {"target_statistic": 0.3}
    assert torch.autograd.gradcheck(lambda x: loss(x, sens, label, **target), logit.requires_grad_(), atol=1e-6)


@every
@pytest.mark.parametrize("bad", [3, -1, 0.5])
def test_a_label_of_no_class_is_named(make, bad):
    logit, sens, label = batch(3)
    label = label.double()
    label[7] = bad
    for form in (label, label[:, None]):
        with pytest.raises(ValueError, match=rf"label: {bad:g} is none of the classes 0 to 2"):
            make(of.TruePositiveRate())(logit, sens, form)


def test_labels_of_another_number_of_classes_are_named():
    logit, sens, label = batch(3)
    with pytest.raises(ValueError, match=r"label: shape \(60,\) or \(60, 3\) expected, \(60, 4\) given"):
        losses.NormLoss(of.TruePositiveRate())(logit, sens, F.one_hot(label, 4))
    with pytest.raises(ValueError, match="label: nan"):
        losses.NormLoss(of.TruePositiveRate())(logit, sens, torch.full((60,), torch.nan))


@every
def test_half_precision_is_computed_in_single(make):
    logit, sens, label = batch(3, dtype=torch.float32)
    exact = make(ODDS)(logit, sens, label)
    value, gradient = both(make(ODDS), logit.to(torch.bfloat16), sens, label)
    assert value.dtype == torch.bfloat16 and value.item() == pytest.approx(exact.item(), rel=0.1, abs=0.01)
    assert gradient.isfinite().all()
