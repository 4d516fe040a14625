"""Losses that do not take chance for unfairness, and still find unfairness."""

import io

import pytest
import torch
from torch.nn import functional as F

from helpers import losses
from helpers.bias import statistics as of

ODDS = of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate())


def batches(count, rows, groups, hard, seed=0, shift=None):
    """A predictor that does not know the groups, or prefers them by `shift` (groups,)."""
    dice = torch.Generator().manual_seed(seed)
    for _ in range(count):
        group = torch.randint(groups, (rows,), generator=dice)
        chance = torch.rand(rows, 1, generator=dice, dtype=torch.float64)
        at = 0.5 if shift is None else 0.5 + shift[group][:, None]
        pred = (chance < at).double() if hard else (chance + at - 0.5).clamp(0, 1)
        yield pred, F.one_hot(group, groups).double(), torch.randint(2, (rows, 1), generator=dice).double()


def mean_loss(loss, count, rows, groups=8, warm=0, **how):
    values = torch.stack([loss(*each, pred_as_logit=False) for each in batches(count + warm, rows, groups, **how)][warm:])
    return values.mean().item(), (values.std() / count**0.5).item()


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("statistic", [of.PositiveRate, of.TruePositiveRate])
def test_with_a_memory_a_fair_predictor_loses_a_tenth(statistic, hard):
    noisy, _ = mean_loss(losses.NormLoss(statistic()), 300, 32, hard=hard)
    remembered, _ = mean_loss(losses.NormLoss(losses.MovingStatistic(statistic())), 300, 32, hard=hard, warm=150)
    assert noisy > 1.5 and remembered < noisy / 10


@pytest.mark.parametrize("statistic", [of.PositiveRate(), of.TruePositiveRate(), ODDS])
def test_the_unbiased_square_is_zero_on_average_for_a_fair_predictor(statistic):
    mean, error = mean_loss(losses.UnbiasedSquareLoss(statistic), 4000, 32, hard=True)
    plain, _ = mean_loss(losses.NormLoss(statistic), 100, 32, hard=True)
    assert abs(mean) < 4 * error and error < plain / 100


def test_the_unbiased_square_is_that_of_large_groups_where_there_is_a_gap():
    shift = torch.tensor([0.2, -0.1, 0.0], dtype=torch.float64)
    mean, error = mean_loss(losses.UnbiasedSquareLoss(of.PositiveRate()), 4000, 60, groups=3, hard=True, shift=shift)
    truth = (shift - shift.mean()).square().sum().item()
    assert abs(mean - truth) < 4 * error + 0.02 * truth  # shares of the groups vary from batch to batch


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.NormLoss(losses.MovingStatistic(of.PositiveRate(), decay=0.9)),
        lambda: losses.UnbiasedSquareLoss(of.PositiveRate()),
    ],
)
def test_a_planted_gap_is_found_and_closed_at_32_images_a_batch(make):
    """One number a group is learnt, on top of a shift that prefers the even groups."""
    dice, loss = torch.Generator().manual_seed(0), make()
    shift = torch.tensor([1.0, -1.0] * 4)
    own = torch.zeros(8, requires_grad=True)
    optimizer = torch.optim.SGD([own], lr=0.5)
    for step in range(600):
        group = torch.randint(8, (32,), generator=dice)
        logit = (torch.randn(32, generator=dice) + shift[group] + own[group])[:, None]
        optimizer.zero_grad()
        loss(logit, F.one_hot(group, 8).float()).backward()
        optimizer.step()
        if step == 400:
            optimizer.param_groups[0]["lr"] = 0.05
    assert (shift + own.detach()).std() < 0.35 < shift.std()


def test_the_memory_is_the_decaying_sum_and_the_gradient_that_of_the_batch():
    statistic, decay = of.PositivePredictiveValue(), 0.8
    moving = losses.MovingStatistic(statistic, decay)
    num = denom = rows = 0.0
    for pred, sens, label in batches(5, 40, 3, hard=False):
        pred.requires_grad_()
        value = moving(pred, sens, label)
        num = decay * num + statistic.num(pred.detach(), sens, label)
        denom = decay * denom + statistic.denom(pred.detach(), sens, label)
        rows = decay * rows + 40
    torch.testing.assert_close(value, num / denom)
    (found,) = torch.autograd.grad(value.sum(), pred)
    a, b = (num / rows).clone().requires_grad_(), (denom / rows).clone().requires_grad_()
    by_num, by_denom = torch.autograd.grad((a / b).sum(), (a, b))
    expected = ((by_num * sens * label) + (by_denom * sens)).sum(1, keepdim=True) / 40
    torch.testing.assert_close(found, expected)


