"""Intervals: closed forms against their definitions, and coverage by simulation."""

import numpy as np
import pytest
import torch
from scipy import stats

from helpers.bias import Counts, audit_counts, uncertainty
from helpers.bias.estimates import evaluate
from helpers.bias.scores import area, area_limits
from helpers.bias.statistics import STATISTICS, FScore


def test_wilsons_limits_solve_the_score_equation():
    k, n, z = np.array([0, 1, 7, 20]), np.array([20, 20, 20, 20]), uncertainty.critical(0.95)
    low, high = uncertainty.wilson(k, n, z)
    for limit in (low, high):
        inner = (limit > 0) & (limit < 1)
        score = np.abs(k / n - limit)[inner] / np.sqrt(limit * (1 - limit) / n)[inner]
        assert score == pytest.approx(z)
    assert low[0] == 0 and high[-1] == 1
    assert np.isnan(uncertainty.wilson(0, 0, z)).all()


@pytest.mark.parametrize("groups", [2, 3, 8, 40])
def test_the_range_critical_value_is_tukeys(groups):
    expected = stats.studentized_range.ppf(0.95, groups, np.inf) / np.sqrt(2)
    assert uncertainty.range_critical(0.95, groups) == pytest.approx(expected, rel=1e-4)


def test_two_kinds_of_weight_are_told_from_three():
    pred, label = torch.tensor([[0.0], [1], [0], [1]]), torch.tensor([[0.0], [0], [1], [1]])
    for statistic, closed in [(each, True) for name, each in STATISTICS.items() if name != "balanced_accuracy"] + [
        (FScore(2), False)
    ]:
        weights = (part(pred, torch.eye(4), label).numpy() for part in (statistic.num, statistic.denom))
        assert (uncertainty.two_kinds(*weights) is not None) == closed


def test_the_interval_of_f1_is_the_image_of_wilsons_for_its_proportion():
    table = np.array([[50], [6], [9], [30]])  # TN, FP, FN, TP
    result = audit_counts(Counts(table.T.reshape(1, 2, 2), ("a",), ("no", "yes")))
    share = np.array(uncertainty.wilson(30, 45, uncertainty.critical(0.95)))  # of TP among TP, FP and FN
    assert result.interval("f1", "a") == pytest.approx(2 * share / (1 + share))
    odds = np.array(uncertainty.wilson(9, 15, uncertainty.critical(0.95)))
    assert result.interval("treatment_equality", "a") == pytest.approx(odds / (1 - odds))


def test_two_groups_get_newcombes_interval():
    """Newcombe 1998, table II, method 10: 56/70 against 48/80 gives 0.0524 to 0.3339."""
    table = np.array([[[0, 0], [14, 56]], [[0, 0], [32, 48]]])
    result = audit_counts(Counts(table, ("a", "b"), ("no", "yes")))
    assert result.gap_interval("true_positive_rate") == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_replicates_keep_group_sizes_and_shares():
    counts = np.array([[10, 0], [20, 0], [30, 0], [40, 0]])
    draws = uncertainty.replicates(counts, 4000, seed=0)
    assert draws.shape == (4, 2, 4000) and (draws.sum(0)[0] == 100).all() and (draws[:, 1] == 0).all()
    assert draws[:, 0].mean(1) == pytest.approx([10, 20, 30, 40], abs=0.5)
    assert (draws == uncertainty.replicates(counts, 4000, seed=0)).all()


def test_the_delta_methods_correlations_are_those_of_replicates():
    rng = np.random.default_rng(0)
    table = rng.integers(30, 90, (1, 3, 3))
    boot = rng.multinomial(table.sum(), table.ravel() / table.sum(), size=20_000)

    def false_positive_rates(tables):
        columns, diagonal, n = tables.sum(-2), np.diagonal(tables, axis1=-2, axis2=-1), tables.sum((-2, -1))
        return (columns - diagonal) / (n[:, None] - tables.sum(-1))

    mean = false_positive_rates(boot.reshape(-1, 3, 3)).mean(1)
    result = audit_counts(Counts(table, ("a",), ("x", "y", "z")))
    low, high = result.interval("false_positive_rate", "a", "macro")
    assert (low, high) == pytest.approx(np.quantile(mean, [0.025, 0.975]), abs=0.006)


