import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers.debiasing.cav import DIRECTIONS, directions
from helpers.debiasing.method import Batch, count_cells
from helpers.debiasing.pclarc import concept, pclarc, reading
from helpers.models import features


@pytest.mark.parametrize("cav_type", sorted(DIRECTIONS))
def test_every_kind_of_vector_finds_a_planted_direction(cav_type):
    rng = np.random.default_rng(0)
    planted = rng.normal(size=12)
    planted /= np.linalg.norm(planted)
    group = rng.integers(0, 2, 1500)
    x = rng.normal(size=(1500, 12)) + 1.5 * group[:, None] * planted + 7  # far from the origin
    found = directions(x, group, cav_type)
    assert found.shape == (12, 1)
    assert abs(found[:, 0] @ planted) > 0.97
    np.testing.assert_allclose(found, directions(x * 100, group, cav_type), atol=1e-3)  # scale does not matter


def test_signal_ignores_a_distractor_that_a_filter_follows():
    rng = np.random.default_rng(1)
    group, noise = rng.integers(0, 2, 4000), rng.normal(size=4000)
    x = np.stack([group + noise, noise], 1) + 0.1 * rng.normal(size=(4000, 2))
    assert abs(directions(x, group, "signal")[0, 0]) > 0.99
    assert abs(directions(x, group, "ridge")[0, 0]) < 0.9


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_the_features_are_projected_and_their_projection_is_the_reference(planted, batch_of, groups):
    problem = planted(groups=groups, n=300)
    edited = pclarc(problem.model, batch_of(problem), reference=1, projection="orthogonal")
    before = features(problem.model, problem.loader()).features.astype(float)
    after = features(edited, problem.loader()).features
    cell = np.stack([[before[(problem.group == g) & (problem.y == c)].mean(0) for c in (0, 1)] for g in range(groups)])
    centred = before - cell.mean(0)[problem.y]
    means = np.stack([centred[problem.group == g].mean(0) for g in range(groups)])
    # Independent: the span of "this group against the rest" is the span of the differences of group means.
    basis = np.linalg.svd((means - means[0]).T)[0][:, : groups - 1]
    z = before[problem.group == 1].mean(0)
    expected = np.stack([x - sum(v * (v @ (x - z)) for v in basis.T) for x in before])
    np.testing.assert_allclose(after, expected, atol=1e-4)
    np.testing.assert_allclose(after @ basis, np.tile(z @ basis, (len(after), 1)), atol=1e-4)
    assert np.ptp(before @ basis, axis=0).min() > 0.01  # there was something to project out


def of_arrays(x, y, group, chunk=1000):
    """A Batch whose only layer puts out x, a chunk of rows at a time."""
    features = torch.tensor(x, dtype=torch.float32)
    stream = lambda layer: (layer, iter(features.split(chunk)))
    logits = torch.zeros(len(y), y.max() + 1)
    return Batch(y, group, logits, "x", "last", cells=count_cells(y, group), data=range(len(y)), stream=stream)


def found_direction(x, y, group, cav_type="signal", flatten=False):
    return concept(of_arrays(x, y, group), "x", cav_type, flatten)[1]


