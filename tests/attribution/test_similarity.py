"""How far methods agree: known correlations, invariances, and what has no order left out. About a second."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from helpers.attribution import rank_agreement
from helpers.plots import judging


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(5, 6, 7))
    near, other = one + 0.3 * rng.normal(size=one.shape), rng.normal(size=one.shape)
    return {"one": one, "near": near, "opposite": -(one**3), "other": other}


def test_it_is_scipys_mean_over_images(maps):
    found = rank_agreement(maps)
    for one in maps:
        for other in maps:
            each = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps[one], maps[other], strict=True)]
            assert found.loc[one, other] == pytest.approx(np.mean(each))
    assert found.loc["one", "opposite"] == pytest.approx(-1) and found.loc["one", "one"] == pytest.approx(1)
    np.testing.assert_allclose(found, found.T)


def test_only_the_order_counts(maps):
    grown = {name: torch.from_numpy(np.exp(values) * 5 + 1) for name, values in maps.items()}
    pd.testing.assert_frame_equal(rank_agreement(grown), rank_agreement(maps))
    assert rank_agreement(maps, absolute=True).loc["one", "opposite"] == pytest.approx(1)
    both = rank_agreement({"one": maps["one"]}, {"near": maps["near"], "other": maps["other"]})
    assert both.shape == (1, 2) and both.loc["one", "near"] == rank_agreement(maps).loc["one", "near"]


def test_maps_without_an_order_are_left_out(maps):
    flat = maps["near"].copy()
    flat[0], flat[1, 0, 0] = 3, np.nan
    found = rank_agreement({"one": maps["one"], "flat": flat, "none": np.zeros_like(flat)})
    rest = {"one": maps["one"][2:], "flat": flat[2:]}
    assert found.loc["one", "flat"] == rank_agreement(rest).loc["one", "flat"]
    assert np.isnan(found.loc["one", "none"])


def test_bad_input(maps):
    with pytest.raises(ValueError, match="attributions: none given"):
        rank_agreement({})
    with pytest.raises(ValueError, match=r"attributions b: shape \(4, 6, 7\); expected \(5, 6, 7\)"):
        rank_agreement({"a": maps["one"], "b": maps["one"][:4]})
    with pytest.raises(ValueError, match=r"attributions: shape \(6, 7\)"):
        rank_agreement({"a": maps["one"][0]})
    with pytest.raises(ValueError, match="table: it is empty"):
        judging.agreement(pd.DataFrame())


def test_the_figure_says_every_number(maps):
    table = rank_agreement(maps)
    axes = judging.agreement(table)
    assert [text.get_text() for text in axes.texts] == [f"{value:.2f}" for value in table.to_numpy().ravel()]
    assert axes.collections[0].get_clim() == (-1, 1)
    assert f"one and near {table.loc['one', 'near']:.2f}" in axes.figure.get_label()
