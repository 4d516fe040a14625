import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from helpers.debiasing.leace import fit_eraser, leace
from helpers.models import features


def probe_accuracy(x, z):
    x = (x - x.mean(0)) / x.std()
    return LogisticRegression(C=10, max_iter=3000).fit(x, z).score(x, z)


@pytest.mark.parametrize("batch_size", [1, 8, 64])
@pytest.mark.parametrize("groups", [2, 3, 5])
def test_no_linear_probe_beats_chance_afterwards(planted, batch_of, groups, batch_size):
    problem = planted(groups=groups, n=300)
    edited = leace(problem.model, batch_of(problem, batch_size))
    before = features(problem.model, problem.loader(batch_size)).features
    after = features(edited, problem.loader(batch_size)).features
    chance = np.bincount(problem.group).max() / len(problem.group)
    assert probe_accuracy(before, problem.group) > chance + 0.2
    assert probe_accuracy(after, problem.group) <= chance + 1e-3
    for g in range(groups):  # the condition that is equivalent for every linear probe with every convex loss
        np.testing.assert_allclose(after[problem.group == g].mean(0), after.mean(0), atol=1e-5)


@pytest.mark.parametrize("groups", [2, 4])
def test_it_is_the_closed_form_of_the_paper_and_of_its_authors(groups):
    """Belrose et al., Theorem 4.3, in NumPy; and their own eraser, where its defaults do not cut small directions."""
    from concept_erasure import LeaceEraser

    rng = np.random.default_rng(0)
    group = rng.integers(0, groups, 900)
    x = rng.normal(size=(900, 7)) @ rng.normal(size=(7, 7)) + rng.normal(size=(groups, 7))[group] + 3
    z = np.eye(groups)[group]
    centred = x - x.mean(0)
    value, vector = np.linalg.eigh(np.cov(x.T))
    whiten, colour = (vector * value**-0.5) @ vector.T, (vector * value**0.5) @ vector.T
    left = np.linalg.svd(whiten @ centred.T @ (z - z.mean(0)))[0][:, : groups - 1]
    expected = x - centred @ (colour @ left @ left.T @ whiten).T
    rows = torch.tensor(x)
    found = fit_eraser([(rows, torch.tensor(group))], groups, shrinkage=False).double()(rows)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for shrinkage in (True, False):
        theirs = LeaceEraser.fit(rows, torch.tensor(z), shrinkage=shrinkage, constrain_cov_trace=False, svd_tol=1e-6)
        mine = fit_eraser([(rows, torch.tensor(group))], groups, shrinkage=shrinkage).double()
        torch.testing.assert_close(mine(rows), theirs(rows), atol=1e-4, rtol=1e-4)


def test_the_target_survives_where_it_is_independent_of_the_group(planted, batch_of):
    problem = planted(n=600)
    edited = leace(problem.model, batch_of(problem))
    before, after = (features(m, problem.loader()).features for m in (problem.model, edited))
    assert probe_accuracy(after, problem.y) > probe_accuracy(before, problem.y) - 0.03


def test_a_small_group_is_erased_too():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [2000, 1990, 10])
    shift = np.array([0, 5, 1])[:, None] * np.eye(6)[:3]  # beside the large groups' difference, its own is small
    x = torch.tensor(rng.normal(size=(4000, 6)) + shift[group]).float()
    after = fit_eraser([(x, torch.tensor(group))], 3)(x)
    means = np.stack([after[group == g].mean(0) for g in range(3)])
    np.testing.assert_allclose(means - means[0], 0, atol=1e-5)


def test_dead_features_and_an_unused_group_code_are_no_obstacle():
    rng = np.random.default_rng(0)
    group = rng.choice([0, 3], 200)
    x = torch.tensor(rng.normal(size=(200, 5)) + group[:, None]).float()
    x[:, 2] = 0
    for shrinkage in (True, False):
        eraser = fit_eraser([(x, torch.tensor(group))], 4, shrinkage)
        after = eraser(x)
        assert eraser.rank == 1 and torch.isfinite(after).all()
        torch.testing.assert_close(after[group == 0].mean(0), after[group == 3].mean(0), atol=1e-5, rtol=0)


def test_at_a_map_every_position_is_edited_on_its_channels(planted, batch_of):
    problem = planted(groups=3, n=150)
    edited = leace(problem.model, batch_of(problem), layer="0")
    after = features(edited, problem.loader(), "0").features
    means = np.stack([after[problem.group == g].mean((0, 2, 3)) for g in range(3)])
    assert after.ndim == 4 and edited[0].edit.features == after.shape[1]
    np.testing.assert_allclose(means - means[0], 0, atol=1e-5)
