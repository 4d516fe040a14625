"""Figures of scores, counterfactuals and other measures show the numbers of their tables, and say so in words."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from helpers.bias.calibration import calibration
from helpers.bias.counterfactual import flip_report
from helpers.bias.embeddings import between, spread
from helpers.bias.inequality import inequality
from helpers.bias.thresholds import accuracy_fairness, threshold_sweep
from helpers.plots import counterfactual as flips
from helpers.plots import measures, scores


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    g = rng.choice(["a", "b", "c"], 400)
    s = rng.random(400)
    return (rng.random(400) < s).astype(int), s, g


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def bars(ax):
    """(x, y) of all error bars' points and the ends of their bars, by legend label."""
    found = {}
    for container in ax.containers:
        line, _, (segments, *_) = container
        found[container.get_label()] = (line.get_xydata(), np.array(segments.get_segments()))
    return found


def labelled(drawing):
    figure = drawing if isinstance(drawing, plt.Figure) else drawing.figure
    last = figure.axes[-1]
    assert figure.get_label().endswith(".") and last.get_xlabel()
    assert last.get_ylabel() or figure.get_supylabel() or [tick for tick in last.get_yticklabels() if tick.get_text()]
    figure.canvas.draw()
    return figure.get_label()


def test_distributions_are_shares_of_each_group_and_label(data):
    y, s, g = data
    figure = scores.distributions(y, s, g, bins=10)
    assert f"median {np.median(s[(g == 'b') & (y == 1)]):.2f}" in labelled(figure)
    for name, ax in zip("abc", figure.axes, strict=True):
        assert ax.get_title(loc="left").startswith(name) or ax.get_title().startswith(name)
        polygons = [patch.get_xy() for patch in ax.patches]
        for polygon, label in zip(polygons, (0, 1), strict=True):
            mine = s[(g == name) & (y == label)]
            assert polygon[:, 1].max() == pytest.approx(np.histogram(mine, np.linspace(0, 1, 11))[0].max() / len(mine))


def test_roc_curves_areas_and_marks(data):
    y, s, g = data
    ax = scores.roc(y, s, g, threshold=0.6)
    said, drawn = labelled(ax), lines(ax)
    for name in "abc":
        mine = g == name
        auc = roc_auc_score(y[mine], s[mine])
        assert f"{name} AUC {auc:.3f}" in said
        fpr, tpr, _ = roc_curve(y[mine], s[mine], drop_intermediate=False)
        np.testing.assert_allclose(drawn[f"{name}  (AUC {auc:.3f})"], np.stack([fpr, tpr], 1))
    marks = [line.get_xydata()[0] for line in ax.get_lines() if len(line.get_xydata()) == 1]
    expected = [[(s[(g == k) & (y == 0)] >= 0.6).mean(), (s[(g == k) & (y == 1)] >= 0.6).mean()] for k in "abc"]
    np.testing.assert_allclose(marks, expected)
    assert len({line.get_linestyle() for line in ax.get_lines() if "AUC" in line.get_label()}) == 3


def test_a_group_without_a_curve_is_named(data):
    y, s, g = data
    ax = scores.roc(np.where(g == "c", 1, y), s, g)
    assert any("one label only: c" in text.get_text() for text in ax.texts)
    with pytest.raises(ValueError, match="y_true: no group has both labels"):
        scores.roc(np.ones(400, int), s, g)


def test_reliability_draws_the_bins(data):
    result = calibration(*data, bins=5, n_boot=20)
    ax = result.plot()
    assert f"b {result.value('expected_calibration_error_corrected', 'b'):.3f}" in labelled(ax)
    for container, (_, rows) in zip(ax.containers, result.by_bin.groupby("group"), strict=True):
        line, _, (segments,) = container
        np.testing.assert_allclose(line.get_xydata(), rows[["mean_score", "value"]])
        ends = np.array(segments.get_segments())[:, :, 1]
        np.testing.assert_allclose(ends, rows[["low", "high"]], atol=1e-12)


def test_a_sweep_draws_groups_gap_and_band(data):
    table = threshold_sweep(*data)
    ax = scores.sweep(table, "true_positive_rate")
    drawn = lines(ax)
    rows = table[table["statistic"] == "true_positive_rate"]
    for name in "abc":
        np.testing.assert_allclose(drawn[name], rows[rows["group"] == name][["threshold", "value"]])
    gap = rows[rows["kind"] == "gap"]
    np.testing.assert_allclose(drawn["gap between groups"], gap[["threshold", "value"]])
    assert f"{gap['value'].max():.2f}" in labelled(ax)
    named = scores.sweep(table, "equalized_odds", threshold=None)
    assert list(lines(named)) == ["gap between groups"] and "gap" in named.get_ylabel()
    with pytest.raises(ValueError, match="statistic: unknown name 'recall'"):
        scores.sweep(table, "recall")


def test_accuracy_against_fairness_joins_the_front(data):
    table = accuracy_fairness(*data)
    ax = scores.accuracy_fairness(table, threshold=0.4)
    front, _ = bars(ax)["no threshold is better in both"], labelled(ax)
    expected = table[table["pareto"]].sort_values(["gap", "accuracy"])[["gap", "accuracy"]]
    np.testing.assert_allclose(front[0], expected)
    chosen = table[table["threshold"] == 0.4][["gap", "accuracy"]]
    np.testing.assert_allclose(lines(ax)["threshold 0.40"], chosen)
    with pytest.raises(ValueError, match="table: no threshold has both"):
        scores.accuracy_fairness(table.assign(gap=np.nan))


