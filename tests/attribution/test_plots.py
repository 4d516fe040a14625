"""What the figures must show: zero in the middle, a scale, the face, words for those who do not see it."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from helpers.plots.attribution import mean_map_by_group, panel, scores
from helpers.plots.style import DIVERGING


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def maps(images):
    values = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    values[0, 0, 0] = 1e6  # one extreme pixel
    return values


def pictures(figure):
    return [axes for axes in figure.axes if axes.images]


@pytest.mark.parametrize("scale", ["method", "map"])
@pytest.mark.parametrize("overlay", [False, True])
def test_panel_has_zero_in_the_middle_of_a_scale_that_outliers_do_not_set(images, maps, overlay, scale):
    figure = panel(images, {"a": maps, "b": -2 * maps.abs()}, ["x", "y", "z"], overlay=overlay, scale=scale)
    shown = [axes.images[-1] for axes in pictures(figure) if axes.images[-1].get_cmap().name == DIVERGING]
    assert len(shown) == 6
    for image in shown:
        low, high = image.get_clim()
        assert low == -high and 1 < high < 100
    assert (len({image.get_clim() for image in shown}) == 2) == (scale == "method")
    assert sum(axes.get_xlabel() in ("relevance", "share of the\n99th percentile") for axes in figure.axes) == 2
    faces = [axes for axes in pictures(figure) if len(axes.images) == (2 if overlay else 1)]
    assert len(faces) >= 6  # with overlay, a face lies under each map
    assert "a, b" in figure.get_label() and "3 faces" in figure.get_label()


def test_a_map_of_zeros_is_white_and_nan_is_no_error(images):
    empty = np.zeros((3, 16, 16))
    empty[0, 0, 0] = np.nan
    figure = panel(images, {"nothing": empty})
    assert [axes.images[0].get_clim() for axes in pictures(figure)][1] == (-1, 1)
    figure.canvas.draw()


def test_scores_draw_each_mean_and_interval():
    table = pd.DataFrame(
        {
            "method": ["a", "b", "chance"] * 2,
            "metric": ["deletion"] * 3 + ["relevance_mass"] * 3,
            "mean": [0.2, 0.4, 0.5, 0.8, 0.5, 0.3],
            "low": [0.1, np.nan, 0.4, 0.7, 0.4, 0.2],
            "high": [0.3, np.nan, 0.6, 0.9, 0.6, 0.4],
        }
    )
    figure = scores(table, chance="chance")
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == ["deletion", "relevance mass"]
    assert "lower" in figure.axes[0].get_xlabel() and "higher" in figure.axes[1].get_xlabel()
    drawn = [tuple(np.round(line.get_xdata(), 3)) for line in figure.axes[0].lines]
    assert drawn == [(0.1, 0.3), (0.2,), (0.4,), (0.5, 0.5)]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a"]
    assert "deletion a 0.20" in figure.get_label()


def test_group_means_are_means(images, maps):
    codes = torch.tensor([1, 0, 1])
    figure = mean_map_by_group(maps, codes, ["plain", "glasses", "nobody"], images)
    faces, means = pictures(figure)[:2], pictures(figure)[2:]
    assert len(means) == 2  # no map for a group without images
    assert np.allclose(means[0].images[0].get_array(), maps[1])
    assert np.allclose(means[1].images[0].get_array(), maps[[0, 2]].mean(0))
    assert np.allclose(faces[1].images[0].get_array(), images[[0, 2]].mean(0).permute(1, 2, 0))
    assert means[0].images[0].get_clim() == means[1].images[0].get_clim()
    assert "glasses (n = 2)" in [axes.get_title(loc="center") for axes in figure.axes]
    assert len(pictures(mean_map_by_group(maps, ["b", "a", "b"]))) == 2


def test_means_of_maps_without_a_sign_are_sizes_from_zero_on(images, maps):
    for values, low, words in ((maps, -1, "mean relevance"), (abs(maps), 0, "mean size of relevance")):
        figure = mean_map_by_group(values, ["a", "a", "b"])
        limits = pictures(figure)[0].images[0].get_clim()
        assert limits[0] == low * limits[1] < limits[1]
        assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == [words]


def test_figures_refuse_what_does_not_fit(images, maps):
    for call, message in [
        (lambda: panel(images[0], {"a": maps}), r"images: shape \(3, 16, 16\)"),
        (lambda: panel((images * 255).byte(), {"a": maps}), "images: uint8 up to 25[0-9]; expected floats"),
        (lambda: panel(images * 255, {"a": maps}), "images: float32 up to 25.*expected floats"),
        (lambda: panel(images, {}), "attributions: none"),
        (lambda: panel(images, maps), "attributions: Tensor given; expected name -> maps"),
        (lambda: panel(images, {"a": maps[:2]}), r"attributions 'a': shape \(2, 16, 16\)"),
        (lambda: panel(images, {"a": maps}, ["one"]), "titles: 1 texts for 3"),
        (lambda: panel(images, {"a": maps}, scale="methd"), "Did you mean 'method'"),
        (lambda: scores(pd.DataFrame({"metric": [], "value": []})), r"no column method.*summary\(frame\)"),
        (lambda: mean_map_by_group(maps, [0, 1]), r"group: shape \(2,\)"),
        (lambda: mean_map_by_group(maps, [0, 1, 2], ["a", "b"]), "codes from 0 to 1"),
        (lambda: mean_map_by_group(maps[0], [0, 1, 2]), "attributions: shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
