"""What the methods that train share: who is drawn, what a step does, what is refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.debiasing import METHODS
from helpers.debiasing.method import collect
from helpers.debiasing.tuning import cell_weights, drawn, plain, rounds, steps, tune
from helpers.models.training import task_loss
from tests.debiasing.conftest import QUICK, TRAINING

HOW = {"lr": 1e-2, "batch_size": 32, "augment": None}


def test_equal_weights_draw_every_row_once_and_others_in_proportion():
    rng = np.random.default_rng(0)
    one, two = (drawn(np.full(500, 0.3), rng) for _ in range(2))
    assert np.array_equal(np.sort(one), np.arange(500)) and not np.array_equal(one, two)
    weights = rng.exponential(size=500) ** 2 * (rng.random(500) < 0.7)
    exact = 500 * weights / weights.sum()
    counts = [np.bincount(drawn(weights, rng), minlength=500) for _ in range(400)]
    for count in counts:
        assert count.sum() == 500 and (count >= np.floor(exact)).all() and (count <= np.ceil(exact)).all()
    np.testing.assert_allclose(np.mean(counts, 0), exact, atol=0.13)  # rounding up and down evens out


def test_every_cell_that_occurs_has_the_same_weight_in_all(planted, batch_of):
    batch = batch_of(planted(groups=3))
    cell = batch.group * 2 + batch.y
    kept = batch.take(np.flatnonzero((cell != 4) & ((cell != 1) | (np.arange(len(cell)) % 7 == 0))))  # one empty, one rare
    cell, weights = kept.group * 2 + kept.y, cell_weights(kept)
    assert weights.sum() == pytest.approx(len(kept))
    totals = np.bincount(cell, weights, minlength=6)
    assert totals[4] == 0
    np.testing.assert_allclose(totals[[0, 1, 2, 3, 5]], len(kept) / 5)


def test_the_steps_are_those_of_adamw_with_one_cycle_and_a_bounded_gradient(planted, batch_of):
    problem = planted(n=60)
    batch, steep = batch_of(problem), 50.0  # so that the bound is met
    found, expected = copy.deepcopy(problem.model), copy.deepcopy(problem.model)
    for images, target, _ in steps(found, batch, count=4, lr=1e-2, batch_size=60, augment=None):
        (steep * task_loss(found(images), target)).backward()
    optimizer = torch.optim.AdamW(expected.parameters(), lr=1e-2, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=4)
    for _ in range(4):
        optimizer.zero_grad()
        (steep * task_loss(expected(problem.images), torch.tensor(problem.y))).backward()
        norm = torch.cat([p.grad.flatten() for p in expected.parameters()]).norm()
        assert norm > 1
        for p in expected.parameters():
            p.grad /= norm
        optimizer.step()
        schedule.step()
    for a, b, before in zip(*(m.parameters() for m in (found, expected, problem.model)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        assert (a - before).abs().max() > 1e-3


def test_passes_take_every_image_mirrored_half_the_time(planted, batch_of):
    problem = planted(n=60)
    batch, model = batch_of(problem), copy.deepcopy(problem.model)
    own = {image.numpy().tobytes(): (i, False) for i, image in enumerate(problem.images)}
    own |= {image.flip(-1).contiguous().numpy().tobytes(): (i, True) for i, image in enumerate(problem.images)}
    for augment in (None, "flip"):
        seen = []
        for images, target, group in steps(model, batch, count=9, lr=1e-9, batch_size=20, augment=augment):
            assert model.training
            rows = [own[image.contiguous().numpy().tobytes()] for image in images]
            seen += rows
            assert [problem.y[i] for i, _ in rows] == target.tolist() and [problem.group[i] for i, _ in rows] == group.tolist()
            task_loss(model(images), target).backward()
        assert not model.training
        assert sorted(i for i, _ in seen) == sorted(3 * list(range(60)))  # 9 steps of 20 are three passes
        assert abs(sum(m for _, m in seen) - 90) < 30 if augment else not any(m for _, m in seen)


class Normalised(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("n, size, sizes", [(33, 32, [32]), (34, 32, [32, 2]), (5, 32, [5]), (3, 1, [1, 1, 1])])
def test_a_last_batch_of_one_image_is_left_out(n, size, sizes):
    data = TensorDataset(torch.rand(n, 3, 8, 8), torch.arange(n) % 2, torch.arange(n) // 2 % 2)
    model = Normalised().eval() if size > 1 else nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    batch = collect(model, DataLoader(data, batch_size=8), data.tensors[0][:2])
    seen = []

    def loss(logits, target, group):
        seen.append(len(target))
        return task_loss(logits, target)

    tune(model, batch, loss, epochs=2, lr=1e-3, batch_size=size, augment=None)
    assert seen == 2 * sizes


def test_rounds_make_the_passes_asked_for(planted, batch_of):
    batch = batch_of(planted())  # 600 images in a loader of 64
    assert rounds(batch, 20, 4, None, 3) * 3 * 20 == 4 * 600
    assert rounds(batch, None, 4, None, 1) == round(4 * 600 / 64)
    assert rounds(batch, 20, 4, 7, 3) == 7 and rounds(batch.take(np.arange(4)), 32, 1, None, 9) == 1
    with pytest.raises(ValueError, match="iterations: got 0"):
        rounds(batch, 20, 4, 0, 3)


def test_a_gradient_that_is_no_number_is_told(planted, batch_of):
    broken = lambda logits, target, group: logits.sum() * float("nan")
    with pytest.raises(FloatingPointError, match="a gradient became nan"):
        tune(planted().model, batch_of(planted()), broken, epochs=1, **HOW)


@pytest.mark.parametrize("key", TRAINING)
def test_frozen_parameters_stay_and_with_nothing_to_train_it_says_so(planted, batch_of, key):
    problem = planted(n=300)
    model = copy.deepcopy(problem.model)
    model[0].requires_grad_(False)
    tuned = METHODS[key].function(model, batch_of(problem), **QUICK[key])
    parameters = [p for p in tuned.parameters()]
    assert torch.equal(parameters[0], model[0].weight) and not torch.equal(parameters[2], model[4].weight)
    with pytest.raises(ValueError, match="no parameter has requires_grad"):
        METHODS[key].function(model.requires_grad_(False), batch_of(problem))


@pytest.mark.parametrize("key", TRAINING)
def test_another_seed_draws_other_batches_and_the_same_the_same(planted, batch_of, key):
    problem = planted(n=300)
    batch = batch_of(problem)

    def weights(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tuned = METHODS[key].function(problem.model, replace(batch, seed=seed), **QUICK[key])
        return torch.cat([p.flatten() for p in tuned.parameters()])

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


REFUSED = [
    ("lr", 0.0, "lr: got 0.0"),
    ("lr", float("inf"), "lr: got inf"),
    ("batch_size", 0, "batch_size: got 0"),
    ("augment", "flop", "augment: unknown name 'flop'. Did you mean 'flip'"),
    ("epochs", 0, "epochs: got 0"),
    ("epochs", 1.5, "epochs: got 1.5"),
    ("iterations", 0, "iterations: got 0"),
    ("critic_iterations", 0, "critic_iterations: got 0"),
    ("model_iterations", 0, "model_iterations: got 0"),
    ("critic_lr", -1, "critic_lr: got -1"),
    ("bias_metric", "EO_GAPP", "bias_metric: unknown name 'eo_gapp'. Accepted: equalized_odds"),
    ("alpha", -1.0, "alpha: "),
    ("step_size", 0.0, "step_size: got 0.0"),
    ("adjustment", -1.0, "adjustment: got -1.0"),
    ("upweight", 0.0, "upweight: got 0.0"),
    ("identify_epochs", -1, "identify_epochs: got -1"),
    ("loss", "kll", "loss: unknown name 'kll'"),
    ("loss", 3, "loss: got 3"),
    ("statistic", "odds", "equalize: unknown name 'odds'"),
    ("strength", -1.0, "strength: got -1.0"),
    ("p_norm", 3, "p_norm: 3"),
    ("tolerance", -1.0, "tolerance: -1.0"),
    ("epsilon", -1.0, "epsilon: got -1.0"),
    ("lam", float("nan"), "lam: got nan"),
    ("delta", -1.0, "delta: got -1.0"),
]


@pytest.mark.parametrize(
    "key, option, value, message", [(key, *case) for key in TRAINING for case in REFUSED if case[0] in METHODS[key].defaults]
)
def test_bad_options_are_named(planted, batch_of, key, option, value, message):
    with pytest.raises(ValueError, match=message):
        METHODS[key].function(planted(n=300).model, batch_of(planted(n=300)), **{option: value})


def test_plain_is_the_cross_entropy_that_training_uses():
    logits, target = torch.randn(6, 3), torch.arange(6) % 3
    assert plain(logits, target, target) == task_loss(logits, target)
