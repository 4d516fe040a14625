"""Two processes do together what one does alone: predictions, features, audit, training, fine-tuning; and say so if one is lost.

pytest runs the tests; run as a script, with what to do and a folder, this file is one of the processes.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import helpers
from helpers import audit, losses
from helpers.bias.statistics import PositiveRate
from helpers.crew import count, crew_of, whole_batch
from helpers.data.base import FaceDataset
from helpers.models import features, predict, train
from helpers.models.synchronised import Synchronised, synchronised

METHODS = ["LEACE", "DFR", "FINETUNE", "FAIRRET"]
pytestmark = pytest.mark.timeout(600)  # two processes beside those that run the tests

SHORT = {"FINETUNE": {"epochs": 1, "batch_size": 16}, "FAIRRET": {"epochs": 1, "batch_size": 16}, "DFR": {}}


def network():
    """Small, with what processes have to agree on: the means and variances of a batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, bias=False),
            nn.BatchNorm2d(12, momentum=None), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2),
        )  # fmt: skip


def faces(n, seed):
    """Label and group are stripes in the picture; the last batches of 16, 8 and 7 have 1, 1 and 4 of 65 images."""
    draw = np.random.default_rng(seed)
    label, group = draw.integers(0, 2, n), draw.integers(0, 2, n)
    images = (draw.random((n, 16, 16, 3)) * 150).astype(np.uint8)
    images[label == 1, 3:7] += 50
    images[group == 1, 9:13] += 70
    return FaceDataset(images, pd.DataFrame({"label": label, "group": group}), target="label", protected="group")


def loader(n, seed):
    images, label, group = faces(n, seed)[:]
    return DataLoader(TensorDataset(images, label, group), batch_size=7)


def looked(device):
    """What passes over the data show, of a data set and of somebody's loader."""
    found = {}
    for name, data in {"data set": faces(65, 1), "loader": loader(65, 1)}.items():
        seen = predict(network(), data, device=device, batch_size=8)
        layer = features(network(), data, device=device, batch_size=8)
        inner = features(network(), data, "3", device=device, batch_size=8)
        table = audit(seen.y_true, seen.y_pred, seen.group).counts.table
        found[name] = [*map(torch.from_numpy, (seen.logits, seen.y_true, seen.group, layer.features, inner.features, table))]
    return found


def trained(device, folder=None, **options):
    loss = losses.UnbiasedSquareLoss(PositiveRate())  # two processes' sums added up once more would change it
    how = {"epochs": 2, "batch_size": 16, "augment": "flip", "validation": faces(33, 3), "progress": False}
    how |= {"fairness": loss, "strength": 20.0}  # so strong that its share of the gradient is seen
    model = train(faces(65, 2), network(), device=device, **how | options)
    return {"weights": model.state_dict(), "history": model.history.drop(columns="seconds").to_dict("list")}


def gradient(device):
    """Of one batch in double precision; the first process has three rows and the second two."""
    crew, model = crew_of(device), network().double().train()
    images, label, group = faces(5, 4)[:]
    with synchronised(model, crew.size):
        running = crew.fabric.setup(model) if crew.fabric else model
        (logits,) = crew.whole(running(*crew.share(images.double())).double())
        with whole_batch():
            assert count() == 1
            loss = F.cross_entropy(logits, label) + losses.NormLoss(PositiveRate())(logits[:, 1:], F.one_hot(group, 2).double())
        loss.backward()
    assert not any(isinstance(part, Synchronised) for part in model.modules())
    return {name: each.grad for name, each in model.named_parameters()} | {f"b {k}": v for k, v in model.named_buffers()}


def mitigated(device):
    found = helpers.debias(network(), faces(96, 5), METHODS, methods_config=SHORT, test_dataloader=loader(50, 6), device=device)
    images = faces(20, 7)[:][0]
    assert [result.error for result in found.values()] == [None] * 5
    return {name: result.model(images).detach() for name, result in found.items()}


def process(what, folder):
    from lightning_fabric import Fabric

    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="64-true" if what == "gradient" else "32-true")
    fabric.launch()
    if what == "lost":
        for step, _ in enumerate(iter(lambda: predict(network(), faces(65, 1), device=fabric), None)):
            if fabric.global_rank == 1 and step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
    if what == "resumed":
        with pytest.raises(KeyboardInterrupt):
            trained(fabric, checkpoint=folder / "run.pt", validation=Interrupting(folder / "run.pt"))
        fabric.barrier()
        if fabric.global_rank == 0:
            shutil.copy(folder / "run.pt", folder / "half.pt")
        fabric.barrier()
        found = trained(fabric, checkpoint=folder / "run.pt")
    else:
        found = {"looked": looked, "gradient": gradient, "mitigated": mitigated, "trained": trained}[what](fabric)
    torch.save(found, folder / f"{fabric.global_rank}.pt")


