"""Projections are those of a convex solver run to convergence, keep their constraints, and have the gradient they claim."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
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
FEW = ["positive rate", "precision", "odds", "rate and recall"]
EVERY = list(itertools.product(DISTANCES, STATISTICS))
each_distance = pytest.mark.parametrize("kind", DISTANCES)


def problem(seed, rows, groups, columns="one-hot", dtype=torch.float64, spread=2.0):
    """Logits that differ by group, groups (a second attribute beside them if they overlap, or plain weights) and labels."""
    dice = torch.Generator().manual_seed(seed)
    group = torch.randint(groups, (rows,), generator=dice)
    sens = F.one_hot(group, groups).double()
    if columns == "overlapping":
        sens = torch.cat([sens, F.one_hot(torch.randint(2, (rows,), generator=dice), 2)], dim=1)
    if columns == "continuous":
        sens = torch.randn(rows, groups, generator=dice, dtype=torch.float64)
    logit = spread * torch.randn(rows, 1, generator=dice, dtype=torch.float64) + group[:, None] - groups / 2
    label = torch.randint(2, (rows, 1), generator=dice)
    return logit.to(dtype), sens.to(dtype), label.to(dtype)


def solved(kind, statistic, logit, sens, label, target=None):
    """Value and projection by cvxpy, or None where it finds no prediction that keeps the constraints."""
    cvxpy = pytest.importorskip("cvxpy")
    p = logit.double().sigmoid()
    target = statistic.overall_statistic(p, label.double()) if target is None else target
    if not torch.as_tensor(target).isfinite().all():
        return None
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
    """How far groups are from the target: |F_s(q) - c| in float64, largest of those whose denominator is not about zero.

    (One constraint can be kept by numerator and denominator both going to zero, where their ratio is rounding.)
    """
    q, sens, label = q.double(), sens.double(), label.double()
    denom = statistic.denom(q, sens, label)
    missed = (statistic(q, sens, label) - target).abs()
    missed = missed[(denom.abs() > 1e-2 * sens.abs().sum(0)).expand_as(missed)]
    return missed.max().item() if missed.numel() else 0.0


def differentiated(loss, logit, *rest, **options):
    logit = logit.detach().clone().requires_grad_()
    value = loss(logit, *rest, **options)
    return value.detach(), torch.autograd.grad(value, logit)[0]


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("columns", ["one-hot", "overlapping", "continuous"])
@each_distance
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 100),
    groups=st.integers(1, 5),
    name=st.sampled_from(sorted(STATISTICS)),
)
@example(seed=3277, rows=82, groups=1, name="positive rate")  # weights that nearly cancel enlarge what is left of the residual
@example(seed=1157, rows=19, groups=5, name="FN / FP")  # with overlapping columns few predictions keep the constraints
@example(seed=7689, rows=15, groups=4, name="precision")
@example(seed=2136, rows=11, groups=5, name="F")
def test_the_projection_is_that_of_a_convex_solver(kind, columns, seed, rows, groups, name):
    logit, sens, label = problem(seed, rows, groups, columns)
    statistic = STATISTICS[name]
    truth = solved(kind, statistic, logit, sens, label)
    assume(truth is not None)
    loss = DISTANCES[kind](statistic)
    value, q = loss(logit, sens, label).item(), loss.project(logit, sens, label)
    assert value == pytest.approx(truth[0], rel=1e-5, abs=1e-9)
    assert residual(statistic, q, sens, label, statistic.overall_statistic(logit.sigmoid(), label)) <= 1e-10
    assert 0 <= q.min() and q.max() <= 1
    if kind != "tv":  # many are equally near there
        # A value to within a gap places the point to within the gap's root only, and that of the solver is the larger one.
        np.testing.assert_allclose(q[:, 0], truth[1], atol=1e-3)
        assert value <= truth[0] * (1 + 1e-7) + 1e-12


@pytest.mark.parametrize("columns", ["one-hot", "overlapping"])
@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_in_single_precision_the_constraints_are_kept_to_a_millionth(kind, name, columns):
    logit, sens, label = problem(3, 500, 4, columns, dtype=torch.float32)
    statistic, loss = STATISTICS[name], DISTANCES[kind](STATISTICS[name])
    q = loss.project(logit, sens, label)
    assert q.dtype == torch.float32 and loss(logit, sens, label).dtype == torch.float32
    target = statistic.overall_statistic(logit.double().sigmoid(), label.double())
    assert residual(statistic, q, sens, label, target) <= 1e-6
    doubled = loss.project(logit.double(), sens, label)
    torch.testing.assert_close(q.double(), doubled, atol=1e-6 if kind != "tv" else 1e-3, rtol=0)


@pytest.mark.parametrize("name", STATISTICS)
@each_distance
def test_the_loss_is_the_mean_distance_from_the_projection(kind, name):
    logit, sens, label = problem(4, 80, 3)
    loss = DISTANCES[kind](STATISTICS[name])
    p, q = logit.sigmoid(), loss.project(logit, sens, label)
    divergence = lambda a, b: torch.special.xlogy(a, a / b) + torch.special.xlogy(1 - a, (1 - a) / (1 - b))
    distance = {
        "kl": lambda: divergence(q, p),
        "js": lambda: (divergence(q, (p + q) / 2) + divergence(p, (p + q) / 2)) / 2,
        "se": lambda: (q - p) ** 2,
        "tv": lambda: (q - p).abs(),
    }[kind]()
    assert loss(logit, sens, label).item() == pytest.approx(distance.mean().item(), rel=1e-8, abs=1e-14)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_what_is_fair_stays_and_projecting_twice_is_projecting_once(kind, name):
    logit, sens, label = problem(7, 200, 3)
    loss, statistic = DISTANCES[kind](STATISTICS[name]), STATISTICS[name]
    target = statistic.overall_statistic(logit.sigmoid(), label)
    once = loss.project(logit, sens, label)
    assert not torch.allclose(once, logit.sigmoid(), atol=1e-3)  # there was something to do
    twice = loss.project(once, sens, label, pred_as_logit=False, target_statistic=target)
    torch.testing.assert_close(once, twice, atol=1e-8, rtol=0)
    value, gradient = differentiated(loss, once, sens, label, pred_as_logit=False, target_statistic=target)
    assert value.abs() < 1e-9 and (kind == "tv" or gradient.abs().max() < 1e-6)


@each_distance
def test_groups_with_the_same_predictions_have_no_loss(kind):
    half, _, label = problem(8, 50, 2)
    logit, label = torch.cat([half, half]), torch.cat([label, label])
    sens = F.one_hot(torch.arange(100) // 50, 2).double()
    for name in FEW:
        loss = DISTANCES[kind](STATISTICS[name])
        assert loss(logit, sens, label).abs() < 1e-12
        torch.testing.assert_close(loss.project(logit, sens, label), logit.sigmoid(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("columns", ["one-hot", "overlapping"])
@pytest.mark.parametrize(("kind", "name"), list(itertools.product(DISTANCES, [*FEW, "F"])))
def test_the_order_of_rows_and_groups_does_not_matter(kind, name, columns):
    logit, sens, label = problem(8, 90, 4, columns)
    loss, dice = DISTANCES[kind](STATISTICS[name]), torch.Generator().manual_seed(0)
    rows, order = torch.randperm(90, generator=dice), torch.randperm(sens.shape[1], generator=dice)
    value, gradient = differentiated(loss, logit, sens, label)
    shuffled, moved = differentiated(loss, logit[rows], sens[rows][:, order], label[rows])
    loose = kind == "tv" and (columns == "overlapping" or name == "rate and recall")  # a linear program, to a millionth
    assert shuffled.item() == pytest.approx(value.item(), rel=2e-6 if loose else 1e-9)
    torch.testing.assert_close(moved, gradient[rows], atol=1e-5 if loose else 1e-8, rtol=0)


@pytest.mark.parametrize("name", ["positive rate", "true positive rate", "odds", "accuracy"])
def test_rows_that_matter_alike_share_what_total_variation_has_to_move(name):
    logit, sens, label = problem(9, 90, 3)
    rows = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    loss = losses.TotalVariationProjectionLoss(STATISTICS[name])
    q = loss.project(logit, sens, label)
    torch.testing.assert_close(loss.project(logit[rows], sens[rows], label[rows]), q[rows], atol=1e-9, rtol=0)


@pytest.mark.parametrize("columns", ["one-hot", "overlapping", "continuous"])
@pytest.mark.parametrize(("kind", "name"), list(itertools.product(DISTANCES, [*FEW, "FN / FP"])))
def test_the_gradient_is_that_of_the_re_solved_loss_with_the_target_fixed(kind, name, columns):
    logit, sens, label = problem(11, 14, 2, columns, spread=1.0)
    loss = DISTANCES[kind](STATISTICS[name])
    target = STATISTICS[name].overall_statistic(logit.sigmoid(), label) * 0.98
    if solved(kind, STATISTICS[name], logit, sens, label, target) is None:
        pytest.skip("no prediction keeps these constraints")
    # Total variation has kinks; its linear program is solved to a millionth where constraints share rows.
    loose = kind == "tv"
    assert torch.autograd.gradcheck(
        lambda x: loss(x, sens, label, target_statistic=target),
        logit.requires_grad_(),
        eps=1e-4 if loose else 1e-6,
        atol=2e-3 if loose else 1e-6,
    )


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_by_default_the_gradient_holds_the_target_fixed(kind, name):
    logit, sens, label = problem(12, 40, 3)
    loss = DISTANCES[kind](STATISTICS[name])
    overall = STATISTICS[name].overall_statistic(logit.sigmoid(), label)
    default = differentiated(loss, logit, sens, label)
    torch.testing.assert_close(default, differentiated(loss, logit, sens, label, target_statistic=overall))


@pytest.mark.parametrize("kind", ["kl", "js", "se"])
def test_the_gradient_is_that_of_the_distance_with_the_projection_held_fixed(kind):
    logit, sens, label = problem(10, 40, 3)
    loss = DISTANCES[kind](STATISTICS["odds"])
    q = loss.project(logit, sens, label)
    held = differentiated(lambda x: loss.torch_distance(x.sigmoid(), torch.cat([1 - q, q], dim=1)), logit)
    torch.testing.assert_close(differentiated(loss, logit, sens, label), held, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize(("kind", "name"), EVERY)
@pytest.mark.parametrize("size", [80.0, 1000.0])
def test_sure_predictions_give_finite_losses_and_gradients(kind, name, size):
    for dtype in (torch.float32, torch.float64):
        _, sens, label = problem(13, 30, 3, dtype=dtype)
        signs = torch.randint(2, (30, 1), generator=torch.Generator().manual_seed(2)) * 2 - 1
        one_sure = torch.where(torch.arange(30)[:, None] == 4, size, 0.3)
        for logit in (signs * size, one_sure, torch.full((30, 1), size), torch.full((30, 1), -size)):
            value, gradient = differentiated(DISTANCES[kind](STATISTICS[name]), logit.to(dtype), sens, label)
            assert value.isfinite() and gradient.isfinite().all()
            assert value >= -1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each_distance
def test_half_precision_and_autocast_change_the_last_digits_only(kind, dtype):
    logit, sens, label = problem(14, 60, 3, dtype=torch.float32)
    loss = DISTANCES[kind](STATISTICS["odds"])
    exact = loss(logit, sens, label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(logit, sens, label) == exact
        torch.testing.assert_close(loss.project(logit, sens, label), loss.project(logit, sens, label))
    value, gradient = differentiated(loss, logit.to(dtype), sens, label)
    assert value.dtype == gradient.dtype == dtype
    assert value.item() == pytest.approx(exact.item(), rel=0.05) and gradient.isfinite().all()


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_an_absent_group_changes_nothing(kind, name):
    logit, sens, label = problem(15, 50, 3)
    loss = DISTANCES[kind](STATISTICS[name])
    more = torch.cat([sens, torch.zeros(50, 1, dtype=sens.dtype)], dim=1)
    with_it, without = differentiated(loss, logit, more, label), differentiated(loss, logit, sens, label)
    torch.testing.assert_close(with_it, without, rtol=1e-6, atol=1e-9)
    value, gradient = differentiated(loss, logit, torch.zeros_like(more), label)
    assert value.abs() < 1e-12 and (kind == "tv" or gradient.abs().max() < 1e-12)


@each_distance
def test_rows_of_no_group_and_of_a_group_without_positives_are_their_own_projection(kind):
    logit, sens, label = problem(16, 50, 2)
    loss = DISTANCES[kind](of.TruePositiveRate())
    no_positives = torch.where(sens[:, :1] == 1, 0.0, label)  # in the first group
    q = loss.project(logit, sens, no_positives)
    torch.testing.assert_close(q[sens[:, 0] == 1], logit.sigmoid()[sens[:, 0] == 1])
    value, gradient = differentiated(loss, logit, sens, torch.zeros_like(label))  # anywhere
    assert value.abs() < 1e-12 and gradient.isfinite().all()
    nobody = torch.where(torch.arange(50)[:, None] < 5, 0.0, sens)
    q = DISTANCES[kind](of.PositiveRate()).project(logit, nobody)
    torch.testing.assert_close(q[:5], logit.sigmoid()[:5])
    assert not torch.allclose(q[5:], logit.sigmoid()[5:])


@each_distance
def test_a_single_row_and_no_row_have_no_loss(kind):
    logit, sens, label = problem(16, 5, 2)
    for name in FEW:
        loss = DISTANCES[kind](STATISTICS[name])
        value, gradient = differentiated(loss, logit[:1], sens[:1], label[:1])
        assert value.abs() < 1e-12 and gradient.isfinite().all()
        value, gradient = differentiated(loss, logit[:0], sens[:0], label[:0])
        assert value == 0 and gradient.shape == (0, 1)


@each_distance
def test_no_row_has_no_projection(kind):
    logit, sens, label = problem(16, 5, 2)
    assert DISTANCES[kind](of.PositiveRate()).project(logit[:0], sens[:0]).shape == (0, 1)


@each_distance
@pytest.mark.parametrize(("target", "end"), [(1.2, 1.0), (1.0, 1.0), (0.0, 0.0), (-0.3, 0.0)])
def test_a_target_out_of_reach_becomes_the_nearest_within_reach(kind, target, end):
    logit, sens, label = problem(17, 30, 2)
    for statistic in (of.PositiveRate(), STATISTICS["odds"]):
        loss = DISTANCES[kind](statistic)
        q = loss.project(logit, sens, label, target_statistic=target)
        torch.testing.assert_close(q, torch.full_like(q, end), atol=1e-6, rtol=0)
        value, gradient = differentiated(loss, logit, sens, label, target_statistic=target)
        assert value.isfinite() and gradient.isfinite().all() and value > 0.1


@each_distance
def test_a_target_within_reach_of_one_group_only_is_met_there(kind):
    logit, sens, label = problem(18, 60, 2)
    # All of the first group's labels are positive, so its share of right predictions can be any; a precision below 1 cannot.
    label = torch.where(sens[:, :1] == 1, 1.0, label)
    loss = DISTANCES[kind](of.PositivePredictiveValue())
    q = loss.project(logit, sens, label, target_statistic=0.6)
    first = sens[:, 0] == 1
    assert of.PositivePredictiveValue()(q[~first], None, label[~first]).item() == pytest.approx(0.6, abs=1e-9)
    # (1 - 0.6) sum q = 0 is reached by no positive prediction at all.
    assert q[first].max() < 1e-6


@each_distance
def test_constraints_that_contradict_each_other_have_a_finite_answer(kind):
    logit, sens, label = problem(18, 40, 3)
    stack = of.StackedLinearFractionalStatistic(of.PositivePredictiveValue(), of.FalseOmissionRate())
    value, gradient = differentiated(DISTANCES[kind](stack), logit, sens, label)
    assert value.isfinite() and gradient.isfinite().all()
    twice = of.StackedLinearFractionalStatistic(of.PositiveRate(), of.PositiveRate())
    value, gradient = differentiated(
        DISTANCES[kind](twice), logit, sens, label, target_statistic=torch.tensor([[0.2], [0.7]])
    )
    assert value.isfinite() and gradient.isfinite().all()


@each_distance
def test_a_constraint_said_twice_is_one_constraint(kind):
    logit, sens, label = problem(18, 40, 3)
    twice = of.StackedLinearFractionalStatistic(of.PositiveRate(), of.PositiveRate())
    once = DISTANCES[kind](of.PositiveRate())(logit, sens)
    assert DISTANCES[kind](twice)(logit, sens, label).item() == pytest.approx(once.item(), rel=1e-5)


@each_distance
def test_targets_can_be_given_for_each_group_and_statistic(kind):
    logit, sens, label = problem(19, 300, 3)
    for statistic, target in (
        (of.PositiveRate(), 0.4),
        (of.PositiveRate(), torch.tensor(0.4)),
        (of.PositiveRate(), torch.tensor([0.4])),
        (of.PositiveRate(), torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)),
        (STATISTICS["odds"], torch.tensor([[0.8], [0.3]], dtype=torch.float64)),
        (STATISTICS["odds"], torch.tensor([[0.8, 0.7, 0.6], [0.3, 0.2, 0.1]], dtype=torch.float64)),
    ):
        q = DISTANCES[kind](statistic).project(logit, sens, label, target_statistic=target)
        assert residual(statistic, q, sens, label, torch.as_tensor(target, dtype=torch.float64)) <= 1e-10


@each_distance
def test_a_later_batch_may_be_larger_or_smaller(kind):
    loss = DISTANCES[kind](of.PositiveRate())
    for rows in (8, 100, 3):
        logit, sens, _ = problem(rows, rows, 2)
        assert loss(logit, sens) == DISTANCES[kind](of.PositiveRate())(logit, sens)


def test_a_million_rows_are_one_batch():
    logit, sens, _ = problem(20, 1_000_000, 4, dtype=torch.float32)
    loss = losses.KLProjectionLoss(of.PositiveRate())
    gradient = differentiated(loss, logit, sens)[1]
    assert gradient.isfinite().all() and gradient.any()
    target = logit.double().sigmoid().mean()
    rates = of.PositiveRate()(loss.project(logit, sens).double(), sens.double())
    torch.testing.assert_close(rates, target.expand(4), atol=1e-6, rtol=0)


class ChiSquared(losses.ProjectionLoss):
    """fairret's, which this library leaves to its users."""

    def torch_distance(self, pred, proj):
        pred = torch.cat([1 - pred, pred], dim=1)
        return (proj.square() / pred).sum(1).mean()


