"""What fairret and FairTorch compute, where they are right; their own examples and tests; and what is right where they are not."""

import itertools

import fairret.loss
import fairret.statistic
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from helpers import losses
from helpers.bias import statistics as of

NAMES = (
    "PositiveRate",
    "TruePositiveRate",
    "FalsePositiveRate",
    "PositivePredictiveValue",
    "FalseOmissionRate",
    "Accuracy",
    "FalseNegativeFalsePositiveFraction",
    "FScore",
)


def batch(seed, rows, groups, dtype=torch.float32):
    """Logits, one-hot groups that are all there, and labels of which every group has both."""
    dice = torch.Generator().manual_seed(seed)
    group = torch.cat([torch.arange(groups).repeat(2), torch.randint(groups, (rows,), generator=dice)])
    label = torch.cat([torch.arange(2).repeat_interleave(groups), torch.randint(2, (rows,), generator=dice)])
    logit = torch.randn(len(group), 1, generator=dice, dtype=dtype)
    return logit.requires_grad_(), F.one_hot(group, groups).to(dtype), label[:, None].to(dtype)


def both(name, seed, rows, groups, make_ours, make_theirs):
    logit, sens, label = batch(seed, rows, groups)
    found = []
    for make, library in ((make_ours, of), (make_theirs, fairret.statistic)):
        takes = () if name == "PositiveRate" else (label,)
        value = make(getattr(library, name)())(logit, sens, *takes)
        found.append((value, torch.autograd.grad(value, logit)[0]))
    return found


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 60),
    groups=st.integers(2, 5),
    p=st.sampled_from([1, 2, 3, float("inf"), None]),
)
def test_violation_losses_are_those_of_fairret(name, seed, rows, groups, p):
    ours, theirs = both(
        name, seed, rows, groups,
        lambda statistic: losses.LSELoss(statistic) if p is None else losses.NormLoss(statistic, p=p),
        lambda statistic: fairret.loss.LSELoss(statistic) if p is None else fairret.loss.NormLoss(statistic, p=p),
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_stack_adds_up_the_norms_of_its_statistics():
    logit, sens, label = batch(1, 50, 3)
    ours = losses.NormLoss(of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate()), p=2)
    parts = [losses.NormLoss(statistic, p=2)(logit, sens, label) for statistic in (of.TruePositiveRate(), of.FalsePositiveRate())]
    assert ours(logit, sens, label).item() == pytest.approx(sum(parts).item(), rel=1e-6)


@pytest.mark.parametrize("name", ["PositiveRate", "TruePositiveRate", "PositivePredictiveValue"])
def test_the_kl_projection_is_what_fairret_converges_to(name):
    logit, sens, label = batch(2, 60, 3, torch.float64)
    takes = () if name == "PositiveRate" else (label,)
    # Its normalisation divides by the mean of the two probabilities, so that they sum to 2; a converged projection needs none.
    theirs = fairret.loss.KLProjectionLoss(getattr(fairret.statistic, name)(), force_proj_normalized=False)
    theirs.solver_kwargs = {"solver": "CLARABEL"}
    expected = theirs(logit, sens, *takes)
    value = losses.KLProjectionLoss(getattr(of, name)())(logit, sens, *takes)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    grads = [torch.autograd.grad(each, logit)[0] for each in (value, expected)]
    torch.testing.assert_close(*grads, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [lambda s: losses.NormLoss(s, 0.5), losses.NormLoss, lambda s: losses.NormLoss(s, 2), losses.LSELoss])
def test_a_target_of_zero_is_met_by_a_statistic_of_zero(make):
    logit, sens, label = batch(3, 20, 2)
    loss = make(of.FalsePositiveRate())
    rates = of.FalsePositiveRate()(logit.sigmoid(), sens, label)
    assert loss(logit, sens, label, target_statistic=0.0).item() == pytest.approx(loss.penalize_violation(rates).item(), rel=1e-5)
    never = torch.zeros_like(logit, requires_grad=True)  # the overall rate itself is zero
    value = loss(never, sens, label, pred_as_logit=False)
    value.backward()
    assert value == 0 and never.grad.isfinite().all()