def together(what, folder):
    """Two processes as `torchrun` starts them; what each ended with and said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    shared |= {"TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(helpers.__file__).parents[1])}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, what, str(folder)], stderr=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        return [(each.communicate(timeout=400)[1], each.returncode)[::-1] for each in started]
    finally:
        for each in started:
            each.kill()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the processes found, which is the same for both; run once for each thing to do."""
    known = {}

    def found(what):
        if what not in known:
            folder = tmp_path_factory.mktemp(what)
            ends = together(what, folder)
            assert [code for code, _ in ends] == [0, 0], ends
            known[what] = folder, *(torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2))
        folder, first, second = known[what]
        assert same(first, second), "both have the same, to the last bit"
        return (first, folder) if what == "resumed" else first

    return found


def same(one, other):
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_passes_over_the_data_show_what_one_process_sees(both):
    alone = looked("cpu")
    for name, parts in both("looked").items():
        logits, y, group, layer, inner, table = parts
        for found, expected in zip((logits, layer, inner), (alone[name][i] for i in (0, 3, 4)), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        assert all(torch.equal(found, alone[name][i]) for i, found in ((1, y), (2, group), (5, table)))
    assert table.sum() == 65


def test_the_gradient_of_a_batch_and_its_running_statistics_are_those_of_one_process(both):
    alone = gradient("cpu")
    for name, found in both("gradient").items():
        scale = alone[name].abs().max().clamp(min=1e-3) if alone[name].is_floating_point() else 1
        torch.testing.assert_close(found / scale, alone[name] / scale, atol=2e-6, rtol=0)  # Fabric hands on logits in float32


def test_training_is_that_of_one_process(both):
    close(both("trained"), trained("cpu"))


def close(found, alone):
    """Weights and history up to rounding, which AdamW makes larger where a gradient is next to nothing."""
    assert list(found["weights"]) == list(alone["weights"])
    for name, weights in alone["weights"].items():
        torch.testing.assert_close(found["weights"][name], weights, atol=2e-4, rtol=1e-3)
    for name, values in alone["history"].items():
        np.testing.assert_allclose(found["history"][name], values, atol=2e-4, err_msg=name)


def test_a_run_of_two_goes_on_where_it_was_and_one_alone_may_go_on_with_it(both):
    found, folder = both("resumed")
    assert same(found, both("trained")), "interrupted or not, the same bytes"
    close(trained("cpu", checkpoint=folder / "half.pt"), found)


class Interrupting:
    """Validation faces that stop the run when they are scored in the second epoch: the first has left a checkpoint."""

    def __init__(self, checkpoint):
        self.faces, self.checkpoint = faces(33, 3), checkpoint
        self.classes, self.groups = self.faces.classes, self.faces.groups

    def __len__(self):
        return len(self.faces)

    def loader(self, **options):
        if self.checkpoint.exists():
            raise KeyboardInterrupt
        return self.faces.loader(**options)


def test_fixes_are_those_of_one_process(both):
    alone = mitigated("cpu")
    for name, logits in both("mitigated").items():
        torch.testing.assert_close(logits, alone[name], atol=2e-3, rtol=1e-2, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_gathered_over_batches_are_those_of_the_batches_together():
    """Without batch normalisation and with batches of one size a step over two batches is one over both."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    data = [tuple(part[rows] for part in faces(64, 8)[:]) for rows in (slice(16), slice(16, 32), slice(32, 48), slice(48, 64))]
    pairs = [tuple(torch.cat(parts) for parts in zip(*data[i : i + 2], strict=True)) for i in (0, 2)]
    small = train(data, plain, epochs=3, accumulate=2, progress=False, device="cpu").state_dict()
    large = train(pairs, plain, epochs=3, progress=False, device="cpu").state_dict()
    assert not torch.equal(small["0.weight"], plain.state_dict()["0.weight"])
    for name, weights in large.items():
        torch.testing.assert_close(small[name], weights, atol=1e-5, rtol=1e-4)


def test_a_process_that_is_gone_is_said_and_nobody_waits(tmp_path):
    (code, said), (lost, _) = together("lost", tmp_path)
    assert lost == -signal.SIGKILL and code == 1
    assert "process 0 of 2 does not reach the others (1) any more; one of them has ended" in said


def test_the_script_of_the_page_runs_on_two_processes(tmp_path):
    page = (Path(helpers.__file__).parents[1] / "docs" / "several_processes.md").read_text(encoding="utf-8")
    script = tmp_path / "script.py"
    script.write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    command = [sys.executable, "-c", "from lightning_fabric.cli import _main; _main()", "run"]  # what the command `fabric` does
    command += ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
    paths = os.pathsep.join(filter(None, [str(Path(helpers.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*command, str(script)], capture_output=True, text=True, timeout=500, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "CANDOR_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("| equalized_odds |") == 1, "the first process prints the audit, and no other"


def test_bad_input_is_named():
    class Unlaunched:
        all_gather, global_rank, world_size, device = None, 0, 2, torch.device("cpu")

    with pytest.raises(ValueError, match="a Fabric of 2 processes, not launched yet"):
        crew_of(Unlaunched())
    with pytest.raises(ValueError, match="device: 'gpu9' is not available"):
        crew_of("gpu9")
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="accumulate: .* at least 1"):
            train(faces(16, 0), network(), accumulate=wrong)


if __name__ == "__main__":
    process(sys.argv[1], Path(sys.argv[2]))
