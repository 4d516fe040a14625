"""Our own loops: the values of the libraries, in full passes, and no more passes than an accuracy needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from helpers.attribution import attribute, cost
from helpers.attribution.masking import enlarged_masks, windows
from helpers.attribution.passes import pairs, rounds

TARGET = torch.tensor([2, 0, 1])


def watched(model):
    """The number of images of each pass through the model, as they come."""
    sizes = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    return sizes


@pytest.mark.parametrize("baseline", ["black", "mean", 0.3])
@pytest.mark.parametrize("quadrature", ["gausslegendre", "trapezoid"])
@pytest.mark.parametrize("steps, batch_size", [(2, 64), (7, 4), (20, 64), (50, 1)])
def test_integrated_gradients_equal_captums(cnn, images, steps, batch_size, quadrature, baseline):
    options = {"steps": steps, "quadrature": quadrature, "baseline": baseline, "channels": True}
    captum = attribute(cnn, images, TARGET, "integrated_gradients", "captum", **options)
    ours = attribute(cnn, images, TARGET, "integrated_gradients", "torch", batch_size=batch_size, **options)
    assert_close(ours, captum, rtol=1e-4, atol=1e-4 * captum.abs().mean().item())


@pytest.mark.parametrize("baseline", ["blur", 0.3])
@pytest.mark.parametrize("width", [16, 13])
@pytest.mark.parametrize("patch, stride", [(4, 2), (5, 3), (8, 8), (13, 1), (7, 4)])
def test_occlusion_equals_captums(cnn, images, patch, stride, width, baseline):
    options = {"patch": patch, "stride": stride, "baseline": baseline}
    pictures = images[:, :, :, :width]
    captum, ours = (attribute(cnn, pictures, TARGET, "occlusion", backend, **options) for backend in ("captum", "torch"))
    assert_close(ours, captum, rtol=1e-4, atol=1e-5 * captum.abs().max().item())


def test_windows_cover_a_side_and_are_cut_off_at_its_end():
    assert windows(7, 3, 2).int().tolist() == [[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1]]
    assert windows(6, 4, 4).int().tolist() == [[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert windows(4, 4, 1).all() and len(windows(4, 4, 1)) == 1


@pytest.mark.parametrize(
    "name, options, images_each",
    [
        ("integrated_gradients", {"steps": 10}, 10),
        ("smoothgrad", {"samples": 10}, 10),
        ("vargrad", {"samples": 10}, 10),
        ("occlusion", {"patch": 4, "stride": 4}, 16),
        ("rise", {"samples": 10}, 10),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_each_pass_is_full(cnn, images, name, options, images_each, count):
    """Also when few images are explained with many steps."""
    sizes = watched(cnn)
    attribute(cnn, images[:count], TARGET[:count], name, "torch", batch_size=4, **options)
    work = [size for size in sizes[1:] if size == 4]
    assert len(work) == count * images_each // 4
    assert sum(sizes) <= count * images_each + 1 + count  # the trial pass, and for occlusion the whole images


@pytest.mark.parametrize("name", ["smoothgrad", "square_grad", "vargrad", "rise"])
def test_noise_belongs_to_the_image_not_to_the_batch(cnn, images, name):
    whole = attribute(cnn, images, TARGET, name, "torch", samples=6)
    for batch_size in (1, 2, 5):
        assert_close(attribute(cnn, images, TARGET, name, "torch", samples=6, batch_size=batch_size), whole, rtol=1e-3, atol=1e-6)
    same = attribute(cnn, images[[0, 0]], 1, name, "torch", samples=6)
    assert not torch.allclose(same[0], same[1], rtol=1e-2)  # errors of two images are independent


def test_long_sums_of_half_precision_lose_nothing(linear, weight, images):
    """A thousand slopes of 8 bits each, added up in as many, would stand still long before the last."""
    half = weight.bfloat16().float()
    maps = attribute(linear.bfloat16(), images, 1, "integrated_gradients", "torch", steps=1000, channels=True)
    assert_close(maps, images.bfloat16().float() * half[1], rtol=1e-3, atol=1e-5)
    maps = attribute(linear, images, 1, "smoothgrad", "torch", samples=500, channels=True)
    assert_close(maps[0], half[1], rtol=1e-3, atol=1e-5)


class Cubes(nn.Module):
    """f = Σ w x³ / 3 has the gradient w x²; under noise σ its mean is w (x² + σ²), its variance w² (4 x² σ² + 2 σ⁴)."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        cubes = (self.weight * x**3).sum((1, 2, 3)) / 3
        return torch.stack([-cubes, cubes], dim=1)


