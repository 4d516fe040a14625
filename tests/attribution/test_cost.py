"""What a method takes, said beforehand and counted: passes, memory, time."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from helpers.attribution import attribute, cost, estimate, evaluate, memory, random_maps, timing
from helpers.attribution.memory import Peak
from helpers.attribution.method import METHODS
from helpers.attribution.score import Score, trial

SMALL = {"steps": 6, "samples": 5, "segments": 2, "designs": 4, "grid": 3, "patch": 8, "stride": 4}


class Counted(nn.Module):
    """A model that counts the images that pass forward, and those whose gradient goes back."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.forward_passes, self.backward_passes, self.largest = inner, 0, 0, 0

    def forward(self, x):
        self.forward_passes += len(x)
        self.largest = max(self.largest, len(x))
        logits = self.inner(x)
        if logits.requires_grad:
            logits.register_hook(self.back)
        return logits

    def back(self, gradient):
        self.backward_passes += len(gradient)


class Picture(nn.Module):
    """A small network of layers for which every method has a rule."""

    def __init__(self, channels=4):
        super().__init__()
        first, second = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        self.features = nn.Sequential(first, nn.ReLU(), second)
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 2))

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture
def picture():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Picture().eval()


def few(name, backend):
    """The method's options, as small as it takes them."""
    return {key: value for key, value in SMALL.items() if key in METHODS[name, backend].defaults}


@pytest.mark.parametrize("name, backend", METHODS)
def test_cost_is_what_is_counted(picture, images, name, backend):
    """By the difference between three images and two, so that what is done once a call does not count."""
    options, counts = few(name, backend), []
    for some in (images[:2], images):
        model = Counted(picture)
        attribute(model, some, 1, name, backend, batch_size=8, **options)
        counts.append((model.forward_passes, model.backward_passes))
    channels = 4 if METHODS[name, backend].by_channel else None
    expected = cost(name, backend, (16, 16), channels, **options)
    assert (counts[1][0] - counts[0][0], counts[1][1] - counts[0][1]) == expected


