"""torchmetrics: batches and processes give the counts of the whole."""

import math
import socket

import numpy as np
import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp

from helpers.bias import audit
from helpers.bias.statistics import (
    FalsePositiveRate,
    PositiveRate,
    StackedLinearFractionalStatistic,
    TruePositiveRate,
)

pytest.importorskip("torchmetrics")

from helpers.bias import GroupStatistics, LinearFractionalParity
from helpers.bias.metric import gap_abs_max


def draw(n=300):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, levels, (n,), generator=generator) for levels in (2, 2, 3)]


def test_batches_give_the_audit_of_the_whole():
    preds, target, group = draw()
    metric = GroupStatistics(groups=3)
    for part in torch.split(torch.arange(300), 77):
        metric.update(preds[part], target[part], group[part])
    expected = audit(target, preds, group)
    pd.testing.assert_frame_equal(metric.audit().by_group, expected.by_group)
    values = metric.compute()
    assert values["true_positive_rate/1"].item() == expected.value("true_positive_rate", "1")
    assert values["gap/equalized_odds"].item() == expected.gap("equalized_odds")
    metric.reset()
    assert metric.counts().table.sum() == 0


def test_several_classes_have_the_class_in_the_name():
    metric = GroupStatistics(groups=("a", "b"), classes=("x", "y", "z"), statistics=["f1", "equalized_odds"])
    metric.update(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 0, 1]))
    assert {"f1/macro/a", "f1/z/b", "gap/equalized_odds/all"} <= set(metric.compute())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preds": torch.tensor([0.5, 0.5])}, "preds: integer codes"),
        ({"group": torch.tensor([0, 3])}, "group: codes 0 to 3"),
        ({"preds": torch.tensor([0])}, "preds: shape"),
    ],
)
def test_a_bad_batch_is_refused_and_not_counted(change, message):
    metric = GroupStatistics(groups=3)
    batch = {"preds": torch.tensor([0, 1]), "target": torch.tensor([0, 1]), "group": torch.tensor([0, 2])}
    with pytest.raises(ValueError, match=message):
        metric.update(**batch | change)
    assert metric.table.sum() == 0


def test_parity_accumulates_soft_predictions():
    generator = torch.Generator().manual_seed(1)
    pred = torch.rand(200, 1, generator=generator)
    label = (torch.rand(200, 1, generator=generator) < 0.5).float()
    sens = torch.nn.functional.one_hot(torch.arange(200) % 3, 4).float()  # the fourth group is absent
    statistic = StackedLinearFractionalStatistic(TruePositiveRate(), FalsePositiveRate())
    metric = LinearFractionalParity(statistic, (2, 4), gap_fn=gap_abs_max)
    for part in torch.split(torch.arange(200), 64):
        metric.update(pred[part], sens[part], label[part])
    values = statistic(pred.double(), sens, label)[:, :3]
    expected = (values - statistic.overall_statistic(pred.double(), label)).abs().amax(1)
    torch.testing.assert_close(metric.compute(), expected)


def test_parity_is_relative_by_default_and_nan_without_data():
    metric = LinearFractionalParity(PositiveRate(), 2)
    metric.update(torch.tensor([[1.0], [0.0], [0.0], [0.0]]), torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]))
    assert metric.compute().item() == pytest.approx(1.0)  # 0.5 and 0 against 0.25
    with pytest.raises(ValueError, match="sens: 2 columns expected, 3 given"):
        metric.update(torch.ones(1, 1), torch.ones(1, 3))
    metric.reset()
    assert math.isnan(metric.compute())


def _process(rank, port, queue):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    preds, target, group = draw()
    rows = slice(0, 100) if rank == 0 else slice(100, None)
    metric = GroupStatistics(groups=3)
    metric.update(preds[rows], target[rows], group[rows])
    merged = metric.audit()
    value = metric.compute()["gap/equalized_odds"].item()
    queue.put((merged.counts.table.tolist(), value))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_counts_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("fork")
    queue = context.SimpleQueue()
    workers = [context.Process(target=_process, args=(rank, port, queue), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    preds, target, group = draw()
    expected = audit(target, preds, group)
    for table, value in (queue.get(), queue.get()):
        assert (np.array(table) == expected.counts.table).all() and value == expected.gap("equalized_odds")
