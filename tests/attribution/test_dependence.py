"""Scores of the same maps by several baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.attribution import attribute, baseline_dependence, evaluate, random_maps
from helpers.attribution.dependence import BASELINES


def maps_of(model, images, target=0):
    return {
        "product": attribute(model, images, target, "gradient_input"),
        "chance": random_maps(images),
        "opposite": -attribute(model, images, target, "gradient_input"),
    }


def test_each_baselines_scores_are_those_of_evaluate(cnn, images):
    maps = maps_of(cnn, images)
    found = baseline_dependence(cnn, images, maps, 0, ["deletion", "mu_fidelity"], ["black", 0.5], samples=20, steps=4)
    for baseline in ("black", 0.5):
        alone = evaluate(cnn, images, maps, 0, ["deletion", "mu_fidelity"], baseline=baseline, samples=20, steps=4)
        part = found.frame[found.frame.baseline == str(baseline)].reset_index(drop=True)
        assert part[["method", "image", "metric", "value"]].equals(alone)
    means = found.frame.groupby(["baseline", "method", "metric"])["value"].mean()
    scores = found.scores.set_index(["baseline", "method", "metric"])
    assert scores["mean"].to_dict() == pytest.approx(means.to_dict())
    for (_, metric), part in found.scores.groupby(["baseline", "metric"]):
        order = part.sort_values("mean", ascending=metric == "deletion")["rank"]
        assert list(order) == [1, 2, 3]


def test_where_the_best_is_best_by_all_baselines_they_agree(looks_at_square, square, images):
    noise = random_maps(images)
    maps = {"truth": square + 0.1 * noise, "chance": noise, "none": noise - 1.0 * square}
    images = 0.5 + images / 2  # brighter than every baseline but white
    found = baseline_dependence(looks_at_square, images, maps, 1, "deletion", ["black", 0.2, "white"], activation="logit")
    agreement = found.agreement.set_index(["baseline", "other"])
    assert agreement.tau["black", "0.2"] == 1 and agreement.same_best["black", "0.2"]
    assert agreement.tau["black", "white"] == -1 and not agreement.same_best["black", "white"]  # white adds brightness


def test_default_baselines_all_work(cnn, images):
    found = baseline_dependence(cnn, images, maps_of(cnn, images), 0, steps=3, samples=6)
    assert list(found.scores.baseline.unique()) == list(BASELINES) and len(found.agreement) == 3 * 10
    assert np.isfinite(found.frame.value).all() and found.agreement.tau.between(-1, 1).all()
    one = baseline_dependence(cnn, images, {"a": random_maps(images)}, 0, "deletion", ["black", "white"], steps=3)
    assert one.agreement.tau.isna().all() and one.agreement.same_best.isna().all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"baselines": ["black"]}, "baselines: .*at least two"),
        ({"baselines": ["black", "black"]}, "baselines: .*different"),
        ({"baselines": "black"}, "baselines: 'black'"),
        ({"baseline": "black"}, "baseline: 'black'; expected several, as baselines="),
        ({"baselines": ["black", "blak"]}, "baseline: .*Did you mean 'black'"),
        ({"metrics": ["pointing_game"]}, "metrics: pointing_game has no baseline; accepted: deletion"),
        ({"attributions": torch.zeros(3, 16, 16)}, "attributions: Tensor; expected maps by the name"),
    ],
)
def test_bad_input_is_named(cnn, images, change, message):
    call = {"attributions": {"a": random_maps(images)}, "target": 0, "metrics": "deletion"} | change
    with pytest.raises(ValueError, match=message):
        baseline_dependence(cnn, images, **call, steps=2)
