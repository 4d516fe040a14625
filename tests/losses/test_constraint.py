"""Constraint losses: every group and every label has its own constraints, and FairTorch's code runs on them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from helpers import losses
from helpers.bias.statistics import PositiveRate
from helpers.losses import ConstraintLoss, DemographicParityLoss, EqualiedOddsLoss, EqualizedOddsLoss, NormLoss

BOTH = pytest.mark.parametrize("kind", [DemographicParityLoss, EqualizedOddsLoss])


def logits_of(*rates, rows=4):
    """Predictions that have these rates, group after group, and the groups."""
    prob = torch.tensor(rates, dtype=torch.float64).repeat_interleave(rows)
    return prob.logit(), torch.arange(len(rates)).repeat_interleave(rows)


def batch(seed, rows=30, groups=3, dtype=torch.float64):
    dice = torch.Generator().manual_seed(seed)
    out = torch.randn(rows, generator=dice, dtype=torch.float64).to(dtype)
    return out, torch.randint(groups, (rows,), generator=dice), torch.randint(2, (rows,), generator=dice)


def by_hand(out, sensitive, y, groups, p_norm=2, tolerance=0.0):
    """The sum over groups (and labels, where there are some) of the excesses over the tolerance, to the power."""
    prob, total = out.sigmoid(), 0.0
    for label in [None] if y is None else [0, 1]:
        counted = torch.ones_like(prob, dtype=torch.bool) if y is None else y == label
        for group in groups:
            rows = counted & (sensitive == group)
            if rows.any():
                gap = (prob[rows].mean() - prob[counted].mean()).abs() - tolerance
                total += max(gap.item(), 0.0) ** p_norm
    return total


def test_every_group_has_its_constraints_and_not_the_first_alone():
    # The first group has the overall rate, so that its constraints alone (FairTorch 0.1.2) would see nothing.
    out, sensitive = logits_of(0.5, 0.1, 0.9)
    assert DemographicParityLoss([0, 1, 2])(None, out, sensitive).item() == pytest.approx(2 * 0.4**2)
    assert DemographicParityLoss([0, 1, 2], p_norm=1)(None, out, sensitive).item() == pytest.approx(2 * 0.4)
    assert DemographicParityLoss([0, 1, 2], alpha=7)(None, out, sensitive).item() == pytest.approx(7 * 2 * 0.4**2)


def test_gaps_in_the_two_rates_do_not_cancel():
    # Group 0 has true positive rate 0.8 and false positive rate 0.2, group 1 the reverse: both mean predictions are 0.5.
    out = torch.tensor([0.8, 0.2, 0.2, 0.8], dtype=torch.float64).logit()
    sensitive, y = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 0, 1, 0])
    assert DemographicParityLoss()(None, out, sensitive).item() == pytest.approx(0, abs=1e-15)
    assert EqualizedOddsLoss()(None, out, sensitive, y).item() == pytest.approx(4 * 0.3**2)
    assert EqualizedOddsLoss(p_norm=1)(None, out, sensitive, y).item() == pytest.approx(4 * 0.3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 40),
    groups=st.integers(2, 5),
    p_norm=st.sampled_from([1, 2]),
    tolerance=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_the_loss_is_the_sum_over_groups_and_labels_that_are_there(seed, rows, groups, p_norm, tolerance):
    out, sensitive, y = batch(seed, rows, groups)
    options = {"alpha": 3, "p_norm": p_norm, "tolerance": tolerance}
    for kind, label in ((DemographicParityLoss, None), (EqualizedOddsLoss, y)):
        logit = out.clone().requires_grad_()
        value = kind(range(groups), **options)(None, logit, sensitive, label)
        expected = 3 * by_hand(out, sensitive, label, range(groups), p_norm, tolerance)
        assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-12)  # the tolerance is float32
        assert torch.autograd.grad(value, logit)[0].isfinite().all()


def test_within_the_tolerance_there_is_neither_loss_nor_gradient():
    out, sensitive = logits_of(0.45, 0.55)
    out.requires_grad_()
    value = DemographicParityLoss(tolerance=0.06)(None, out, sensitive)
    value.backward()
    assert value == 0 and not out.grad.any()
    assert DemographicParityLoss(tolerance=0.04)(None, out, sensitive).item() == pytest.approx(2 * 0.01**2, rel=1e-4)


@BOTH
@pytest.mark.parametrize("p_norm", [1, 2])
@pytest.mark.parametrize("tolerance", [0.0, 0.03])
def test_the_gradient_is_that_of_finite_differences(kind, p_norm, tolerance):
    out, sensitive, y = batch(1)
    loss = kind([0, 1, 2], p_norm=p_norm, tolerance=tolerance)
    assert torch.autograd.gradcheck(lambda x: loss(None, x, sensitive, y), out.requires_grad_())


def test_the_sum_of_violations_has_the_gradient_of_a_sum():
    # FairTorch's p_norm=1 multiplies by the detached violation, which makes it half the gradient of the squares.
    out, sensitive = logits_of(0.3, 0.6)
    gradients = []
    for scale in (1.0, 2.0):
        mid = 0.45
        logit = (mid + scale * (out.sigmoid() - mid)).logit().requires_grad_()
        prob = logit.sigmoid()
        value = DemographicParityLoss(p_norm=1)(None, logit, sensitive)
        gradients.append(torch.autograd.grad(value, logit)[0] / (prob * (1 - prob)).detach())
    torch.testing.assert_close(*gradients)  # the same, however wide the gap


@BOTH
def test_a_group_that_is_missing_from_a_batch_is_left_out_of_it(kind):
    out, sensitive, y = batch(2)
    out.requires_grad_()
    more = kind([0, 9, 1, 2, 5])(None, out, sensitive, y)
    (with_them,) = torch.autograd.grad(more, out)
    fewer = kind([0, 1, 2])(None, out, sensitive, y)
    (without,) = torch.autograd.grad(fewer, out)
    torch.testing.assert_close((more, with_them), (fewer, without), rtol=1e-12, atol=1e-14)
    for none in (0, 1):  # one row, and no row at all
        value = kind()(None, out[:none], torch.zeros(none, dtype=torch.int64), y[:none])
        assert value == 0


def test_a_label_that_one_group_lacks_leaves_its_other_rate_compared():
    out, sensitive, y = batch(3, groups=2)
    y = torch.where(sensitive == 0, 0, y)
    value = EqualizedOddsLoss()(None, out, sensitive, y)
    assert value.item() == pytest.approx(by_hand(out, sensitive, y, [0, 1])) and value > 0


@BOTH
@pytest.mark.parametrize("values", [[3, 7, -1], [0.5, 1.5, -2.0], [10**6, 0, 1]])
def test_groups_may_have_any_values(kind, values):
    out, sensitive, y = batch(4)
    expected = kind([0, 1, 2])(None, out, sensitive, y)
    renamed = torch.tensor(values)[sensitive]
    assert kind(values)(None, out, renamed, y).item() == pytest.approx(expected.item())
    assert kind(tuple(values))(None, out[:, None], renamed[:, None], y[:, None]).item() == pytest.approx(expected.item())
    sens = F.one_hot(sensitive, 3).double()
    assert kind(values).on_batch(out[:, None], sens, y[:, None].double()).item() == pytest.approx(expected.item())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), half=st.integers(1, 30), alpha=st.floats(0, 100))
def test_with_two_groups_of_one_size_it_is_the_published_demographic_parity_loss(seed, half, alpha):
    out, _, _ = batch(seed, rows=2 * half)
    sensitive = torch.arange(2 * half) % 2
    prob = out.sigmoid()
    mu = torch.stack([prob[sensitive == 0].mean(), prob[sensitive == 1].mean(), prob.mean()])
    # FairTorch 0.1.2 writes the first group's rows twice, of 2 S = 4, and the second group's never.
    published = torch.tensor([[1, 0, -1], [-1, 0, 1], [1, 0, -1], [-1, 0, 1]], dtype=mu.dtype)
    violation = (published @ mu).relu()
    value = DemographicParityLoss(sensitive_classes=[0, 1], alpha=alpha)(None, out, sensitive)
    assert value.item() == pytest.approx((alpha * violation @ violation).item(), rel=1e-9, abs=1e-12)


@BOTH
def test_groups_that_no_float32_is_equal_to_are_found_in_double_precision(kind):
    out, sensitive, y = batch(4)
    values = [0.1, 0.2, 2**24 + 1]
    renamed = torch.tensor(values, dtype=torch.float64)[sensitive]
    expected = kind([0, 1, 2])(None, out, sensitive, y)
    assert kind(values)(None, out, renamed, y).item() == pytest.approx(expected.item())


class SensitiveDataset(Dataset):
    """The one in FairTorch's example: groups become positions, as plain integers."""

    def __init__(self, x, y, sensitive):
        position = {value: k for k, value in enumerate(sensitive.unique().tolist())}
        self.x, self.y, self.sensitive = x, y, [position[value] for value in sensitive.tolist()]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.x[row], self.y[row], self.sensitive[row]