def test_the_moments_of_the_gradient_under_noise_are_those_of_theory(weight):
    w, x, s = weight[0].double(), 0.5, 0.2
    pictures = torch.full((1, 3, 16, 16), x, dtype=torch.float64)
    options = {"channels": True, "noise": s, "samples": 2000}

    def found(name):
        return attribute(Cubes(w), pictures, 1, name, "torch", **options)[0].double()

    theory_mean, theory_variance = w * (x**2 + s**2), w**2 * (4 * x**2 * s**2 + 2 * s**4)
    assert_close(found("smoothgrad"), theory_mean, rtol=0.1, atol=0)
    assert ((found("smoothgrad") / theory_mean).mean() - 1).abs() < 0.005
    assert ((found("vargrad") / theory_variance).mean() - 1).abs() < 0.02
    assert ((found("square_grad") / (theory_variance + theory_mean**2)).mean() - 1).abs() < 0.01


def test_vargrad_is_unbiased_from_two_samples_on(weight):
    w, x, s = weight[0], 0.5, 0.2
    pictures = torch.full((200, 3, 16, 16), x)
    found = attribute(Cubes(w), pictures, 1, "vargrad", "torch", samples=2, noise=s, channels=True)
    assert ((found / (w**2 * (4 * x**2 * s**2 + 2 * s**4))).mean() - 1).abs() < 0.02
    with pytest.raises(ValueError, match="samples: 1; vargrad needs at least 2"):
        attribute(Cubes(w), pictures, 1, "vargrad", "torch", samples=1)


def test_rise_is_the_textbook_sum(linear, images):
    """The textbook sum over the same masks, made one by one from each image's own stream of noise."""
    found = attribute(linear, images, 1, "rise", "torch", samples=50, grid=4, keep=0.3, baseline=0.2, seed=3)
    for number in range(3):
        seed = np.random.SeedSequence([3, number]).generate_state(1, np.uint64)[0] >> np.uint64(1)
        generator = torch.Generator().manual_seed(int(seed))
        above, below = torch.zeros(16, 16), torch.zeros(16, 16)
        for _ in range(50):
            drawn = torch.rand(18, generator=generator)
            cells = (drawn[:16] < 0.3).float().reshape(4, 4)
            large = nn.functional.interpolate(cells[None, None], size=(20, 20), mode="bilinear", align_corners=False)[0, 0]
            top, left = int(drawn[16] * 5), int(drawn[17] * 5)
            mask = large[top : top + 16, left : left + 16]
            score = linear(images[number : number + 1] * mask + 0.2 * (1 - mask))[0, 1].item()
            above, below = above + score * mask, below + mask
        assert_close(found[number], above / (below + 1e-4), rtol=1e-3, atol=1e-3)


def test_masks_show_the_share_that_was_asked_for_everywhere():
    generator = torch.Generator().manual_seed(0)
    cells = (torch.rand(4000, 5, 5, generator=generator) < 0.3).float()
    masks = enlarged_masks(cells, torch.rand(4000, 2, generator=generator), (16, 21))
    assert masks.shape == (4000, 16, 21) and 0 <= masks.min() < 1e-6 and 1 - 1e-6 < masks.max() < 1 + 1e-6
    assert (masks.mean(0) - 0.3).abs().max() < 0.04


def test_rise_finds_the_square_that_the_model_sees(looks_at_square, square, images):
    found = attribute(looks_at_square, images, 1, "rise", "torch", samples=400, grid=5)
    assert (found[:, square].mean(1) > found[:, ~square].mean(1) + 2 * found[:, ~square].std(1) / 5).all()
    assert all(square.flatten()[picture.argmax()] for picture in found)


