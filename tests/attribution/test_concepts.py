"""TCAV on models whose dependence is known: planted concepts, slopes against finite differences, a test that keeps its level."""

import copy
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.attribution import concepts
from helpers.attribution.concepts import (
    Slopes,
    _dealt,
    between_sides,
    concept_vector,
    own_log_odds,
    scored,
    slopes,
    vectors_of_means,
)
from helpers.data.base import FaceDataset
from helpers.debiasing.cav import DIRECTIONS
from helpers.models.layers import capture

QUICK = {"halves": 10, "n_random": 99}


class Sees(nn.Module):
    """Features: red, green and blue of the image's mean, and noise; logits: a weighted sum of them."""

    def __init__(self, *weights):
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(3, len(weights))
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(weights))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.body(x))


def faces(n=200, groups=2, phi=0.0, strength=0.2, seed=0):
    """Red tells the class, green the group (the last from the others), blue nothing; class and last group agree with phi."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    group = np.where(rng.random(n) < (1 + phi) / 2, y, 1 - y) if groups == 2 else rng.integers(0, groups, n)
    channels = 0.5 + 0.05 * rng.normal(size=(n, 3))
    channels[:, 0] += strength * (y - 0.5)
    channels[:, 1] += strength * (group == groups - 1)
    images = np.broadcast_to(channels[:, :, None, None], (n, 3, 4, 4)).clip(0, 1).astype(np.float32).copy()
    return DataLoader(TensorDataset(torch.tensor(images), torch.tensor(y), torch.tensor(group)), batch_size=64)


def test_a_planted_dependence_is_found_with_its_size_and_only_there():
    data = faces()
    images, y, group = data.dataset.tensors
    green = images[:, 1].mean((1, 2)).numpy()
    expected = np.mean([green[(y == k) & (group == 1)].mean() - green[(y == k) & (group == 0)].mean() for k in (0, 1)])
    for weight in (3.0, -3.0):
        found = concepts(Sees([0.0, 0, 0], [2.0, weight, 0]), data, **QUICK)
        table = found.table.set_index("target")
        assert (table.verdict == "depends").all() and (table.separation > 0.95).all()
        assert table.effect["1"] == pytest.approx(weight * expected, abs=0.02)
        assert table.effect["0"] == pytest.approx(-table.effect["1"], rel=1e-5)
        assert table.low["1"] < table.effect["1"] < table.high["1"] < table.low["1"] + 0.15
        assert table.tcav["1"] == (weight > 0) and table.p.max() == 0.01
        assert "2 of 2" in repr(found) and "log-odds" in repr(found)
    blind = concepts(Sees([0.0, 0, 0], [2.0, 0, 1.0]), data, **QUICK).table
    assert (blind.verdict == "within noise").all() and (blind.separation > 0.95).all()  # it is known there, but not used
    nothing = concepts(Sees([0.0, 0, 0], [2.0, 0, 1.0]), faces(strength=0.0), **QUICK).table
    assert (nothing.verdict == "within noise").all() and nothing.separation.between(0.35, 0.65).all()


@pytest.mark.parametrize("cav_type", sorted(DIRECTIONS))
def test_what_goes_with_the_class_is_not_taken_for_the_concept(cav_type):
    data = faces(phi=0.8)
    images, y, group = (each.numpy() for each in data.dataset.tensors)
    features = images.mean((2, 3)).astype(float)
    naive = DIRECTIONS[cav_type]((features - features.mean(0)) / features.std(), group.astype(float), 0)
    within, distance = concept_vector(features, y, group == 1, DIRECTIONS[cav_type], 0)
    assert within[1] > 0.9 and abs(within[0]) < 0.3 and distance == pytest.approx(0.2, abs=0.03)
    if cav_type in ("signal", "mean_difference"):
        assert naive[0] / np.linalg.norm(naive) > 0.5  # which the red of the class would otherwise pull aside
    blind = Sees([0.0, 0, 0], [2.0, 0, 0])
    assert (concepts(blind, data, cav_type=cav_type, halves=4, n_random=39).table.verdict == "within noise").all()


def test_all_splits_at_once_are_each_split_alone():
    rng = np.random.default_rng(0)
    y, member, inside = rng.integers(0, 3, 60), rng.random((7, 60)) < 0.3, rng.random((7, 60)) < 0.6
    member[0] = y == 1  # no class has both
    member[1, y == 2] = False
    features = rng.normal(size=(60, 5))
    found = vectors_of_means(features, y, member, inside)
    for row, of, rows in zip(found, member, inside, strict=True):
        vector, distance = concept_vector(features[rows], y[rows], of[rows], DIRECTIONS["signal"], 0)
        np.testing.assert_allclose(row, vector * distance, atol=1e-12)
    at = Slopes(features, rng.normal(size=(60, 5)))
    one = scored(at, y, member, inside, "signal", 0)
    DIRECTIONS["same"] = DIRECTIONS["signal"]  # under a name that is not known to be a difference of means
    try:
        other = scored(at, y, member, inside, "same", 0)
    finally:
        del DIRECTIONS["same"]
    for k in range(3):
        np.testing.assert_allclose(one[k], other[k])
        assert np.isnan(one[k][0]).all() and np.isfinite(one[k][1:]).all()


def test_groups_beyond_two_and_their_names():
    data = faces(300, groups=3)
    pixels = (data.dataset.tensors[0] * 255).byte().permute(0, 2, 3, 1).numpy()
    ages = np.array(["young", "middle", "old"])[data.dataset.tensors[2]]
    table = pd.DataFrame({"smiling": data.dataset.tensors[1].bool(), "age": ages})
    named = FaceDataset(pixels, table, target="smiling", protected="age")
    found = concepts(Sees([0.0, 0, 0], [2.0, 3.0, 0]), named, halves=10, n_random=299).table.set_index(["target", "group"])
    assert set(found.index.get_level_values("group")) == {"young", "middle", "old"}
    effect = found.effect["smiling"]
    assert effect["old"] > 0.4 and effect["young"] < -0.1 and effect["middle"] < -0.1 and (found.verdict == "depends").all()


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(20, 3),
    ).double()  # fmt: skip


def some(n=12, classes=3):
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(n, 3, 8, 8, generator=draw, dtype=torch.float64)
    return DataLoader(TensorDataset(images, torch.arange(n) % classes, torch.arange(n) // 3 % 2), batch_size=5)


@pytest.mark.parametrize("layer", ["0", "2", "3", "5"])
def test_slopes_are_finite_differences_of_the_log_odds(layer):
    with torch.random.fork_rng():
        model = network().eval()
    data = some()
    seen, y, _ = slopes(model, data, [layer])
    images = data.dataset.tensors[0]
    direction = np.random.default_rng(0).normal(size=seen[layer].features.shape[1])
    shape = (1, -1, 1, 1) if layer != "5" else (1, -1)
    step = torch.tensor(direction).reshape(shape)

    def odds(size):
        hook = model.get_submodule(layer).register_forward_hook(lambda module, args, output: output + size * step)
        with torch.no_grad():
            found = own_log_odds(model(images), torch.tensor(y)).numpy()
        hook.remove()
        return found

    np.testing.assert_allclose(seen[layer].gradients @ direction, (odds(1e-6) - odds(-1e-6)) / 2e-6, rtol=1e-4, atol=1e-7)
    with torch.no_grad(), capture(model, layer) as outputs:
        model(images)
    flat = outputs[layer].mean((2, 3)) if outputs[layer].ndim == 4 else outputs[layer]
    np.testing.assert_allclose(seen[layer].features, flat.numpy(), atol=1e-12)


def test_log_odds():
    logits, y = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 4
    p = logits.softmax(1)[torch.arange(20), y]
    torch.testing.assert_close(own_log_odds(logits, y), (p / (1 - p)).log())
    one, binary = logits[:, :1], (y > 1).long()
    both = torch.cat([torch.zeros_like(one), one], 1)
    torch.testing.assert_close(own_log_odds(one, binary), own_log_odds(both, binary))


def test_the_model_stays_as_it_was_and_the_seed_decides():
    with torch.random.fork_rng():
        model = network().train()
    state, random = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    first = concepts(model, some(), ["0", "3", "5"], halves=4, n_random=19)
    assert model.training and torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules()) and all(p.grad is None for p in model.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        again = concepts(model, some(), ["0", "3", "5"], halves=4, n_random=19)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert list(first.table.layer.unique()) == ["0", "3", "5"] and len(first.table) == 9
    assert first.scores.groupby("kind").size().to_dict() == {"concept": 9 * 4, "random": 9 * 19}


def test_the_unit_of_a_layer_does_not_matter():
    data, model = faces(phi=0.5), Sees([0.0, 0, 0], [2.0, 1.0, 0])
    scaled = copy.deepcopy(model)
    scaled.body = nn.Sequential(*model.body, nn.Linear(3, 3))
    with torch.no_grad():
        scaled.body[2].weight.copy_(100 * torch.eye(3))
        scaled.body[2].bias.fill_(7)
        scaled.head.weight.div_(100)
    one, other = (concepts(each, data, "body", **QUICK).table for each in (model, scaled))
    pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-4)


def test_the_error_rate_is_the_level_and_that_of_the_papers_test_is_not():
    """Groups that mean nothing, on a model that sees all three colours."""
    model, p, theirs = Sees([0.0, 0, 0], [2.0, 1.0, -1.0]), [], []
    for seed in range(120):
        found = concepts(model, faces(40, strength=0.0, seed=seed), halves=10, n_random=39, seed=seed)
        row = found.table.iloc[1]
        p.append(row.p)
        tcav = found.scores[found.scores.target == row.target].groupby("kind").tcav.apply(np.array)
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):  # most scores are all 0 or all 1
            theirs.append(stats.ttest_ind(tcav["concept"], tcav["random"], equal_var=False).pvalue)
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    assert 0.35 < np.mean(p) < 0.65
    assert np.mean(np.array(theirs) <= 0.05) > 0.3  # false alarms


def test_images_of_one_person_are_no_independent_evidence():
    model, alone, people = Sees([0.0, 0, 0], [2.0, 1.0, -1.0]), [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        person = np.repeat(np.arange(12), 8)
        y, group = np.arange(96) % 2, person % 2
        if seed % 2:  # half of the time one image of each class is in the other group
            group = np.where(np.arange(96) % 8 < 2, 1 - group, group)
        channels = 0.5 + 0.08 * rng.normal(size=(12, 3))[person] + 0.02 * rng.normal(size=(96, 3))
        images = torch.tensor(channels, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 2, 2).clamp(0, 1)
        data = DataLoader(TensorDataset(images, torch.tensor(y), torch.tensor(group)), batch_size=96)
        options = {"halves": 2, "n_random": 39, "seed": seed}
        alone.append(concepts(model, data, **options).table.p.iloc[1])
        people.append(concepts(model, data, identity=person, **options).table.p.iloc[1])
    assert np.mean(np.array(alone) <= 0.05) > 0.2 and np.mean(np.array(people) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


@pytest.mark.parametrize("nested", [True, False])
def test_random_splits_keep_people_and_classes(nested):
    rng = np.random.default_rng(0)
    person = rng.permutation(np.repeat(np.arange(30), 4))
    y = rng.integers(0, 2, 120)
    group = person % 3 if nested else rng.integers(0, 3, 120) // (1 + person % 2)
    splits = np.array([_dealt(y, group, person, rng) for _ in range(300)])
    for split in splits:
        assert sorted(split) == sorted(group)
        if nested:
            assert all(len(np.unique(split[person == who])) == 1 for who in range(30))
        else:
            assert all(sorted(split[y == k]) == sorted(group[y == k]) for k in (0, 1))  # as many of each class and group
    alike = (splits == group).mean(0)
    assert np.mean(alike) < 0.6 and np.mean(alike == 1) < 0.2  # and the splits are splits anew


def test_centring_keeps_what_is_between_the_sides_of_a_class():
    rng = np.random.default_rng(0)
    x, y, member = rng.normal(size=(50, 4)), rng.integers(0, 3, 50), rng.random(50) < 0.3
    centred = between_sides(x, y, member)
    for k in range(3):
        one, other = (centred[(y == k) & side].mean(0) for side in (member, ~member))
        np.testing.assert_allclose(one, -other)
        np.testing.assert_allclose(one - other, x[(y == k) & member].mean(0) - x[(y == k) & ~member].mean(0))


def test_what_cannot_be_answered_is_refused():
    data, model = faces(40), Sees([0.0, 0, 0], [2.0, 1.0, 0])
    images, y, group = data.dataset.tensors
    loader = lambda y, group: DataLoader(TensorDataset(images, y, group), batch_size=20)
    with torch.random.fork_rng():
        tokens = nn.Sequential(nn.Unflatten(2, (1, 4)), nn.Flatten(1), nn.Linear(48, 2))
    unused = copy.deepcopy(model)
    unused.spare = nn.Linear(3, 3)
    for call, message in [
        (lambda: concepts(model, loader(y, group * 0)), "group: 1 group in the data"),
        (lambda: concepts(model, loader(y, y)), "group: no class has two images of 1"),
        (lambda: concepts(model, data, "bodi"), "Did you mean 'body'"),
        (lambda: concepts(model, data, []), "layers: none given"),
        (lambda: concepts(unused, data, "spare"), "layers: 'spare' puts out no tensor; layers that run: body.0"),
        (lambda: concepts(tokens, data, "0"), "layers: an output of shape"),
        (lambda: concepts(model, data, cav_type="signl"), "Did you mean 'signal'"),
        (lambda: concepts(model, data, identity=[1, 2]), "identity: 2 rows given for 40 images"),
        (lambda: concepts(model, data, halves=1), "halves: 1 given"),
        (lambda: concepts(model, data, confidence=95), "confidence: 95"),
        (lambda: concepts(model, data, None), "layer: unknown name None"),
        (lambda: concepts(model, data, seed=-1), "seed: -1 given"),
        (lambda: concepts(model.forward, data), "model: expected a torch.nn.Module, got method"),
        (lambda: concepts(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(48, 2))), data), "layers of TorchScript"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert not any(module._forward_hooks for module in unused.modules())


def test_layers_of_a_compiled_model_go_by_their_names():
    data, model = faces(40), Sees([0.0, 0, 0], [2.0, 1.0, 0])
    both = model, torch.compile(model, backend="eager")
    found = [concepts(each, data, "body.0", halves=4, n_random=20).table for each in both]
    pd.testing.assert_frame_equal(*found)