def test_a_target_that_goes_with_the_group_is_not_projected_out_with_it():
    """Nine of ten faces have group = target: the plain difference of the groups would be mostly the target's."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4000)
    group = np.where(rng.random(4000) < 0.9, y, 1 - y)
    x = rng.normal(size=(4000, 5)) * 0.1
    x[:, 0] += 3 * y
    x[:, 1] += group
    for cav_type in DIRECTIONS:
        found = found_direction(x, y, group, cav_type)[:, 0]
        assert abs(found[1]) > 0.99, cav_type
    assert abs(directions(x, group, "signal")[0, 0]) > 0.9
    kept = x[(y == 1) | (group == 0)]  # with an empty cell the other class tells the groups apart
    rows = (y == 1) | (group == 0)
    assert abs(found_direction(kept, y[rows], group[rows])[1, 0]) > 0.99
    with pytest.raises(ValueError, match="same features"):
        found_direction(x, y, y)


@pytest.mark.parametrize("groups, chunk", [(2, 7), (3, 1000), (5, 64)])
def test_means_of_cells_read_in_parts_give_the_directions_of_the_whole_array(groups, chunk):
    rng = np.random.default_rng(groups)
    y, group = rng.integers(0, 3, 500), rng.integers(0, groups, 500)
    x = rng.normal(size=(500, 9)) + rng.normal(size=(groups, 9))[group] + 2 * rng.normal(size=(3, 9))[y] + 100
    centre = np.stack([np.mean([x[(y == c) & (group == g)].mean(0) for g in range(groups)], 0) for c in range(3)])
    slow = directions(x - centre[y], group, "signal")
    name, basis, cells = concept(of_arrays(x, y, group, chunk), "x", "mmp", False)
    np.testing.assert_allclose(basis @ basis.T, slow @ slow.T, atol=1e-4)
    np.testing.assert_allclose(cells.scale, np.sqrt(x.var(0).mean()), rtol=1e-4)  # though the values are far from 0


def test_the_balanced_reference_counts_cells_equally(planted, batch_of):
    problem = planted(n=300)
    edited = pclarc(problem.model, batch_of(problem))
    x = features(problem.model, problem.loader()).features
    z = np.mean([x[(problem.group == g) & (problem.y == c)].mean(0) for g in (0, 1) for c in (0, 1)], axis=0)
    edit = edited[3].edit
    torch.testing.assert_close(edit(torch.tensor(z)[None]), torch.tensor(z)[None], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cav_type": "ridgee"}, "Did you mean 'ridge'"),
        ({"reference": 7}, "reference: 7 is neither"),
        ({"reference": "first"}, "reference: 'first' is neither"),
        ({"layer": "4x"}, "layer"),
        ({"projection": "skew"}, "projection"),
    ],
)
def test_bad_options_are_named(planted, batch_of, options, message):
    problem = planted(n=300)
    with pytest.raises(ValueError, match=message):
        pclarc(problem.model, batch_of(problem), **options)


def test_groups_that_do_not_differ_are_refused():
    with pytest.raises(ValueError, match="same features"):
        directions(np.ones((10, 3)), np.arange(10) % 2)
    with pytest.raises(ValueError, match="needs two"):
        directions(np.eye(4), np.zeros(4, int))


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_read_obliquely_groups_agree_and_classes_keep_their_difference(planted, batch_of, groups):
    problem = planted(groups=groups, n=600)
    edited = pclarc(problem.model, batch_of(problem))
    before, after = (features(m, problem.loader()).features.astype(float) for m in (problem.model, edited))
    cells = lambda x: np.stack([[x[(problem.group == g) & (problem.y == c)].mean(0) for c in (0, 1)] for g in range(groups)])
    one, other = cells(before), cells(after)
    # Groups agree where their classes count equally, and what the classes differ by is what it was.
    spread = lambda m: np.linalg.norm(m.mean(1) - m.mean((0, 1)))
    assert spread(other) < 0.02 * spread(one)
    np.testing.assert_allclose(other.mean(0)[1] - other.mean(0)[0], one.mean(0)[1] - one.mean(0)[0], atol=1e-5)


def test_of_all_readings_it_is_the_steadiest():
    """Minimum of f' M f under f' v = 1 and f' u = 0, by a solver that knows nothing of the closed form."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 900), rng.integers(0, 2, 900)
    x = rng.normal(size=(900, 6)) @ rng.normal(size=(6, 6))
    x += np.outer(group, rng.normal(size=6)) + np.outer(y, rng.normal(size=6))
    _, basis, cells = concept(of_arrays(x, y, group), "x", "signal", False, widest=6)
    within = np.cov((x - cells.mean[group, y]).T, bias=True)
    np.testing.assert_allclose(cells.within, within, rtol=1e-3, atol=1e-3)
    metric = 0.9 * within + 0.1 * np.trace(within) / 6 * np.eye(6)
    v, u = basis[:, 0], cells.mean[:, 1].mean(0) - cells.mean[:, 0].mean(0)
    bounds = [{"type": "eq", "fun": lambda f: f @ v - 1}, {"type": "eq", "fun": lambda f: f @ u}]
    slow = minimize(lambda f: f @ metric @ f, v, constraints=bounds, options={"ftol": 1e-14, "maxiter": 500})
    np.testing.assert_allclose(reading(basis, cells)[:, 0], slow.x, atol=2e-3)


def test_a_target_in_one_direction_with_the_group_survives_only_the_oblique_projection():
    """Cosine 0.97 between what the classes and what the groups differ by, as in trained networks."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 2000), rng.integers(0, 2, 2000)
    target, concept_vector = np.eye(8)[0], 0.97 * np.eye(8)[0] + np.sqrt(1 - 0.97**2) * np.eye(8)[1]
    x = rng.normal(size=(2000, 8)) * [0.3, 0.03, *6 * [0.3]] + np.outer(y, target) + np.outer(group, concept_vector)
    _, basis, cells = concept(of_arrays(x, y, group), "x", "signal", False, widest=8)
    left = {}
    for name, reader in (("orthogonal", basis), ("oblique", reading(basis, cells))):
        edited = x - (x - cells.mean.mean((0, 1))) @ reader @ basis.T
        left[name] = edited[y == 1].mean(0) - edited[y == 0].mean(0)
        np.testing.assert_allclose(edited[group == 1].mean(0), edited[group == 0].mean(0), atol=0.1)
    assert np.linalg.norm(left["orthogonal"]) < 0.35
    np.testing.assert_allclose(left["oblique"], target, atol=0.05)


@pytest.mark.parametrize("flatten", [False, True])
def test_memory_grows_with_the_features_and_not_with_the_images(flatten):
    """Peak memory of a process that edits the maps of 600 images, 157 MB, beyond what it takes for those of 32."""
    script = MEMORY.replace("FLATTEN", str(flatten))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    grown, maps = map(float, done.stdout.split())
    assert maps > 140 and grown < maps / 4, (grown, maps)


MEMORY = """
import resource, torch
from torch import nn
from helpers.debiasing.method import collect
from helpers.debiasing.pclarc import pclarc

class Faces(torch.utils.data.Dataset):
    def __init__(self, n):
        self.n = n
    def __len__(self):
        return self.n
    def __getitem__(self, i):
        return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(i)) * (0.5 + i % 2), i // 2 % 2, i % 2

torch.set_num_threads(1)
model = nn.Sequential(nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)).eval()
peak = []
for n in (32, 600):
    batch = collect(model, torch.utils.data.DataLoader(Faces(n), batch_size=16), torch.rand(2, 3, 64, 64))
    edited = pclarc(model, batch, layer="0", flatten=FLATTEN)
    peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peak[1] - peak[0], 600 * 64 * 32 * 32 * 4 / 2**20)
"""