def kinked(seed=0):
    """ReLUs without bias terms near zero: slopes that jump along the path, as networks have them."""

    def make():
        return nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
    with torch.no_grad():
        for layer in (model[1], model[3]):
            layer.weight.mul_(3)
    return model.eval()


@pytest.mark.parametrize("tolerance", [0.05, 0.005])
def test_integrated_gradients_stop_when_they_add_up(images, tolerance):
    model, report = kinked(), {}
    sizes = watched(model)
    maps = attribute(model, images, TARGET, "integrated_gradients", tolerance=tolerance, baseline=0.5, report=report)
    with torch.no_grad():
        change = (model(images) - model(torch.full_like(images, 0.5))).gather(1, TARGET[:, None])[:, 0]
        path = torch.linspace(0, 1, 2001).view(-1, 1, 1, 1)
        along = [model(0.5 + path * (image - 0.5))[:, code] for image, code in zip(images, TARGET.tolist(), strict=True)]
    error = (maps.sum((1, 2)) - change).abs() / torch.stack([scores.max() - scores.min() for scores in along])
    assert (error <= tolerance * 1.01).all()
    assert_close(report["error"].float(), error, rtol=0.05, atol=1e-5)  # the range is that of the points taken
    assert set(report) == {"forward", "backward", "error"} and (report["forward"] == report["backward"] + 2).all()
    assert sum(sizes) == report["forward"].sum() + 1 + 6 + 3 * 2001  # and the trial, and the passes of this test
    fine = attribute(model, images, TARGET, "integrated_gradients", steps=2000, baseline=0.5)
    assert ((maps - fine).flatten(1).norm(dim=1) / fine.flatten(1).norm(dim=1)).max() < 10 * tolerance


def test_a_score_that_rises_and_falls_again_does_not_take_for_ever():
    """f(x) = f(b), but not between: the error counts against the rise, not against the nothing that is left."""

    class Hill(nn.Module):
        def forward(self, x):
            middle = x.mean((1, 2, 3))
            return torch.stack([middle * 0, 1 - (2 * middle - 1).abs()], 1)

    maps = attribute(Hill(), torch.full((1, 3, 8, 8), 1.0), 1, tolerance=0.05, report=(report := {}))
    assert maps.sum().abs() <= 0.05 and report["backward"] < 50
    assert report["error"] <= 0.05


def test_a_finer_tolerance_takes_more_steps_and_a_limit_holds(images):
    taken = []
    for tolerance in (0.1, 0.01, 0.001):
        attribute(kinked(), images, TARGET, tolerance=tolerance, report=(report := {}))
        taken.append(report["backward"].sum().item())
    assert taken[0] < taken[1] < taken[2]
    attribute(kinked(), images, TARGET, tolerance=1e-9, most=30, report=report)
    assert (report["backward"] == 30).all() and (report["error"] > 1e-9).all()


def test_an_image_that_is_its_baseline_is_done_at_once():
    pictures = torch.stack([torch.zeros(3, 16, 16), torch.full((3, 16, 16), 0.7)])
    maps = attribute(kinked(), pictures, 0, tolerance=0.01, report=(report := {}))
    assert not maps[0].any() and maps[1].any() and report["error"][0] == 0 and report["backward"][0] == 8


@pytest.mark.parametrize(
    "name, options", [("smoothgrad", {"noise": 0.3}), ("square_grad", {"noise": 0.3}), ("rise", {"grid": 4})]
)
def test_sampling_stops_at_the_standard_error_that_was_asked_for(images, name, options):
    """The error that is reported, and held, is the one seen between independent repetitions."""
    model = kinked()
    few = images[:1].repeat(12, 1, 1, 1)  # one picture, twelve streams of noise
    report = {}
    maps = attribute(model, few, 1, name, samples=4000, tolerance=0.2, channels=name != "rise", report=report, **options)
    assert (report["error"] <= 0.2).all() and (report["forward"] < 4000).all()
    flat = maps.flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)
    seen = (flat - flat.mean(0)).square().sum(0).div(11).mean().sqrt() / flat.mean(0).std()
    assert 0.5 * report["error"].mean() < seen < 2 * report["error"].mean()