class Wide(nn.Module):
    """A network whose passes take much more memory than its images: 64 channels kept four times an image."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 4, 3, padding=1))
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture(scope="module")
def wide():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Wide().eval()


@pytest.mark.parametrize("name, backend", METHODS)
def test_a_batch_takes_the_memory_that_is_said(wide, name, backend):
    """Counted tensor by tensor while the method runs, beside what the estimate makes of one forward pass of one image."""
    some, options = torch.rand(12, 3, 16, 16), few(name, backend)
    attribute(wide, some[:1], 1, name, backend, batch_size=8, **options)  # what is made only once
    with Peak() as peak:
        attribute(wide, some, 1, name, backend, batch_size=8, **options)
    _, each = trial(Score(wide), some, METHODS[name, backend].needs_gradient, METHODS[name, backend].room)
    assert 0.15 * 8 * each < peak.most <= 1.05 * 8 * each


def test_a_peak_is_what_was_alive_at_one_time():
    with Peak() as peak:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second.view(10, 100).t()  # no memory of its own
        fourth = second * 2
    assert (peak.most, peak.largest, peak.now) == (8000, 4000, 8000)
    del second, third, fourth
    assert peak.now == 0


@pytest.mark.parametrize("name, backend", [("integrated_gradients", "torch"), ("occlusion", "captum"), ("lrp", "zennit")])
def test_passes_shrink_where_memory_is_short(wide, images, name, backend):
    """To what fits, with the same map; said aloud only where nobody has set the limit."""
    options, model = few(name, backend), Counted(wide)
    _, each = trial(Score(wide), images, METHODS[name, backend].needs_gradient, METHODS[name, backend].room)
    expected = attribute(wide, images, 1, name, backend, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = attribute(model, images, 1, name, backend, memory=2.5 * each, **options)
    assert model.largest == 2
    assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())
    with pytest.warns(UserWarning, match="one image takes about .* more than what was allowed, 1 kB; passes hold 1 images"):
        attribute(wide, images, 1, name, backend, memory=1000, **options)


def test_what_is_free_matters_only_when_it_is_short(wide, images, monkeypatch):
    _, each = trial(Score(wide), images, True)
    monkeypatch.setattr(memory, "free_bytes", lambda place: 200 * each)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(model := Counted(wide), images, 1, steps=40)
    assert model.largest == 64
    monkeypatch.setattr(memory, "free_bytes", lambda place: 20 * each)
    with pytest.warns(UserWarning, match="memory: .* so that 10 of 64 fit into half of what is free, .*; passes hold 10 images"):
        attribute(model := Counted(wide), images, 1, steps=40)
    assert model.largest == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(wide, images, 1, "saliency")  # three images are no more than fit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(model := Counted(wide), images, 1, steps=40, batch_size=30)  # as asked for
    assert model.largest == 30
    with pytest.raises(ValueError, match="memory: -1; expected a number of bytes above 0"):
        attribute(wide, images, 1, memory=-1)


def test_scores_of_maps_hold_to_the_limit_as_well(wide, images):
    explain = "saliency"
    _, each = trial(Score(wide), images, True)
    options = {"samples": 6, "steps": 6, "explain": explain, "metrics": ["deletion", "mu_fidelity", "sensitivity_max"]}
    maps = attribute(wide, images, 1, explain)
    whole = evaluate(wide, images, maps, 1, **options)
    part = evaluate(model := Counted(wide), images, maps, 1, memory=2.5 * each, **options)
    assert model.largest == 2
    same = whole.metric != "sensitivity_max"  # whose draws depend on the size of a batch
    np.testing.assert_allclose(part.value[same], whole.value[same], rtol=1e-3)


class Short(Counted):
    """A device that has room for five images."""

    def forward(self, x):
        if len(x) > 5:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


@pytest.mark.parametrize("name", ["integrated_gradients", "smoothgrad", "rise", "occlusion", "grad_cam", "score_cam"])
def test_own_loops_go_on_with_less_when_memory_runs_out(wide, name):
    some, report, expected = torch.rand(11, 3, 16, 16), {}, {}
    maps = attribute(wide, some, 1, name, "torch", report=expected, **few(name, "torch"))
    with pytest.warns(UserWarning, match="memory: the device has no more; going on with passes of .* images"):
        found = attribute(model := Short(wide), some, 1, name, "torch", report=report, **few(name, "torch"))
    assert model.largest == 4
    assert_close(found, maps, rtol=1e-3, atol=1e-5 * maps.abs().max().item())
    assert all(torch.equal(report[key], expected[key]) for key in expected)
    with pytest.raises(torch.cuda.OutOfMemoryError):  # there a map may depend on the size of a pass
        attribute(Short(wide), some, 1, "smoothgrad", "captum", samples=2)


@pytest.mark.filterwarnings("ignore:memory")
def test_scores_go_on_with_less_when_memory_runs_out(wide, images):
    options = {"samples": 6, "steps": 6, "metrics": ["deletion", "mu_fidelity"]}
    whole = evaluate(wide, images, random_maps(images), **options)
    assert_close(evaluate(Short(wide), images, random_maps(images), **options).value.array, whole.value.array, rtol=1e-3, atol=0)


class Slow(nn.Module):
    """A model that takes a known time: five milliseconds an image."""

    def forward(self, x):
        time.sleep(0.005 * len(x))
        return torch.stack([x.sum((1, 2, 3)), x.square().sum((1, 2, 3))], 1)


@pytest.mark.parametrize(
    "name, backend, options, passes",
    [("integrated_gradients", "torch", {"steps": 20}, 20), ("occlusion", "captum", {}, 10), ("smoothgrad", "captum", {}, 50)],
)
def test_an_estimate_says_how_long(images, name, backend, options, passes):
    found = estimate(Slow(), images, name, backend, **options)
    assert found.seconds == pytest.approx(0.005 * 3 * passes, rel=0.5) and (found.images, found.forward) == (3, passes)
    many = estimate(Slow(), (3000, 3, 16, 16), name, backend, **options)
    assert many.seconds == pytest.approx(5 * 3 * passes, rel=0.5) and many.memory > 3000 * 16 * 16 * 16
    assert str(many).startswith("about ") and f"for 3000 images: {passes} forward and" in str(many)


def test_a_method_without_a_cost_runs_all_the_same(wide, images, monkeypatch):
    known = METHODS["saliency", "captum"]
    monkeypatch.setitem(METHODS, ("yours", "captum"), replace(known, name="yours", cost=None))
    expected = attribute(wide, images, 1, "saliency")
    assert_close(attribute(wide, images, 1, "yours", progress=True), expected)
    with pytest.raises(ValueError, match="method: yours was registered without a cost; it says: 1 forward"):
        estimate(wide, images, "yours")


def test_an_estimate_of_every_method_can_be_had(wide):
    for name, backend in METHODS:
        if backend != "xplique":
            found = estimate(wide, (5, 3, 16, 16), name, backend, **few(name, backend))
            assert found.seconds > 0 and found.memory > 0 and found.batch_size == 64 and found.images == 5


def test_an_estimate_holds_the_memory_that_a_call_takes(wide):
    some = torch.rand(40, 3, 16, 16)
    found = estimate(wide, some, "integrated_gradients", steps=10)
    with Peak() as peak:
        attribute(wide, some, 1, "integrated_gradients", steps=10)
    assert 0.6 * found.memory < peak.most <= found.memory
    small = estimate(wide, some, "integrated_gradients", steps=10, memory=found.memory / 4)
    assert small.batch_size < found.batch_size / 3 and small.memory <= found.memory / 4 + some.numel() * 4 * 2


@pytest.mark.parametrize("shape", [(3, 16, 16), (0, 3, 16, 16), (1.5, 3, 16, 16), (True, 3, 16, 16)])
def test_an_estimate_needs_a_whole_shape(wide, shape):
    with pytest.raises(ValueError, match=r"images: shape .*; expected four whole numbers above 0, \(N, C, H, W\)"):
        estimate(wide, shape)


def test_a_long_run_says_beforehand_how_long_it_will_take(images, capsys, monkeypatch):
    monkeypatch.setattr(timing, "LONG", 0.2)
    attribute(Slow(), images, 1, "integrated_gradients", steps=50, progress=True)
    assert "integrated_gradients, about 0." in capsys.readouterr().err
    attribute(Slow(), images, 1, "saliency", progress=True)
    assert "about" not in capsys.readouterr().err


def test_numbers_for_people():
    assert [timing.duration(seconds) for seconds in (0.123, 61, 200, 9000)] == ["0.12 s", "61 s", "3.3 min", "2.5 h"]
    assert [memory.readable(size) for size in (12, 1500, 2.5e6, 1e9)] == ["12 B", "1.5 kB", "2.5 MB", "1 GB"]
