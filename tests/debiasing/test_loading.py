"""The user's loader is asked once what it draws, and keeps its batches, collate function and sampler."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from helpers.debiasing.loading import Rows


class Numbered(Dataset):
    """Image i is the constant i / 100, its target and group follow from i."""

    def __init__(self, n=50):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.full((3, 4, 4), i / 100), i % 2, i // 2 % 3


def numbers(batch):
    return (batch[0][:, 0, 0, 0] * 100).round().long()


def passes(loader):
    return torch.cat([numbers(batch) for batch in loader])


def collate(rows):
    collate.seen.append(len(rows))
    return torch.stack([r[0] for r in rows]), torch.tensor([r[1] for r in rows]), torch.tensor([r[2] for r in rows])


def loaders():
    data = Numbered()
    yield "plain", DataLoader(data, batch_size=8)
    yield "shuffled", DataLoader(data, batch_size=8, shuffle=True)
    yield "drop last", DataLoader(data, batch_size=8, shuffle=True, drop_last=True)
    yield "weighted", DataLoader(data, batch_size=8, sampler=WeightedRandomSampler(np.arange(50.0), 40))
    batches = list(DataLoader(data, batch_size=8))
    yield "list of batches", batches
    yield "batches without batch size", DataLoader(batches, batch_size=None)

    class Stream(IterableDataset):
        def __iter__(self):
            return iter([data[i] for i in range(30)])

        def __len__(self):
            return 30

    yield "stream", DataLoader(Stream(), batch_size=8)


@pytest.mark.parametrize("name, loader", list(loaders()), ids=lambda each: each if isinstance(each, str) else "")
def test_every_pass_gives_the_same_rows_in_the_same_order(name, loader):
    rows = Rows(loader)
    first = passes(rows.all)
    assert len(first) == len(rows) and rows.batch_size == 8
    assert torch.equal(first, passes(rows.all))
    assert [len(batch[1]) for batch in rows.all] == [8] * (len(rows) // 8) + [len(rows) % 8] * (len(rows) % 8 > 0)
    for images, target, group in rows.all:
        assert torch.equal(target, numbers((images,)) % 2) and torch.equal(group, numbers((images,)) // 2 % 3)


@pytest.mark.parametrize("name, loader", list(loaders()), ids=lambda each: each if isinstance(each, str) else "")
def test_a_part_is_those_rows_shuffled_anew_at_every_pass_and_the_same_with_the_same_seed(name, loader):
    rows = Rows(loader)
    first = passes(rows.all)
    chosen = np.arange(0, len(rows), 3)
    part, twin = rows.part(chosen, seed=4, batch_size=5), rows.part(chosen, seed=4, batch_size=5)
    one, two = passes(part), passes(part)
    assert torch.equal(one.sort().values, first[chosen].sort().values)
    assert torch.equal(two.sort().values, one.sort().values) and not torch.equal(one, two)
    assert torch.equal(one, passes(twin)) and torch.equal(two, passes(twin))
    assert len(part) == -(-len(chosen) // 5)


def test_the_collate_function_and_the_batch_size_are_the_users():
    collate.seen = []
    rows = Rows(DataLoader(Numbered(), batch_size=7, collate_fn=collate))
    assert collate.seen == []  # asking for the order reads nothing
    passes(rows.all)
    assert collate.seen == [7] * 7 + [1]
    next(iter(rows.part(np.arange(20))))
    assert collate.seen[-1] == 7


def test_looking_leaves_the_global_random_state():
    before = torch.random.get_rng_state()
    rows = Rows(DataLoader(Numbered(), batch_size=8, shuffle=True))
    passes(rows.all), passes(rows.part(np.arange(9)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_empty_loader_is_refused():
    with pytest.raises(ValueError, match="empty|no batch"):
        Rows(DataLoader(Numbered(3), batch_size=8, drop_last=True))
