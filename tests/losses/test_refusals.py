"""What does not fit is refused by name, before it can make a number."""

import warnings

import pytest
import torch
from torch.nn import functional as F

from helpers import losses
from helpers.bias import statistics as of
from helpers.bias.statistics import MeanStatistic

LOGIT, SENS = torch.linspace(-2, 2, 6)[:, None], F.one_hot(torch.arange(6) % 2, 2).float()
LABEL = (torch.arange(6) < 3).float()[:, None]
CODES = torch.arange(6) % 2
MADE = [
    losses.NormLoss(of.TruePositiveRate()),
    losses.LSELoss(of.TruePositiveRate()),
    losses.KLProjectionLoss(of.TruePositiveRate()),
    losses.TotalVariationProjectionLoss(of.TruePositiveRate()),
    losses.UnbiasedSquareLoss(of.TruePositiveRate()),
    losses.NormLoss(losses.MovingStatistic(of.TruePositiveRate())),
    losses.AugmentedLagrangianLoss(of.TruePositiveRate()),
]


def nan_at(row):
    logit = LOGIT.clone()
    logit[row] = torch.nan
    return logit


@pytest.mark.parametrize("loss", MADE, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((LOGIT[:, 0], SENS, LABEL), ValueError, r"pred: shape \(N, 1\), or \(N, C\) of C classes, expected, \(6,\) given"),
        ((LOGIT, SENS[:5], LABEL), ValueError, r"sens: shape \(6, S\) expected, \(5, 2\) given"),
        ((LOGIT, CODES, LABEL), ValueError, r"sens: shape \(6, S\) expected, \(6,\) given; one-hot encode"),
        ((LOGIT, SENS, LABEL[:5]), ValueError, "label: 6 rows expected, as in pred, 5 given"),
        ((LOGIT, SENS, LABEL[:, 0]), ValueError, r"label: shape \(6, 1\) expected, \(6,\) given"),
        ((LOGIT, SENS, LABEL * 2), ValueError, "label: 2 at row 0 is missing or outside"),
        ((LOGIT, SENS), TypeError, "takes the labels"),
        ((LOGIT, SENS, LABEL, LABEL), TypeError, "takes the labels"),
        ((LOGIT.long(), SENS, LABEL), TypeError, "pred: floats expected, torch.int64 given"),
        ((LOGIT.numpy(), SENS, LABEL), TypeError, "pred: a tensor expected, ndarray given"),
        ((LOGIT, SENS.to("meta"), LABEL), ValueError, "sens: on meta, but pred is on cpu"),
        ((LOGIT, SENS, LABEL.to("meta")), ValueError, "label: on meta, but pred is on cpu"),
        ((nan_at(4), SENS, LABEL), ValueError, r"pred: the value \[nan\] at row 4 is not finite"),
        ((LOGIT * torch.inf, SENS, LABEL), ValueError, "pred: the value .* at row 0 is not finite"),
        ((LOGIT, SENS * torch.nan, LABEL), ValueError, "sens: the value .* at row 0 is missing"),
        ((LOGIT.sigmoid().requires_grad_().sigmoid(), SENS, LABEL), ValueError, "logits expected, the output of a sigmoid given"),
    ],
)
def test_a_batch_that_does_not_fit(loss, arguments, error, said):
    with pytest.raises(error, match=said):
        loss(*arguments)


@pytest.mark.parametrize("loss", MADE, ids=lambda loss: type(loss).__name__)
def test_logits_are_no_probabilities(loss):
    with pytest.raises(ValueError, match=r"pred: probabilities in \[0, 1\] expected, values from -2 to 2 given"):
        loss(LOGIT, SENS, LABEL, pred_as_logit=False)


