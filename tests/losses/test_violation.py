"""Violation losses: their formula, fairret's values and gradients, and groups, targets and violations of nothing."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers.bias import statistics as of
from helpers.losses import LSELoss, NormLoss

STATISTICS = {
    **of.STATISTICS,
    "odds": of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate()),
    "rate and precision": of.StackedLinearFractionalStatistic(of.PositiveRate(), of.PositivePredictiveValue()),
}
POWERS = [0.5, 1, 2, 3, math.inf]
PENALTIES = {**{f"norm {p}": (lambda statistic, p=p: NormLoss(statistic, p=p)) for p in POWERS}, "lse": LSELoss}
#: What fairret calls the same.
THEIRS = {
    "selection_rate": "PositiveRate",
    "true_positive_rate": "TruePositiveRate",
    "false_positive_rate": "FalsePositiveRate",
    "positive_predictive_value": "PositivePredictiveValue",
    "false_omission_rate": "FalseOmissionRate",
    "accuracy": "Accuracy",
    "treatment_equality": "FalseNegativeFalsePositiveFraction",
    "f1": "FScore",
}


def batch(seed, rows=40, groups=3, dtype=torch.float64):
    """Logits, one-hot groups and labels; every group has rows of both labels."""
    dice = torch.Generator().manual_seed(seed)
    group = torch.arange(rows) % groups
    label = (torch.arange(rows) // groups) % 2
    logit = torch.randn(rows, 1, generator=dice, dtype=torch.float64) + 0.5 * group[:, None]
    return logit.to(dtype), F.one_hot(group, groups).to(dtype), label[:, None].to(dtype)


def value_and_gradient(loss, logit, *rest, **options):
    logit = logit.detach().clone().requires_grad_()
    value = loss(logit, *rest, **options)
    (gradient,) = torch.autograd.grad(value, logit)
    return value.detach(), gradient


def penalty(name, violation):
    """Of violations of one statistic, written out."""
    each = violation.tolist()
    if name == "lse":
        return math.log(sum(math.exp(v) for v in each) / len(each))
    p = float(name.split()[1])
    return max(each) if p == math.inf else sum(v**p for v in each) ** (1 / p)


def by_hand(name, statistic, prob, sens, label, target=None):
    """The loss from the statistics of the groups one at a time, of the groups that have one."""
    everybody = torch.ones(len(prob), 1, dtype=prob.dtype)
    groups = [torch.atleast_1d(statistic(prob, sens[:, [s]], label).squeeze(-1)) for s in range(sens.shape[1])]
    groups = torch.stack(groups, dim=1)  # (K, S)
    target = statistic(prob, everybody, label).reshape(-1, 1) if target is None else target
    target = torch.broadcast_to(torch.as_tensor(target, dtype=prob.dtype), groups.shape)
    total = 0.0
    for row, wanted in zip(groups, target, strict=True):
        known = ~(row + wanted).isnan()
        gap = torch.where(wanted == 0, row.abs(), (row / wanted - 1).abs())[known]
        total += penalty(name, gap) if len(gap) else 0.0
    return total


@pytest.mark.parametrize("penalized", PENALTIES)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 60),
    groups=st.integers(1, 6),
    name=st.sampled_from(sorted(STATISTICS)),
)
def test_the_loss_is_its_formula(penalized, seed, rows, groups, name):
    dice = torch.Generator().manual_seed(seed)
    logit = torch.randn(rows, 1, generator=dice, dtype=torch.float64)
    sens = F.one_hot(torch.randint(groups, (rows,), generator=dice), groups).double()  # some groups may be absent
    label = torch.randint(2, (rows, 1), generator=dice).double()
    statistic = STATISTICS[name]
    value, gradient = value_and_gradient(PENALTIES[penalized](statistic), logit, sens, label)
    assert value.item() == pytest.approx(by_hand(penalized, statistic, logit.sigmoid(), sens, label), rel=1e-9, abs=1e-12)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("penalized", PENALTIES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(2, 5), name=st.sampled_from(sorted(THEIRS) + ["odds"]))
def test_values_and_gradients_are_those_of_fairret(penalized, seed, groups, name):
    loss, theirs = pytest.importorskip("fairret.loss"), pytest.importorskip("fairret.statistic")
    logit, sens, label = batch(seed, groups=groups)
    if name == "odds":
        peer = theirs.StackedLinearFractionalStatistic(theirs.TruePositiveRate(), theirs.FalsePositiveRate())
    else:
        peer = getattr(theirs, THEIRS[name])()
    peer = loss.LSELoss(peer) if penalized == "lse" else loss.NormLoss(peer, p=float(penalized.split()[1]))
    labels = () if name == "selection_rate" else (label,)
    expected, slope = value_and_gradient(peer, logit, sens, *labels)
    value, gradient = value_and_gradient(PENALTIES[penalized](STATISTICS[name]), logit, sens, *labels)
    rough = {"rtol": 1e-6, "atol": 1e-7} if penalized == "lse" else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(value, expected, **rough)  # fairret takes the logarithm of the number of groups in float32
    torch.testing.assert_close(gradient, slope, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("penalized", PENALTIES)
@pytest.mark.parametrize("name", STATISTICS)
def test_gradients_are_those_of_finite_differences(penalized, name):
    logit, sens, label = batch(1, rows=12)
    loss = PENALTIES[penalized](STATISTICS[name])
    assert torch.autograd.gradcheck(lambda x: loss(x, sens, label), logit.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("selection_rate", 0.3),
        ("selection_rate", torch.tensor(0.3)),
        ("selection_rate", torch.tensor([0.3])),
        ("selection_rate", torch.tensor([0.3, 0.5, 0.6])),
        ("balanced_accuracy", 0.9),
        ("odds", 0.4),
        ("odds", torch.tensor([[0.9], [0.1]])),
        ("odds", torch.tensor([0.3, 0.5, 0.6])),
        ("odds", torch.tensor([[0.3, 0.5, 0.6], [0.2, 0.1, 0.4]])),
    ],
)
@pytest.mark.parametrize("penalized", PENALTIES)
def test_a_given_target_takes_the_place_of_the_overall_statistic(penalized, name, target):
    logit, sens, label = batch(2)
    statistic = STATISTICS[name]
    value = PENALTIES[penalized](statistic)(logit, sens, label, target_statistic=target)
    expected = by_hand(penalized, statistic, logit.sigmoid(), sens, label, target)
    assert value.item() == pytest.approx(expected, rel=1e-6)  # the targets are float32


def test_the_gradient_flows_through_the_overall_statistic_too():
    logit, sens, label = batch(3)
    overall = of.PositiveRate().overall_statistic(logit.sigmoid())
    _, flowing = value_and_gradient(NormLoss(of.PositiveRate()), logit, sens)
    _, fixed = value_and_gradient(NormLoss(of.PositiveRate()), logit, sens, target_statistic=overall)
    assert not torch.allclose(flowing, fixed, rtol=1e-3)


@pytest.mark.parametrize("target", [0.0, torch.tensor([0.0]), torch.tensor([0.0, 0.5, 0.0])])
@pytest.mark.parametrize("penalized", PENALTIES)
def test_a_target_of_zero_makes_the_violation_the_statistic_itself(penalized, target):
    logit, sens, label = batch(4)
    rates = of.PositiveRate()(logit.sigmoid(), sens)
    wanted = torch.broadcast_to(torch.as_tensor(target, dtype=torch.float64), (3,))
    gaps = torch.stack([f if c == 0 else (f / c - 1).abs() for f, c in zip(rates, wanted, strict=True)])
    value, gradient = value_and_gradient(PENALTIES[penalized](of.PositiveRate()), logit, sens, target_statistic=target)
    assert value.item() == pytest.approx(penalty(penalized, gaps), rel=1e-9)
    assert gradient.isfinite().all() and gradient.any()


def test_one_row_of_a_stack_may_have_a_zero_target_and_the_other_not():
    logit, sens, label = batch(5)
    target = torch.tensor([[0.0], [0.4]])
    value = NormLoss(STATISTICS["odds"])(logit, sens, label, target_statistic=target)
    tpr, fpr = STATISTICS["odds"](logit.sigmoid(), sens, label)
    assert value.item() == pytest.approx((tpr.sum() + (fpr / torch.tensor(0.4) - 1).abs().sum()).item(), rel=1e-6)


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("penalized", PENALTIES)
def test_an_absent_group_changes_neither_value_nor_gradient(penalized, name):
    logit, sens, label = batch(6)
    more = torch.cat([torch.zeros(40, 1, dtype=sens.dtype), sens, torch.zeros(40, 2, dtype=sens.dtype)], dim=1)
    loss = PENALTIES[penalized](STATISTICS[name])
    for options in ({}, {"target_statistic": 0.4}):
        with_them = value_and_gradient(loss, logit, more, label, **options)
        without = value_and_gradient(loss, logit, sens, label, **options)
        torch.testing.assert_close(with_them, without, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("penalized", PENALTIES)
def test_a_group_without_positives_is_left_out_of_one_row_of_a_stack_only(penalized):
    logit, sens, label = batch(7)
    label = torch.where(sens[:, :1] == 1, 0.0, label)
    value, gradient = value_and_gradient(PENALTIES[penalized](STATISTICS["odds"]), logit, sens, label)
    others = sens[:, 1:]
    target = STATISTICS["odds"].overall_statistic(logit.sigmoid(), label)
    tpr = of.TruePositiveRate()(logit.sigmoid(), others, label) / target[0] - 1
    fpr = of.FalsePositiveRate()(logit.sigmoid(), sens, label) / target[1] - 1
    assert value.item() == pytest.approx(penalty(penalized, tpr.abs()) + penalty(penalized, fpr.abs()))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("penalized", PENALTIES)
def test_without_any_group_the_loss_is_zero_and_its_gradient_too(penalized):
    logit, sens, label = batch(8)
    for statistic in STATISTICS.values():
        loss = PENALTIES[penalized](statistic)
        value, gradient = value_and_gradient(loss, logit, torch.zeros_like(sens), label)
        assert value == 0 and not gradient.any()
        assert value_and_gradient(loss, logit[:1], sens[:1], label[:1])[1].isfinite().all()


def test_a_batch_without_rows_has_no_loss():
    logit, sens, label = batch(8)
    for statistic in STATISTICS.values():
        value, gradient = value_and_gradient(NormLoss(statistic), logit[:0], sens[:0], label[:0])
        assert value == 0 and gradient.shape == (0, 1)


def test_a_statistic_without_an_overall_value_leaves_no_nan():
    logit, sens, _ = batch(9)
    value, gradient = value_and_gradient(NormLoss(of.TruePositiveRate()), logit, sens, torch.zeros_like(logit))
    assert value == 0 and not gradient.any()
    value, gradient = value_and_gradient(NormLoss(STATISTICS["odds"]), logit, sens, torch.zeros_like(logit))
    assert value > 0 and gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("penalized", PENALTIES)
@pytest.mark.parametrize("fair", ["all", "one"])
def test_a_violation_of_exactly_zero_has_a_finite_gradient(penalized, fair):
    # The second group has the overall rate whatever the other two have, to the last bit.
    logit = torch.tensor([[0.0], [0.0], [0.0], [0.0], [0.0], [0.0]] if fair == "all" else [[-1.0], [-1.0], [0], [0], [1], [1]])
    sens = F.one_hot(torch.tensor([0, 0, 1, 1, 2, 2]), 3).float()
    value, gradient = value_and_gradient(PENALTIES[penalized](of.PositiveRate()), logit, sens, target_statistic=0.5)
    assert (value.item() == pytest.approx(0, abs=1e-7)) == (fair == "all")
    assert gradient.isfinite().all()
    assert gradient.any() == (fair == "one")


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    penalized=st.sampled_from(sorted(PENALTIES)),
    name=st.sampled_from(sorted(STATISTICS)),
)
def test_the_order_of_rows_and_groups_and_repeating_all_rows_change_nothing(seed, penalized, name):
    logit, sens, label = batch(seed % 50)
    dice = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(40, generator=dice), torch.randperm(3, generator=dice)
    loss = PENALTIES[penalized](STATISTICS[name])
    value, gradient = value_and_gradient(loss, logit, sens, label)
    shuffled, moved = value_and_gradient(loss, logit[rows], sens[rows][:, columns], label[rows])
    torch.testing.assert_close((shuffled, moved), (value, gradient[rows]), rtol=1e-9, atol=1e-12)
    twice = [torch.cat([each, each]) for each in (logit, sens, label)]
    doubled, halved = value_and_gradient(loss, *twice)
    torch.testing.assert_close((doubled, halved[:40] + halved[40:]), (value, gradient), rtol=1e-9, atol=1e-12)


def test_equal_rates_cost_nothing_and_wider_gaps_cost_more():
    sens = F.one_hot(torch.arange(8) % 2, 2).double()
    for make in PENALTIES.values():
        costs = [make(of.PositiveRate())(sens[:, 1:] * gap, sens).item() for gap in (0.0, 0.5, 1.0, 2.0)]
        assert costs[0] == pytest.approx(0, abs=1e-12) and costs == sorted(costs) and costs[-1] > 0.1


@pytest.mark.parametrize("penalized", PENALTIES)
def test_probabilities_and_their_logits_have_the_same_loss(penalized):
    logit, sens, label = batch(10)
    loss = PENALTIES[penalized](of.FScore())
    of_logits, of_probabilities = loss(logit, sens, label), loss(logit.sigmoid(), sens, label, pred_as_logit=False)
    torch.testing.assert_close(of_logits, of_probabilities)
    torch.testing.assert_close(loss(logit, sens, label=label), of_logits)  # labels by name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_change_the_last_digits_only(dtype):
    logit, sens, label = batch(11, dtype=torch.float32)
    loss = NormLoss(STATISTICS["odds"])
    exact = loss(logit, sens, label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(logit, sens, label) == exact and exact.dtype == torch.float32
    value, gradient = value_and_gradient(loss, logit.to(dtype), sens, label)
    assert value.dtype == gradient.dtype == dtype
    assert value.item() == pytest.approx(exact.item(), rel=0.03) and gradient.isfinite().all()


@pytest.mark.parametrize("size", [80.0, 1000.0])
@pytest.mark.parametrize("name", STATISTICS)
def test_sure_predictions_give_finite_losses_and_gradients(name, size):
    _, sens, label = batch(12, dtype=torch.float32)
    signs = (torch.arange(40) % 5 < 2)[:, None].float() * 2 - 1
    for logit in (signs * size, torch.full((40, 1), size), torch.full((40, 1), -size)):
        for make in PENALTIES.values():
            value, gradient = value_and_gradient(make(STATISTICS[name]), logit, sens, label)
            assert value.isfinite() and gradient.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_continuous_and_overlapping_groups_are_weights_like_others(seed):
    logit, sens, label = batch(13)
    dice = torch.Generator().manual_seed(seed)
    both = torch.cat([sens, F.one_hot(torch.randint(2, (40,), generator=dice), 2), torch.rand(40, 1, generator=dice)], dim=1)
    assume((both.sum(0) > 0).all())
    for penalized, make in PENALTIES.items():
        value = make(of.PositiveRate())(logit, both.double())
        assert value.item() == pytest.approx(by_hand(penalized, of.PositiveRate(), logit.sigmoid(), both.double(), label))


def test_nothing_given_is_changed_and_nothing_but_predictions_has_a_gradient_from_plain_inputs():
    logit, sens, label = batch(14)
    before = [each.clone() for each in (logit, sens, label)]
    value_and_gradient(NormLoss(of.TruePositiveRate()), logit, sens, label)
    assert all(torch.equal(a, b) for a, b in zip((logit, sens, label), before, strict=True))
