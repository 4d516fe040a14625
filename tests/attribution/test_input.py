"""Bad input is refused before any work, by a message that names the thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from helpers.attribution import (
    attribute,
    curve,
    estimate,
    evaluate,
    pixel_differences,
    quality,
    random_maps,
    rank_agreement,
    regions,
    summary,
)

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Never(nn.Module):
    """Fails the test if it is asked for more than the trial pass."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        assert len(x) == 1 and self.calls == 1, "long work began"
        return x.mean((2, 3))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": "integrated_gradient"}, "method: .*Did you mean 'integrated_gradients'"),
        ({"backend": "captain"}, "backend: .*Did you mean 'captum'"),
        ({"method": "grad_cam", "backend": "xplique"}, "backend: 'xplique' has no 'grad_cam'; available in: captum"),
        ({"step": 5}, r"options of integrated_gradients \(torch\): .*Did you mean 'steps'"),
        ({"method": "gradient_input", "steps": 5}, "'steps' given, but it takes none"),
        ({"steps": 1}, "steps: 1; .*at least 2"),
        ({"steps": 2.5}, "steps: 2.5"),
        ({"method": "smoothgrad", "noise": -1}, "noise: -1"),
        ({"method": "occlusion", "patch": 17}, "patch: 17 .*16"),
        ({"method": "occlusion", "patch": 2, "stride": 3}, "stride: 3 is above patch=2"),
        ({"quadrature": "simpson"}, "quadrature: .*gausslegendre, trapezoid"),
        ({"baseline": "blak"}, "baseline: .*Did you mean 'black'"),
        ({"baseline": -1.0}, r"baseline: -1.0; .*\[0, 1\]"),
        ({"baseline": torch.zeros(3, 8, 8)}, r"baseline: shape \(3, 8, 8\); .*\(3, 16, 16\)"),
        ({"baseline": None}, "baseline: None"),
        ({"channels": True, "method": "occlusion"}, "channels: occlusion has one value a pixel"),
        ({"channels": True, "method": "grad_cam"}, "channels: grad_cam has one value a pixel"),
        ({"images": IMAGES[0]}, r"images: shape \(3, 16, 16\); .*images\[None\]"),
        ({"images": IMAGES[:0]}, "holds no image"),
        ({"images": (IMAGES * 255).to(torch.uint8)}, "divide 8-bit images by 255"),
        ({"images": IMAGES * 255}, r"images: values from .*normalisation"),
        ({"images": IMAGES - 0.5}, "images: values from -0"),
        ({"images": IMAGES * np.nan}, "without NaN"),
        ({"target": 3}, "target: class 3 is outside the model's classes 0 to 2"),
        ({"target": [0, -1]}, "target: class -1"),
        ({"target": [0, 1, 2]}, r"target: shape \(3,\); .*\(2,\)"),
        ({"target": 0.5}, "target: .*expected a class code"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"device": "abacus"}, "device: 'abacus'"),
        ({"model": np.mean}, "model: expected a torch.nn.Module"),
        ({"images": [IMAGES[0], IMAGES[1]]}, r"images: list given; expected .*\(N, C, H, W\)"),
        ({"target": "smiling"}, "target: 'smiling'; expected a class code"),
        ({"seed": -1}, "seed: -1 given; .*at least 0"),
        ({"seed": 1.5}, "seed: 1.5 given"),
        ({"method": "smoothgrad", "noise": "much"}, "noise: 'much'"),
        ({"method": "rise", "keep": "half"}, "keep: 'half'"),
        ({"tolerance": "1 %"}, "tolerance: '1 %'"),
        ({"method": "saliency", "absolute": "no"}, "absolute: 'no'; expected True or False"),
        ({"method": "grad_cam", "relu": 0}, "relu: 0; expected True or False"),
        ({"method": "feature_ablation", "segments": "slic"}, "segments: 'slic'"),
    ],
)
def test_attribute_refuses(change, message):
    model = Never()
    call = {"model": model, "images": IMAGES, "target": 0} | change
    with pytest.raises(ValueError, match=message):
        attribute(**call)
    assert model.calls <= 1


def test_images_a_hair_outside_the_range_are_taken():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert attribute(model, IMAGES / IMAGES.max() * 1.0001, 0, "saliency").shape == (2, 16, 16)
    with pytest.raises(ValueError, match=r"images: shape \(3, 16, 16\)"):
        random_maps(IMAGES[0])


