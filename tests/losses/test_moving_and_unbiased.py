"""Losses for small batches: a memory that evens out chance, and squares that chance leaves at zero on average."""

import pytest
import torch
from torch.nn import functional as F

from helpers.bias import statistics as of
from helpers.losses import AugmentedLagrangianLoss, LSELoss, MovingStatistic, NormLoss, UnbiasedSquareLoss

ODDS = of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate())


def batches(number, rows, groups, soft=True, seed=0):
    """Predictions of everybody from one distribution, so that what differs between groups is chance."""
    dice = torch.Generator().manual_seed(seed)
    for _ in range(number):
        logit = torch.randn(rows, 1, generator=dice)
        sens = F.one_hot(torch.randint(groups, (rows,), generator=dice), groups).float()
        yield logit.sigmoid() if soft else (logit > 0).float(), sens, (torch.rand(rows, 1, generator=dice) < 0.5).float()


@pytest.mark.parametrize("soft", [True, False])
def test_after_warming_up_a_memory_makes_a_tenth_of_the_loss_of_a_fair_predictor(soft):
    remembering, forgetting = NormLoss(MovingStatistic(of.PositiveRate())), NormLoss(of.PositiveRate())
    costs = [
        (remembering(pred, sens, pred_as_logit=False).item(), forgetting(pred, sens, pred_as_logit=False).item())
        for pred, sens, _ in batches(800, 32, 8, soft)
    ]
    mean = torch.tensor(costs)[300:].mean(0)
    assert mean[0] <= mean[1] / 10