def test_a_given_target_takes_the_place_of_the_overall_value():
    logit, sens, _ = batch(4, 30, 3)
    rates = of.PositiveRate()(logit.sigmoid(), sens)
    each = torch.tensor([0.3, 0.4, 0.9])
    for target in (0.4, torch.tensor([0.4]), each):
        value = losses.NormLoss(of.PositiveRate(), p=2)(logit, sens, target_statistic=target)
        assert value.item() == pytest.approx((rates / target - 1).norm().item(), rel=1e-5)


@pytest.mark.parametrize("make", [losses.NormLoss, lambda s: losses.NormLoss(s, 2), lambda s: losses.NormLoss(s, float("inf")), losses.LSELoss])
@pytest.mark.parametrize("name", NAMES)
def test_an_absent_group_adds_nothing(make, name):
    logit, sens, label = batch(5, 30, 3)
    loss = make(getattr(of, name)())
    more = torch.cat([sens, torch.zeros_like(sens[:, :1])], dim=1)
    found = [loss(logit, each, label) for each in (sens, more)]
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*[torch.autograd.grad(value, logit)[0] for value in found])


def test_a_stack_leaves_out_each_statistics_own_absent_groups():
    """The first group has no negatives, so no false positive rate: fairret's rate of zero would be a violation of 1."""
    logit = torch.tensor([[0.3], [-1.0], [0.2], [2.0], [0.5]], requires_grad=True)
    sens, label = F.one_hot(torch.tensor([0, 0, 1, 1, 1]), 2).float(), torch.tensor([[1.0], [1], [1], [0], [0]])
    stack = losses.NormLoss(of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate()))
    value = stack(logit, sens, label)
    rest = losses.NormLoss(of.TruePositiveRate())(logit, sens, label)
    assert value.item() == pytest.approx(rest.item(), rel=1e-5)  # the one group with negatives is everybody with negatives
    value.backward()
    assert logit.grad.isfinite().all()


@pytest.mark.parametrize("p", [0.5, 1, 2, 3, float("inf")])
def test_equal_groups_have_a_finite_gradient(p):
    logit = torch.zeros(4, 1, requires_grad=True)
    losses.NormLoss(of.PositiveRate(), p=p)(logit, F.one_hot(torch.tensor([0, 0, 1, 1]), 2).float()).backward()
    assert logit.grad.isfinite().all()


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))


@pytest.mark.parametrize(
    "loss",
    [losses.NormLoss, losses.LSELoss, losses.KLProjectionLoss, losses.JensenShannonProjectionLoss,
     losses.TotalVariationProjectionLoss, losses.SquaredEuclideanProjectionLoss],
)  # fmt: skip
@pytest.mark.parametrize("short", ["rate", "accuracy", "odds"])
def test_the_tests_that_fairret_publishes(loss, short, net):
    feat = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    sens = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    label = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    statistic, labels = {
        "rate": (of.PositiveRate(), ()),
        "accuracy": (of.Accuracy(), (label,)),
        "odds": (of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate()), (label,)),
    }[short]
    fair = loss(statistic)
    for _ in range(5):
        value = fair(net(feat), sens, *labels)
        assert value.item() >= 0
        value.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        net.zero_grad()


def test_the_readme_example_of_fairret_runs():
    dice = torch.Generator().manual_seed(0)
    feat = torch.randn(64, 5, generator=dice)
    sens = F.one_hot(torch.randint(2, (64,), generator=dice), 2).float()
    target = torch.randint(2, (64, 1), generator=dice).float()
    model = nn.Linear(5, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    statistic = of.PositiveRate()
    norm_fairret = losses.NormLoss(statistic)

    def train(model, optimizer, train_loader):
        for feat, sens, target in train_loader:
            optimizer.zero_grad()
            logit = model(feat)
            bce_loss = F.binary_cross_entropy_with_logits(logit, target)
            fairret_loss = norm_fairret(logit, sens)
            loss = bce_loss + fairret_loss
            loss.backward()
            optimizer.step()

    train(model, optimizer, DataLoader(list(zip(feat, sens, target, strict=True)), batch_size=16))
    assert all(p.isfinite().all() for p in model.parameters())


class SensitiveDataset(Dataset):
    def __init__(self, x, y, sensitive):
        self.x, self.y, self.sensitive = x, y, sensitive
        categories = sensitive.unique().numpy()
        self.category_to_index_dict = dict(zip(list(categories), range(len(categories)), strict=True))
        self.sensitive_ids = [self.category_to_index_dict[i] for i in self.sensitive.numpy().tolist()]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, idx):
        return self.x[idx], self.y[idx], self.sensitive_ids[idx]