@pytest.mark.parametrize("constraints", [DemographicParityLoss(), EqualiedOddsLoss(), None])
def test_fairtorchs_example_runs_with_two_logits_and_cross_entropy(constraints):
    torch.manual_seed(0)
    x, y = torch.randn(128, 16), torch.randint(0, 2, (128,))
    sensitive = torch.where(x[:, 0] + 0.3 * torch.randn(128) > 0, 5, 2)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters())
    before = [each.clone() for each in model.parameters()]
    for x_batch, y_batch, sensitive_features in DataLoader(SensitiveDataset(x, y, sensitive), batch_size=50, shuffle=True):
        optimizer.zero_grad()
        logit = model(x_batch)
        loss = criterion(logit, y_batch)
        if constraints:
            penalty = constraints(x_batch, logit, sensitive_features, y_batch)
            assert penalty >= 0 and penalty.dim() == 0
            loss = loss + penalty
        loss.backward()
        optimizer.step()
    assert all(not torch.equal(a, b) and b.isfinite().all() for a, b in zip(before, model.parameters(), strict=True))


def test_fairtorchs_other_example_runs_with_one_logit_a_row_and_groups_as_floats():
    torch.manual_seed(0)
    x_train, y_train, sensitive_features = torch.randn(60, 4), torch.randint(0, 2, (60,)).float(), torch.randint(0, 2, (60,))
    model, criterion = nn.Linear(4, 1), nn.BCEWithLogitsLoss()
    dp_loss = DemographicParityLoss(sensitive_classes=[0, 1], alpha=100)
    logit = model(x_train)
    loss = criterion(logit.view(-1), y_train) + dp_loss(x_train, logit, sensitive_features)
    loss.backward()
    assert model.weight.grad.isfinite().all()
    assert dp_loss(x_train, logit, sensitive_features.float()) == dp_loss(x_train, logit.view(-1), sensitive_features)


