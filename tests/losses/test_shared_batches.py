"""Two processes that share a batch have, once their gradients are averaged, the loss and gradient of one process.

pytest runs the tests; run as a script, with a rank and a folder, this file is one of the two processes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import losses
from helpers.bias import statistics as of

ROWS = 101
SHARES = {
    "unequal": (range(0, 30), range(30, ROWS)),
    "interleaved": (range(0, ROWS, 2), range(1, ROWS, 2)),
    "a group is with one process only": ([i for i in range(ROWS) if i % 3], [i for i in range(ROWS) if not i % 3]),
    "one process has no row": (range(ROWS), []),
}


def odds():
    return of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate())


def made():
    """Every loss, fresh; those that remember see the batch twice."""
    one = {
        f"{kind.__name__} {statistic.__name__}": kind(statistic())
        for kind in (
            losses.NormLoss,
            losses.LSELoss,
            losses.UnbiasedSquareLoss,
            losses.KLProjectionLoss,
            losses.JensenShannonProjectionLoss,
            losses.SquaredEuclideanProjectionLoss,
            losses.TotalVariationProjectionLoss,
        )
        for statistic in (of.PositiveRate, of.PositivePredictiveValue, odds)
    }
    one["remembering"] = losses.NormLoss(losses.MovingStatistic(odds(), 0.5))
    one["Lagrangian"] = losses.AugmentedLagrangianLoss(of.PositiveRate(), 0.01)
    one["constraint"] = losses.DemographicParityLoss([0, 1, 2])
    one["odds constraint"] = losses.EqualizedOddsLoss([0, 1, 2])
    return one


def batch():
    dice = torch.Generator().manual_seed(0)
    group = torch.arange(ROWS) % 3
    logit = torch.randn(ROWS, 1, generator=dice, dtype=torch.float64) + 0.7 * group[:, None]
    return logit, torch.nn.functional.one_hot(group, 4).double(), torch.randint(2, (ROWS, 1), generator=dice).double()


def results(rows):
    logit, sens, label = (each[list(rows)] for each in batch())
    found = {}
    for name, loss in made().items():
        logit = logit.detach().requires_grad_()
        for _ in range(2):
            if "constraint" in name:
                value = loss(None, logit, sens.argmax(1), label)
            else:
                value = loss(logit, sens, label)
        (gradient,) = torch.autograd.grad(value, logit)
        found[name] = value.detach(), gradient
    return found


def process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save({name: results(share[rank]) for name, share in SHARES.items()}, folder / f"{rank}.pt")
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
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        for worker in workers:
            _, said = worker.communicate(timeout=240)
            assert worker.returncode == 0, said[-2000:]
    finally:
        for worker in workers:
            worker.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    return results(range(ROWS))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", made())
def test_two_processes_are_one(found, alone, share, name):
    value, gradient = alone[name]
    # The program of total variation is solved in order by one process and through a barrier by several.
    close = {"atol": 1e-5, "rtol": 1e-5} if "TotalVariation" in name else {"atol": 1e-9, "rtol": 1e-7}
    together = torch.zeros_like(gradient)
    for rank, rows in enumerate(SHARES[share]):
        theirs, part = found[rank][share][name]
        torch.testing.assert_close(theirs, value, **close)
        together[list(rows)] = part / 2  # DistributedDataParallel averages
    assert gradient.abs().max() > 0
    torch.testing.assert_close(together, gradient, **close)


if __name__ == "__main__":
    process(int(sys.argv[1]), Path(sys.argv[2]))
