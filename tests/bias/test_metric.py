"""torchmetrics: batches give the counts of the whole, and the metrics behave as metrics do."""

import copy
import math
import pickle

import pandas as pd
import pytest
import torch
import torchmetrics

from helpers.bias import GroupStatistics, LinearFractionalParity, audit
from helpers.bias.metric import gap_abs_max
from helpers.bias.statistics import (
    Accuracy,
    FalsePositiveRate,
    FScore,
    PositiveRate,
    StackedLinearFractionalStatistic,
    TruePositiveRate,
)


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
        ({"target": torch.tensor([0])}, "target: shape"),
        ({"target": torch.tensor([[0], [1]])}, "target: shape"),
        ({"preds": [0, 1]}, "preds: a tensor expected, list given"),
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


def parity(statistic=None, **options):
    return LinearFractionalParity(statistic or TruePositiveRate(), 3, gap_abs_max, **options)


def soft(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred = torch.rand(n, 1, generator=generator)
    label = (torch.rand(n, 1, generator=generator) < 0.5).float()
    return pred, torch.nn.functional.one_hot(torch.randint(0, 3, (n,), generator=generator), 3).float(), label


GROUPS = lambda: GroupStatistics(groups=3)
METRICS = [(GROUPS, draw), (parity, soft)]
each_metric = pytest.mark.parametrize(("make", "batch"), METRICS, ids=["GroupStatistics", "LinearFractionalParity"])


def same(first, second, within=0.0):
    torch.testing.assert_close(first, second, rtol=within, atol=within, equal_nan=True)  # tensors, or dicts of them


@each_metric
def test_forward_gives_the_batch_and_adds_it_to_the_whole(make, batch):
    running, once, other = make(), make(), make()
    columns = batch()
    first, second = ([column[rows] for column in columns] for rows in (slice(0, 25), slice(25, None)))
    running.update(*first)
    value = running(*second)
    other.update(*second)
    same(value, other.compute())
    once.update(*columns)
    same(running.compute(), once.compute(), within=0.0 if make is GROUPS else 1e-12)  # counts are exact, sums nearly so


@each_metric
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each)), lambda each: each.clone()])
def test_a_copy_goes_on_by_itself(make, batch, copied):
    metric = make()
    metric.update(*batch())
    before = metric.compute()
    twin = copied(metric)
    same(twin.compute(), before)
    twin.update(*batch())
    twin.reset()
    same(metric.compute(), before)


@each_metric
def test_the_state_goes_through_a_state_dict(make, batch):
    metric, other = make(), make()
    assert not metric.state_dict()  # torchmetrics' own default
    metric.persistent(True)
    other.persistent(True)
    metric.update(*batch())
    other.load_state_dict(metric.state_dict())
    other._update_count = 1  # spares the warning that torchmetrics gives, which does not count a loaded state
    same(other.compute(), metric.compute())


@each_metric
def test_reset_forgets_and_moving_does_not(make, batch):
    metric = make()
    metric.update(*batch())
    before = metric.compute()
    same(metric.to("cpu").to(torch.device("cpu")).compute(), before)
    metric.reset()
    metric.update(*batch())
    same(metric.compute(), before)


def test_the_state_moves_with_the_metric():
    for metric in (GroupStatistics(groups=3).to("meta"), parity().to("meta")):
        assert {getattr(metric, name).device.type for name in metric._defaults} == {"meta"}
        metric.reset()
        assert {getattr(metric, name).device.type for name in metric._defaults} == {"meta"}


def test_half_precision_models_keep_exact_sums():
    metric = parity(PositiveRate()).half()
    pred = torch.full((5000, 1), 0.1, dtype=torch.float16)
    sens = torch.nn.functional.one_hot(torch.arange(5000) % 3, 3)
    metric.update(pred, sens)
    assert metric.num.dtype == torch.float64
    torch.testing.assert_close(metric.num.sum(), pred.double().sum())
    assert metric.compute() < 1e-12


def test_without_any_batch_there_is_nothing_to_audit():
    metric = GroupStatistics(groups=3)
    with pytest.warns(UserWarning, match="before the ``update``"), pytest.raises(ValueError, match="counts: empty"):
        metric.compute()


def test_a_collection_gives_what_its_members_give():
    pred, target, group = draw()
    members = {"bias": GroupStatistics(groups=3), "f2": GroupStatistics(groups=3, statistics={"f2": FScore(2)})}
    collection = torchmetrics.MetricCollection({**members, "accuracy": torchmetrics.classification.BinaryAccuracy()})
    for rows in torch.split(torch.arange(300), 90):
        collection.update(preds=pred[rows], target=target[rows], group=group[rows])
    values, expected = collection.compute(), audit(target, pred, group)
    flat = {key.split("_", 1)[1] if key.startswith(("bias_", "f2_")) else key: value for key, value in values.items()}
    assert flat["true_positive_rate/1"].item() == expected.value("true_positive_rate", "1")
    assert flat["accuracy"].item() == pytest.approx(expected.value("accuracy"))
    assert any("f2/0" in key for key in values)


def test_metrics_of_other_statistics_share_no_sums_in_a_collection():
    """torchmetrics merges metrics that agree on the first batch, as these two do when all labels are positive."""
    pred, sens, label = soft()
    collection = torchmetrics.MetricCollection(
        {"rate": parity(PositiveRate()), "recall": parity(), "again": LinearFractionalParity(TruePositiveRate(), 3)}
    )
    alone = {"rate": parity(PositiveRate()), "recall": parity(), "again": LinearFractionalParity(TruePositiveRate(), 3)}
    for target in (torch.ones_like(label), label):
        collection.update(pred, sens, target)
        for metric in alone.values():
            metric.update(pred, sens, target)
    assert sorted(map(sorted, collection.compute_groups.values())) == [["again", "recall"], ["rate"]]
    for name, value in collection.compute().items():
        assert value == alone[name].compute()


def test_statistics_are_told_apart_by_what_they_compute():
    from helpers.bias.metric import _fingerprint

    stack = StackedLinearFractionalStatistic
    different = [PositiveRate(), FScore(1), FScore(2), Accuracy(), stack(FScore(1)), stack(FScore(2)), stack(Accuracy())]
    assert len({_fingerprint(each) for each in different}) == len(different)
    assert _fingerprint(FScore(2)) == _fingerprint(FScore(2))
