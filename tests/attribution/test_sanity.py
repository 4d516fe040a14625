"""Does the map hang on the weights, the class, the labels, the score? Planted answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from helpers.attribution import attribute, evaluate, random_maps, randomisation_curve
from helpers.attribution.sanity import randomised, ssim, weighted_layers

SANITY = ["model_randomisation", "random_logit"]


def value(model, images, maps, metric, explain=None, target=0, **options):
    return evaluate(model, images, maps, target, metric, explain=explain, **options).value.to_numpy()


def edges(model, images, target):
    """A map of the picture that never asks the model."""
    grey = images.mean(1)
    return (grey - grey.roll(1, 2)).abs()


@pytest.mark.parametrize("similarity", ["spearman", "ssim"])
@pytest.mark.parametrize("metric", SANITY)
def test_a_map_of_the_picture_alone_fails(cnn, images, metric, similarity):
    maps = edges(None, images, None)
    assert value(cnn, images, maps, metric, edges, similarity=similarity) == pytest.approx([1] * 3)


@pytest.mark.parametrize("similarity", ["spearman", "ssim"])
def test_a_map_of_the_weights_passes(images, similarity):
    generator = torch.Generator().manual_seed(8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(3, 768, generator=generator))
    maps = attribute(model, images, 0, "saliency", absolute=False)
    for metric in SANITY:
        found = value(model, images, maps, metric, ("saliency", {"absolute": False}), similarity=similarity)
        assert np.abs(found).max() < 0.2  # 256 pixels: two standard errors are 0.125


def test_the_value_is_the_rank_correlation_with_the_map_of_the_random_model(cnn, images):
    maps = attribute(cnn, images, 0, "gradient_input")
    other = randomised(cnn.eval(), weighted_layers(cnn, images[:1]), 0)
    theirs = attribute(other, images, 0, "gradient_input")
    found = value(cnn, images, maps, "model_randomisation", "gradient_input")
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(maps, theirs, strict=True)]
    assert found == pytest.approx(expected, abs=1e-4)
    unsigned = value(cnn, images, maps, "model_randomisation", "gradient_input", absolute=True)
    expected = [spearmanr(a.abs().flatten(), b.abs().flatten()).statistic for a, b in zip(maps, theirs, strict=True)]
    assert unsigned == pytest.approx(expected, abs=1e-4)
    assert value(cnn, images, maps, "model_randomisation", "gradient_input", seed=1) != pytest.approx(found, abs=1e-3)


def test_several_draws_are_averaged_so_that_a_sign_that_follows_the_weights_cancels(images):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 2))
    with torch.no_grad():
        linear[1].weight.copy_(linear[1].weight.abs() * torch.tensor([[1.0], [-1.0]]))

    def turned(net, pictures, target):
        """A map whose sign is that of one weight, and whose shape never changes."""
        return pictures.mean(1) * net[1].weight[0, 0].sign()

    maps = turned(linear, images, 0)
    single = [value(linear, images, maps, "model_randomisation", turned, seed=seed)[0] for seed in range(8)]
    assert {round(float(each)) for each in single} == {-1, 1}
    several = value(linear, images, maps, "model_randomisation", turned, draws=8)
    assert several == pytest.approx(np.full(len(images), np.mean(single)), abs=1e-12)


def test_randomised_is_a_copy_in_which_every_weight_named_is_new(cnn, images):
    order = weighted_layers(cnn, images[:1])
    assert order == ["9", "4", "1", "0"]
    state, before = torch.get_rng_state(), {name: p.clone() for name, p in cnn.named_parameters()}
    other = randomised(cnn, order[:2], seed=0)
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter, before[name]) == (name.split(".")[0] not in ("9", "4"))
    assert all(torch.equal(p, before[name]) for name, p in cnn.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)
    again = randomised(cnn, order[:2], seed=0)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), again.parameters(), strict=True))


def test_weights_without_a_beginning_of_their_own_are_shuffled(linear, images):
    assert weighted_layers(linear, images[:1]) == [""]
    other = randomised(linear, [""], seed=0)
    assert not torch.equal(other.weight, linear.weight)
    assert torch.equal(other.weight.flatten().sort().values, linear.weight.flatten().sort().values)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    names = [name for name, module in normed.named_modules() if list(module.parameters(recurse=False))]
    assert not torch.allclose(randomised(normed, names, 0).weight, normed.weight)


def test_the_part_counts_layers_from_the_last(cnn, images):
    curve = randomisation_curve(cnn, images, "saliency", 0)
    assert list(curve.columns) == ["layers", "last", "image", "value"] and len(curve) == 12
    assert list(curve["last"].unique()) == ["9", "4", "1", "0"]
    maps = attribute(cnn, images, 0, "saliency")
    for count in (1, 2, 4):
        found = value(cnn, images, maps, "model_randomisation", "saliency", part=count / 4)
        assert found == pytest.approx(curve[curve.layers == count].value.to_numpy(), abs=1e-6)
    few = randomisation_curve(cnn, images, "saliency", 0, steps=2)
    assert list(few.layers.unique()) == [1, 4]
    picture = randomisation_curve(cnn, images, edges, 0)
    assert picture.value.to_numpy() == pytest.approx(np.ones(12))


def test_another_class_of_two_is_the_other_one(images, linear, weight):
    maps = attribute(linear, images, 1, "gradient_input")
    found = value(linear, images, maps, "random_logit", "gradient_input", target=1)
    other = attribute(linear, images, 0, "gradient_input")
    assert found == pytest.approx([spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(maps, other, strict=True)])
    one = nn.Sequential(nn.Flatten(), nn.Linear(768, 1))  # its two classes are z and −z
    maps = attribute(one, images, 1, "gradient_input")
    assert value(one, images, maps, "random_logit", "gradient_input", target=1) == pytest.approx([-1] * 3)
    assert value(one, images, maps, "random_logit", "gradient_input", target=1, absolute=True) == pytest.approx([1] * 3)


def test_label_randomisation_compares_with_the_retrained_model(cnn, images, linear, weight):
    maps = attribute(cnn, images, 0, "gradient_input")
    with pytest.raises(ValueError, match="retrained: None; expected a torch.nn.Module"):
        value(cnn, images, maps, "label_randomisation", "gradient_input")
    found = value(cnn, images, maps, "label_randomisation", "gradient_input", retrained=linear)
    other = attribute(linear, images, 0, "gradient_input")
    assert found == pytest.approx([spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(maps, other, strict=True)])
    assert value(cnn, images, maps, "label_randomisation", "gradient_input", retrained=cnn) == pytest.approx([1] * 3)
    frame = evaluate(cnn, images, maps, 0, explain="gradient_input", samples=2, steps=2)
    assert "shuffled labels" in frame.attrs["left_out"]["label_randomisation"]


def test_completeness_holds_where_it_is_claimed(cnn, images):
    good, bad = (attribute(cnn, images, 0, "integrated_gradients", steps=steps) for steps in (100, 2))
    assert value(cnn, images, good, "completeness").max() < 0.05
    assert value(cnn, images, bad, "completeness").max() > value(cnn, images, good, "completeness").max()
    blurred = attribute(cnn, images, 0, "integrated_gradients", steps=100, baseline="blur")
    assert value(cnn, images, blurred, "completeness", baseline="blur").max() < 0.05
    assert value(cnn, images, 3 * good, "completeness") == pytest.approx([2] * 3, abs=0.15)
    saliency = attribute(cnn, images, 0, "saliency")
    frame = evaluate(cnn, images, saliency, 0, "completeness", explain="saliency")
    assert frame.value.isna().all()
    assert {row["reason"] for row in frame.attrs["undefined"]} == {"saliency does not claim completeness"}
    black = evaluate(cnn, 0 * images, saliency, 0, "completeness")
    assert {row["reason"] for row in black.attrs["undefined"]} == {"the score is that of the baseline"}


def test_what_cannot_be_compared_is_nan_with_its_reason(cnn, images):
    maps = torch.stack([torch.zeros(16, 16), *random_maps(images)[1:]])
    maps[1, 0, 0] = np.nan
    frame = evaluate(cnn, images, maps, 0, SANITY, explain=lambda model, some, target: random_maps(some))
    assert list(frame.value.isna()) == [True, True, False] * 2
    reasons = [row["reason"] for row in frame.attrs["undefined"]]
    assert reasons == ["a map is the same everywhere", "the map has values that are not finite"] * 2
    bare = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    frame = evaluate(bare, images, random_maps(images), 0, "model_randomisation", explain="saliency")
    assert {row["reason"] for row in frame.attrs["undefined"]} == {"the model has no weights"}
    with pytest.raises(ValueError, match="model: it has no weights"):
        randomisation_curve(bare, images, "saliency", 0)


def test_ssim_is_one_for_the_same_and_low_for_another():
    first, second = random_maps(torch.zeros(2, 3, 24, 24)).double().numpy() - 0.5, np.zeros((2, 24, 24))
    second[:, 4:8] = 1
    assert ssim(first, 7 * first) == pytest.approx([1, 1]) and ssim(first, -first).max() < 0
    assert ssim(first, second).max() < 0.3 and np.isnan(ssim(first, 0 * first)).all()
    assert np.isfinite(ssim(first[:, :4, :4], first[:, :4, :4])).all()  # smaller than its window


@pytest.mark.parametrize(
    "change, message",
    [
        ({"part": 0}, "part: 0; .*above 0 and at most 1"),
        ({"part": 1.1}, "part: 1.1"),
        ({"draws": 0}, "draws: 0; .*at least 1"),
        ({"similarity": "pearson"}, "similarity: .*spearman, ssim"),
        ({"explain": None}, "explain: model_randomisation need it"),
    ],
)
def test_bad_options_are_named(cnn, images, change, message):
    call = {"explain": "saliency"} | change
    with pytest.raises(ValueError, match=message):
        evaluate(cnn, images, attribute(cnn, images, 0, "saliency"), 0, "model_randomisation", **call)