@pytest.fixture
def pairs():
    rng = np.random.default_rng(1)
    before, after, g = rng.random(90), rng.random(90), rng.choice(["a", "b"], 90)
    return flip_report(before, after, g, direction=np.where(g == "a", "no -> yes", "yes -> no"), attribute="facial_hair")


@pytest.mark.parametrize(("by", "names"), [("group", ["a", "b"]), ("direction", ["no -> yes", "yes -> no"])])
def test_flips_are_drawn_with_both_ways(pairs, by, names):
    ax = flips.flips(pairs, by=by)
    assert "facial hair" in labelled(ax)
    assert [label.get_text().split("  (")[0] for label in ax.get_yticklabels()] == [*names, "all"]
    drawn = {"any flip": "flip_rate", "to positive": "flips_to_positive", "to negative": "flips_to_negative"}
    for label, statistic in drawn.items():
        points, segments = bars(ax)[label]
        expected = [pairs.value(statistic, name) for name in "ab"] + [pairs.value(statistic)]
        np.testing.assert_allclose(points[:, 0], expected)
        limits = [pairs.interval(statistic, name) for name in "ab"] + [pairs.interval(statistic)]
        np.testing.assert_allclose(segments[:, :, 0], limits)


def test_changes_show_mean_and_interval(pairs):
    figure = flips.changes(pairs)
    said = labelled(figure)
    for name, ax in zip("ab", figure.axes, strict=True):
        assert f"{name} {pairs.value('score_change', name):+.3f}" in said
        assert pairs.value("score_change", name) in [line.get_xdata()[0] for line in ax.get_lines()]
    with pytest.raises(ValueError, match="by: 'class' given"):
        flips.changes(pairs, by="class")
    with pytest.raises(ValueError, match="by: no direction is known"):
        flips.flips(flip_report([0.1, 0.9], [0.8, 0.7], ["a", "b"]), by="direction")


def test_three_classes_flip_one_way_only():
    rng = np.random.default_rng(2)
    ax = flip_report(rng.dirichlet([1, 1, 1], 20), rng.dirichlet([1, 1, 1], 20), ["a", "b"] * 10).plot()
    assert list(bars(ax)) == ["any flip"]


def test_the_gallery_shows_the_largest_changes(tmp_path, monkeypatch):
    import torch

    from helpers.bias.counterfactual import counterfactual
    from helpers.data import load_faces

    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path))
    faces = load_faces("illustrated", split="test", n=8, image_size=32, n_jobs=1, progress=False)

    class Centre(torch.nn.Module):
        def forward(self, images):
            return (images[:, :, 12:20, 6:26].mean((1, 2, 3), keepdim=True).flatten(1) - 0.5) * 8

    result = counterfactual(Centre(), faces)
    figure = flips.gallery(result, faces, n=3)
    change = (result.rows["score_after"] - result.rows["score_before"]).abs()
    top = int(result.rows.loc[change.idxmax(), "row"])
    shown = [ax.get_images()[0].get_array() for ax in figure.axes]
    np.testing.assert_allclose(shown[0], faces[top][0].permute(1, 2, 0))
    np.testing.assert_allclose(shown[3], faces.counterfactual(top, "glasses").permute(1, 2, 0))
    assert figure.get_label().startswith("The 3 faces")


def test_measures_of_inequality_and_spread():
    rng = np.random.default_rng(3)
    g = rng.choice(["a", "b", "c"], 90)
    result = inequality(rng.integers(0, 2, 90), rng.integers(0, 2, 90), g, n_boot=50)
    ax = result.plot()
    points, _ = next(iter(bars(ax).values()))
    np.testing.assert_allclose(points[:, 0], [result.value("generalised_entropy", name) for name in "abc"])
    assert "alpha = 1" in ax.get_xlabel() and labelled(ax)
    table = between(rng.normal(size=(90, 4)), g)
    ax = measures.by_group(table, "distance")
    assert [label.get_text().split("  (")[0] for label in ax.get_yticklabels()] == ["a – b", "a – c", "b – c"]
    lonely = measures.by_group(spread(np.eye(3), ["a", "a", "b"]), "distance")
    assert any(text.get_text() == "undefined" for text in lonely.texts)
    with pytest.raises(ValueError, match="measure: no group has a finite value of distance"):
        measures.by_group(spread(np.eye(2), ["a", "b"]), "distance")


def test_many_groups_are_named_below_the_curves():
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 800), np.arange(800) % 8
    s = np.clip(0.3 * y + 0.7 * rng.random(800), 0, 1)
    for ax in (scores.roc(y, s, group), scores.roc(y, s, group % 2)):
        ax.figure.canvas.draw()
        below = ax.get_legend().get_window_extent().y1 <= ax.xaxis.label.get_window_extent().y0
        assert below == (len(ax.get_legend().get_texts()) > 4)
        assert ax.get_window_extent().width > 150
