"""Figures show the numbers of the audit, and say so in words."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from helpers.bias import audit, compare
from helpers.plots import bias


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    y, g = rng.integers(0, 2, 300), rng.integers(0, 3, 300)
    p = np.where(rng.random(300) < 0.9 - 0.2 * g, y, 1 - y)
    yield audit(y, p, g, groups=("a", "b", "c"))
    plt.close("all")


def drawn(ax):
    """Points of all error bars as {y position: (x, low, high)}."""
    found = {}
    for container in ax.containers:
        line, _, (bars,) = container
        for x, y, segment in zip(*line.get_data(), bars.get_segments(), strict=True):
            found[round(float(y))] = (x, segment[0][0], segment[1][0])
    return found


def test_gaps_are_drawn_in_order_with_their_intervals(result):
    ax = result.plot()
    points = drawn(ax)
    names = [label.get_text().replace(" ", "_").replace("F1", "f1") for label in ax.get_yticklabels()]
    assert len(names) == len(points) == 7
    for position, name in enumerate(names):
        assert points[position] == pytest.approx((result.gap(name), *result.gap_interval(name)))
    assert [points[k][0] for k in range(7)] == sorted(points[k][0] for k in range(7))
    assert "largest" in ax.figure.get_label() and ax.get_xlabel()


def test_groups_are_drawn_with_sizes_and_the_overall_value(result):
    ax = result.plot("true_positive_rate")
    points = drawn(ax)
    for position, group in zip((2, 1, 0), "abc", strict=True):
        expected = result.value("true_positive_rate", group), *result.interval("true_positive_rate", group)
        assert points[position] == pytest.approx(expected)
    rows = result.by_group.set_index(["group", "statistic"])["n"]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        f"{group}  (n = {rows[group, 'true_positive_rate']})" for group in "abc"
    ]
    assert f"{result.value('true_positive_rate'):.2f}" in ax.get_legend().get_texts()[0].get_text()


def test_a_group_without_a_value_is_written_out():
    result = audit([1, 0, 0, 0], [1, 0, 1, 0], list("aabb"))
    ax = result.plot("true_positive_rate")
    assert [text.get_text() for text in ax.texts] == ["undefined"]
    plt.close("all")


def test_classes_can_be_chosen():
    rng = np.random.default_rng(0)
    y, g = rng.integers(0, 3, 200), rng.integers(0, 2, 200)
    result = audit(y, np.where(rng.random(200) < 0.8, y, 0), g, classes=("x", "y", "z"))
    assert "of x" in result.plot("f1", "x").get_title()
    assert result.plot().get_yticklabels()
    with pytest.raises(ValueError, match="has no summary"):
        result.plot("selection_rate")
    plt.close("all")


def test_the_gap_curve_needs_its_columns():
    table = pd.DataFrame({"correlation": [0.0, 0.9], "difference": [0.1, 0.5], "difference_low": 0.05, "difference_high": 0.6})
    ax = bias.gap_curve(table, "correlation", marks={"this network": (0.62, 0.41)})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["this network"]
    assert "this network 0.41 at 0.62" in ax.figure.get_label() and ax.lines[-1].get_xydata().tolist() == [[0.62, 0.41]]
    assert ax.lines[0].get_ydata().tolist() == [0.1, 0.5] and "at 0.9" in ax.figure.get_label()
    with pytest.raises(ValueError, match="Did you mean 'correlation'"):
        bias.gap_curve(table, "corelation")
    with pytest.raises(ValueError, match="nothing to draw"):
        bias.gaps(table.assign(statistic="f1", difference=np.nan))
    plt.close("all")


def crossed():
    rng = np.random.default_rng(2)
    people = pd.DataFrame({"glasses": rng.random(600) < 0.5, "tone": rng.choice(["dark", "light"], 600)})
    y = rng.integers(0, 2, 600)
    first = np.where(people["glasses"] & (rng.random(600) < 0.4), 1, y)
    return y, first, np.where(rng.random(600) < 0.05, 1 - y, y), people


def bars_of(ax):
    """Every point with its bar: (value, low, high), in the order drawn."""
    found = []
    for container in ax.containers:
        (bars,) = container.lines[2]
        for x, segment in zip(container.lines[0].get_xdata(), bars.get_segments(), strict=True):
            found.append((x, segment[0][0], segment[1][0]))
    return found


def test_changes_are_drawn_with_their_intervals_and_verdicts():
    y, first, second, people = crossed()
    found = compare(y, first, second, people["glasses"], names=("old", "new"))
    ax = found.plot("false_positive_rate")
    rows = found.by_group.query("statistic == 'false_positive_rate'")
    np.testing.assert_allclose(sorted(bars_of(ax)), sorted(rows[["change", "low", "high"]].to_numpy().tolist()))
    assert {text.get_text() for text in ax.get_legend().get_texts()} == set(rows["verdict"])
    assert "old" in ax.get_title() + ax.get_title(loc="left") and "new minus old" in ax.get_xlabel()
    assert "levels up" in ax.figure.get_label()
    with pytest.raises(ValueError, match="'accuracy'"):
        found.plot("acuracy")


def test_differences_from_a_reference_are_drawn_and_it_is_named():
    y, first, _, people = crossed()
    table = audit(y, first, people).against("rest")
    ax = bias.against(table, "accuracy")
    rows = table.query("statistic == 'accuracy'")[["difference", "difference_low", "difference_high"]]
    np.testing.assert_allclose(sorted(bars_of(ax)), sorted(rows.to_numpy().tolist()))
    assert "all other groups" in ax.get_xlabel()
    best = audit(y, first, people).against("best")
    assert best.query("statistic == 'accuracy'")["of"].iloc[0] in bias.against(best, "accuracy").get_xlabel()


def test_margins_are_drawn_beside_the_cells():
    y, first, _, people = crossed()
    result = audit(y, first, people)
    ax = bias.margins(result, ["equalized_odds"])
    expected = [each.gap("equalized_odds") for each in (result.margins["glasses"], result.margins["tone"], result)]
    assert [point[0] for point in bars_of(ax)] == pytest.approx(expected)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["glasses", "tone", "cells (all crossed)"]
    with pytest.raises(ValueError, match="one attribute only"):
        bias.margins(audit(y, first, people["tone"]))
