from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from helpers.debiasing.inlp import at_chance, inlp, null_basis
from helpers.models import features


def held_out_accuracy(x, z):
    """Balanced over groups, of a probe fitted on the first half and judged on the second."""
    half, x = len(x) // 2, (x - x.mean(0)) / x.std()
    found = LogisticRegression(C=1, max_iter=2000, class_weight="balanced").fit(x[:half], z[:half]).predict(x[half:])
    return np.mean([(found[z[half:] == g] == g).mean() for g in np.unique(z)])


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("groups", [2, 3, 5])
def test_a_probe_is_at_chance_afterwards_and_the_target_is_left_where_whitened(planted, batch_of, groups, whiten):
    problem, fresh = planted(groups=groups, n=1200), planted(groups=groups, n=1200, seed=5)
    edited = inlp(problem.model, batch_of(problem), whiten=whiten, C=1.0)
    before, after = (features(m, fresh.loader()).features for m in (problem.model, edited))
    assert held_out_accuracy(before, fresh.group) > 1 / groups + 0.2
    assert held_out_accuracy(after, fresh.group) < 1 / groups + 0.09
    if whiten:  # a projection that is orthogonal in the raw features takes the target along
        assert held_out_accuracy(after, fresh.y) > held_out_accuracy(before, fresh.y) - 0.05


def test_planted_directions_are_found_one_after_the_other():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 3000)
    planted = np.linalg.qr(rng.normal(size=(8, 2)))[0]
    x = rng.normal(size=(3000, 8)) + 2 * np.array([[1, 0], [-0.5, 0.9], [-0.5, -0.9]])[group] @ planted.T
    basis = null_basis(x - x.mean(0), np.arange(3000), group, group, 20, 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-8)
    assert np.linalg.svd(planted.T @ basis, compute_uv=False).min() > 0.97
    assert null_basis(x[:, :1] * 0 + rng.normal(size=(3000, 4)), np.arange(3000), group, group, 9, 1.0, rng).shape[1] == 0


def test_it_stops_at_the_number_of_iterations(planted, batch_of):
    problem = planted(groups=5)
    one = inlp(problem.model, batch_of(problem), iterations=1, retrain=False)
    assert one[3].edit.rank == 4  # a probe of five groups has four directions
    assert inlp(problem.model, batch_of(problem)).get_submodule("3").edit.rank >= 4


def test_the_classifier_is_retrained_only_where_it_follows_the_edit(planted, batch_of):
    problem = planted()
    alike = lambda **options: [
        inlp(problem.model, batch_of(problem), retrain=retrain, **options)(problem.images[:9]) for retrain in (True, False)
    ]
    assert not torch.allclose(*alike(), atol=0.1)
    assert torch.equal(*alike(layer="0"))


def test_chance_counts_images_and_not_positions():
    rng = np.random.default_rng(0)
    z, image = np.repeat([0, 1], 5000), np.repeat(np.arange(20), 500)
    predicted = np.where(rng.random(10000) < 0.6, z, 1 - z)  # of 20 images six in ten is chance, of 10,000 it is not
    assert at_chance(predicted, z, image)
    assert not at_chance(predicted, z, np.arange(10000))


def test_where_nothing_is_found_nothing_changes_and_it_is_said(planted, batch_of):
    problem = planted(n=600)
    batch = batch_of(problem)
    random = replace(batch, group=np.random.default_rng(1).permutation(batch.group), notes=[])
    edited = inlp(problem.model, random, retrain=False)
    assert random.notes == ["the first probe is at chance already: nothing is projected out"]
    assert torch.equal(edited(problem.images), problem.model(problem.images))
    inlp(problem.model, batch)
    assert batch.notes == []


@pytest.mark.parametrize("options, message", [({"iterations": 0}, "iterations: got 0"), ({"C": 0}, "C: got 0")])
def test_bad_options_are_named(planted, batch_of, options, message):
    with pytest.raises(ValueError, match=message):
        inlp(planted(n=300).model, batch_of(planted(n=300)), **options)
