"""Figures of judged maps: every mean and interval is drawn, chance is marked, and words say what is seen."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from helpers.attribution.dependence import BaselineDependence
from helpers.attribution.metric import METRICS
from helpers.plots import judging


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def table():
    rows = [
        {"method": method, "metric": metric, "mean": place + 0.5 * shift, "low": place, "high": place + shift + 1}
        for shift, metric in enumerate(["deletion", "mu_fidelity", "RRF", "sensitivity_max", "pointing_game"])
        for place, method in enumerate(["first_method", "second", "chance"])
    ]
    table = pd.DataFrame(rows)
    table.loc[0, ["low", "high"]] = np.nan  # one image
    table.loc[4, ["mean", "low", "high"]] = np.nan  # undefined
    return table


def test_metrics_draws_each_mean_and_interval_and_chance(table):
    figure = judging.metrics(table, chance="chance", columns=3)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["deletion", "mu fidelity", "RRF", "sensitivity max", "pointing game"]
    assert len(figure.axes) == 6
    assert [axes.get_xlabel() for axes in shown[:3]] == ["← lower is better", "higher is better →", "depends on the region"]
    last = shown[-1]
    intervals = [line.get_xdata() for line in last.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert [list(ends) for ends in intervals] == [[0, 5], [1, 6]]
    dashed = [line for line in last.lines if line.get_linestyle() == "--"]
    assert dashed[0].get_xdata()[0] == 4 and len(last.patches) == 1
    assert [label.get_text() for label in shown[3].get_yticklabels()] == ["second", "first method"]
    assert "RRF second 2.00" in figure.get_label() and "chance" in figure.get_label()
    figure.canvas.draw()


def test_every_metric_has_its_direction():
    known = {name: entry.better for name, entry in METRICS.items() if entry.better in ("lower", "higher")}
    assert known == judging.BETTER


def test_baselines_draws_a_mark_for_each(table):
    scores = pd.concat([table.assign(baseline=name) for name in ("black", "blur")])
    figure = judging.baselines(scores, chance="chance")
    assert len(figure.axes) == 5
    marks = [line for line in figure.axes[-1].lines if line.get_marker() == "o"]
    assert len(marks) == 6 and len({float(np.ravel(line.get_ydata())[0]) for line in marks}) == 6
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["black", "blur"]
    assert figure.axes[0].get_yticklabels()[0].get_color() == "0.5"
    assert "RRF second blur 2.00" in figure.get_label()
    figure.canvas.draw()


def test_randomisation_starts_at_the_trained_model():
    curve = pd.DataFrame({"layers": [1, 1, 2, 2], "image": [0, 1, 0, 1], "value": [0.8, 0.6, 0.2, np.nan]})
    axes = judging.randomisation({"good": curve, "edges_only": curve.assign(value=1.0)})
    good, edges = (line for line in axes.lines if line.get_linestyle() == "-")
    assert list(good.get_xdata()) == [0, 1, 2] and good.get_ydata() == pytest.approx([1, 0.7, 0.2])
    bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
    assert len(bands) == 2 and bands[0].max() == 1 and bands[0].min() == pytest.approx(0.2)  # one image has no error
    far = curve.assign(value=[-0.9, 0.9, -1.0, -0.2])
    assert min(band.get_paths()[0].vertices[:, 1].min() for band in judging.randomisation({"far": far}).collections) == -1
    assert list(edges.get_ydata()) == [1, 1, 1] and "edges_only 1.00" in axes.figure.get_label()


def test_bad_tables_are_named(table):
    with pytest.raises(ValueError, match="table: no column low; expected attribution.summary"):
        judging.metrics(table.drop(columns="low"))
    with pytest.raises(ValueError, match="chance: .*Did you mean 'chance'"):
        judging.metrics(table, chance="chances")
    with pytest.raises(ValueError, match="columns: 0"):
        judging.metrics(table, columns=0)
    with pytest.raises(ValueError, match="scores: no column baseline"):
        judging.baselines(table)
    with pytest.raises(ValueError, match="scores: no column baseline"):
        judging.baselines(BaselineDependence(table, table, table))
    with pytest.raises(ValueError, match="table: no column method"):
        judging.metrics({"a": table})
    with pytest.raises(ValueError, match="table: dict given; expected attribution.rank_agreement"):
        judging.agreement({"a": table})
    with pytest.raises(ValueError, match="curves 'a': no column layers"):
        judging.randomisation({"a": table})
    with pytest.raises(ValueError, match="curves: none given"):
        judging.randomisation({})
