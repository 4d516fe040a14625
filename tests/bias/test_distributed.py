"""Two processes that exchange their states by gloo give what one process gives, to the last bit of the counts.

pytest runs the tests; run as a script, with a rank and a folder, this file is one of the two processes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.bias import GroupStatistics, LinearFractionalParity, audit
from helpers.bias.metric import gap_abs_max
from helpers.bias.statistics import FalsePositiveRate, StackedLinearFractionalStatistic, TruePositiveRate

ROWS = 301
#: Which rows each of the two processes sees, in which batches: unequal ones, and none at all for one of them.
SPLITS = {
    "unequal": ([range(0, 40), range(40, 170)], [range(170, 301)]),
    "interleaved": ([range(0, 301, 2)], [range(1, 301, 2)]),
    "one process saw no batch": ([range(0, 100), range(100, 301)], []),
}


def hard():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, levels, (ROWS,), generator=generator) for levels in (2, 2, 3)]


def soft():
    generator = torch.Generator().manual_seed(1)
    pred = torch.rand(ROWS, 1, generator=generator)
    label = (torch.rand(ROWS, 1, generator=generator) < 0.5).float()
    return [pred, torch.nn.functional.one_hot(torch.arange(ROWS) % 3, 4).float(), label]  # the fourth group is absent


def metrics():
    odds = StackedLinearFractionalStatistic(TruePositiveRate(), FalsePositiveRate())
    return GroupStatistics(groups=3), LinearFractionalParity(odds, (2, 4), gap_abs_max)


def results(batches):
    """What both metrics say after these batches, in a form that `torch.load(weights_only=True)` reads."""
    groups, parity = metrics()
    per_batch = []
    for rows in map(list, batches):
        groups.update(*(column[rows] for column in hard()))
        per_batch.append(parity(*(column[rows] for column in soft())))
    found = {
        "local": groups.table.clone(),
        "audited": torch.from_numpy(groups.audit().counts.table.copy()),
        "values": groups.compute(),
        "parity": parity.compute(),
        "batches": per_batch,
        "after": groups.table.clone(),  # exchanging is undone: each process goes on with its own counts
    }
    groups.reset()
    found["reset"] = groups.table.clone()
    return found


def process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save({name: results(split[rank]) for name, split in SPLITS.items()}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
    if loopback:
        environment["GLOO_SOCKET_IFNAME"] = loopback  # else gloo looks up the machine's name, which some cannot resolve
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, str(rank), str(folder)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return results([range(ROWS)])


@pytest.mark.parametrize("split", SPLITS)
def test_counts_are_those_of_one_process_to_the_last_bit(found, alone, split):
    for each in found:
        assert torch.equal(each[split]["audited"], alone["audited"])
        torch.testing.assert_close(each[split]["values"], alone["values"], rtol=0, atol=0, equal_nan=True)
    target, preds, group = hard()[1], hard()[0], hard()[2]
    assert (alone["audited"].numpy() == audit(target, preds, group).counts.table).all()


@pytest.mark.parametrize("split", SPLITS)
def test_soft_sums_are_those_of_one_process_to_rounding(found, alone, split):
    for each in found:
        torch.testing.assert_close(each[split]["parity"], alone["parity"], rtol=1e-14, atol=1e-14)
    assert torch.equal(found[0][split]["parity"], found[1][split]["parity"])


@pytest.mark.parametrize("split", SPLITS)
def test_each_process_keeps_its_own_state(found, alone, split):
    whole = alone["audited"]
    parts = [each[split]["local"] for each in found]
    assert torch.equal(parts[0] + parts[1], whole)
    assert not torch.equal(parts[0], parts[1])
    for each, part in zip(found, parts, strict=True):
        assert torch.equal(each[split]["after"], part)
        assert not each[split]["reset"].any()


def test_forward_speaks_of_the_process_own_batch(found):
    for each, batches in zip(found, SPLITS["unequal"], strict=True):
        for value, rows in zip(each["unequal"]["batches"], batches, strict=True):
            parity = metrics()[1]
            parity.update(*(column[list(rows)] for column in soft()))
            torch.testing.assert_close(value, parity.compute(), rtol=0, atol=0)


if __name__ == "__main__":
    process(int(sys.argv[1]), Path(sys.argv[2]))