class OwnKL(losses.ProjectionLoss):
    def torch_distance(self, pred, proj):
        pred = torch.cat([1 - pred, pred], dim=1)
        return F.kl_div(pred.log(), proj, reduction="batchmean")


@pytest.mark.parametrize("columns", ["one-hot", "overlapping"])
@pytest.mark.parametrize("name", [*FEW, "FN / FP"])
def test_a_distance_of_ones_own_needs_its_value_only(name, columns):
    logit, sens, label = problem(21, 50, 3, columns, spread=1.0)
    statistic = STATISTICS[name]
    truth = solved("chi", statistic, logit, sens, label)
    assert ChiSquared(statistic)(logit, sens, label).item() == pytest.approx(truth[0], rel=1e-5)
    np.testing.assert_allclose(ChiSquared(statistic).project(logit, sens, label)[:, 0], truth[1], atol=1e-4)
    built_in, own = losses.KLProjectionLoss(statistic), OwnKL(statistic)
    torch.testing.assert_close(own.project(logit, sens, label), built_in.project(logit, sens, label), atol=1e-7, rtol=0)
    torch.testing.assert_close(
        differentiated(own, logit, sens, label), differentiated(built_in, logit, sens, label), atol=1e-8, rtol=0
    )


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_probabilities_and_their_logits_have_the_same_loss(kind, name):
    logit, sens, label = problem(22, 60, 3)
    loss = DISTANCES[kind](STATISTICS[name])
    prob = logit.sigmoid()
    value, gradient = differentiated(loss, prob, sens, label, pred_as_logit=False)
    expected, slope = differentiated(loss, logit, sens, label)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(gradient * prob * (1 - prob), slope, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(loss.project(prob, sens, label, pred_as_logit=False), loss.project(logit, sens, label))


@each_distance
def test_probabilities_of_exactly_zero_and_one_have_finite_gradients(kind):
    edges = torch.tensor([[0.0], [1.0], [0.5], [0.2]])
    value, gradient = differentiated(
        DISTANCES[kind](of.PositiveRate()), edges, F.one_hot(torch.tensor([0, 0, 1, 1]), 2).float(), pred_as_logit=False
    )
    assert value.isfinite() and gradient.isfinite().all()


@each_distance
def test_nothing_given_is_changed_and_nothing_but_predictions_has_a_gradient(kind):
    logit, sens, label = problem(23, 30, 2)
    before = [each.clone() for each in (logit, sens, label)]
    for each in (logit, sens, label):
        each.requires_grad_()
    loss = DISTANCES[kind](of.TruePositiveRate())
    loss(logit, sens, label).backward()
    assert sens.grad is None and label.grad is None and logit.grad.any()
    assert not loss.project(logit, sens, label).requires_grad
    assert all(torch.equal(a, b) for a, b in zip((logit, sens, label), before, strict=True))


@pytest.mark.parametrize("whole", [torch.int64, torch.bool])
@each_distance
def test_groups_and_labels_may_be_whole_numbers_and_labels_named(kind, whole):
    logit, sens, label = problem(23, 30, 2)
    loss = DISTANCES[kind](of.TruePositiveRate())
    assert loss(logit, sens.to(whole), label=label.to(whole)) == loss(logit, sens, label)


@each_distance
def test_the_projection_can_be_kept_off_the_ends(kind):
    logit, sens, _ = problem(24, 30, 2)
    free = DISTANCES[kind](of.PositiveRate()).project(logit, sens)
    kept = DISTANCES[kind](of.PositiveRate(), proj_eps=0.1).project(logit, sens)
    torch.testing.assert_close(kept, free.clamp(0.1, 0.9))
    assert free.min() < 0.1


@each_distance
def test_options_of_a_solver_are_named_in_a_warning_and_change_nothing(kind):
    logit, sens, _ = problem(25, 30, 2)
    with pytest.warns(UserWarning, match="max_iters, eps_abs"):
        loss = DISTANCES[kind](of.PositiveRate(), max_iters=10, eps_abs=1e-9)
    assert loss(logit, sens) == DISTANCES[kind](of.PositiveRate(), force_proj_normalized=False)(logit, sens)


@pytest.mark.parametrize("name", ["PositiveRate", "TruePositiveRate", "PositivePredictiveValue"])
def test_it_is_where_fairret_arrives_when_its_solver_converges(name):
    pytest.importorskip("cvxpy")
    loss, theirs = pytest.importorskip("fairret.loss"), pytest.importorskip("fairret.statistic")
    logit, sens, label = problem(26, 40, 3, spread=1.0)
    labels = () if name == "PositiveRate" else (label,)
    # Normalised, its projections would sum to two: it divides by the mean of the two probabilities.
    converged = loss.KLProjectionLoss(
        getattr(theirs, name)(), force_proj_normalized=False, max_iters=20_000, eps_abs=1e-10, eps_rel=1e-10
    )
    expected, slope = differentiated(converged, logit, sens, *labels)
    value, gradient = differentiated(losses.KLProjectionLoss(getattr(of, name)()), logit, sens, *labels)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("kind", "most"), [("kl", 6), ("js", 8), ("se", 8)])
def test_a_handful_of_newton_steps_is_enough(kind, most, monkeypatch):
    """A wrong derivative still ends at the projection, slowly: only the number of steps tells."""
    taken = []

    def counted(*arguments, **options):
        taken.append(solve(*arguments, **options))
        return taken[-1]

    solve = losses.projection.dual.solve
    monkeypatch.setattr(losses.projection.dual, "solve", counted)
    logit, sens, label = problem(27, 300, 4)
    for name in ("positive rate", "true positive rate", "odds"):
        DISTANCES[kind](STATISTICS[name])(logit, sens, label)
    assert len(taken) == 3 and max(each.steps for each in taken) <= most
