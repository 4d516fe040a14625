"""Projections are those of a convex solver run to convergence, keep their constraints, and have the gradient they claim."""

import itertools

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers import losses
from helpers.bias import statistics as of

DISTANCES = {
    "kl": losses.KLProjectionLoss,
    "js": losses.JensenShannonProjectionLoss,
    "se": losses.SquaredEuclideanProjectionLoss,
    "tv": losses.TotalVariationProjectionLoss,
}
STATISTICS = {
    "positive rate": of.PositiveRate(),
    "true positive rate": of.TruePositiveRate(),
    "precision": of.PositivePredictiveValue(),
    "omission": of.FalseOmissionRate(),
    "accuracy": of.Accuracy(),
    "F": of.FScore(0.5),
    "FN / FP": of.FalseNegativeFalsePositiveFraction(),
    "odds": of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate()),
    "rate and recall": of.StackedLinearFractionalStatistic(of.PositiveRate(), of.TruePositiveRate()),
}


def problem(seed, rows, groups, overlapping=False, dtype=torch.float64, spread=2.0):
    """Logits that differ by group, one-hot groups (with a second attribute beside them if they overlap) and labels."""
    dice = torch.Generator().manual_seed(seed)
    group = torch.randint(groups, (rows,), generator=dice)
    sens = F.one_hot(group, groups)
    if overlapping:
        sens = torch.cat([sens, F.one_hot(torch.randint(2, (rows,), generator=dice), 2)], dim=1)
    logit = spread * torch.randn(rows, 1, generator=dice, dtype=torch.float64) + group[:, None] - groups / 2
    label = torch.randint(2, (rows, 1), generator=dice)
    return logit.to(dtype), sens.to(dtype), label.to(dtype)


def solved(kind, statistic, logit, sens, label, target=None):
    """Value and projection by cvxpy, or None where it finds no prediction that keeps the constraints."""
    p = logit.double().sigmoid()
    target = statistic.overall_statistic(p, label.double()) if target is None else target
    intercept, slope = (each.numpy() for each in statistic.fixed_constraint(target, sens.double(), label.double()))
    p = p[:, 0].numpy()
    q = cvxpy.Variable(len(p))
    m, kl = (q + p) / 2, cvxpy.kl_div
    distance = {
        "kl": lambda: cvxpy.sum(kl(q, p) + kl(1 - q, 1 - p)),
        "js": lambda: cvxpy.sum(kl(q, m) + kl(1 - q, 1 - m) + kl(p, m) + kl(1 - p, 1 - m)) / 2,
        "se": lambda: cvxpy.sum_squares(q - p),
        "tv": lambda: cvxpy.sum(cvxpy.abs(q - p)),
        "chi": lambda: cvxpy.sum(cvxpy.multiply(cvxpy.square(q), 1 / p) + cvxpy.multiply(cvxpy.square(1 - q), 1 / (1 - p))),
    }[kind]()
    task = cvxpy.Problem(cvxpy.Minimize(distance / len(p)), [intercept.sum(0) + slope.T @ q == 0, q >= 0, q <= 1])
    try:
        task.solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    except cvxpy.SolverError:
        return None
    # Infinite is its word for constraints that leave no room, such as precision in a group without positives.
    return None if task.status not in ("optimal", "optimal_inaccurate") or task.value > 1e3 else (float(task.value), q.value)