def test_a_model_that_does_not_fit_is_named(images):
    grey = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"images: the model cannot take images of shape \(3, 16, 16\).*channels"):
        attribute(grey, images)
    with pytest.raises(ValueError, match=r"model: its output is \(1, 3, 14, 14\).*logits"):
        attribute(nn.Conv2d(3, 3, 3), images)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    with pytest.raises(ValueError, match="layer: the model has no convolutional feature map"):
        attribute(flat, images, method="grad_cam")
    with pytest.raises(ValueError, match="layer"):
        attribute(flat, images, method="grad_cam", layer="two")
    with pytest.raises(ValueError, match="layer"):
        attribute(flat, images, method="grad_cam", layer=nn.ReLU())
    flat.needs_group = True
    with pytest.raises(ValueError, match="needs_group"):
        attribute(flat, images)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"metrics": "deletions"}, "metrics: .*Did you mean 'deletion'"),
        ({"metrics": ["deletion", "mass"]}, "metrics: unknown name 'mass'"),
        ({"metrics": []}, "metrics: none given"),
        ({"metrics": "relevance_mass"}, "masks: relevance_mass need"),
        ({"masks": torch.ones(2, 8, 8, dtype=torch.bool)}, r"masks: shape \(2, 8, 8\); expected \(2, 16, 16\)"),
        ({"masks": random_maps(IMAGES)}, "masks: .*expected booleans"),
        ({"attributions": {}}, "attributions: an empty dict"),
        ({"attributions": IMAGES}, r"attributions: shape \(2, 3, 16, 16\); expected \(2, 16, 16\); .*sum"),
        ({"attributions": {"mine": IMAGES[:, 0, :8]}}, "attributions mine: shape"),
        ({"step": 5}, "options of .*Did you mean 'steps'"),
        ({"baseline": "blak"}, "baseline: .*Did you mean 'black'"),
        ({"steps": 0}, "steps: 0"),
        ({"activation": "sigmoid"}, "activation: .*softmax, logit"),
        ({"metrics": "pointing_game", "masks": random_maps(IMAGES) > 0.5, "steps": 5}, "take none"),
        ({"target": 3}, "target: class 3"),
        ({"images": IMAGES * 255}, "images: values from"),
        ({"metrics": None}, "metrics: unknown name None"),
        ({"seed": -1}, "seed: -1 given; .*at least 0"),
        ({"explain": True}, "explain: True, but the maps have no name"),
    ],
)
def test_evaluate_refuses(change, message):
    model = Never()
    call = {"model": model, "images": IMAGES, "attributions": random_maps(IMAGES), "target": 0} | change
    with pytest.raises(ValueError, match=message):
        evaluate(**call)


def test_curve_and_summary_refuse(images):
    with pytest.raises(ValueError, match="kind: .*Did you mean 'deletion'"):
        curve(Never(), images, random_maps(images), kind="deleting")
    frame = evaluate(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), images, random_maps(images), steps=2)
    with pytest.raises(ValueError, match="frame: no column value"):
        summary(frame.drop(columns="value"))
    with pytest.raises(ValueError, match="confidence: 95"):
        summary(frame, confidence=95)
    with pytest.raises(ValueError, match="n_boot: 0 given"):
        summary(frame, n_boot=0)
    for judge in (summary, lambda maps: quality(maps, ["a"])):
        with pytest.raises(ValueError, match="frame: no column image, metric, value"):
            judge(random_maps(images))
    with pytest.raises(ValueError, match="attributions: Tensor given; expected name -> maps"):
        rank_agreement(random_maps(images))
    with pytest.raises(ValueError, match="others: Tensor given; expected name -> maps"):
        rank_agreement({"a": random_maps(images)}, random_maps(images))


def test_flipped_views_and_half_precision_are_taken(images):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    flipped = images.numpy()[..., ::-1]
    assert torch.equal(attribute(model, flipped, 0, "gradient_input"), attribute(model, flipped.copy(), 0, "gradient_input"))
    maps = random_maps(images).bfloat16()
    given = [evaluate(model, images, each, 0, "deletion", steps=2)["value"] for each in (maps, maps.float())]
    assert given[0].equals(given[1])
    found = [regions(each, {"top": np.eye(16) > 0}, list("abb")).per_image for each in (maps, maps.float())]
    assert found[0].equals(found[1])


def test_a_model_without_numbers_is_refused(images):
    class Broken(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * np.nan

    with pytest.raises(ValueError, match="model: its output for the first image has NaN"):
        attribute(Broken(), images, 0, "saliency")


def test_a_shape_of_numpy_numbers_is_a_shape():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert estimate(model, tuple(np.array([5, 3, 16, 16])), "saliency").images == 5


def test_groups_to_compare_are_named(images):
    maps = random_maps(images)
    with pytest.raises(ValueError, match="group: all images are in 'a'; expected two groups"):
        pixel_differences(maps, ["a"] * 3)
    with pytest.raises(ValueError, match="two of the groups 'a', 'b', 'c'"):
        pixel_differences(maps, ["a", "b", "c"])