def test_a_group_that_is_away_has_no_value_and_is_remembered():
    moving = losses.MovingStatistic(of.PositiveRate(), decay=0.5)
    one = torch.ones(2, 1)
    moving(one, torch.tensor([[1.0, 0], [0, 1]]))
    away = moving(one * 0, torch.tensor([[1.0, 0], [1, 0]]))
    assert away[1].isnan() and away[0] == pytest.approx((0.5 * 1) / (0.5 * 1 + 2))
    back = moving(one, torch.tensor([[1.0, 0], [0, 1]]))
    assert back[1] == 1
    assert losses.NormLoss(moving)(torch.zeros(2, 1, requires_grad=True), torch.tensor([[1.0, 0], [1, 0]])).isfinite()


def test_in_evaluation_mode_there_is_no_memory():
    moving = losses.MovingStatistic(of.PositiveRate())
    (pred, sens, _), (other, groups, _) = batches(2, 20, 3, hard=False)
    moving(pred, sens)
    moving.eval()
    torch.testing.assert_close(moving(other, groups), of.PositiveRate()(other, groups))
    moving.train()
    moving.reset()
    torch.testing.assert_close(moving(other, groups), of.PositiveRate()(other, groups))


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.NormLoss(losses.MovingStatistic(ODDS, 0.9)),
        lambda: losses.AugmentedLagrangianLoss(ODDS, 0.01, decay=0.5),
    ],
)
def test_what_is_remembered_is_saved_and_loaded(make):
    """Without pickle, and for every class on its own."""
    first, second = make(), make()
    dice = torch.Generator().manual_seed(0)
    rest = [(torch.randn(30, 3, generator=dice), F.one_hot(torch.arange(30) % 2, 2).float(), torch.arange(30) % 3) for _ in range(4)]
    for each in rest[:3]:
        first(*each)
    with io.BytesIO() as file:
        torch.save(first.state_dict(), file)
        file.seek(0)
        second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(first(*rest[3]), second(*rest[3]))
    assert not torch.equal(make()(*rest[3]), second(*rest[3]))


@pytest.mark.parametrize("wanted", [0.3, 0.1, 0.02])
def test_a_wanted_gap_is_met_in_decisions(wanted):
    """Logistic regression on a feature of the label and one of the group, which label and group share."""
    dice = torch.Generator().manual_seed(0)
    group = torch.randint(2, (2000,), generator=dice)
    label = (torch.rand(2000, generator=dice) < 0.3 + 0.4 * group).float()[:, None]
    features = torch.cat([label + torch.randn(2000, 1, generator=dice), group[:, None] + 0.3 * torch.randn(2000, 1, generator=dice)], 1)
    sens = F.one_hot(group, 2).float()

    def gap(loss):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, 2, 1)
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
        slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 1200)
        for _ in range(1200):
            rows = torch.randint(2000, (128,), generator=dice)
            logit = layer(features[rows])
            total = F.binary_cross_entropy_with_logits(logit, label[rows])
            if loss is not None:
                total = total + loss(logit, sens[rows])
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            slower.step()
        rates = of.PositiveRate()((layer(features) > 0).float(), sens)
        return (rates[1] - rates[0]).item()

    plain = gap(None)
    loss = losses.AugmentedLagrangianLoss(of.PositiveRate(), wanted)
    assert plain > 0.45 and abs(gap(loss) - wanted) < 0.06
    assert (loss.multipliers[0] >= 0).all() and loss.multipliers[0].max() > 0
    wide = losses.AugmentedLagrangianLoss(of.PositiveRate(), 1.0)
    assert gap(wide) == pytest.approx(plain, abs=0.05) and wide.multipliers[0].max() == 0