@pytest.mark.parametrize("statistic", [of.PositiveRate(), of.PositivePredictiveValue(), ODDS], ids=["rate", "precision", "odds"])
@pytest.mark.parametrize("decay", [0.0, 0.7, 0.98])
def test_the_memory_is_the_weighted_mean_row_of_all_batches(statistic, decay):
    moving, seen = MovingStatistic(statistic, decay), []
    for pred, sens, label in batches(6, 60, 3):
        pred = pred.double().requires_grad_()
        value = moving(pred, sens, label)
        num, denom = (part(pred, sens, label) for part in (statistic.num, statistic.denom))
        seen.append((num.detach(), denom.detach(), len(pred)))
        weights = [decay ** (len(seen) - 1 - k) for k in range(len(seen))]
        rows = sum(w * n for w, (_, _, n) in zip(weights, seen, strict=True))
        top, bottom = (sum(w * each[i] for w, each in zip(weights, seen, strict=True)) / rows for i in (0, 1))
        torch.testing.assert_close(value.detach(), top / bottom)
        # The quotient's derivative where the memory is, of what a row of this batch adds on average.
        slope = torch.randn(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        linear = (slope * (num / bottom - top / bottom**2 * denom)).sum() / len(pred)
        expected = torch.autograd.grad(linear, pred)
        torch.testing.assert_close(torch.autograd.grad((slope * value).sum(), pred), expected)


def test_batches_of_other_sizes_count_by_their_rows():
    moving, plain = MovingStatistic(of.PositiveRate(), decay=0.5), of.PositiveRate()
    small, large = (next(batches(1, rows, 1, seed=rows)) for rows in (4, 40))
    moving(*small[:2])
    expected = (0.5 * small[0].sum() + large[0].sum()) / (0.5 * 4 + 40)
    torch.testing.assert_close(moving(*large[:2])[0], expected)
    torch.testing.assert_close(MovingStatistic(plain)(*large[:2]), plain(*large[:2]))  # a first batch is itself


def test_a_group_that_is_not_there_has_no_value_and_is_not_forgotten():
    moving = MovingStatistic(of.PositiveRate(), decay=0.5)
    ones, zeros = torch.ones(4, 1), torch.zeros(4, 1)
    both, first = F.one_hot(torch.tensor([0, 0, 1, 1]), 2).float(), F.one_hot(torch.zeros(4, dtype=torch.int64), 2).float()
    moving(ones, both)
    pred = zeros.clone().requires_grad_()
    value = moving(pred, first)
    # Two ones, half forgotten, and four zeros.
    assert value[0].item() == pytest.approx(1 / 5) and value[1].isnan()
    value[0].backward()
    assert pred.grad.isfinite().all()
    # Had the second group been forgotten, or counted as zeros, this would be 0.
    assert moving(zeros, both)[1].item() == pytest.approx(0.25 * 2 / (0.25 * 2 + 2))
    for make in (NormLoss, LSELoss):
        loss = make(MovingStatistic(of.PositiveRate()))
        loss(torch.randn(4, 1), both)
        logit = torch.randn(4, 1, requires_grad=True)
        loss(logit, first).backward()
        assert logit.grad.isfinite().all()
        empty = loss(torch.randn(4, 1), torch.zeros(4, 2))
        assert empty == 0 and loss(logit, both).isfinite()


def test_in_evaluation_the_batch_at_hand_counts_and_nothing_is_remembered():
    loss, plain = NormLoss(MovingStatistic(ODDS)), NormLoss(ODDS)
    pred, sens, label = next(batches(1, 30, 3))
    loss(pred, sens, label, pred_as_logit=False)
    state = loss.state_dict()
    pred, sens, label = next(batches(1, 30, 3, seed=1))
    torch.testing.assert_close(
        loss.eval()(pred, sens, label, pred_as_logit=False), plain(pred, sens, label, pred_as_logit=False)
    )
    assert str(loss.state_dict()) == str(state)
    assert loss.train()(pred, sens, label, pred_as_logit=False) != plain(pred, sens, label, pred_as_logit=False)


REMEMBERING = {
    "norm": lambda: NormLoss(MovingStatistic(ODDS, decay=0.9)),
    "lse": lambda: LSELoss(MovingStatistic(of.PositiveRate(), decay=0.9)),
    "lagrangian": lambda: AugmentedLagrangianLoss(ODDS, gap=0.01, decay=0.9),
}


@pytest.mark.parametrize("make", REMEMBERING.values(), ids=REMEMBERING)
@pytest.mark.parametrize("classes", [1, 3])
def test_a_saved_memory_goes_on_where_it_was(tmp_path, make, classes):
    dice = torch.Generator().manual_seed(0)
    draw = lambda: (
        torch.randn(30, classes, generator=dice),
        F.one_hot(torch.arange(30) % 2, 2).float(),
        torch.randint(max(classes, 2), (30, 1), generator=dice).float(),
    )
    first, second, third = draw(), draw(), draw()
    loss, other = make(), make()
    loss(*first), loss(*second)
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    state = torch.load(tmp_path / "loss.pt", weights_only=True)
    other.load_state_dict(state)
    expected = loss(*third)
    assert torch.equal(other(*third), expected) and not torch.equal(make()(*third), expected)
    # The state that was saved is not the memory that goes on.
    again = make()
    again.load_state_dict(state)
    assert torch.equal(again(*third), expected)


@pytest.mark.parametrize("make", REMEMBERING.values(), ids=REMEMBERING)
def test_reset_forgets_everything(make):
    pred, sens, label = next(batches(1, 30, 2, seed=3))
    loss, fresh = make(), make()
    for other, groups, number in batches(3, 30, 2):
        loss(other, groups, number, pred_as_logit=False)
    loss(torch.randn(30, 3), sens, torch.arange(30) % 3)
    for part in loss.modules():  # as helpers.train does
        getattr(part, "reset", lambda: None)()
    assert torch.equal(loss(pred, sens, label, pred_as_logit=False), fresh(pred, sens, label, pred_as_logit=False))
    # Not only the value: a run that stops now and goes on in a fresh object has to find what it remembered.
    assert str(loss.state_dict()) == str(fresh.state_dict())


def test_every_class_has_a_memory_of_its_own():
    dice = torch.Generator().manual_seed(0)
    together, apart = NormLoss(MovingStatistic(ODDS, 0.8)), [NormLoss(MovingStatistic(ODDS, 0.8)) for _ in range(3)]
    for _ in range(4):
        logit, sens = torch.randn(30, 3, generator=dice), F.one_hot(torch.arange(30) % 2, 2).float()
        label = torch.randint(3, (30,), generator=dice)
        each = [
            loss(logit.softmax(1)[:, [k]], sens, (label == k).float()[:, None], pred_as_logit=False)
            for k, loss in enumerate(apart)
        ]
        torch.testing.assert_close(together(logit, sens, label), torch.stack(each).mean())


def test_another_number_of_groups_is_refused_until_reset():
    pred, sens, _ = next(batches(1, 30, 3))
    loss = NormLoss(MovingStatistic(of.PositiveRate()))
    loss(pred, sens, pred_as_logit=False)
    with pytest.raises(ValueError, match=r"sens: values of shape \(2,\) now, of shape \(3,\)"):
        loss(pred, sens[:, :2], pred_as_logit=False)
    loss.statistic.reset()
    loss(pred, sens[:, :2], pred_as_logit=False)


# ---- squares without bias -------------------------------------------------------------------------------------------

SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
POSITIVES = 0.6
SHIFT = torch.tensor([0.0, 1.0, -0.5, 0.5], dtype=torch.float64)
#: Statistics whose denominator does not depend on predictions: which rows count in it, and the value given the mean prediction.
ALL, OF_ONE, OF_ZERO = (lambda y: torch.ones_like(y, dtype=torch.bool)), (lambda y: y == 1), (lambda y: y == 0)
EXACT = {
    "positive rate": (of.PositiveRate(), [(ALL, lambda mean: mean)]),
    "true positive rate": (of.TruePositiveRate(), [(OF_ONE, lambda mean: mean)]),
    "odds": (ODDS, [(OF_ONE, lambda mean: mean), (OF_ZERO, lambda mean: mean)]),
    "accuracy": (of.Accuracy(), [(ALL, lambda mean: 1 - POSITIVES + (2 * POSITIVES - 1) * mean)]),
}


def drawn(rows, shift, dice, soft=True):
    """Rows at random, as a loader draws them: normal logits plus the shift of the row's group."""
    group = torch.multinomial(SHARES, rows, replacement=True, generator=dice)
    pred = (torch.randn(rows, generator=dice, dtype=torch.float64) + shift[group]).sigmoid()
    pred = pred if soft else (torch.rand(rows, generator=dice) < pred).double()
    label = (torch.rand(rows, 1, generator=dice) < POSITIVES).double()
    return pred[:, None], F.one_hot(group, 4).double(), label


def without_chance(parts, sens, label, shift):
    """What the squares of infinitely large groups with the shares of this batch are."""
    grid = torch.special.ndtri((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
    mean, total = (grid[:, None] + shift).sigmoid().mean(0), 0.0
    for counted, value in parts:
        own = (sens * counted(label)).sum(0)
        rest, outside = own.sum() - own, (SHARES @ mean - SHARES * mean) / (1 - SHARES)
        square = (rest / own.sum()) ** 2 * (value(mean) - value(outside)) ** 2
        total = total + square[(own >= 2) & (rest >= 2)].sum()
    return total


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("soft", [True, False])
def test_the_mean_over_batches_is_the_square_without_chance(name, planted, soft):
    (statistic, parts), dice, off, plain = EXACT[name], torch.Generator().manual_seed(1), [], []
    loss, shift = UnbiasedSquareLoss(statistic), SHIFT * planted
    for _ in range(500):
        pred, sens, label = drawn(32, shift, dice, soft)
        off.append(loss(pred, sens, label, pred_as_logit=False) - without_chance(parts, sens, label, shift))
        gap = statistic(pred, sens, label) - statistic.overall_statistic(pred, label)
        plain.append(gap.nan_to_num().square().sum())
    off, error = torch.stack(off), torch.stack(off).std() / 500**0.5
    assert off.mean().abs() < 4 * error
    # The test can tell: the squares as they are come out too large by far more.
    assert planted or torch.stack(plain).mean() > 12 * error


@pytest.mark.parametrize("name", EXACT)
def test_the_mean_gradient_is_the_gradient_without_chance(name):
    (statistic, parts), dice, off = EXACT[name], torch.Generator().manual_seed(2), []
    loss = UnbiasedSquareLoss(statistic)
    for _ in range(500):
        shift = SHIFT.clone().requires_grad_()
        pred, sens, label = drawn(32, shift, dice)
        excess = loss(pred, sens, label, pred_as_logit=False) - without_chance(parts, sens, label, shift)
        off += torch.autograd.grad(excess, shift)
    off = torch.stack(off)
    assert (off.mean(0).abs() < 4 * off.std(0) / 500**0.5).all()
    assert off.std(0).max() < 1


@pytest.mark.parametrize("name", [*EXACT, "precision", "F"])
def test_in_large_batches_it_is_the_square_itself(name):
    others = {"precision": of.PositivePredictiveValue(), "F": of.FScore()}
    statistic = others.get(name) or EXACT[name][0]
    pred, sens, label = drawn(50_000, SHIFT, torch.Generator().manual_seed(3))
    label[(sens[:, :1] == 1) & (pred < 0.5)] = 0  # or precision would have no gap
    plain = (statistic(pred, sens, label) - statistic.overall_statistic(pred, label)).square().sum()
    assert plain > 1e-3
    torch.testing.assert_close(UnbiasedSquareLoss(statistic)(pred, sens, label, pred_as_logit=False), plain, rtol=2e-2, atol=0)


@pytest.mark.parametrize("statistic", [of.PositiveRate(), of.TruePositiveRate(), ODDS], ids=["rate", "recall", "odds"])
def test_the_square_is_its_formula(statistic):
    pred, sens, label = (each.double() for each in next(batches(1, 80, 3)))
    parts = statistic.statistics if statistic is ODDS else [statistic]
    total = 0.0
    for part in parts:
        counted = part.coefficients(pred, label)[2].expand(80, 1)[:, 0] > 0  # the denominators' rows
        for s in range(3):
            own, rest = (pred[counted & (sens[:, s] == member)] for member in (1, 0))
            chance = own.var() / len(own) + rest.var() / len(rest)
            share = len(own) / (len(own) + len(rest))
            total += (1 - share) ** 2 * ((own.mean() - rest.mean()) ** 2 - chance)
    torch.testing.assert_close(UnbiasedSquareLoss(statistic)(pred, sens, label, pred_as_logit=False), total)


def test_groups_too_small_to_vary_are_left_out_with_finite_gradients():
    pred, sens, label = (each.double() for each in next(batches(1, 40, 3)))
    loss = UnbiasedSquareLoss(of.PositiveRate())
    expected = loss(pred, sens, label, pred_as_logit=False)
    more = torch.cat([sens, torch.zeros(40, 1), torch.eye(40)[:, :1], torch.ones(40, 1)], dim=1).double()
    logit = pred.logit().requires_grad_()
    value = loss(logit, more, label)
    value.backward()
    torch.testing.assert_close(value.detach(), expected)
    assert logit.grad.isfinite().all()
    for rows in (0, 1, 2):
        logit = pred[:rows].logit().requires_grad_()
        for statistic in (of.TruePositiveRate(), ODDS, of.FalseNegativeFalsePositiveFraction()):
            UnbiasedSquareLoss(statistic)(logit, sens[:rows], label[:rows]).backward()
            assert logit.grad.isfinite().all()


@pytest.mark.parametrize("statistic", [of.PositiveRate(), of.PositivePredictiveValue(), ODDS], ids=["rate", "precision", "odds"])
def test_its_gradient_is_that_of_finite_differences(statistic):
    pred, sens, label = (each.double() for each in next(batches(1, 40, 3)))
    assert torch.autograd.gradcheck(
        lambda x: UnbiasedSquareLoss(statistic)(x, sens, label), pred.logit().requires_grad_(), atol=1e-6
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: NormLoss(MovingStatistic(of.PositiveRate(), 0.9)),
        lambda: NormLoss(MovingStatistic(of.PositiveRate(), 0.9), p=2),
        lambda: UnbiasedSquareLoss(of.PositiveRate()),
    ],
    ids=["moving", "moving, p=2", "unbiased"],
)
def test_small_batches_close_a_planted_gap(make):
    planted = torch.tensor([0.0, 1.5, -1.0, 0.5])
    learnt, loss, dice = torch.zeros(4, requires_grad=True), make(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD([learnt], lr=1.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=500)
    for _ in range(500):
        group = torch.randint(4, (32,), generator=dice)
        logit = torch.randn(32, generator=dice) + (planted + learnt)[group]
        optimizer.zero_grad()
        loss(logit[:, None], F.one_hot(group, 4).float()).backward()
        optimizer.step(), schedule.step()
    rates = (torch.randn(20_000, 1, generator=dice) + planted + learnt.detach()).sigmoid().mean(0)
    assert rates.max() - rates.min() < 0.06  # 0.45 at first
