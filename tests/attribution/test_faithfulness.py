"""Scores that change the image at random, and what they put in the place of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.stats import pearsonr, spearmanr
from torch import nn

from helpers.attribution import attribute, curve, evaluate, random_maps
from helpers.attribution.baselines import NAMED, baseline_of, inpaint, remove

KINDS = ("deletion", "insertion")
BASELINES = [*NAMED, "inpaint", 0.25]


def value(model, images, maps, metric, target=0, **options):
    return evaluate(model, images, maps, target, metric, **options).value.to_numpy()


@pytest.mark.parametrize("baseline", ["black", 0.25, "mean", "noise"])
@pytest.mark.parametrize("correlation", ["spearman", "pearson"])
def test_mu_fidelity_of_the_exact_map_is_one(linear, weight, images, correlation, baseline):
    base = baseline_of(baseline, images)
    exact = ((images - base) * weight[1]).sum(1)
    settings = {"baseline": baseline, "correlation": correlation, "samples": 50}
    assert value(linear, images, exact, "mu_fidelity", 1, **settings) == pytest.approx([1] * 3, abs=1e-3)
    assert value(linear, images, -exact, "mu_fidelity", 1, **settings) == pytest.approx([-1] * 3, abs=1e-3)
    chance = value(linear, images, random_maps(images), "mu_fidelity", 1, **settings)
    assert np.abs(chance).max() < 0.7


@pytest.mark.parametrize("correlation, textbook", [("spearman", spearmanr), ("pearson", pearsonr)])
def test_mu_fidelity_is_the_textbooks(cnn, images, correlation, textbook):
    maps, target = random_maps(images), [2, 0, 1]
    subsets = torch.rand(12, 16, 8, generator=torch.Generator().manual_seed(0)) < 0.3
    wide = subsets.repeat_interleave(2, dim=2)  # 8 columns on 16 pixels
    settings = {"subsets": subsets, "baseline": 0.5, "activation": "softmax", "correlation": correlation}
    found = value(cnn, images, maps, "mu_fidelity", target, batch_size=5, **settings)
    cnn.eval()
    with torch.no_grad():
        for i in range(3):
            score = lambda image, code=target[i]: cnn(image[None]).softmax(1)[0, code].item()
            drop = [score(images[i]) - score(torch.where(gone, 0.5, images[i])) for gone in wide]
            relevance = [(maps[i] * gone).sum().item() for gone in wide]
            assert found[i] == pytest.approx(textbook(relevance, drop).statistic, abs=1e-3)


def test_draws_depend_on_seed_and_image_alone(cnn, images):
    maps = random_maps(images)
    for metric in ("mu_fidelity", "infidelity"):
        first = value(cnn, images, maps, metric, samples=30)
        assert value(cnn, images, maps, metric, samples=30, batch_size=7) == pytest.approx(first, abs=1e-4)
        assert value(cnn, images[:2], maps[:2], metric, samples=30) == pytest.approx(first[:2], abs=1e-4)
        assert value(cnn, images, maps, metric, samples=30, seed=1) != pytest.approx(first, rel=0.05)
        both = evaluate(cnn, images, {"a": maps, "b": maps}, 0, metric, samples=30).value.to_numpy()
        assert np.array_equal(both[:3], both[3:])
    same = images[:1].expand(2, -1, -1, -1)  # but each image has subsets of its own
    first, second = value(cnn, same, maps[:1].expand(2, -1, -1), "mu_fidelity", samples=30)
    assert first != second


def test_mu_fidelity_stops_when_it_knows_enough(cnn, images):
    passes = 0

    def count(module, args, output):
        nonlocal passes
        passes += len(output)

    def cost(**options):
        nonlocal passes
        passes = 0
        return value(cnn, images, maps, "mu_fidelity", samples=400, **options), passes

    maps = attribute(cnn, images, 0, "gradient_input")
    cnn[-1].register_forward_hook(count)
    full, all_passes = cost()
    rough, few = cost(tolerance=0.2)
    fine, more = cost(tolerance=0.05)
    never, most = cost(tolerance=1e-9)
    assert few < more < all_passes <= most and few < all_passes / 4
    assert np.abs(rough - full).max() < 0.6 and np.abs(fine - full).max() < 0.2
    assert never == pytest.approx(full)


def test_the_model_is_asked_once_for_all_maps(cnn, images):
    passes = 0

    def count(module, args, output):
        nonlocal passes
        passes += len(output)

    cnn[-1].register_forward_hook(count)
    maps = {str(seed): random_maps(images, seed) for seed in range(4)}
    for tolerance in (None, 0.1):
        for metric, options in {"mu_fidelity": {"tolerance": tolerance}, "infidelity": {}}.items():
            passes = 0
            together = evaluate(cnn, images, maps, 0, metric, samples=100, **options)
            assert passes <= 1 + 3 * 101
            alone = [value(cnn, images, each, metric, 0, samples=100, **options) for each in maps.values()]
            assert together.value.to_numpy() == pytest.approx(np.concatenate(alone))


@pytest.mark.parametrize("normalize", [True, False])
def test_infidelity_of_the_exact_map_is_zero(linear, weight, images, normalize):
    def noise(maps):
        return value(linear, images, maps, "infidelity", 1, normalize=normalize, samples=20)

    def subsets(maps):
        return value(linear, images, maps, "infidelity", 1, perturbation="subsets", normalize=normalize, samples=20)

    gradient, product = weight[1].sum(0).expand(3, -1, -1), (images * weight[1]).sum(1)
    assert noise(gradient) == pytest.approx([0] * 3, abs=1e-4) and noise(random_maps(images)).min() > 0.1
    assert subsets(product) == pytest.approx([0] * 3, abs=1e-3) and subsets(random_maps(images)).min() > 0.1
    if normalize:
        assert noise(5 * gradient) == pytest.approx([0] * 3, abs=1e-4)
        assert noise(-gradient) == pytest.approx(noise(0 * gradient))  # the wrong way is no better than nothing
    else:
        assert noise(5 * gradient).min() > 1


@pytest.mark.parametrize("normalize", [True, False])
def test_infidelity_is_captums_at_equal_changes(cnn, images, normalize):
    from captum.metrics import infidelity

    target, samples = torch.tensor([2, 0, 1]), 25
    maps = attribute(cnn, images, target, "saliency", absolute=False)
    cnn.eval()

    def noise(inputs):  # Captum repeats each image `samples` times in a row
        drawn = [
            np.random.default_rng([4, i, s]).standard_normal((16, 16), dtype=np.float32)
            for i in range(3)
            for s in range(samples)
        ]
        lost = 0.1 * torch.from_numpy(np.stack(drawn))[:, None].expand_as(inputs)
        return lost, inputs - lost

    shared = maps[:, None].expand(-1, 3, -1, -1) / 3
    theirs = infidelity(cnn, noise, images, shared, target=target, n_perturb_samples=samples, normalize=normalize)
    ours = value(cnn, images, maps, "infidelity", target, samples=samples, seed=4, noise=0.1, normalize=normalize)
    assert ours == pytest.approx(theirs.detach().numpy(), rel=1e-3)


def test_what_cannot_be_correlated_is_nan_with_its_reason(linear, images):
    maps = torch.stack([torch.zeros(16, 16), *random_maps(images)[1:]])
    maps[1, 0, 0] = np.inf
    frame = evaluate(linear, images, maps, 0, "mu_fidelity", samples=10)
    assert np.isnan(frame.value[:2]).all() and np.isfinite(frame.value[2])
    first, second = (row["reason"] for row in frame.attrs["undefined"])
    assert "same relevance" in first and "not finite" in second
    constant = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    frame = evaluate(constant, 0 * images, random_maps(images), 0, "mu_fidelity", samples=10)
    assert all("score stays the same" in row["reason"] for row in frame.attrs["undefined"]) and frame.value.isna().all()


@pytest.mark.parametrize("baseline", BASELINES)
def test_every_baseline_keeps_what_is_kept_and_ends_at_itself(cnn, images, baseline):
    rows, removed = torch.tensor([2, 0, 2]), torch.rand(3, 1, 16, 16) < 0.5
    changed = remove(images, rows, removed, baseline)
    kept = ~removed.expand_as(changed)
    assert torch.equal(changed[kept], images[rows][kept]) and not torch.equal(changed, images[rows])
    assert changed.min() > -0.01 and changed.max() < 1.01
    found = {kind: curve(cnn, images, random_maps(images), 0, kind, steps=4, baseline=baseline) for kind in KINDS}
    assert found["deletion"][:, 0] == pytest.approx(found["insertion"][:, -1], abs=1e-5)  # the whole image
    assert found["deletion"][:, -1] == pytest.approx(found["insertion"][:, 0], abs=1e-5)  # nothing of it
    assert np.isfinite(value(cnn, images, random_maps(images), "mu_fidelity", baseline=baseline, samples=10)).all()

def test_noise_is_the_seeds_and_the_images(images):
    whole = baseline_of("noise", images, slice(None), seed=3)
    assert torch.equal(whole[1:], baseline_of("noise", images[1:], slice(1, 9), seed=3))
    assert torch.equal(whole[[2]], baseline_of("noise", images[[2]], torch.tensor([2]), seed=3))
    assert not torch.equal(whole, baseline_of("noise", images)) and not torch.equal(whole[0], whole[1])
    assert 0 <= whole.min() and whole.max() < 1 and whole.mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("share", [0.3, 0.9, "block", "all but one"])
def test_inpainting_solves_laplaces_equation(images, share):
    if share == "block":
        removed = torch.zeros(3, 1, 16, 16, dtype=torch.bool)
        removed[:, :, 5:, :] = True  # as far as the border
    elif share == "all but one":
        removed = torch.ones(3, 1, 16, 16, dtype=torch.bool)
        removed[:, :, 4, 9] = False
    else:
        removed = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < share
    filled = inpaint(images, removed)
    path = sparse.diags([1, 1], [-1, 1], shape=(16, 16))
    adjacent = sparse.kron(path, sparse.eye(16)) + sparse.kron(sparse.eye(16), path)
    laplace = sparse.diags(np.asarray(adjacent.sum(1)).ravel()) - adjacent
    for i in range(3):
        gone = removed[i, 0].numpy().ravel()
        for channel in range(3):
            values = images[i, channel].double().numpy().ravel().copy()
            values[gone] = spsolve(laplace.tocsr()[gone][:, gone], -laplace.tocsr()[gone][:, ~gone] @ values[~gone])
            assert filled[i, channel].numpy().ravel() == pytest.approx(values, abs=5e-3)
    nothing = inpaint(images, torch.ones(3, 1, 16, 16, dtype=torch.bool))
    assert torch.allclose(nothing, images.mean((2, 3), keepdim=True).expand_as(images))
    assert torch.equal(inpaint(images, torch.zeros(3, 1, 16, 16, dtype=torch.bool)), images)


def test_inpainting_is_no_baseline_where_nothing_is_removed(cnn, images):
    with pytest.raises(ValueError, match="baseline: unknown name 'inpaint'.*Accepted: black, white, mean, blur, noise$"):
        attribute(cnn, images, 0, "integrated_gradients", baseline="inpaint")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"samples": 1}, "samples: 1; .*at least 2"),
        ({"samples": 2.5}, "samples: 2.5"),
        ({"grid": 0}, "grid: 0; .*at least 1"),
        ({"share": 0}, "share: 0; .*above 0 and at most 1"),
        ({"share": 1.5}, "share: 1.5"),
        ({"noise": "much"}, "noise: 'much'; expected a number above 0"),
        ({"tolerance": -1}, "tolerance: -1"),
        ({"correlation": "kendall"}, "correlation: .*spearman, pearson"),
        ({"perturbation": "noises"}, "perturbation: .*Did you mean 'noise'"),
        ({"activation": "sigmoid"}, "activation: .*softmax, logit"),
        ({"subsets": np.ones((5, 17, 4), dtype=bool)}, r"subsets: torch.bool \(5, 17, 4\); .*at most 16 rows"),
        ({"subsets": np.ones((5, 4, 4))}, r"subsets: torch.float64"),
        ({"subset": 1}, "Did you mean 'subsets'"),
    ],
)
def test_bad_options_are_named(images, change, message):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=message):
        evaluate(model, images, random_maps(images), 0, ["mu_fidelity", "infidelity"], **change)
