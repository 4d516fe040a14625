"""Scores of maps that are made again for a shifted image, and how a metric is told to make them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.attribution import attribute, evaluate, metrics

STABILITY = ["average_stability", "sensitivity_max"]
AGAIN = list(metrics().query("needs_explain").name.drop(metrics().query("name == 'label_randomisation'").index))


def value(model, images, maps, metric, explain, target=0, **options):
    return evaluate(model, images, maps, target, metric, explain=explain, **options).value.to_numpy()


def gradient(model, images, target):
    """|gradient| for images of any range."""
    images = images.detach().requires_grad_()
    model(images).gather(1, target[:, None]).sum().backward()
    return images.grad.abs().sum(1)


@pytest.mark.parametrize("metric", STABILITY)
def test_a_map_that_never_changes_is_perfectly_stable(linear, images, metric):
    constant = attribute(linear, images, 1, "saliency")
    assert value(linear, images, constant, metric, "saliency", 1) == pytest.approx([0] * 3, abs=1e-5)
    product = attribute(linear, images, 1, "gradient_input")
    assert value(linear, images, product, metric, "gradient_input", 1).min() > 0.01


@pytest.mark.parametrize("distance, order", [("l1", 1), ("l2", 2)])
def test_average_stability_by_hand(linear, weight, images, distance, order):
    shifts = 0.2 * torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = (images * weight[1]).sum(1)
    explain = lambda model, some, target: (some * weight[1]).sum(1)
    settings = {"shifts": shifts, "distance": distance}
    moved = (shifts * weight[1]).sum(1).flatten(1).norm(p=order, dim=1).mean().item()
    assert value(linear, images, maps, "average_stability", explain, 1, clip=False, **settings) == pytest.approx(moved)
    size = maps.flatten(1).norm(p=order, dim=1).numpy()
    relative = value(linear, images, maps, "average_stability", explain, 1, clip=False, relative=True, **settings)
    assert relative == pytest.approx(moved / size)
    moved = ((images[:, None] + shifts).clamp(0, 1) - images[:, None]) * weight[1]
    clipped = moved.sum(2).flatten(2).norm(p=order, dim=2).mean(1).numpy()
    assert value(linear, images, maps, "average_stability", explain, 1, batch_size=5, **settings) == pytest.approx(clipped)


def test_sensitivity_max_is_captums(cnn, images):
    from captum.attr import Saliency
    from captum.metrics import sensitivity_max

    target = torch.tensor([2, 0, 1])
    maps = attribute(cnn, images, target, "saliency")
    ours = value(cnn, images, maps, "sensitivity_max", gradient, target, samples=7, radius=0.05, clip=False, seed=5)
    cnn.eval()

    def explain(inputs, target):
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        return tuple(maps.sum(1) for maps in Saliency(cnn).attribute(tuple(i.requires_grad_() for i in inputs), target))

    with torch.random.fork_rng():
        torch.manual_seed(5)
        theirs = sensitivity_max(explain, images.clone(), perturb_radius=0.05, n_perturb_samples=7, target=target)
    assert ours == pytest.approx(theirs.detach().numpy(), rel=1e-4)


def test_sensitivity_max_of_one_image(cnn, images):
    """Captum repeats a target for its shifted copies, but not one that is alone."""
    maps = attribute(cnn, images, 1, "saliency")
    values = [
        evaluate(cnn, images[:n], maps[:n], 1, "sensitivity_max", explain="saliency", samples=4).value[0] for n in (1, 2)
    ]
    assert 0 < values[0] < 3 * values[1]


def test_sensitivity_max_by_hand(linear, weight, images):
    """Of the map w·x the shift that moves it most is at a corner of the box: no sample may exceed it."""
    explain = lambda model, some, target: (some * weight[1]).sum(1)
    maps = explain(None, images, None)
    found = value(linear, images, maps, "sensitivity_max", explain, 1, samples=60, clip=False)
    limit = (0.02 * weight[1].abs().sum(0).norm() / maps.flatten(1).norm(dim=1)).numpy()
    assert (found <= limit).all() and (found > 0.2 * limit).all()


@pytest.mark.parametrize("metric", STABILITY)
def test_draws_depend_on_the_seed(cnn, images, metric):
    maps = attribute(cnn, images, 0, "saliency")
    state = torch.get_rng_state()
    first = value(cnn, images, maps, metric, "saliency", samples=4)
    assert np.array_equal(first, value(cnn, images, maps, metric, "saliency", samples=4))
    assert not np.allclose(first, value(cnn, images, maps, metric, "saliency", samples=4, seed=1), rtol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)
    if metric == "average_stability":  # Captum draws batch by batch
        other = value(cnn, images, maps, metric, "saliency", samples=4, batch_size=2)
        assert first == pytest.approx(other, rel=1e-3)


def test_average_stability_stops_when_it_knows_enough(cnn, images):
    calls = []

    def explain(model, some, target):
        calls.append(len(some))
        return gradient(model, some, target)

    maps = attribute(cnn, images, 0, "saliency")

    def cost(**options):
        calls.clear()
        return value(cnn, images, maps, "average_stability", explain, samples=60, **options), sum(calls)

    full, all_calls = cost()
    rough, few = cost(tolerance=0.1)
    never, most = cost(tolerance=1e-9)
    assert few < all_calls / 2 <= most and rough == pytest.approx(full, rel=0.4) and never == pytest.approx(full)


def test_every_way_to_say_how_maps_were_made(cnn, images):
    maps = {"saliency": attribute(cnn, images, 0, "saliency"), "mine": attribute(cnn, images, 0, "occlusion", patch=4)}
    ways = {"saliency": "saliency", "mine": ("occlusion", {"patch": 4})}
    frame = evaluate(cnn, images, maps, 0, ["average_stability"], explain=ways, samples=3)
    function = lambda model, some, target: attribute(model, some, target, "occlusion", patch=4).numpy()
    same = evaluate(cnn, images, maps, 0, ["average_stability"], explain={**ways, "mine": function}, samples=3)
    assert frame.value.to_numpy() == pytest.approx(same.value.to_numpy()) and (frame.value > 0).all()
    by_name = evaluate(cnn, images, {"saliency": maps["saliency"]}, 0, "average_stability", explain=True, samples=3)
    assert by_name.value.to_numpy() == pytest.approx(frame.value[:3].to_numpy())
    half = evaluate(cnn, images, maps, 0, "average_stability", explain={"saliency": "saliency"}, samples=3)
    assert half.value[3:].isna().all() and half.value[:3].notna().all()
    assert {row["reason"] for row in half.attrs["undefined"]} == {"explain does not say how these maps were made"}


def test_all_includes_what_explains_again_once_it_can(cnn, images):
    maps = attribute(cnn, images, 0, "saliency")
    frame = evaluate(cnn, images, maps, 0, explain="saliency", samples=3, steps=2)
    assert set(AGAIN) <= set(frame.metric) and not set(AGAIN) & frame.attrs["left_out"].keys()
    without = evaluate(cnn, images, maps, 0, samples=3, steps=2)
    assert {without.attrs["left_out"][name] for name in AGAIN} == {"needs explain"}


@pytest.mark.parametrize("metric", AGAIN)
def test_the_model_is_left_as_it_was(cnn, images, metric):
    cnn[0].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    places, state = [p.data_ptr() for p in cnn.parameters()], torch.get_rng_state()
    value(cnn, images, attribute(cnn, images, 0, "saliency"), metric, "saliency")
    assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())
    assert [p.data_ptr() for p in cnn.parameters()] == places and torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._backward_hooks for module in cnn.modules())
    assert cnn.training and [p.requires_grad for p in cnn.parameters()] == [False] + [True] * 7


@pytest.mark.parametrize(
    "change, message",
    [
        ({"explain": None}, "explain: average_stability need it"),
        ({"explain": "salience"}, "method: .*Did you mean 'saliency'"),
        ({"explain": ("occlusion", {"path": 4})}, "Did you mean 'patch'"),
        ({"explain": 3}, "explain: 3; expected a function"),
        ({"explain": {"theirs": "saliency"}}, "explain: 'theirs' is no name among attributions; there are 'mine'"),
        ({"explain": True}, "method: unknown name 'mine'"),
        ({"explain": "occlusion"}, r"explain: for image 0 it makes another map than attributions mine \(correlation"),
        ({"explain": lambda model, some, target: some}, r"explain: shape \(1, 3, 16, 16\); expected \(1, 16, 16\)"),
        ({"radius": 0}, "radius: 0; .*above 0"),
        ({"distance": "l3"}, "distance: .*l1, l2"),
        ({"shifts": torch.zeros(4, 3, 8, 8)}, r"shifts: shape \(4, 3, 8, 8\); expected \(samples, 3, 16, 16\)"),
    ],
)
def test_bad_input_is_named(cnn, images, change, message):
    call = {"explain": "saliency", "attributions": {"mine": attribute(cnn, images, 0, "saliency")}} | change
    with pytest.raises(ValueError, match=message):
        evaluate(cnn, images, target=0, metrics="average_stability", **call)


def test_the_first_map_that_is_not_flat_shows_how_maps_were_made(cnn, images):
    maps = attribute(cnn, images, 0, "saliency")
    maps[0] = 0
    with pytest.raises(ValueError, match="explain: for image 1 it makes another map"):
        evaluate(cnn, images, maps, 0, "average_stability", explain="occlusion")
    assert len(evaluate(cnn, images, maps, 0, "average_stability", explain="saliency", samples=2)) == 3


def test_a_map_made_again_that_is_not_finite_is_nan_with_its_reason(cnn, images):
    def explain(model, some, target):
        maps = gradient(model, some, target)
        maps[(some != images[0]).flatten(1).any(1) & (some.mean((1, 2, 3)) > images[1].mean() - 0.001)] *= np.nan
        return maps

    maps = attribute(cnn, images, 0, "saliency")
    frame = evaluate(cnn, images, maps, 0, STABILITY, explain=explain, samples=3)
    told = {(row["metric"], row["image"]) for row in frame.attrs["undefined"]}
    assert told == {(row.metric, row.image) for row in frame[frame.value.isna()].itertuples()} and len(told)
