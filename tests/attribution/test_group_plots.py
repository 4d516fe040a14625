"""Figures by group show the numbers of their tables, strike out what is not trusted, and say it in words."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.attribution import quality, regions, shift
from helpers.plots import attribution_groups as figures

QUICK = {"n_boot": 100, "n_permutations": 499}
STROKE = "\u0336"


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    maps, group = rng.exponential(size=(40, 8, 8)), np.repeat(np.array(["near", "far"]), 20)
    masks = {"top_half": np.arange(64).reshape(8, 8) < 32, "nothing": np.zeros((8, 8), bool)}
    maps[20:, :4] *= 3
    named = {"sees": maps, "blind_one": maps}
    result = regions(named, masks, group, randomised={"sees": 0.1, "blind_one": 0.9}, correct=rng.random(40) < 0.7, **QUICK)
    return maps, masks, group, result


def title(ax):
    return ax.get_title(loc="left") or ax.get_title()


def markers(ax, kind):
    return sorted(float(x) for line in ax.lines if line.get_marker() == kind for x in line.get_xdata())


def test_bars_and_maps_are_those_of_the_table(found):
    maps, masks, group, result = found
    figure = figures.by_group(maps, group, result.by_group, masks=masks, images=np.full((40, 3, 8, 8), 0.5), method="sees")
    table = result.by_group.query("method == 'sees' and measure == 'share' and predictions == 'all' and region == 'top_half'")
    bars = figure.axes[-1].patches if figure.axes[-1].patches else figure.axes[-2].patches
    assert sorted(bar.get_width() for bar in bars if np.isfinite(bar.get_width()) and bar.get_width()) == pytest.approx(
        sorted(table.value)
    )
    shown = [ax.images[-1].get_array() for ax in figure.axes[:2]]
    np.testing.assert_allclose(shown[0], maps[group == table.group.iloc[0]].mean(0))
    assert "far (n = 20)" in [ax.get_title(loc="center") for ax in figure.axes]
    assert f"top_half far {table.value.iloc[0]:.2f}" in figure.get_label()
    codes, names = (group == "near").astype(int), ["far", "near"]
    coded = figures.by_group(maps, codes, result.by_group, groups=names, method="sees", measure="density")
    np.testing.assert_allclose(coded.axes[0].images[-1].get_array(), shown[0])


def test_what_is_not_trusted_is_struck_through(found):
    *_, result = found
    figure = figures.differences(result.differences)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sum(STROKE in label for label in labels) == 2 and not any(STROKE in label for label in labels if "sees" in label)
    row = result.differences.query("method == 'sees' and region == 'top_half'")
    assert row.difference.item() in markers(figure.axes[0], "o")  # beyond noise
    assert row.difference.item() in markers(figure.axes[0], "x")  # the same number of the blind one
    assert "not trusted" in figure.get_label() and "correlate 0.90" in figure.get_label()
    trusted = figures.differences(result.differences.query("method == 'sees'"))
    assert not any(STROKE in label.get_text() for label in trusted.axes[0].get_yticklabels())
    figures.differences(result.outcomes.rename(columns={"group": "other"}).assign(group="correct"))


def test_before_and_after_are_both_drawn(found):
    maps, masks, group, _ = found
    after = maps.copy()
    after[20:, :4] /= 3
    table = shift(maps, after, masks, group, randomised=0.99, **QUICK).by_group
    figure = figures.shift(table)
    assert [STROKE in title(ax) for ax in figure.axes] == [True] * 3
    row = table.query("group == 'near' and region == 'top_half'").iloc[0]
    at = [STROKE.join("near") in title(ax) for ax in figure.axes].index(True)
    assert row.before in markers(figure.axes[at], "o") and row.after in markers(figure.axes[at], "x")
    table = shift(maps, after, masks, group, **QUICK).by_group
    assert f"near top_half {row.before:.2f} to {row.after:.2f}" in figures.shift(table).get_label()


def test_scores_have_a_panel_each(found):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame([("m", i, metric, rng.normal()) for i in range(20) for metric in ("deletion", "insertion")],
                         columns=["method", "image", "metric", "value"])  # fmt: skip
    figure = figures.differences(quality(frame, np.arange(20) % 3, **QUICK).differences)
    assert [title(ax) for ax in figure.axes] == ["deletion", "insertion"]


def test_concepts_are_drawn_by_layer():
    table = pd.DataFrame({"layer": ["early", "late"] * 2, "target": ["no", "no", "yes", "yes"], "group": "glasses",
                          "effect": [0.1, -2.0, 0.2, 2.0], "low": [-0.1, -3, 0, 1], "high": [0.3, -1, 0.4, 3],
                          "separation": [0.6, 0.8] * 2, "verdict": ["within noise", "depends"] * 2})  # fmt: skip
    figure = figures.concepts(table)
    assert [title(ax) for ax in figure.axes] == ["no", "yes"] and markers(figure.axes[0], "o") == [-2.0]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["early  (0.60)", "late  (0.80)"]
    assert "yes, late, glasses: +2.00 (+1.00 to +3.00), depends" in figure.get_label()


def test_outlines_name_the_regions_that_there_are(found):
    _, masks, _, _ = found
    ax = figures.outlines(masks, np.full((3, 8, 8), 0.5))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["top half"] and "over a face" in ax.figure.get_label()
    tensors = {name: torch.from_numpy(mask) for name, mask in masks.items()}
    assert figures.outlines(tensors, torch.full((3, 8, 8), 0.5).bfloat16()).figure.get_label() == ax.figure.get_label()


def test_what_does_not_fit_is_refused(found):
    maps, masks, group, result = found
    for call, message in [
        (lambda: figures.by_group(maps, group, result.by_group), "method: none named; accepted: sees, blind_one"),
        (lambda: figures.by_group(maps, group[:3], result.by_group, method="sees"), r"group: shape \(3,\)"),
        (lambda: figures.by_group(maps, ["x"] * 40, result.by_group, method="sees"), "nobody is in 'far'"),
        (lambda: figures.by_group(maps, group, result.by_group, method="see"), "Did you mean 'sees'"),
        (lambda: figures.by_group(maps, group, result.differences, method="sees"), "no column measure, value"),
        (lambda: figures.differences(result.differences[:0]), "no row"),
        (lambda: figures.differences(result), "table: no column .*expected one of attribution.regions"),
        (lambda: figures.by_group(maps, group, result.by_group, groups=("far", "near"), method="sees"), "codes from 0 to 1"),
        (lambda: figures.shift(result.differences), "no column before, after"),
        (lambda: figures.outlines({}), "masks: expected"),
        (lambda: figures.concepts(result.differences), "no column layer"),
        (lambda: figures.outlines(masks, np.full((3, 4, 4), 0.5)), "image: .*4, 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
