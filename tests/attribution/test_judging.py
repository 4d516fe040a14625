"""The scores that judge maps, against slow textbook versions, planted truth and chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.attribution import attribute, curve, evaluate, metrics, random_maps, summary
from helpers.attribution.faithfulness import ranking

NEEDS_NOTHING = ["deletion", "insertion", "mu_fidelity", "infidelity"]
CONSTANT = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def values(frame, metric):
    return frame[frame.metric == metric].value.to_numpy()


@pytest.mark.parametrize("activation", ["softmax", "logit"])
@pytest.mark.parametrize("kind", ["deletion", "insertion"])
@pytest.mark.parametrize("steps", [4, 7])
def test_curves_equal_the_textbook_loop(cnn, images, kind, steps, activation):
    maps, target = random_maps(images), [2, 0, 1]
    found = curve(cnn, images, maps, target, kind, steps=steps, activation=activation, baseline=0.25, batch_size=5)
    cnn.eval()
    for i in range(3):
        order = maps[i].flatten().argsort(descending=True)
        for step in range(steps + 1):
            top = order[: int(256 * step / steps)]
            start, end = images[i].flatten(1).clone(), torch.full((3, 256), 0.25)
            if kind == "insertion":
                start, end = end, start
            start[:, top] = end[:, top]
            with torch.no_grad():
                score = cnn(start.reshape(1, 3, 16, 16))[0]
            score = score.softmax(0) if activation == "softmax" else score
            assert found[i, step] == pytest.approx(score[target[i]].item(), abs=1e-5)
    frame = evaluate(cnn, images, maps, target, kind, steps=steps, activation=activation, baseline=0.25, batch_size=100)
    assert values(frame, kind) == pytest.approx(np.trapezoid(found, dx=1 / steps, axis=1), abs=1e-5)


def test_one_logit_is_judged_by_its_sigmoid(cnn, images):
    one = nn.Sequential(*cnn[:-1], nn.Linear(32, 1)).eval()
    probability = one(images).sigmoid()[:, 0].detach().numpy()
    first = [curve(one, images, random_maps(images), side, steps=2)[:, 0] for side in (0, 1)]
    assert first[1] == pytest.approx(probability, abs=1e-6)
    assert first[0] == pytest.approx(1 - probability, abs=1e-6)


def test_the_true_map_beats_chance_and_its_opposite(looks_at_square, square, images):
    """A model that sees only the square: a map of the square must win, one of everything else must lose."""
    noise = random_maps(images)
    maps = {"truth": square + 0.1 * noise, "chance": noise, "opposite": 0.1 * noise - square.float()}
    frame = evaluate(looks_at_square, images, maps, 1, masks=square.expand(3, 16, 16), steps=16)
    judged = set(frame.metric)
    means = summary(frame).set_index(["metric", "method"])["mean"]
    known = metrics().set_index("name")
    assert judged == set(known.index) - set(frame.attrs["left_out"])
    for metric, better in known.better[[name in judged for name in known.index]].items():
        truth, chance, opposite = (means[metric, name] for name in maps)
        if metric == "pointing_game":
            assert truth == 1 and opposite == 0
        elif better == "lower":
            assert truth < chance < opposite
        else:
            signed = better == "higher" and metric != "relevance_mass"  # region scores take relevance for and against alike
            assert truth > chance > opposite if signed else truth > chance
    found = attribute(looks_at_square, images, 1, "gradient_input")
    scores = evaluate(looks_at_square, images, found, 1, ["relevance_mass", "pointing_game"], square.expand(3, 16, 16))
    assert (scores.value == 1).all()


def test_localisation_by_hand():
    images = torch.full((1, 3, 2, 3), 0.5)
    maps = torch.tensor([[[4.0, -9.0, 1.0], [3.0, 0.0, 2.0]]])
    masks = torch.tensor([[[True, True, False], [True, False, False]]])
    frame = evaluate(CONSTANT, images, maps, 0, masks=masks, steps=2).set_index("metric").value
    assert frame["relevance_mass"] == pytest.approx(7 / 10)  # -9 is no relevance for the class
    assert frame["relevance_rank"] == pytest.approx(2 / 3)  # of the pixels with 4, 3 and 2
    assert frame["pointing_game"] == 1
    outside = evaluate(CONSTANT, images, -maps, 0, "pointing_game", masks)
    assert outside.value.item() == 1  # now the pixel with 9 leads, which is inside too
    assert evaluate(CONSTANT, images, maps, 0, "pointing_game", ~masks).value.item() == 0
    rank = evaluate(CONSTANT, images, maps, 0, "relevance_rank", ~masks).value.item()
    assert rank == pytest.approx(1 / 3)  # of the same three pixels; the fourth, with 1, is inside too


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 11))
def test_at_chance_localisation_is_the_share_of_the_mask(seed, size):
    rng = np.random.default_rng(seed)
    masks = rng.permuted(np.tile(np.arange(12) < size, (400, 1)), axis=1).reshape(400, 3, 4)
    images = torch.full((400, 3, 3, 4), 0.5)
    chosen = ["relevance_mass", "relevance_rank", "pointing_game"]
    frame = evaluate(CONSTANT, images, random_maps(images, seed), 0, chosen, masks)
    assert ((frame.value >= 0) & (frame.value <= 1)).all()
    assert frame.groupby("metric").value.mean().to_numpy() == pytest.approx([size / 12] * 3, abs=0.13)


def test_only_the_order_and_the_sign_matter(cnn, images, square):
    maps = attribute(cnn, images, 0, "gradient_input")
    masks = square.expand(3, 16, 16)
    first = evaluate(cnn, images, maps, 0, masks=masks, steps=5)
    assert first.equals(evaluate(cnn, images, maps * 8, 0, masks=masks, steps=5))
    cubed = evaluate(cnn, images, maps.double() ** 3, 0, masks=masks, steps=5)
    by_size = ["relevance_mass", "RRF", "HRF", "MRR", "mu_fidelity", "infidelity"]
    same = ~first.metric.isin(by_size)  # the others go by ranks
    assert first[same].equals(cubed[same]) and not first[~same].equals(cubed[~same])


def test_ties_are_broken_at_random_but_alike_for_every_method():
    flat = np.zeros((2, 6, 6))
    first = ranking(flat, seed=0)
    assert np.array_equal(first, ranking(flat + 5, seed=0)) and not np.array_equal(first, ranking(flat, seed=1))
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(np.sort(first, axis=1), np.tile(np.arange(36), (2, 1)))
    places = np.mean([ranking(flat, seed)[0] for seed in range(400)], axis=0)
    assert np.abs(places - 17.5).max() < 3  # no place in the picture is favoured
    half = np.repeat([[[1.0, 0.0]]], 6, axis=1)
    assert (ranking(half, seed=3).reshape(6, 2)[:, 0] < 6).all()


def test_what_is_undefined_is_nan_with_its_reason(images, square):
    maps = {"zero": torch.zeros(3, 16, 16), "negative": -1 - random_maps(images), "holes": random_maps(images)}
    maps["holes"][1, 0, 0] = np.nan
    masks = square.expand(3, 16, 16).clone()
    masks[2] = False
    again = {name: lambda model, some, target, made=made: made[:1].expand(len(some), 16, 16) for name, made in maps.items()}
    frame = evaluate(CONSTANT, images, maps, 0, masks=masks, before=random_maps(images), explain=again, steps=3)
    reasons = {(row["method"], row["metric"], row["image"]): row["reason"] for row in frame.attrs["undefined"]}
    gone = frame[frame.value.isna()]
    assert set(reasons) == set(zip(gone.method, gone.metric, gone.image, strict=True))
    assert reasons["zero", "relevance_mass", 0] == "the map has no positive relevance"
    assert reasons["negative", "relevance_mass", 0] == "the map has no positive relevance"
    assert "same everywhere" in reasons["zero", "pointing_game", 1]
    assert ("negative", "relevance_rank", 0) not in reasons
    for metric in ("relevance_mass", "relevance_rank", "pointing_game"):
        assert reasons["holes", metric, 2] == "the mask has no pixel"
    for metric in set(metrics().name) - set(frame.attrs["left_out"]):
        assert reasons["holes", metric, 1] == "the map has values that are not finite"


def test_the_table_is_tidy_and_says_what_it_left_out(cnn, images):
    frame = evaluate(cnn, images, random_maps(images), steps=3)
    assert list(frame.columns) == ["image", "metric", "value"] and set(frame.metric) == {*NEEDS_NOTHING}
    known = metrics().set_index("name")
    assert frame.attrs["left_out"].keys() == set(known.index) - {*NEEDS_NOTHING}
    assert not known.loc[NEEDS_NOTHING, ["needs_masks", "needs_before", "needs_explain"]].any(axis=None)
    assert {"relevance_mass", "relevance_rank", "pointing_game", "RRF"} <= frame.attrs["left_out"].keys()
    several = evaluate(cnn, images, {"a": random_maps(images), "b": random_maps(images, 1)}, steps=3)
    assert list(several.columns) == ["method", "image", "metric", "value"] and len(several) == 24
    assert np.array_equal(several[several.method == "a"].value, frame.value)
    one = evaluate(cnn, images, random_maps(images), metrics="insertion", steps=3)
    assert set(one.metric) == {"insertion"} and one.attrs["left_out"] == {}


def test_more_steps_than_pixels_are_as_many_as_pixels():
    images = torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    assert curve(CONSTANT, images, random_maps(images), 0, steps=50).shape == (1, 10)


def test_summary_covers_the_mean_and_splits_by_any_column(cnn, images):
    rng = np.random.default_rng(0)
    frame = evaluate(cnn, images, {"a": random_maps(images)}, metrics="deletion", steps=2)
    covered = 0
    for trial in range(60):
        sample = frame.loc[np.repeat(0, 40)].assign(image=range(40), value=rng.exponential(size=40))
        row = summary(sample, confidence=0.9, seed=trial).iloc[0]
        assert row.low < row["mean"] < row.high and row.n == 40
        covered += row.low <= 1 <= row.high
    assert 44 <= covered <= 60  # nominal 54 of 60
    split = summary(sample.assign(group=np.repeat(["x", "y"], 20)))
    assert list(split.group) == ["x", "y"] and (split.n == 20).all()
    assert split["mean"].mean() == pytest.approx(sample.value.mean())


def test_summary_of_little_claims_little(cnn, images):
    frame = evaluate(cnn, images, random_maps(images), metrics="deletion", steps=2)
    one = summary(frame[frame.image == 0]).iloc[0]
    assert one["mean"] == frame.value[0] and np.isnan(one.low) and np.isnan(one.high)
    gone = summary(frame.assign(value=np.nan)).iloc[0]
    assert np.isnan(gone["mean"]) and gone.n == 0 and gone.undefined == 3
    misses = summary(frame.assign(value=0.0)).iloc[0]
    assert misses["mean"] == misses.low == 0 and misses.high == pytest.approx(0.5615, abs=1e-4)  # Wilson, 0 of 3
