import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from helpers.debiasing.leace import fit_eraser, leace
from helpers.debiasing.probe import probe
from helpers.models import features


def told(n=400, groups=3, d=6, strength=3.0, seed=0):
    """Features in which the group is linearly planted, groups of unequal size."""
    rng = np.random.default_rng(seed)
    group = rng.choice(groups, n, p=np.arange(1, groups + 1) / sum(range(1, groups + 1)))
    return rng.normal(size=(n, d)) + strength * np.eye(groups, d)[group], group


def on_own_rows(x, z):
    """Accuracy of a linear probe fitted and judged on the same rows."""
    x = (x - x.mean(0)) / x.std()
    return LogisticRegression(C=10, max_iter=3000).fit(x, z).score(x, z)


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_a_planted_group_is_found_and_one_of_chance_is_not(groups):
    x, group = told(groups=groups)
    found = probe(x, group)
    assert found.chance == 1 / groups and found.accuracy > 0.85 and found.low > found.chance
    nothing = probe(np.random.default_rng(1).permutation(x), group)
    assert nothing.low < nothing.chance < nothing.high
    assert found.accuracy == pytest.approx(np.mean([found.right[group == g].mean() for g in range(groups)]))
    change, low, high = nothing.change(found)
    assert change == pytest.approx(nothing.accuracy - found.accuracy) and low < change < high < 0
    with pytest.raises(ValueError, match="before: a probe of other images"):
        nothing.change(probe(x, group[::-1]))


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_after_leace_a_probe_is_at_chance_and_the_loaders_batches_do_not_matter(planted, batch_of, groups):
    problem = planted(groups=groups, n=300)
    chance = np.bincount(problem.group).max() / len(problem.group)
    before = features(problem.model, problem.loader()).features
    assert on_own_rows(before, problem.group) > chance + 0.2
    edits = []
    for batch_size in (1, 8, 64, 300):
        edited = leace(problem.model, batch_of(problem, batch_size))
        after = features(edited, problem.loader(batch_size)).features
        assert on_own_rows(after, problem.group) <= chance + 1e-3
        edits.append(edited[3].edit(torch.from_numpy(before)))
    for other in edits[1:]:
        torch.testing.assert_close(other, edits[0], atol=1e-5, rtol=0)


def test_leace_holds_for_fresh_images_but_crossed_on_its_own_it_falls_below_chance():
    x, group = told(n=4000, d=20)
    fresh, fresh_group = told(n=4000, d=20, seed=1)
    eraser = fit_eraser([(torch.from_numpy(x).float(), torch.from_numpy(group))], 3)
    erase = lambda x: eraser(torch.from_numpy(x).float()).numpy()
    assert probe(fresh, fresh_group).accuracy > 0.9
    assert abs(probe(erase(fresh), fresh_group).accuracy - 1 / 3) < 0.04
    few = slice(0, 150)
    own = fit_eraser([(torch.from_numpy(x[few]).float(), torch.from_numpy(group[few]))], 3)
    assert probe(own(torch.from_numpy(x[few]).float()).numpy(), group[few]).high < 1 / 3


def test_a_person_is_not_in_the_part_that_is_judged_and_in_the_rest():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(60), 4)
    group = np.repeat(rng.integers(0, 2, 60), 4)  # of the person: who it is tells the group, but of that person alone
    x = np.eye(60)[people] + rng.normal(0, 0.01, (240, 60))
    assert probe(x, group, C=10).accuracy > 0.95
    apart = probe(x, group, identity=people, C=10)
    assert abs(apart.accuracy - 0.5) < 0.2 and apart.low < 0.5


def test_maps_are_averaged_and_an_emptied_feature_is_not_blown_up():
    x, group = told()
    maps = np.stack([x - 1, x + 1], -1)[..., None] @ np.ones((1, 3))
    assert probe(maps, group).accuracy == probe(x, group).accuracy
    empty = np.random.default_rng(0).normal(size=(400, 5))
    leftover = np.column_stack([empty, 1e-9 * group])  # what rounding leaves of an erased direction
    found = probe(leftover, group)
    assert found.low < found.chance < found.high


@pytest.mark.parametrize(
    "change, message",
    [
        ({"group": np.zeros(400, int)}, "group: all 400 images are of group 0"),
        ({"group": np.zeros(3, int)}, "group: 400 codes expected"),
        ({"group": np.r_[np.zeros(399, int), 1]}, "group: one has a single image"),
        ({"identity": np.zeros(400, int)}, "group: one has a single person"),
        ({"identity": np.zeros(3, int)}, "identity: 3 rows"),
        ({"folds": 1}, "folds: 1 given"),
        ({"C": 0}, "C: 0 given"),
        ({"confidence": 95}, "confidence: 95"),
        ({"features": np.full((400, 2), np.nan)}, "features: 400 of 400 rows are not finite"),
        ({"features": np.zeros(400)}, r"features: \(N, d\)"),
    ],
)
def test_bad_input_is_named(change, message):
    x, group = told()
    with pytest.raises(ValueError, match=message):
        probe(**{"features": x, "group": group} | change)
