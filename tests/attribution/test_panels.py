"""Side by side: one scale for what is compared, zero in the middle, outlines only where the test says so, words for the rest."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from helpers.attribution import pixel_differences
from helpers.plots.attribution import mean_map_by_group, panel
from helpers.plots.attribution_panels import before_after, by_group
from helpers.plots.style import DIVERGING

STROKE = "\u0336"


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def faces():
    return torch.rand(3, 3, 12, 20, generator=torch.Generator().manual_seed(1))  # not square


def shown(figure):
    """Maps on the diverging palette, in the order in which they were drawn; colour bars are not among them."""
    found = [ax.images[-1] for ax in figure.axes if ax.images and not ax.get_label().startswith("<colorbar")]
    return [image for image in found if image.get_cmap().name == DIVERGING]


def words(figure):
    figure.canvas.draw()
    return [text.get_text() for ax in figure.axes for text in [*ax.texts, ax.xaxis.label, ax.yaxis.label, ax.title]]


@pytest.mark.parametrize("scale", ["method", "map"])
@pytest.mark.parametrize("overlay", [False, True])
def test_before_and_after_share_a_scale_and_the_difference_is_the_difference(faces, overlay, scale):
    before = {"a": noise(3, 12, 20), "b": noise(3, 12, 20, seed=1)}
    after = {"b": noise(3, 12, 20, seed=2), "a": noise(3, 12, 20, seed=3)}
    after["a"][1] += 4
    figure = before_after(faces, before, after, ["x", "y", "z"], overlay=overlay, scale=scale)
    images = shown(figure)
    assert len(images) == 18
    for image in images:
        low, high = image.get_clim()
        assert low == -high < 0
        middle = image.get_cmap()(image.norm(0.0))
        assert min(middle[:3]) > 0.95  # zero is white
    maps = {tuple(np.round(np.asarray(image.get_array()).ravel()[:4], 5)): image for image in images}
    find = lambda values: maps[tuple(np.round(np.asarray(values, dtype=values.numpy().dtype).ravel()[:4], 5))]
    for name in "ab":
        for row in range(3):
            first, second = find(before[name][row]), find(after[name][row])
            change = find(after[name][row] - before[name][row])
            assert first.get_clim() == second.get_clim() != change.get_clim()
    assert (find(before["a"][0]).get_clim() == find(before["a"][1]).get_clim()) == (scale == "method")
    bars = [ax for ax in figure.axes if ax.get_xlabel().startswith(("relevance", "change"))]
    assert len(bars) == 4
    assert sum(text.startswith("±") for text in words(figure)) == (18 if scale == "map" else 0)
    assert "before and after by a, b" in figure.get_label() and "3 faces" in figure.get_label()


def test_one_grey_face_and_the_change_of_its_score():
    figure = before_after(torch.full((1, 1, 9, 9), 0.5), noise(1, 9, 9), noise(1, 9, 9, seed=1), ["me"], scores=([0.91], [0.34]))
    assert "me\n0.91 → 0.34" in words(figure)
    assert "1 face in rows" in figure.get_label() and "0.91 → 0.34" in figure.get_label()
    assert "0.50 → 0.25" in words(before_after(torch.rand(1, 3, 9, 9), noise(1, 9, 9), noise(1, 9, 9), scores=([0.5], [0.25])))


def test_a_redrawn_face_stands_beside_its_map_under_the_names_given():
    faces, redrawn = torch.zeros(2, 3, 9, 9), torch.ones(2, 3, 9, 9)
    options = {"images_after": redrawn, "names": ("with", "without"), "overlay": True}
    figure = before_after(faces, noise(2, 9, 9), noise(2, 9, 9, seed=1), **options)
    said = words(figure)
    assert {"Face\nwith", "Face\nwithout", "With", "Without", "Without − with"} <= set(said)
    under = [float(np.mean(ax.images[0].get_array())) for ax in figure.axes if len(ax.images) == 2]
    assert sorted(under) == [0, 0, 0, 0, 1, 1]  # the map of the redrawn face lies over that face
    assert "map with and without on one scale" in figure.get_label()


@pytest.mark.parametrize("overlay", [False, True])
def test_a_map_without_numbers_is_grey_and_one_of_zeros_says_so(faces, overlay):
    maps = noise(3, 12, 20)
    maps[0], maps[1] = float("nan"), 0
    maps[2, 0, 0] = float("inf")
    figure = panel(faces, {"m": maps}, scale="map", overlay=overlay)
    said = words(figure)
    assert "no number\n(NaN)" in said and "all zero" in said
    assert sum(text.startswith("±") for text in said) == 1  # only the last has a scale
    missing, zero, partly = shown(figure)
    assert np.ma.getmaskarray(missing.get_array()).all() and np.ma.getmaskarray(partly.get_array()).sum() == 1
    grey = missing.get_cmap().get_bad()
    assert np.ptp(grey[:3]) == 0 and grey[0] < 0.8
    assert "no number\n(NaN)" in words(before_after(faces, maps, maps, overlay=overlay))


def test_each_picture_says_where_its_scale_ends(faces):
    maps = torch.ones(3, 12, 20) * torch.tensor([0.5, 20.0, 3.0])[:, None, None]
    assert [text for text in words(panel(faces, {"m": maps}, scale="map")) if text.startswith("±")] == ["±0.5", "±20", "±3"]
    assert not [text for text in words(panel(faces, {"m": maps})) if text.startswith("±")]


def test_under_an_overlay_the_face_can_be_seen(faces):
    strong = panel(faces, {"m": torch.ones(3, 12, 20)}, overlay=True)
    for ax in strong.axes:
        if len(ax.images) == 2:
            assert np.max(ax.images[1].get_alpha()) < 0.8
    figure = mean_map_by_group(noise(3, 12, 20), ["a", "b", "a"], images=faces, overlay=True)
    assert sum(len(ax.images) == 2 for ax in figure.axes) == 2


@pytest.fixture
def groups():
    maps = noise(30, 10, 14)
    maps[:15, 2:4, 5:8] += 5
    named, member = {"sees": maps, "blind_one": 100 * maps}, np.repeat(["left", "right"], 15)
    return torch.rand(30, 3, 10, 14, generator=torch.Generator().manual_seed(1)), named, member


def test_means_of_methods_by_group_share_a_scale_within_a_method(groups):
    faces, maps, member = groups
    images = shown(by_group(faces, maps, member))
    assert len(images) == 4
    for (left, right), values in zip((images[:2], images[2:]), maps.values(), strict=True):
        np.testing.assert_allclose(left.get_array(), values[:15].mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(right.get_array(), values[15:].mean(0), rtol=1e-4, atol=1e-5)
        assert left.get_clim() == right.get_clim()
    assert images[0].get_clim() != images[2].get_clim()
    assert len(shown(by_group(faces, maps["sees"], member, overlay=True))) == 2


def test_outlines_are_those_of_the_test_and_only_of_trusted_methods(groups):
    faces, maps, member = groups
    found = pixel_differences(maps, member)
    assert found.beyond["sees"][2:4, 5:8].all()
    figure = by_group(faces, maps, member, difference=found, untrusted={"blind_one": "it shows the image"})
    outlined = [ax for ax in figure.axes if ax.collections and len(ax.images) == 1]
    (only,) = [ax for ax in outlined if any(type(each).__name__ == "QuadContourSet" for each in ax.collections)]
    np.testing.assert_allclose(only.images[0].get_array(), found.difference["sees"])
    (contour,) = [each for each in only.collections if type(each).__name__ == "QuadContourSet"]
    corners = np.concatenate([path.vertices for path in contour.get_paths() if len(path.vertices)])
    rows, columns = np.nonzero(found.beyond["sees"])  # the line runs along the edges of the pixels
    expected = [[columns.min() - 0.5, rows.min() - 0.5], [columns.max() + 0.5, rows.max() + 0.5]]
    np.testing.assert_allclose([corners.min(0), corners.max(0)], expected, atol=0.2)
    said = words(figure)
    assert f"{found.beyond['sees'].sum()} of 140 pixels" in said and "not trusted" in said
    assert sum(STROKE in text for text in said) == 1
    assert "it shows the image" in figure.get_label() and "it shows the image" in figure.get_supxlabel()
    assert "5%" in figure.get_supxlabel()


def test_groups_of_one_or_none_are_said_to_be(faces):
    maps = torch.stack([torch.full((12, 20), 1.0), torch.full((12, 20), 3.0), torch.full((12, 20), 900.0)])
    figure = by_group(faces, maps, [0, 0, 1], ["two", "one", "none"])
    said = words(figure)
    assert "two\n(n = 2)" in said and "one\n(n = 1: no mean)" in said and "none\n(n = 0)" in said
    assert said.count("no image") == 2  # of the face and of the map
    assert {image.get_clim() for image in shown(figure)} == {(-2, 2)}  # one image is no mean, and sets no scale
    found = pixel_differences(maps, [0, 0, 1], ("two", "one"), groups=["two", "one", "none"])
    assert "no test: fewer than two in a group" in words(by_group(faces, maps, [0, 0, 1], ["two", "one"], difference=found))
    faces, maps, member = torch.cat([faces] * 2), torch.zeros(6, 12, 20), ["a", "b"] * 3
    assert "nothing beyond noise" in words(by_group(faces, maps, member, difference=pixel_differences(maps, member)))
    maps[0] = float("nan")
    figure = by_group(faces, maps + 1, member, difference=pixel_differences(maps + 1, member))
    assert "without 1 that has no number" in words(figure)
    assert np.isfinite(shown(figure)[0].get_array()).all()


def test_what_does_not_fit_is_refused(faces, groups):
    maps = noise(3, 12, 20)
    found = pixel_differences(noise(6, 12, 20), ["a", "b"] * 3)
    for call, message in [
        (lambda: before_after(faces, maps, maps[:2]), r"after: shape \(2, 12, 20\); expected \(3, 12, 20\)"),
        (lambda: before_after(faces, {"a": maps}, {"b": maps}), "after: maps of 'b'; before has 'a'"),
        (lambda: before_after(faces, {}, {}), "before: none given"),
        (lambda: before_after(faces, maps, maps, ["x"]), "titles: 1 texts for 3"),
        (lambda: before_after(faces, maps, maps, scores=([1, 2], [1, 2])), "scores: expected two sequences of 3"),
        (lambda: before_after(faces, maps, maps, images_after=faces[:2]), r"images_after: 2 of \(12, 20\); expected 3"),
        (lambda: before_after(faces, maps, maps, names=("one",)), "names: .* expected two"),
        (lambda: before_after(faces, maps, maps, scale="maps"), "Did you mean 'map'"),
        (lambda: before_after(255 * faces, maps, maps), "expected floats in"),
        (lambda: by_group(faces, {"a": maps[:, :5]}, ["a"] * 3), r"attributions 'a': shape \(3, 5, 20\)"),
        (lambda: by_group(faces, maps, ["a"] * 2), r"group: shape \(2,\); expected \(3,\)"),
        (lambda: by_group(faces, maps, [0, 1, 5], ["a", "b"]), "codes from 0 to 1"),
        (lambda: by_group(faces, {"m": maps}, ["a", "b", "a"], difference=found), "difference: of ''; the maps are of 'm'"),
        (lambda: by_group(*groups, difference=pixel_differences({k: abs(v) for k, v in groups[1].items()}, groups[2])),
         "difference 'sees': not that of these maps"),
        (lambda: mean_map_by_group(maps, ["a", "b", "a"], overlay=True), "overlay: True without images"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
