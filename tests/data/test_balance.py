"""Balanced passes: every group, class or cell equally often. About a second on one thread."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helpers import models
from helpers.data import FaceDataset
from helpers.data.balance import BALANCES, kinds_of


def faces_of(targets, groups):
    """Image i has the value i everywhere, so that a batch tells which rows it holds."""
    table = pd.DataFrame({"t": targets, "g": groups})
    images = np.broadcast_to(np.arange(len(table), dtype=np.uint8)[:, None, None, None], (len(table), 4, 4, 3)).copy()
    return FaceDataset(images, table, target="t", protected="g")


def rows_of(loader):
    return [(images[:, 0, 0, 0] * 255).round().int().tolist() for images, _, _ in loader]


labels = st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60)


@given(labels, st.sampled_from(BALANCES), st.integers(0, 99), st.integers(1, 20))
def test_every_kind_comes_equally_often_and_so_does_every_row_of_it(rows, balance, seed, batch_size):
    faces = faces_of(*zip(*rows, *((t, g) for t in (False, True) for g in "abc"), strict=True))
    kinds = kinds_of(faces, balance)
    batches = rows_of(faces.loader(batch_size, seed=seed, balance=balance))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    drawn = np.array([row for batch in batches for row in batch])
    assert len(drawn) == len(faces)
    assert np.ptp(np.bincount(kinds[drawn])) <= 1
    often = np.bincount(drawn, minlength=len(faces))
    assert all(np.ptp(often[kinds == kind]) <= 1 for kind in np.unique(kinds))


def test_each_batch_draws_every_kind_with_equal_probability():
    faces = faces_of([0] * 170 + [1] * 20, ["a"] * 150 + ["b"] * 40)
    loader = faces.loader(10, seed=1, balance="group")
    firsts = np.array([next(iter(loader))[2].numpy() for _ in range(400)])
    n = firsts.size
    assert abs((firsts == 1).mean() - 0.5) < 4 * np.sqrt(0.25 / n)  # four standard deviations of a coin
    assert abs((faces.group == 1).mean() - 0.5) > 0.2
    seen = {row for _ in range(10) for batch in rows_of(loader) for row in batch}
    assert seen == set(range(len(faces)))  # the large group is not cut down for good


def test_the_same_seed_gives_the_same_batches_anew_at_each_pass_and_nothing_global_moves():
    faces = faces_of([0, 1] * 20, ["a", "a", "a", "b"] * 10)
    before = torch.get_rng_state()
    first, again, other = (faces.loader(8, seed=seed, balance="group") for seed in (3, 3, 4))
    passes = [rows_of(first), rows_of(first)]
    assert passes == [rows_of(again), rows_of(again)]
    assert passes[0] != passes[1] != rows_of(other)
    assert torch.equal(before, torch.get_rng_state())


def test_an_empty_kind_and_another_word_are_named():
    faces = faces_of([0, 1, 0], ["a", "a", "b"])
    with pytest.raises(ValueError, match="balance: no image in the cell t × b"):
        faces.loader(balance="cell")
    with pytest.raises(ValueError, match="no image in the group b"):
        faces.subset([0, 1]).loader(balance="group")
    with pytest.raises(ValueError, match="balance: unknown name 'cells'. Did you mean 'cell'"):
        faces.loader(balance="cells")


class Seen(nn.Module):
    """A model that keeps the groups and values of the images it was trained on."""

    def __init__(self):
        super().__init__()
        self.linear, self.values = nn.Linear(1, 2), []

    def forward(self, images):
        if self.training:
            self.values.append((images[:, 0, 0, 0] * 255).round().int().tolist())
        return self.linear(images.mean((1, 2, 3))[:, None])


def test_training_takes_balanced_batches_and_its_bytes_repeat():
    faces = faces_of([0] * 30 + [1] * 10, (["a"] * 20 + ["b"] * 10) + ["a"] * 3 + ["b"] * 7)
    start = Seen()  # each training takes a copy
    trained = models.train(faces, start, epochs=3, batch_size=16, seed=5, balance="cell", progress=False)
    kinds = kinds_of(faces, "cell")
    drawn = [row for batch in trained.values for row in batch]
    for epoch in range(3):
        rows = np.array(drawn[epoch * len(faces) : (epoch + 1) * len(faces)])
        assert np.bincount(kinds[rows]).tolist() == [10, 10, 10, 10]
    assert drawn[:40] != drawn[40:80]
    again = models.train(faces, start, epochs=3, batch_size=16, seed=5, balance="cell", progress=False)
    assert again.values == trained.values and torch.equal(again.linear.weight, trained.linear.weight)
    assert trained.info["training"]["balance"] == "cell"
    plain = models.train(faces, start, epochs=3, batch_size=16, seed=5, progress=False)
    assert sorted(row for batch in plain.values[:3] for row in batch) == list(range(40))


def test_a_loader_cannot_be_balanced_and_is_told_before_training():
    faces = faces_of([0, 1] * 4, ["a", "b"] * 4)
    with pytest.raises(ValueError, match="balance: DataLoader has an order of its own"):
        models.train(faces.loader(4), Seen(), balance="group", progress=False)
