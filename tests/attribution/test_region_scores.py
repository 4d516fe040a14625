"""The seven region scores against arithmetic by hand, and planted shifts of relevance."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.attribution import evaluate, metrics, random_maps
from helpers.attribution.region_scores import intensity

MODEL = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
ONE = ["RRF", "HRF", "MRR", "DET"]
TWO = ["ADR", "DIF", "RDDT"]


def scores(maps, masks, before=None, metrics=None, **options):
    images = torch.full((len(maps), 3, *maps.shape[1:]), 0.5)
    chosen = metrics or (ONE if before is None else [*ONE, *TWO])
    return evaluate(MODEL, images, maps, 0, chosen, masks, before=before, **options)


def test_by_hand():
    maps = torch.tensor([[[4.0, -8.0, 0.0], [2.0, 0.0, 2.0]]])  # p = .25 .5 0 / .125 0 .125
    before = torch.tensor([[[8.0, 8.0, 0.0], [-8.0, 0.0, 0.0]]])  # p = .5 .5 0 / .5 0 0
    masks = torch.tensor([[[True, True, False], [True, False, False]]])
    found = scores(maps, masks, before).set_index("metric").value
    assert found["RRF"] == pytest.approx(0.875 / 1.0)
    assert found["HRF"] == 1.0
    assert found["MRR"] == pytest.approx((0.875 / 3) / (0.125 / 3))
    assert found["ADR"] == pytest.approx((0.25 + 0 + 0.375) / 3)
    assert found["DIF"] == pytest.approx(2 / 3)
    assert found["DET"] == 0 and found["RDDT"] == 0  # three pixels prove nothing at 0.01
    strict = scores(maps, masks, metrics="HRF", high=0.2).value
    assert strict.item() == pytest.approx(2 / 3)


def test_scale_and_sign_do_not_matter():
    maps = random_maps(torch.rand(3, 3, 16, 16))
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[:, 4:9, 3:12] = True
    first = scores(maps, masks, before=random_maps(torch.rand(3, 3, 16, 16), seed=5)).value
    second = scores(-8 * maps, masks, before=4 * random_maps(torch.rand(3, 3, 16, 16), seed=5)).value
    np.testing.assert_allclose(first, second)


def test_relevance_that_is_moved_away_is_seen_and_its_return_is_not():
    draw = torch.Generator().manual_seed(0)
    noise = torch.rand(8, 16, 16, generator=draw)
    masks = torch.zeros(8, 16, 16, dtype=torch.bool)
    masks[:, 2:8, 2:8] = True
    strong = noise + 3 * masks
    found = scores(noise, masks, before=strong).groupby("metric").value.mean()
    assert found["ADR"] < 0.2  # each map is scaled by its own maximum
    gone = noise * ~masks + 0.01
    left = scores(gone, masks, before=strong).groupby("metric").value.mean()
    assert left["RDDT"] == 1 and left["DIF"] == 1 and left["ADR"] > 0.3 and left["DET"] == 0 and left["MRR"] < 0.1
    back = scores(strong, masks, before=gone).groupby("metric").value.mean()
    assert back["RDDT"] == 0 and back["DIF"] == 0 and back["ADR"] == pytest.approx(-left["ADR"]) and back["DET"] == 1


def test_nothing_changed_and_chance():
    maps = random_maps(torch.rand(200, 3, 16, 16))
    masks = torch.zeros(200, 16, 16, dtype=torch.bool)
    masks[:, :4] = True
    found = scores(maps, masks, before=maps).groupby("metric").value.mean()
    assert found[TWO].tolist() == [0, 0, 0]
    assert found["RRF"] == pytest.approx(0.25, abs=0.01) and found["MRR"] == pytest.approx(1, abs=0.05)
    assert found["DET"] <= 0.04  # the level is 0.01


def test_what_is_undefined_says_why():
    maps = torch.zeros(3, 4, 4)
    maps[1:, 0, 0] = 1.0
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, 0, 0] = masks[2] = True
    frame = scores(maps, masks, before=maps)
    reasons = {(each["image"], each["metric"]): each["reason"] for each in frame.attrs["undefined"]}
    assert reasons[0, "RRF"] == "the map has no relevance"
    assert {reasons[1, name] for name in (*ONE, *TWO)} == {"the mask has no pixel"}
    assert reasons[2, "MRR"] == reasons[2, "DET"] == "the mask is the whole picture"
    assert set(zip(*(frame[frame.value.isna()][key] for key in ("image", "metric")), strict=True)) == set(reasons)


def test_what_they_need_is_asked_for():
    maps = random_maps(torch.rand(2, 3, 8, 8))
    masks = torch.ones(2, 8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="before: ADR need the maps"):
        scores(maps, masks, metrics="ADR")
    with pytest.raises(ValueError, match="masks: RRF need them"):
        scores(maps, None, metrics="RRF")
    with pytest.raises(ValueError, match="before: no maps for 'b'"):
        images = torch.full((2, 3, 8, 8), 0.5)
        evaluate(MODEL, images, {"a": maps, "b": maps}, 0, "ADR", masks, before={"a": maps})
    with pytest.raises(ValueError, match="before.*shape"):
        scores(maps, masks, before=maps[:1])
    images = torch.full((2, 3, 8, 8), 0.5)
    frame = evaluate(MODEL, images, maps, 0, masks=masks, steps=2)
    known = metrics().set_index("name")
    asking = {*known.index[known.needs_explain], "completeness"}
    assert set(frame.attrs["left_out"]) == {*TWO, *asking} and metrics().set_index("name").needs_before[TWO].all()


def test_intensity_is_the_distance_to_the_neutral_point_of_a_scaled_heatmap():
    maps = np.random.default_rng(0).normal(size=(3, 5, 5))
    top = np.abs(maps).max((1, 2), keepdims=True)
    np.testing.assert_allclose(intensity(maps), np.abs((maps + top) / 2 / top - 0.5))
    assert (intensity(np.zeros((1, 2, 2))) == 0).all()


def test_equal_to_detoxai():
    """Its classes (0.3.8) gave these values for the same maps and rectangle, each map scaled to a heatmap from 0 to 1."""
    rng = np.random.default_rng(0)
    maps, before = rng.normal(size=(2, 6, 12, 12))
    masks = np.zeros((6, 12, 12), bool)
    masks[:, 2:7, 3:7] = True
    theirs = {
        "HRF": [0.85, 0.8, 0.6, 0.75, 0.9, 0.85],
        "MRR": [1.087309, 0.974959, 0.928531, 1.094339, 1.149449, 1.108012],
        "ADR": [-0.04958, -0.010911, 0.037686, 0.066527, -0.077099, -0.004284],
        "DIF": [0.35, 0.4, 0.65, 0.55, 0.3, 0.6],
    }
    frame = scores(maps, masks, before, list(theirs))
    for name, expected in theirs.items():
        np.testing.assert_allclose(frame[frame.metric == name].value, expected, atol=1e-6)