def test_a_perfect_group_still_has_an_interval():
    table = np.array([[[20, 0], [0, 20]], [[15, 5], [5, 15]]])
    result = audit_counts(Counts(table, ("perfect", "other"), ("no", "yes")))
    for name in ("accuracy", "balanced_accuracy", "f1"):
        assert result.interval(name, "perfect")[0] < 0.95


def test_more_confidence_and_less_data_widen_every_interval():
    table = np.array([[[40, 10], [10, 40]], [[30, 20], [20, 30]]])
    names = ("a", "b"), ("no", "yes")
    usual, sure, more = (
        audit_counts(Counts(table * k, *names), confidence=c) for k, c in ((1, 0.95), (1, 0.99), (4, 0.95))
    )
    for name in STATISTICS:
        assert more.width(name, "a") < usual.width(name, "a") < sure.width(name, "a")
        assert np.ptp(more.gap_interval(name)) < np.ptp(usual.gap_interval(name)) < np.ptp(sure.gap_interval(name))


def coverage(tpr, fpr, per_cell, audits, seed=0):
    """Share of intervals that hold the truth: of group values and of gaps, by statistic; share of false alarms."""
    g = len(tpr)
    shares = np.stack([1 - fpr, fpr, 1 - tpr, tpr], 1) / 2
    tables = np.random.default_rng(seed).multinomial(np.full(g, 2 * per_cell), shares, size=(audits, g))
    true = np.array([evaluate(statistic, shares.T) for statistic in STATISTICS.values()])  # (statistics, G)
    gap = np.ptp(true, axis=1)
    inside, inside_gap, alarms = [], [], []
    for table in tables:
        result = audit_counts(Counts(table.reshape(g, 2, 2), tuple(map(str, range(g))), ("no", "yes")))
        low, high = (result.by_group[end].to_numpy().reshape(g, -1).T for end in ("low", "high"))
        inside.append(np.where(np.isnan(low), np.nan, (low - 1e-9 <= true) & (true <= high + 1e-9)))
        low, high = (result.gaps[f"difference_{end}"].to_numpy()[: len(gap)] for end in ("low", "high"))
        inside_gap.append((low - 1e-9 <= gap) & (gap <= high + 1e-9))
        alarms.append(result.gap_interval("equalized_odds")[0] > 0)
    return np.nanmean(inside, axis=(0, 2)), np.mean(inside_gap, axis=0), np.mean(alarms)


def test_intervals_cover_when_groups_differ():
    values, gaps, _ = coverage(np.array([0.9, 0.8, 0.6]), np.array([0.1, 0.15, 0.3]), 50, 250)
    # 250 audits of 3 groups: a true 95 % reads below 92.5 % for one statistic in a thousand runs.
    assert values.min() > 0.925 and 0.935 < values.mean() < 0.97
    assert gaps.min() > 0.92


def test_intervals_cover_when_no_gap_exists():
    """The case that a percentile bootstrap of max - min always gets wrong."""
    values, gaps, alarms = coverage(np.full(4, 0.8), np.full(4, 0.2), 50, 250)
    assert values.min() > 0.925
    assert gaps.min() > 0.9 and gaps.mean() > 0.93  # a true 95 % reads below 90 % once in a thousand
    assert alarms < 0.09


def test_auc_limits_cover():
    rng, hits = np.random.default_rng(0), []
    truth = stats.norm.cdf(1.2 / np.sqrt(2))
    labels = np.arange(60) < 25
    for _ in range(400):
        auc = area(rng.normal(0, 1, 60) + 1.2 * labels, labels)
        low, high = area_limits(np.array([auc]), np.array([25]), np.array([35]), 1.96)
        hits.append(low[0] <= truth <= high[0])
    assert 0.92 < np.mean(hits) < 0.985
    low, high = area_limits(np.array([1.0, np.nan]), np.array([10, 0]), np.array([10, 4]), 1.96)
    assert 0.6 < low[0] < 0.95 and high[0] == 1 and np.isnan(low[1])