def residual(statistic, q, sens, label, target):
    """How far the constraints are from being kept, per row of the group.

    Not of the statistics, since one constraint can be kept by numerator and denominator both going to zero.
    """
    intercept, slope = statistic.fixed_constraint(target, sens.double(), label.double())
    missed = (intercept + slope * q.double()).sum(0).reshape(-1, sens.shape[1])
    return (missed / sens.sum(0).clamp(min=1)).abs().max()


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("kind", DISTANCES)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(6, 120),
    groups=st.integers(2, 5),
    overlapping=st.booleans(),
    name=st.sampled_from(sorted(STATISTICS)),
)
def test_the_projection_is_that_of_a_convex_solver(kind, seed, rows, groups, overlapping, name):
    # Among a handful of rows, constraints that share them may leave total variation no room at all (see its docstring).
    assume(kind != "tv" or not overlapping or rows >= 40)
    logit, sens, label = problem(seed, rows, groups, overlapping)
    statistic = STATISTICS[name]
    assume(not statistic.overall_statistic(logit.sigmoid(), label).isnan().any())
    truth = solved(kind, statistic, logit, sens, label)
    assume(truth is not None)
    loss = DISTANCES[kind](statistic)
    value, q = loss(logit, sens, label).item(), loss.project(logit, sens, label)
    assert value == pytest.approx(truth[0], rel=1e-5, abs=1e-9)
    target = statistic.overall_statistic(logit.sigmoid(), label)
    assert residual(statistic, q, sens, label, target) < 1e-10
    assert 0 <= q.min() and q.max() <= 1
    if kind != "tv":  # many are equally near there
        np.testing.assert_allclose(q[:, 0], truth[1], atol=1e-4)


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(DISTANCES, STATISTICS)))
def test_in_single_precision_the_constraints_are_kept_to_a_millionth(kind, name):
    logit, sens, label = problem(3, 500, 4, dtype=torch.float32)
    statistic, loss = STATISTICS[name], DISTANCES[kind](STATISTICS[name])
    q = loss.project(logit, sens, label)
    assert q.dtype == torch.float32 and loss(logit, sens, label).dtype == torch.float32
    target = statistic.overall_statistic(logit.double().sigmoid(), label.double())
    assert residual(statistic, q, sens, label, target) < 1e-6


@pytest.mark.parametrize("kind", DISTANCES)
def test_continuous_weights_are_constraints_like_others(kind):
    logit, _, label = problem(5, 60, 3)
    weights = torch.randn(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = solved(kind, of.PositiveRate(), logit, weights, label)
    assert DISTANCES[kind](of.PositiveRate())(logit, weights).item() == pytest.approx(truth[0], rel=1e-5)


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(DISTANCES, ["positive rate", "precision", "odds"])))
def test_what_is_fair_stays_and_projecting_twice_is_projecting_once(kind, name):
    logit, sens, label = problem(7, 200, 3)
    loss, statistic = DISTANCES[kind](STATISTICS[name]), STATISTICS[name]
    target = statistic.overall_statistic(logit.sigmoid(), label)
    once = loss.project(logit, sens, label)
    twice = loss.project(once, sens, label, pred_as_logit=False, target_statistic=target)
    torch.testing.assert_close(once, twice, atol=1e-9, rtol=0)
    assert loss(once, sens, label, pred_as_logit=False, target_statistic=target) < 1e-12


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(DISTANCES, ["positive rate", "F", "rate and recall"])))
def test_the_order_of_rows_and_groups_does_not_matter(kind, name):
    logit, sens, label = problem(8, 90, 4)
    loss, dice = DISTANCES[kind](STATISTICS[name]), torch.Generator().manual_seed(0)
    rows, columns = torch.randperm(90, generator=dice), torch.randperm(4, generator=dice)
    logit.requires_grad_()
    loss(logit, sens, label).backward()
    shuffled = logit.detach()[rows].requires_grad_()
    value = loss(shuffled, sens[rows][:, columns], label[rows])
    value.backward()
    assert value.item() == pytest.approx(loss(logit, sens, label).item(), rel=1e-9)
    torch.testing.assert_close(shuffled.grad, logit.grad[rows], atol=1e-8, rtol=0)


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(DISTANCES, ["positive rate", "precision", "odds", "rate and recall"])))
@pytest.mark.parametrize("overlapping", [False, True])
def test_the_gradient_is_that_of_the_loss_with_the_target_fixed(kind, name, overlapping):
    logit, sens, label = problem(11, 24, 2, overlapping, spread=1.0)
    loss = DISTANCES[kind](STATISTICS[name])
    target = STATISTICS[name].overall_statistic(logit.sigmoid(), label) * 0.98
    # Total variation has kinks; its linear program is solved to a millionth where constraints share rows.
    loose = kind == "tv"
    assert torch.autograd.gradcheck(
        lambda x: loss(x, sens, label, target_statistic=target),
        logit.requires_grad_(),
        eps=1e-4 if loose else 1e-6,
        atol=2e-3 if loose else 1e-6,
    )


