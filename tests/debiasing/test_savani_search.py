"""SAVANIRP and SAVANILWO: what they aim at, and that they find it."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from helpers.bias import audit
from helpers.debiasing import debias
from helpers.debiasing.method import collect
from helpers.debiasing.phi import Phi
from helpers.debiasing.savani_lwo import directions_of, savani_lwo
from helpers.debiasing.savani_rp import savani_rp
from helpers.debiasing.thresholds import score
from helpers.models import predict

QUICK = {savani_rp: {"T_iters": 5, "epsilon": 0.1}, savani_lwo: {"evaluations": 100}}


@pytest.fixture
def block_of(planted):
    """A model of several layers that can be cut in front of the last three, and its batch."""
    problem = planted(n=120)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 2),
        ).eval()  # fmt: skip
    return model, collect(model, problem.loader(), problem.images[:4])


def numbers(model, problem):
    found = predict(model, problem.loader())
    seen = audit(problem.y, found.y_pred, problem.group)
    return seen.value("balanced_accuracy"), seen.gap("equalized_odds")


@pytest.mark.parametrize("groups, epsilon", [(2, 0.1), (2, 0.02), (3, 0.2)])
def test_phi_is_the_best_accuracy_below_epsilon(planted, batch_of, groups, epsilon):
    problem = planted(groups=groups, n=200)
    batch = batch_of(problem)
    scores = score(batch.logits)
    found = Phi(batch, "EO_GAP", epsilon)(batch.logits)
    best, smallest, values = -1.0, 1.0, np.sort(scores)
    for cut in (values[1:] + values[:-1]) / 2:
        predicted = scores > cut
        if not 0.02 <= predicted.mean() <= 0.98:
            continue
        rates = [[predicted[(problem.group == g) & (problem.y == c)].mean() for g in range(groups)] for c in (0, 1)]
        gap = max(np.ptp(r) for r in rates)
        accuracy = (predicted[problem.y == 1].mean() + 1 - predicted[problem.y == 0].mean()) / 2
        smallest = min(smallest, gap)
        if gap < epsilon:
            best = max(best, accuracy)
    assert found.value == pytest.approx(best if best > 0 else -smallest, abs=1e-9)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("method", [savani_rp, savani_lwo])
def test_the_bound_is_kept_and_the_search_does_no_harm(planted, batch_of, method, outputs):
    problem = planted(n=400, outputs=outputs)
    batch = batch_of(problem)
    start = Phi(batch, "EO_GAP", 0.1)(batch.logits)
    model = method(problem.model, batch, **QUICK[method])
    assert batch.notes == []
    accuracy, gap = numbers(model, problem)
    assert gap < 0.1 and accuracy >= start.accuracy - 1e-9
    assert torch.equal(model[0].weight, problem.model[0].weight)
    again = method(problem.model, batch, **QUICK[method])
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_the_layer_wise_search_finds_much_more_than_a_threshold(planted, batch_of):
    problem = planted(n=600, bias=0.97)
    batch = batch_of(problem)
    start = Phi(batch, "EO_GAP", 0.1)(batch.logits)
    accuracy, gap = numbers(savani_lwo(problem.model, batch, evaluations=300), problem)
    assert gap < 0.1 and accuracy > start.accuracy + 0.15


def test_of_random_perturbations_the_best_is_taken(planted, batch_of):
    problem = planted(n=400, bias=0.97)
    batch = batch_of(problem)
    how = {"std": 3.0, "epsilon": 0.1}
    few, many = (numbers(savani_rp(problem.model, batch, T_iters=t, **how), problem)[0] for t in (1, 200))
    assert many > few


@pytest.mark.parametrize("outputs", [1, 2])
def test_without_a_bound_untuned_it_narrows_the_gap_and_keeps_the_accuracy_on_fresh_images(planted, batch_of, outputs):
    problem, fresh = planted(bias=0.97, outputs=outputs), planted(bias=0.97, seed=5)
    batch = batch_of(problem)
    before, after = numbers(problem.model, fresh), numbers(savani_rp(problem.model, batch), fresh)
    assert before[1] > 0.25 and after[1] < 0.5 * before[1] and after[0] > before[0] - 0.02
    assert batch.notes == []


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_model_is_the_mean_of_the_best_candidates_at_one_spread(planted, batch_of, outputs):
    problem = planted(n=300, outputs=outputs)
    batch = batch_of(problem)
    x = batch.features()[1]
    model = savani_rp(problem.model, batch, T_iters=12, average=3, std=5.0)
    phi, drawn = Phi(batch, "EO_GAP", None), torch.Generator().manual_seed(batch.seed)
    weight, bias = (p.detach() for p in problem.model[-1].parameters())
    candidates = [batch.logits]
    for _ in range(12):
        w, b = (p * torch.empty(p.shape).normal_(1.0, 5.0, generator=drawn) for p in (weight, bias))
        candidates.append(x @ w.T + b)
    best = sorted(candidates, key=lambda logits: -phi(logits).value)[:3]
    expected = np.mean([score(logits) / score(logits).std() for logits in best], axis=0) * score(batch.logits).std()
    found = score(predict_logits(model, problem))
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=1e-3)


def predict_logits(model, problem):
    return torch.as_tensor(predict(model, problem.loader()).logits)


@pytest.mark.parametrize("groups", [2, 3])
def test_without_epsilon_phi_is_the_best_compromise(planted, batch_of, groups):
    problem = planted(groups=groups, n=200)
    batch = batch_of(problem)
    scores, best = score(batch.logits), -1.0
    values = np.sort(scores)
    for cut in (values[1:] + values[:-1]) / 2:
        predicted = scores > cut
        if 0.02 <= predicted.mean() <= 0.98:
            seen = audit(problem.y, predicted.astype(int), problem.group)
            best = max(best, (2 * seen.value("balanced_accuracy") - 1) * (1 - seen.gap("equalized_odds")) ** 3)
    assert Phi(batch, "EO_GAP", None)(batch.logits).value == pytest.approx(best, abs=1e-9)


def test_the_papers_search_is_reached_by_options(planted, batch_of):
    problem = planted(n=300)
    options = {"epsilon": 0.1, "std": 0.1, "T_iters": 4, "n_layers": 100}
    batch = batch_of(problem)
    model = savani_rp(problem.model, batch, **options)
    factors = (model[-1].layer if hasattr(model[-1], "layer") else model[-1]).weight / problem.model[-1].weight
    assert torch.equal(factors, torch.ones_like(factors)) or 0.02 < float(factors.std()) < 0.3
    assert numbers(model, problem)[1] < 0.1


def test_a_mean_of_deeper_layers_is_refused(block_of):
    model, batch = block_of
    assert savani_rp(model, batch, n_layers=3, T_iters=2) is not model
    with pytest.raises(ValueError, match="average: got 2; 1 is accepted where more than a linear classifier"):
        savani_rp(model, batch, n_layers=3, average=2)


def test_where_no_candidate_keeps_the_bound_the_smallest_gap_is_taken_and_said(planted, batch_of):
    problem = planted(n=300)
    batch = batch_of(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = savani_rp(problem.model, batch, epsilon=1e-6, T_iters=2)
    (note,) = batch.notes
    assert "no candidate has a gap below 1e-06; the one with the smallest" in note
    predicted = predict(model, problem.loader()).y_pred
    assert 0.02 <= predicted.mean() <= 0.98
    assert numbers(model, problem)[1] < numbers(problem.model, problem)[1]


def test_directions_at_the_classifier_change_the_score_by_its_own_spread(planted, batch_of):
    problem = planted(n=300)
    batch = batch_of(problem)
    last, x = problem.model[-1], batch.features()[1]
    moves = directions_of(last, last.weight, "4", batch, 5, np.random.default_rng(0))
    scores = torch.stack([(x @ (move[1] - move[0])) for move in moves], 1)
    torch.testing.assert_close(scores.std(0), torch.full((5,), float(score(batch.logits).std(ddof=1))), rtol=0.02, atol=0)
    correlation = np.corrcoef(scores.T.numpy())
    np.testing.assert_allclose(correlation, np.eye(5), atol=1e-3)  # principal components: no two tell the same


@pytest.mark.parametrize("config", [{"n_layers_to_optimize": 1, "skopt_maxiter": 40, "skopt_njobs": 4, "last_layer_name": "fc"}])
def test_detoxais_options_are_understood(planted, config):
    problem = planted(n=300)
    result = debias(problem.model, problem.loader(), "SAVANILWO", methods_config={"SAVANILWO": config})["SAVANILWO"]
    assert result.error is None and [name for name, _ in result.edits] == ["4", "4"]
    perturbed = debias(problem.model, problem.loader(), "savanirp", methods_config={"SAVANIRP": {"options": {"std": -1}}})
    assert "std: got -1" in perturbed["SAVANIRP"].error


@pytest.mark.parametrize(
    "method, options, message",
    [
        (savani_rp, {"epsilon": 0}, "epsilon: got 0"),
        (savani_rp, {"T_iters": 0}, "T_iters: got 0"),
        (savani_rp, {"std": 0}, "std: got 0"),
        (savani_rp, {"average": 0}, "average: got 0"),
        (savani_rp, {"n_layers": 0}, "n_layers: got 0"),
        (savani_lwo, {"bias_metric": "EOO"}, "metric"),
        (savani_lwo, {"directions": 0}, "directions: got 0"),
        (savani_lwo, {"beta": 0}, "beta: got 0"),
    ],
)
def test_bad_options_are_named(planted, batch_of, method, options, message):
    with pytest.raises(ValueError, match=message):
        method(planted(n=300).model, batch_of(planted(n=300)), **options)