@pytest.mark.parametrize("constraints", [losses.DemographicParityLoss(), losses.EqualiedOddsLoss()])
def test_the_readme_example_of_fairtorch_runs(constraints):
    """Two logits an image and integer labels, as its README has them."""
    dice = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, 16, generator=dice), torch.randint(0, 2, (128,), generator=dice)
    loader = DataLoader(SensitiveDataset(x, y, torch.randint(0, 2, (128,), generator=dice)), batch_size=64)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer, criterion = optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    for x, y, sensitive_features in loader:
        optimizer.zero_grad()
        logit = model(x)
        penalty = constraints(x, logit, sensitive_features, y)
        (criterion(logit, y) + 0.5 * penalty).backward()
        optimizer.step()
    assert penalty >= 0 and all(p.isfinite().all() for p in model.parameters())


def test_the_other_tests_that_fairtorch_publishes():
    assert isinstance(losses.ConstraintLoss(), losses.ConstraintLoss)
    out, sensitive = torch.randn(128, 2), torch.randint(0, 2, (128,))
    assert losses.DemographicParityLoss(sensitive_classes=[0, 1]).mu_f(None, out, sensitive).size(0) == 3
    rates = losses.EqualiedOddsLoss(sensitive_classes=[0, 1]).mu_f(None, out.sigmoid(), sensitive, y=torch.randint(0, 2, (128,)))
    assert rates.size(0) == 6


def test_fairtorch_is_right_about_two_groups_of_one_size():
    """Its matrix has the first group's two constraints twice; with two equal groups that is each group's once."""
    logit = torch.randn(40, generator=torch.Generator().manual_seed(0))
    sensitive = torch.arange(40) % 2
    p = logit.sigmoid()
    mu = torch.stack([p[sensitive == 0].mean(), p[sensitive == 1].mean(), p.mean()])
    theirs = torch.tensor([[1.0, 0, -1], [-1, 0, 1], [1, 0, -1], [-1, 0, 1]])
    expected = 100 * (theirs @ mu).relu().square().sum()
    value = losses.DemographicParityLoss(sensitive_classes=[0, 1], alpha=100)(None, logit, sensitive)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(("p_norm", "tolerance"), list(itertools.product([1, 2], [0.0, 0.1])))
def test_every_group_counts(p_norm, tolerance):
    """Rates of 0.5, 0.1 and 0.9 give FairTorch's loss no violation: only the first group has constraints there."""
    rates = torch.tensor([0.5, 0.1, 0.9])
    logit, sensitive = torch.logit(rates).repeat_interleave(10), torch.tensor([3, 7, -1]).repeat_interleave(10)
    loss = losses.DemographicParityLoss(sensitive_classes=[3, 7, -1], alpha=2, p_norm=p_norm, tolerance=tolerance)
    expected = 2 * ((rates - 0.5).abs() - tolerance).relu().pow(p_norm).sum()
    assert loss(None, logit, sensitive).item() == pytest.approx(expected.item(), rel=1e-5)


def test_opposite_gaps_do_not_cancel():
    """The first group has the higher true, the second the higher false positive rate, by as much."""
    sensitive, y = torch.tensor([0, 0, 1, 1]).repeat(5), torch.tensor([1, 0, 1, 0]).repeat(5)
    logit = torch.logit(torch.tensor([0.8, 0.2, 0.4, 0.6])).repeat(5)
    value = losses.EqualizedOddsLoss(sensitive_classes=[0, 1], alpha=1)(None, logit, sensitive, y)
    assert value.item() == pytest.approx(4 * 0.2**2, rel=1e-5)