@pytest.mark.parametrize("kind", DISTANCES)
def test_by_default_the_gradient_holds_the_target_fixed(kind):
    logit, sens, label = problem(12, 40, 3)
    loss, statistic = DISTANCES[kind](of.PositiveRate()), of.PositiveRate()
    logit.requires_grad_()
    (default,) = torch.autograd.grad(loss(logit, sens), logit)
    overall = statistic.overall_statistic(logit.detach().sigmoid())
    (given_target,) = torch.autograd.grad(loss(logit, sens, target_statistic=overall), logit)
    torch.testing.assert_close(default, given_target)


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(DISTANCES, STATISTICS)))
@pytest.mark.parametrize("size", [80.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sure_predictions_give_finite_losses_and_gradients(kind, name, size, dtype):
    _, sens, label = problem(13, 40, 3, dtype=dtype)
    signs = torch.randint(2, (40, 1), generator=torch.Generator().manual_seed(2)) * 2 - 1
    for logit in (signs * size, torch.full((40, 1), size), torch.full((40, 1), -size)):
        logit = logit.to(dtype).requires_grad_()
        value = DISTANCES[kind](STATISTICS[name])(logit, sens, label)
        value.backward()
        assert value.isfinite() and logit.grad.isfinite().all()


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_change_the_last_digits_only(kind, dtype):
    logit, sens, label = problem(14, 60, 3, dtype=torch.float32)
    loss = DISTANCES[kind](of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate()))
    exact = loss(logit, sens, label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(logit, sens, label) == exact
    half = logit.to(dtype).requires_grad_()
    value = loss(half, sens, label)
    value.backward()
    assert value.item() == pytest.approx(exact.item(), rel=0.05) and half.grad.isfinite().all()


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(DISTANCES, STATISTICS)))
def test_an_absent_group_changes_nothing(kind, name):
    logit, sens, label = problem(15, 50, 3)
    loss = DISTANCES[kind](STATISTICS[name])
    more = torch.cat([sens, torch.zeros(50, 1, dtype=sens.dtype)], dim=1)
    logit.requires_grad_()
    (with_it,) = torch.autograd.grad(loss(logit, more, label), logit)
    (without,) = torch.autograd.grad(loss(logit, sens, label), logit)
    torch.testing.assert_close(with_it, without)


@pytest.mark.parametrize("kind", DISTANCES)
def test_what_no_prediction_can_move_is_no_constraint(kind):
    logit, sens, label = problem(16, 50, 2)
    loss = DISTANCES[kind](of.TruePositiveRate())
    no_positives = torch.where(sens[:, :1] == 1, 0.0, label)  # in the first group
    q = loss.project(logit, sens, no_positives)
    torch.testing.assert_close(q[sens[:, 0] == 1], logit.sigmoid()[sens[:, 0] == 1])
    assert loss(logit, sens, torch.zeros_like(label)) == pytest.approx(0, abs=1e-12)  # anywhere
    assert loss(logit[:1], sens[:1], label[:1]) == pytest.approx(0, abs=1e-12)
    assert loss(logit[:0], sens[:0], label[:0]) == 0


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize(("target", "end"), [(1.2, 1.0), (-0.3, 0.0)])
def test_a_target_out_of_reach_becomes_the_nearest_within_reach(kind, target, end):
    logit, sens, _ = problem(17, 30, 2)
    loss = DISTANCES[kind](of.PositiveRate())
    q = loss.project(logit, sens, target_statistic=target)
    torch.testing.assert_close(q, torch.full_like(q, end), atol=1e-6, rtol=0)
    assert loss(logit, sens, target_statistic=target).isfinite()


@pytest.mark.parametrize("kind", DISTANCES)
def test_constraints_that_contradict_each_other_have_a_finite_answer(kind):
    logit, sens, label = problem(18, 40, 3)
    stack = of.StackedLinearFractionalStatistic(of.PositivePredictiveValue(), of.FalseOmissionRate())
    logit.requires_grad_()
    value = DISTANCES[kind](stack)(logit, sens, label)
    value.backward()
    assert value.isfinite() and logit.grad.isfinite().all()


