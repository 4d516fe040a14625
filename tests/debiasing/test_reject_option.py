import numpy as np
import pytest
import torch

from helpers.bias import audit
from helpers.debiasing.reject_option import reject_option
from helpers.models import predict


def by_the_book(logits, group, theta, disadvantaged):
    """Kamiran et al.: flip to the favourable label for the disadvantaged where max(p, 1 - p) < theta, else as it was."""
    p = torch.from_numpy(logits).double().softmax(1)[:, 1].numpy()
    predicted = (p > 0.5).astype(int)
    critical = np.maximum(p, 1 - p) < theta
    return np.where(critical, np.isin(group, disadvantaged).astype(int), predicted)


def value(y, predicted, group):
    rates = [[predicted[(group == g) & (y == c)].mean() for g in np.unique(group)] for c in (0, 1)]
    return (predicted[y == 1].mean() - predicted[y == 0].mean()) * (1 - max(np.ptp(r) for r in rates)) ** 3


@pytest.mark.parametrize("groups", [2, 3])
def test_no_theta_and_no_choice_of_groups_in_their_order_does_better(planted, batch_of, groups):
    problem = planted(groups=groups, n=240)
    before = predict(problem.model, problem.loader())
    found = predict(reject_option(problem.model, batch_of(problem)), problem.loader()).y_pred
    favoured = [
        np.mean([before.y_pred[(problem.group == g) & (problem.y == c)].mean() for c in (0, 1)]) for g in range(groups)
    ]
    order = np.argsort(favoured)
    p = np.abs(before.y_score - 0.5) + 0.5
    most = -1
    for theta in [0.5, *(np.sort(p) + 1e-7)]:
        for k in range(1, groups):
            predicted = by_the_book(before.logits, problem.group, theta, order[:k])
            if 0.02 <= predicted.mean() <= 0.98:
                most = max(most, value(problem.y, predicted, problem.group))
    assert value(problem.y, found, problem.group) == pytest.approx(most, abs=1e-9)
    assert value(problem.y, found, problem.group) > value(problem.y, before.y_pred, problem.group)


def test_the_model_is_the_rule_of_the_paper_at_its_theta(planted, batch_of):
    problem = planted(n=400)
    model = reject_option(problem.model, batch_of(problem), theta_range=(0.55, 0.95), theta_steps=5)
    before, after = predict(problem.model, problem.loader()), predict(model, problem.loader())
    b = model.edit.thresholds.abs().max().item()
    theta = 1 / (1 + np.exp(-b))
    assert np.abs(theta - np.linspace(0.55, 0.95, 5)).min() < 1e-6
    lower = int(model.edit.thresholds[:2].argmin())
    np.testing.assert_array_equal(after.y_pred, by_the_book(before.logits, problem.group, theta, [lower]))
    changed = after.y_pred != before.y_pred
    assert changed.any() and (np.maximum(before.y_score, 1 - before.y_score)[changed] < theta).all()


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_gap_shrinks(planted, batch_of, outputs):
    problem = planted(n=400, outputs=outputs)
    model = reject_option(problem.model, batch_of(problem))
    before, after = (audit(problem.y, predict(m, problem.loader()).y_pred, problem.group) for m in (problem.model, model))
    assert after.gap("equalized_odds") < before.gap("equalized_odds") - 0.1
    assert after.value("balanced_accuracy") > before.value("balanced_accuracy") - 0.02
    assert model.needs_group


@pytest.mark.parametrize(
    "options, message", [({"theta_range": (0.4, 0.9)}, "theta_range"), ({"theta_steps": 2.5}, "theta_steps")]
)
def test_bad_options_are_named(planted, batch_of, options, message):
    with pytest.raises(ValueError, match=message):
        reject_option(planted(n=300).model, batch_of(planted(n=300)), **options)
