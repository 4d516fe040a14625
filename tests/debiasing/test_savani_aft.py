import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers.bias import audit
from helpers.debiasing import debias
from helpers.debiasing.curves import candidates
from helpers.debiasing.method import collect
from helpers.debiasing.savani_aft import Critic, bias, fit_critic, savani_aft, watched, with_threshold
from helpers.debiasing.thresholds import score
from helpers.debiasing.tuning import cell_weights, plain, tune
from helpers.models import edits, predict


@pytest.mark.parametrize("criterion", ["equalized_odds", "demographic_parity"])
def test_the_bias_of_a_minibatch_is_an_audits_gap(criterion):
    rng = np.random.default_rng(0)
    for n in (12, 40, 200):
        y, group, decided = rng.integers(0, 2, n), rng.integers(0, 3, n), rng.integers(0, 2, n)
        found = bias(decided, y, group, 4, 2, criterion)  # the fourth group is absent
        assert found == pytest.approx(audit(y, decided, group, n_boot=1).gap(criterion))


def test_with_three_classes_it_is_the_largest_difference_of_any_decision():
    rng = np.random.default_rng(1)
    y, group, decided = (rng.integers(0, 3, 300) for _ in range(3))
    share = lambda g, k, c: np.mean(decided[(group == g) & (y == k)] == c)
    slow = max(np.ptp([share(g, k, c) for g in range(3)]) for k, c in itertools.product(range(3), range(3)))
    assert bias(decided, y, group, 3, 3, "equalized_odds") == pytest.approx(slow)


def test_the_critic_learns_to_tell_a_biased_model_by_its_activations(planted, batch_of):
    problem = planted(bias=0.97)
    batch, rng = batch_of(problem), np.random.default_rng(0)
    features = batch.features()[1]
    cell = torch.from_numpy(batch.group * 2 + batch.y)
    truth = torch.from_numpy(batch.y)
    # The same images with activations shifted by group: a linear decision on them is unfair in one pool and fair in the other.
    shift = torch.nn.functional.one_hot(torch.from_numpy(batch.group), 2)[:, :1] * features.std() * 20
    fair = torch.nn.functional.one_hot(truth, 2).float()
    unfair = torch.nn.functional.one_hot(torch.from_numpy(batch.group), 2).float()
    x = torch.cat([features, features + shift])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = Critic(x, 4)
        optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
        for _ in range(20):
            for pool in ((features, fair, batch.y, batch.group), (features + shift, unfair, batch.y, batch.group)):
                fit_critic(critic, optimizer, pool, 5, 64, batch, "equalized_odds", rng)
    rows = torch.from_numpy(rng.permutation(600)[:64])
    with torch.no_grad():
        low, high = (critic(pool[rows], cell[rows]).item() for pool in (features, features + shift))
        again = critic(features[rows.flip(0)], cell[rows.flip(0)]).item()
    assert low < 0.2 and high > 0.8
    assert again == pytest.approx(low, abs=1e-5)  # the order of the images does not matter


@pytest.mark.parametrize(
    "options", [{"lam": 0.0, "warm_up": 0.0}, {"epsilon": 50.0, "warm_up": 0.0}, {"lam": 50.0, "warm_up": 1.0}]
)
def test_without_the_critics_say_it_is_fine_tuning(planted, batch_of, options):
    problem = planted(n=320)
    batch = batch_of(problem)
    found = savani_aft(problem.model, batch, iterations=2, model_iterations=5, lr=1e-3, batch_size=32, augment="flip", **options)
    plainly = tune(
        problem.model, batch, plain, epochs=1, lr=1e-3, batch_size=32, augment="flip", weights=cell_weights(batch)
    )
    for a, b in zip(found.parameters(), plainly.parameters(), strict=True):
        assert torch.equal(a, b)
    for warm_up in (0.0, 0.5):
        how = {"iterations": 2, "model_iterations": 5, "lr": 1e-3, "batch_size": 32, "augment": "flip"}
        other = savani_aft(problem.model, batch, lam=50.0, warm_up=warm_up, **how)
        assert not torch.equal(next(other.parameters()), next(found.parameters()))


@pytest.mark.parametrize(
    "option, value", [("warm_up", -0.1), ("warm_up", 2), ("lam", -1), ("delta", float("inf")), ("critic_lr", 0)]
)
def test_an_option_out_of_its_range_is_named(option, value, planted, batch_of):
    problem = planted(n=60)
    with pytest.raises(ValueError, match=f"{option}: got {value}"):
        savani_aft(problem.model, batch_of(problem), **{option: value})


def test_the_critics_gradient_reaches_the_model_through_the_activations(planted, batch_of):
    problem = planted(n=300)
    batch, model = batch_of(problem), problem.model
    critic = Critic(batch.features()[1], 4)
    with watched(model, batch.layer) as seen:
        model(problem.images[:32])
        critic(seen["features"], torch.arange(32) % 4).backward()
    assert model[0].weight.grad.abs().max() > 0
    model.zero_grad(set_to_none=True)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ZeroDivisionError), watched(model, batch.layer):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_threshold_is_the_best_of_all(planted, batch_of, outputs):
    problem = planted(outputs=outputs, bias=0.97, n=300)
    batch = batch_of(problem)
    found = predict(with_threshold(problem.model, batch, "equalized_odds"), problem.loader())

    def value(decided):
        again = audit(problem.y, decided, problem.group, n_boot=1)
        return (2 * again.value("balanced_accuracy") - 1) * (1 - again.gap("equalized_odds")) ** 3

    scores = score(batch.logits)
    best = max(value((scores > t).astype(int)) for t in candidates(scores)[::3])
    assert value(found.y_pred) >= best - 1e-6


def test_a_threshold_that_may_lie_anywhere_stays(planted):
    problem = planted(n=300)
    easy = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 1))
    with torch.no_grad():
        easy[1].weight.fill_(1.0)
        easy[1].bias.fill_(-90.0)
    images = problem.images * 0.01 + torch.tensor(problem.y)[:, None, None, None] * 0.9  # the score tells all apart
    data = TensorDataset(images, torch.tensor(problem.y), torch.tensor(problem.group))
    ((_, edit),) = edits(with_threshold(easy, collect(easy, DataLoader(data, batch_size=64), images[:4]), "equalized_odds"))
    assert edit.bias.item() == 0


@pytest.mark.parametrize("groups, outputs", [(2, 1), (3, 2)])
def test_the_gap_shrinks_and_the_accuracy_does_not(planted, groups, outputs):
    problem, fresh = (planted(groups=groups, outputs=outputs, bias=0.97, seed=s) for s in (0, 5))
    results = debias(problem.model, problem.loader(), "SAVANIAFT", test_dataloader=fresh.loader())
    before, after = results["Vanilla"], results["SAVANIAFT"]
    assert after.get_metric("equalized_odds") < 0.7 * before.get_metric("equalized_odds")
    assert after.get_metric("balanced_accuracy") > before.get_metric("balanced_accuracy")


def test_three_classes_have_no_threshold_and_gain_too(planted, batch_of):
    problem, fresh = (planted(groups=3, classes=3, outputs=3, bias=0.97, seed=s) for s in (0, 5))
    tuned = savani_aft(problem.model, batch_of(problem), lr=1e-2)
    assert not edits(tuned)
    before, after = (predict(model, fresh.loader()).y_pred == fresh.y for model in (problem.model, tuned))
    assert after.mean() > before.mean() + 0.05
