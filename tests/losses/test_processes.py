"""Two processes that share a batch have, once gradients are averaged, the losses and gradients of one that has all rows.

pytest runs the tests; run as a script, with a rank and a folder, this file is one of the two processes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from helpers import losses
from helpers.bias import statistics as of

ROWS, FIRST = 101, 37  # the first process has the fewer rows
ODDS = of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate())
STATISTICS = {"rate": of.PositiveRate(), "odds": ODDS}
LOSSES = {
    "norm": losses.NormLoss,
    "norm, p=2": lambda statistic: losses.NormLoss(statistic, p=2),
    "lse": losses.LSELoss,
    "moving": lambda statistic: losses.NormLoss(losses.MovingStatistic(statistic, 0.7)),
    "unbiased": losses.UnbiasedSquareLoss,
    "lagrangian": lambda statistic: losses.AugmentedLagrangianLoss(statistic, 0.02, decay=0.5),
    "kl": losses.KLProjectionLoss,
    "js": losses.JensenShannonProjectionLoss,
    "se": losses.SquaredEuclideanProjectionLoss,
    "tv": losses.TotalVariationProjectionLoss,
}
CASES = {f"{kind} of {name}": (make, statistic) for kind, make in LOSSES.items() for name, statistic in STATISTICS.items()}
CONSTRAINTS = {"parity": losses.DemographicParityLoss, "equalized odds": losses.EqualizedOddsLoss}


def batch(number):
    """Features, codes of groups and labels; none of the first process's rows is of the last group, and nobody of a fifth."""
    dice = torch.Generator().manual_seed(number)
    group = torch.randint(4, (ROWS,), generator=dice)
    group[:FIRST] = group[:FIRST] % 3
    features = torch.randn(ROWS, 3, generator=dice, dtype=torch.float64) + 0.4 * group[:, None]
    return features, group, torch.randint(2, (ROWS, 1), generator=dice).double()


def results(rows, average=lambda tensor: tensor):
    """Values and gradients in the weights of a model, of every loss, in two batches; averaged over processes."""
    found = {}
    for name in [*CASES, *CONSTRAINTS]:
        if name in CASES:
            make, statistic = CASES[name]
            loss = make(statistic)
        else:
            loss = CONSTRAINTS[name](range(5))
        for number in range(2):
            features, group, label = (each[rows] for each in batch(number))
            weights = torch.tensor([[0.5], [-0.2], [0.3]], dtype=torch.float64, requires_grad=True)
            out = features @ weights
            if name in CASES:
                value = loss(out, F.one_hot(group, 5), label)
            else:
                value = loss(features, out, group, label)
            value.backward()
            found[f"{name}, batch {number}"] = value.detach(), average(weights.grad)
        if name in CASES:
            loss.eval()  # then each process speaks of its own rows
            found[f"{name}, own rows"] = loss(out.detach(), F.one_hot(group, 5), label)
            found[f"{name}, state"] = loss.state_dict()
    return found


def process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)

    def average(gradient):
        torch.distributed.all_reduce(gradient)
        return gradient / 2

    found = results(slice(0, FIRST) if rank == 0 else slice(FIRST, ROWS), average)
    try:  # what has no sums to add up says so, rather than answer for its own rows
        losses.NormLoss(of.BalancedAccuracy())(batch(0)[0][:, :1], F.one_hot(batch(0)[1], 5), batch(0)[2])
    except TypeError as error:
        found["refused"] = str(error)
    torch.save(found, folder / f"{rank}.pt")
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
    return results(slice(0, ROWS))


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", [*CASES, *CONSTRAINTS])
def test_two_processes_have_the_loss_and_the_gradient_of_one(found, alone, name, number):
    key = f"{name}, batch {number}"
    # Total variation: within a millionth through the barrier, which is how several processes solve it.
    loose = {"rtol": 1e-5, "atol": 1e-5} if name.startswith("tv") else {"rtol": 1e-9, "atol": 1e-11}
    for each in found:
        torch.testing.assert_close(each[key], alone[key], **loose)
    assert alone[key][0] != 0 and alone[key][1].any()


@pytest.mark.parametrize("name", CASES)
def test_in_evaluation_a_process_speaks_of_its_own_rows(found, alone, name):
    values = [each[f"{name}, own rows"] for each in [*found, alone]]
    assert len({round(value.item(), 9) for value in values}) == 3


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("moving", "lagrangian"))])
def test_all_processes_remember_the_whole_batch(found, alone, name):
    key = f"{name}, state"
    torch.testing.assert_close(found[0][key], found[1][key], rtol=0, atol=0)
    torch.testing.assert_close(found[0][key], alone[key], rtol=1e-9, atol=1e-12)


def test_a_statistic_without_sums_is_refused_where_several_processes_share_a_batch(found):
    for each in found:
        assert each["refused"].startswith("statistic: BalancedAccuracy has no sums")


if __name__ == "__main__":
    process(int(sys.argv[1]), Path(sys.argv[2]))