@pytest.mark.parametrize("loss", [losses.NormLoss(of.PositiveRate()), losses.KLProjectionLoss(of.PositiveRate())])
def test_many_logits_between_0_and_1_are_suspicious(loss):
    sens = F.one_hot(torch.arange(40) % 2, 2).float()
    with pytest.warns(UserWarning, match="takes logits, but all 40 predictions lie in"):
        loss(torch.linspace(0, 1, 40)[:, None], sens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(torch.linspace(0, 1, 20)[:, None], sens[:20])  # too few to tell
        loss(torch.zeros(40, 1), sens)  # as a network with a last layer of zeros has them
        loss(torch.linspace(0, 1, 40)[:, None], sens, pred_as_logit=False)


@pytest.mark.parametrize("loss", MADE[:4], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    ("target", "said"),
    [
        (float("nan"), "target_statistic: nan given; finite numbers expected"),
        (torch.tensor([0.1, 0.2, 0.3]), r"target_statistic: shape \(3,\) given, which does not fit"),
    ],
)
def test_a_target_that_does_not_fit(loss, target, said):
    with pytest.raises(ValueError, match=said):
        loss(LOGIT, SENS, LABEL, target_statistic=target)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: losses.NormLoss(of.PositiveRate), TypeError, "statistic: an instance of a Statistic expected"),
        (lambda: losses.NormLoss(of.PositiveRate(), p=0), ValueError, "p: 0 given; a number above 0"),
        (lambda: losses.NormLoss(of.PositiveRate(), p="fro"), ValueError, "p: 'fro' given"),
        (lambda: losses.KLProjectionLoss(MeanStatistic(of.PositiveRate())), TypeError, "statistic: a LinearFractionalStatistic"),
        (lambda: losses.KLProjectionLoss(of.PositiveRate(), proj_eps=0.5), ValueError, r"proj_eps: 0.5 given; a number in \[0, 0.5\)"),
        (lambda: losses.MovingStatistic(of.PositiveRate(), 1.0), ValueError, r"decay: 1.0 given; a number in \[0, 1\)"),
        (lambda: losses.MovingStatistic(of.BalancedAccuracy()), TypeError, "statistic: a LinearFractionalStatistic"),
        (lambda: losses.UnbiasedSquareLoss(of.BalancedAccuracy()), TypeError, "statistic: a LinearFractionalStatistic"),
        (lambda: losses.AugmentedLagrangianLoss(of.PositiveRate(), -0.1), ValueError, "gap: -0.1 given"),
        (lambda: losses.AugmentedLagrangianLoss(of.PositiveRate(), penalty=0), ValueError, "penalty: 0 given"),
        (lambda: losses.AugmentedLagrangianLoss(of.PositiveRate(), rate=0), ValueError, "rate: 0 given"),
        (lambda: losses.ConstraintLoss(p_norm=3), ValueError, "p_norm: 3 given; 1 or 2 expected"),
        (lambda: losses.DemographicParityLoss([0, 1], alpha=-1), ValueError, "alpha: -1 given"),
        (lambda: losses.DemographicParityLoss([0, 1], tolerance=-1), ValueError, "tolerance: -1 given"),
        (lambda: losses.DemographicParityLoss([0, 0]), ValueError, r"sensitive_classes: \[0, 0\] given; two groups or more"),
        (lambda: losses.EqualizedOddsLoss([1]), ValueError, r"sensitive_classes: \[1\] given; two groups or more"),
        (lambda: losses.named("kll"), ValueError, "loss: unknown name 'kll'. Did you mean 'kl'"),
        (lambda: losses.named("kl", "balanced_accuracy"), ValueError, "equalize: unknown name 'balanced_accuracy'"),
    ],
)
def test_a_loss_that_cannot_be_made(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_options_of_a_solver_are_not_swallowed_in_silence():
    with pytest.warns(UserWarning, match="has no solver to take the options max_iters"):
        losses.KLProjectionLoss(of.PositiveRate(), max_iters=100)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((LOGIT, CODES + 1, LABEL), ValueError, r"sensitive: 2 is none of sensitive_classes \[0, 1\]"),
        ((LOGIT, CODES[:4], LABEL), ValueError, r"sensitive: one value a row, 6 in all, expected, shape \(4,\) given"),
        ((LOGIT, CODES, LABEL[:4]), ValueError, r"y: one value a row, 6 in all, expected, shape \(4, 1\) given"),
        ((LOGIT, CODES), ValueError, "y: missing; equalized odds compares"),
        ((LOGIT, CODES, LABEL - 1), ValueError, "label: -1 at row 3 is missing or outside"),
        ((LOGIT, CODES.to("meta"), LABEL), ValueError, "sensitive: on meta, but out is on cpu"),
        ((LOGIT.long(), CODES, LABEL), TypeError, "out: floats expected"),
        ((LOGIT[None], CODES, LABEL), ValueError, r"out: shape \(N,\), \(N, 1\) or \(N, C\) expected"),
        ((nan_at(2), CODES, LABEL), ValueError, "out: the value .* at row 2 is not finite"),
        ((LOGIT.sigmoid().requires_grad_().sigmoid(), CODES, LABEL), ValueError, "out: logits expected"),
        ((torch.randn(6, 3), CODES, LABEL * 3), ValueError, "label: 3 is none of the classes 0 to 2 of pred"),
    ],
)
def test_constraint_losses_refuse_by_their_own_names(arguments, error, said):
    with pytest.raises(error, match=said):
        losses.EqualizedOddsLoss([0, 1])(None, *arguments)


def test_what_remembers_refuses_another_number_of_groups_until_reset():
    for loss in (losses.NormLoss(losses.MovingStatistic(of.PositiveRate())), losses.AugmentedLagrangianLoss(of.PositiveRate())):
        loss(LOGIT, SENS)
        with pytest.raises(ValueError, match=r"sens: .*reset\(\)"):
            loss(LOGIT, torch.cat([SENS, SENS], dim=1))
        for part in loss.modules():
            getattr(part, "reset", lambda: None)()
        loss(LOGIT, torch.cat([SENS, SENS], dim=1))


def test_a_class_of_several_that_is_not_there():
    with pytest.raises(ValueError, match="label: 4 is none of the classes 0 to 2 of pred"):
        losses.NormLoss(of.TruePositiveRate())(torch.randn(6, 3), SENS, torch.full((6,), 4))
    with pytest.raises(ValueError, match=r"label: shape \(6,\) or \(6, 3\) expected, \(6, 2\) given"):
        losses.NormLoss(of.TruePositiveRate())(torch.randn(6, 3), SENS, torch.zeros(6, 2))