@pytest.mark.parametrize("name", ["integrated_gradients", "smoothgrad", "vargrad", "rise"])
def test_a_map_of_wanted_accuracy_does_not_depend_on_its_neighbours(images, name):
    options = {"tolerance": 0.1} | ({} if name == "integrated_gradients" else {"samples": 60})
    whole = attribute(kinked(), images, TARGET, name, report=(report := {}), **options)
    for batch_size in (1, 7):
        again = attribute(kinked(), images, TARGET, name, batch_size=batch_size, report=(other := {}), **options)
        assert_close(again, whole, rtol=1e-3, atol=1e-5)
        assert torch.equal(other["forward"], report["forward"])


def test_a_report_counts_the_passes(cnn, images):
    for name, options, forward, backward in [
        ("integrated_gradients", {"steps": 9}, 9, 9),
        ("smoothgrad", {"samples": 6}, 6, 6),
        ("occlusion", {"patch": 8, "stride": 8}, 5, 0),
        ("rise", {"samples": 7}, 7, 0),
        ("grad_cam", {}, 1, 1),
        ("score_cam", {"layer": "5"}, 9, 0),
    ]:
        attribute(cnn, images, TARGET, name, "torch", batch_size=2, report=(report := {}), **options)
        assert report["forward"].tolist() == [forward] * 3 and report["backward"].tolist() == [backward] * 3
        if name != "score_cam":
            assert cost(name, "torch", (16, 16), **options) == (forward, backward)
    attribute(cnn, images, TARGET, "saliency", report=(report := {}))
    assert report == {}


def test_what_a_method_costs_is_known_beforehand():
    assert cost("occlusion", "captum", (64, 48), patch=8, stride=4) == (1 + 15 * 11, 0)
    assert cost("occlusion", "xplique", (64, 47), patch=8, stride=4) == (1 + 15 * 10, 0)
    assert cost("integrated_gradients", tolerance=0.01, most=100) == (102, 100)
    assert cost("rise") == cost("rise", "xplique") == (1000, 0)
    assert cost("sobol", grid=4, designs=16) == (16 * 18, 0)
    assert cost("saliency") == (1, 1) and cost("deeplift_shap") == (8, 8)
    assert cost("feature_ablation", segments=4) == (17, 0)
    assert cost("shapley_value_sampling", segments=torch.tensor([[0, 0], [3, 7]]), samples=5) == (16, 0)
    with pytest.raises(ValueError, match="method: what score_cam costs depends on the model"):
        cost("score_cam")
    with pytest.raises(ValueError, match="Did you mean 'steps'"):
        cost(step=3)


def test_pairs_and_rounds_miss_nothing():
    seen = [pair for which, step in pairs(3, 5, 4) for pair in zip(which.tolist(), step.tolist(), strict=True)]
    assert seen == [(i, k) for i in range(3) for k in range(5)]
    for most in (1, 8, 9, 100):
        parts = list(rounds(most))
        assert parts[0][0] == 0 and parts[-1][1] == most
        assert all(a[1] == b[0] and b[1] > b[0] for a, b in zip(parts, parts[1:], strict=False))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tolerance": 0}, "tolerance: 0; .*above 0"),
        ({"tolerance": -0.1}, "tolerance: -0.1"),
        ({"method": "rise", "keep": 1}, "keep: 1; .*between 0 and 1"),
        ({"method": "rise", "grid": 0}, "grid: 0"),
        ({"tolerance": 0.1, "most": 3}, "most: 3; .*at least 8"),
        ({"method": "occlusion", "tolerance": 0.1}, "options of occlusion .*Accepted"),
        ({"backend": "captum", "tolerance": 0.1}, r"options of integrated_gradients \(captum\)"),
    ],
)
def test_bad_options_are_refused(cnn, images, change, message):
    with pytest.raises(ValueError, match=message):
        attribute(**({"model": cnn, "images": images, "target": 0} | change))