def test_fairrets_example_runs():
    torch.manual_seed(0)
    norm_fairret, model = NormLoss(PositiveRate()), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.eye(3)[torch.arange(64) % 3], torch.ones(64, 1))
    before = model.weight.detach().clone()
    for feat, sens, target in DataLoader(rows, batch_size=32):
        optimizer.zero_grad()
        logit = model(feat)
        loss = F.binary_cross_entropy_with_logits(logit, target) + norm_fairret(logit, sens)
        loss.backward()
        optimizer.step()
    assert not torch.equal(before, model.weight)


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_the_means_are_one_a_group_and_label_and_one_for_everybody(groups):
    out, sensitive, y = batch(5, rows=80, groups=groups)
    prob, two = out.sigmoid(), torch.stack([1 - out.sigmoid(), out.sigmoid()], dim=1)
    for pred in (prob, prob[:, None], two):
        mu = DemographicParityLoss(range(groups)).mu_f(None, pred, sensitive)
        expected = torch.stack([prob[sensitive == s].mean() for s in range(groups)] + [prob.mean()])
        torch.testing.assert_close(mu, expected)
        loss = EqualizedOddsLoss(range(groups))
        mu = loss.mu_f(X=None, out=pred, sensitive=sensitive, y=y)
        cells = [prob[(sensitive == s) & (y == u)].mean() for s in range(groups) for u in (0, 1)]
        torch.testing.assert_close(mu, torch.stack(cells + [prob[y == u].mean() for u in (0, 1)]))
        assert loss.M.shape == (4 * groups, 2 * (groups + 1)) == (loss.n_constraints, loss.dim_condition)
    assert DemographicParityLoss(range(groups)).M.shape == (2 * groups, groups + 1)


def test_two_logits_an_image_are_their_difference():
    dice = torch.Generator().manual_seed(0)
    out, (_, sensitive, y) = torch.randn(30, 2, generator=dice), batch(6)
    for loss in (DemographicParityLoss([0, 1, 2]), EqualizedOddsLoss([0, 1, 2])):
        expected = loss(None, out[:, 1] - out[:, 0], sensitive, y)
        torch.testing.assert_close(loss(None, out, sensitive, y), expected)
        torch.testing.assert_close(loss(None, out[:, 1:] - out[:, :1], sensitive, y), expected)