@pytest.mark.parametrize("loss", [losses.DemographicParityLoss, losses.EqualizedOddsLoss])
@pytest.mark.parametrize("p_norm", [1, 2])
def test_a_group_missing_from_a_batch_has_no_constraint(loss, p_norm):
    dice = torch.Generator().manual_seed(1)
    logit = torch.randn(30, generator=dice).requires_grad_()
    sensitive, y = torch.arange(30) % 2, torch.randint(2, (30,), generator=dice)
    with_it = loss([0, 1, 2], alpha=1, p_norm=p_norm)(None, logit, sensitive, y)
    without = loss([0, 1], alpha=1, p_norm=p_norm)(None, logit, sensitive, y)
    torch.testing.assert_close(with_it, without)
    assert torch.autograd.grad(with_it, logit)[0].isfinite().all()


@pytest.mark.parametrize("loss", [losses.DemographicParityLoss, losses.EqualizedOddsLoss])
def test_constraint_losses_have_their_gradient(loss):
    dice = torch.Generator().manual_seed(2)
    logit = torch.randn(20, generator=dice, dtype=torch.float64).requires_grad_()
    sensitive, y = torch.arange(20) % 3, torch.randint(2, (20,), generator=dice)
    for p_norm in (1, 2):
        made = loss([0, 1, 2], alpha=3, p_norm=p_norm)
        assert torch.autograd.gradcheck(lambda x, made=made: made(None, x, sensitive, y), logit)


def test_constraints_of_ones_own():
    class NobodyAboveHalf(losses.ConstraintLoss):
        def __init__(self):
            super().__init__(n_class=1, p_norm=1)
            self.M, self.c = torch.tensor([[1.0]]), torch.tensor([0.5])

        def mu_f(self, X=None, out=None, sensitive=None, y=None):
            return out.mean()[None]

    value = NobodyAboveHalf()(None, torch.logit(torch.tensor([0.9, 0.7])), torch.zeros(2))
    assert value.item() == pytest.approx(0.3, rel=1e-5)


PROJECTIONS = losses.KLProjectionLoss, losses.JensenShannonProjectionLoss, losses.TotalVariationProjectionLoss
SYMMETRIC = {
    "rate": of.PositiveRate(),
    "accuracy": of.Accuracy(),
    "odds": of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate()),
}


@pytest.mark.parametrize("loss", PROJECTIONS)
@pytest.mark.parametrize("name", SYMMETRIC)
def test_two_logits_are_the_loss_of_their_difference(loss, name):
    dice = torch.Generator().manual_seed(3)
    logits, sens = torch.randn(50, 2, generator=dice, dtype=torch.float64), F.one_hot(torch.arange(50) % 3, 3).double()
    label = torch.randint(2, (50,), generator=dice)
    made = loss(SYMMETRIC[name])
    binary = made(logits[:, 1:] - logits[:, :1], sens, label[:, None].double())
    assert made(logits, sens, label).item() == pytest.approx(binary.item(), rel=1e-6)


@pytest.mark.parametrize("make", [losses.NormLoss, losses.KLProjectionLoss, losses.UnbiasedSquareLoss])
def test_several_classes_are_each_held_against_the_rest(make):
    dice = torch.Generator().manual_seed(4)
    logits, sens = torch.randn(60, 4, generator=dice, dtype=torch.float64), F.one_hot(torch.arange(60) % 3, 3).double()
    label = torch.arange(60) % 4
    loss, p = make(of.TruePositiveRate()), logits.softmax(1)
    expected = np.mean(
        [loss(p[:, k : k + 1], sens, (label == k)[:, None].double(), pred_as_logit=False).item() for k in range(4)]
    )
    for given_as in (label, label[:, None], F.one_hot(label, 4).double()):
        assert loss(logits, sens, given_as).item() == pytest.approx(expected, rel=1e-6)
    sure = (logits * 1e3).requires_grad_()
    value = loss(sure, sens, label)
    value.backward()
    assert value.isfinite() and sure.grad.isfinite().all()


def test_constraint_losses_take_several_classes():
    dice = torch.Generator().manual_seed(5)
    logits, sensitive = torch.randn(90, 3, generator=dice), torch.arange(90) % 2
    y = torch.arange(90) % 3
    loss, p = losses.EqualizedOddsLoss([0, 1]), logits.softmax(1)
    expected = np.mean([loss(None, torch.logit(p[:, k]), sensitive, (y == k).long()).item() for k in range(3)])
    assert loss(None, logits, sensitive, y).item() == pytest.approx(expected, rel=1e-4)