@pytest.mark.parametrize("kind", DISTANCES)
def test_targets_can_be_given_for_each_group(kind):
    logit, sens, _ = problem(19, 300, 3)
    target = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)
    q = DISTANCES[kind](of.PositiveRate()).project(logit, sens, target_statistic=target)
    torch.testing.assert_close(of.PositiveRate()(q, sens), target, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", DISTANCES)
def test_a_later_batch_may_be_larger_or_smaller(kind):
    loss = DISTANCES[kind](of.PositiveRate())
    for rows in (8, 100, 3):
        logit, sens, _ = problem(rows, rows, 2)
        assert loss(logit, sens) == DISTANCES[kind](of.PositiveRate())(logit, sens)


def test_a_million_rows_are_one_batch():
    logit, sens, _ = problem(20, 1_000_000, 4, dtype=torch.float32)
    logit.requires_grad_()
    losses.KLProjectionLoss(of.PositiveRate())(logit, sens).backward()
    assert logit.grad.isfinite().all() and logit.grad.abs().sum() > 0


class ChiSquared(losses.ProjectionLoss):
    def torch_distance(self, pred, proj):
        pred = torch.cat([1 - pred, pred], dim=1)
        return (proj.square() / pred).sum(1).mean()


class OwnKL(losses.ProjectionLoss):
    def torch_distance(self, pred, proj):
        pred = torch.cat([1 - pred, pred], dim=1)
        return F.kl_div(pred.log(), proj, reduction="batchmean")


@pytest.mark.parametrize("name", ["positive rate", "precision", "odds", "rate and recall"])
def test_a_distance_of_ones_own_needs_its_value_only(name):
    logit, sens, label = problem(21, 50, 3, spread=1.0)
    statistic = STATISTICS[name]
    value, q = solved("chi", statistic, logit, sens, label)
    assert ChiSquared(statistic)(logit, sens, label).item() == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(ChiSquared(statistic).project(logit, sens, label)[:, 0], q, atol=1e-4)
    built_in, own = losses.KLProjectionLoss(statistic), OwnKL(statistic)
    torch.testing.assert_close(own.project(logit, sens, label), built_in.project(logit, sens, label), atol=1e-7, rtol=0)
    logit.requires_grad_()
    grads = [torch.autograd.grad(loss(logit, sens, label), logit)[0] for loss in (built_in, own)]
    torch.testing.assert_close(*grads, atol=1e-8, rtol=0)


@pytest.mark.parametrize("kind", DISTANCES)
def test_probabilities_and_their_logits_have_the_same_loss(kind):
    logit, sens, _ = problem(22, 60, 3)
    loss = DISTANCES[kind](of.PositiveRate())
    assert loss(logit, sens).item() == pytest.approx(loss(logit.sigmoid(), sens, pred_as_logit=False).item(), rel=1e-9)
    edges = torch.tensor([[0.0], [1.0], [0.5], [0.2]], requires_grad=True)
    loss(edges, F.one_hot(torch.tensor([0, 0, 1, 1]), 2).float(), pred_as_logit=False).backward()
    assert edges.grad.isfinite().all()


def test_nothing_given_is_changed_and_nothing_but_predictions_has_a_gradient():
    logit, sens, label = problem(23, 30, 2)
    before = [each.clone() for each in (logit, sens, label)]
    sens.requires_grad_(), label.requires_grad_(), logit.requires_grad_()
    losses.KLProjectionLoss(of.TruePositiveRate())(logit, sens, label).backward()
    assert sens.grad is None and label.grad is None
    assert all(torch.equal(a, b) for a, b in zip((logit, sens, label), before, strict=True))


def test_the_projection_can_be_kept_off_the_ends():
    logit, sens, _ = problem(24, 30, 2)
    q = losses.SquaredEuclideanProjectionLoss(of.PositiveRate(), proj_eps=0.1).project(logit, sens)
    assert 0.1 <= q.min() and q.max() <= 0.9