def test_several_classes_are_the_mean_over_each_against_the_rest():
    dice = torch.Generator().manual_seed(0)
    out = torch.randn(60, 3, generator=dice, dtype=torch.float64)
    sensitive, y = torch.randint(2, (60,), generator=dice), torch.randint(3, (60,), generator=dice)
    soft = out.softmax(1)
    each = [by_hand(soft[:, k].logit(), sensitive, None, [0, 1]) for k in range(3)]
    assert DemographicParityLoss()(None, out, sensitive).item() == pytest.approx(sum(each) / 3)
    each = [by_hand(soft[:, k].logit(), sensitive, (y == k).long(), [0, 1]) for k in range(3)]
    assert EqualizedOddsLoss()(None, out, sensitive, y).item() == pytest.approx(sum(each) / 3)


class AtLeast(ConstraintLoss):
    """A constraint of one's own: every group's mean prediction is 0.6 or more."""

    def __init__(self, groups, **options):
        super().__init__(n_class=groups, **options)
        self.n_constraints, self.dim_condition = groups, groups
        self.M, self.c = -torch.eye(groups), torch.full((groups,), -0.6)

    def mu_f(self, X=None, out=None, sensitive=None, y=None):
        return torch.stack([out[sensitive == s].mean() for s in range(self.n_class)])


def test_constraints_of_ones_own_need_a_matrix_bounds_and_means():
    out, sensitive = logits_of(0.5, 0.3, 0.9)
    assert AtLeast(3)(None, out, sensitive).item() == pytest.approx(0.1**2 + 0.3**2, rel=1e-5)
    assert AtLeast(3, p_norm=1, alpha=2)(None, out, sensitive).item() == pytest.approx(0.8, rel=1e-5)
    # mean() of no rows is NaN: that group has no constraint in this batch.
    assert AtLeast(4)(None, out, sensitive).item() == pytest.approx(0.1**2 + 0.3**2, rel=1e-5)
    sens = F.one_hot(sensitive, 3)
    assert AtLeast(3).on_batch(out[:, None], sens, torch.zeros(12, 1)).item() == pytest.approx(0.1, rel=1e-5)


def test_what_the_loss_was_called_with_reaches_the_means():
    class Weighted(ConstraintLoss):
        def mu_f(self, X=None, out=None, sensitive=None, y=None):
            return torch.stack([(X[sensitive == s, 0] * out[sensitive == s]).sum() for s in (0, 1)] + [y.mean()])

    loss = Weighted()
    loss.M = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    loss.c = torch.tensor([0.0, 0.25])
    X, out, sensitive = torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(3), torch.tensor([0, 0, 1])
    assert loss(X, out, sensitive, torch.ones(3)).item() == pytest.approx(0.0**2 + 0.75**2)
    assert loss(X.flip(0), out, sensitive, torch.zeros(3)).item() == pytest.approx(((5 - 1) / 2) ** 2)


def test_the_bare_base_has_no_constraints_to_break():
    out, sensitive, y = batch(7)
    assert ConstraintLoss()(None, out, sensitive, y) == 0
    assert isinstance(DemographicParityLoss(), ConstraintLoss) and losses.EqualiedOddsLoss is EqualizedOddsLoss


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@BOTH
def test_half_precision_and_autocast_change_the_last_digits_only(kind, dtype):
    out, sensitive, y = batch(8, dtype=torch.float32)
    exact = kind([0, 1, 2])(None, out, sensitive, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kind([0, 1, 2])(None, out, sensitive, y) == exact
    value = kind([0, 1, 2])(None, out.to(dtype), sensitive, y)
    assert value.dtype == dtype and value.item() == pytest.approx(exact.item(), rel=0.1)


@BOTH
def test_sure_predictions_give_finite_losses_and_gradients(kind):
    _, sensitive, y = batch(9, dtype=torch.float32)
    for size in (80.0, 1000.0):
        for out in (torch.full((30,), size), torch.full((30,), -size), size * (sensitive.float() - 1)):
            out = out.requires_grad_()
            value = kind([0, 1, 2])(None, out, sensitive, y)
            value.backward()
            assert value.isfinite() and out.grad.isfinite().all()


@BOTH
def test_the_order_of_rows_and_groups_does_not_matter(kind):
    out, sensitive, y = batch(10)
    rows = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    expected = kind([0, 1, 2])(None, out, sensitive, y).item()
    assert kind([2, 0, 1])(None, out[rows], sensitive[rows], y[rows]).item() == pytest.approx(expected)
