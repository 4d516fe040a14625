"""The two libraries check each other: equal maps and equal scores at equal settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from helpers.attribution import attribute, curve, evaluate, random_maps
from helpers.attribution.method import METHODS
from helpers.attribution.score import Score

SHARED = [name for name, backend in METHODS if backend == "xplique"]
DETERMINISTIC = [name for name in SHARED if METHODS[name, "xplique"].deterministic]
OPTIONS = [
    ("saliency", {}),
    ("saliency", {"absolute": False}),
    ("gradient_input", {}),
    ("integrated_gradients", {"steps": 20}),
    ("integrated_gradients", {"steps": 20, "baseline": "blur"}),
    ("occlusion", {"patch": 4, "stride": 2}),
    ("occlusion", {"patch": 4, "stride": 4, "baseline": "mean"}),
]


@pytest.fixture(scope="module")
def tensorflow():
    """About ten seconds to import, so this is the one module that needs it."""
    from helpers.attribution.xplique import load_tensorflow

    return load_tensorflow()


def one_logit(cnn):
    return nn.Sequential(*cnn[:-1], nn.Linear(32, 1))


@pytest.mark.parametrize("name, options", OPTIONS)
def test_backends_agree(tensorflow, cnn, images, name, options):
    target = [2, 0, 1]
    captum, xplique = (attribute(cnn, images, target, name, backend, **options) for backend in ("captum", "xplique"))
    assert captum.shape == xplique.shape == (3, 16, 16) and xplique.dtype == torch.float32
    for i in range(3):
        assert spearmanr(captum[i].flatten(), xplique[i].flatten()).statistic >= 0.99
    if name == "integrated_gradients":  # with the same quadrature the values are the same too
        captum = attribute(cnn, images, target, name, "captum", quadrature="trapezoid", **options)
    torch.testing.assert_close(captum, xplique, rtol=1e-3, atol=1e-5 * captum.abs().max().item())


def test_every_deterministic_method_is_compared():
    assert {name for name, _ in OPTIONS} == set(DETERMINISTIC)


@pytest.mark.parametrize("name", SHARED)
def test_both_explain_the_same_side_of_one_logit(tensorflow, cnn, images, name):
    options = {"smoothgrad": {"noise": 0.0, "samples": 2}, "integrated_gradients": {"steps": 10}}.get(name, {})
    model = one_logit(cnn)
    for target in (0, 1):
        captum, xplique = (
            attribute(model, images, target, name, backend, **options) for backend in ("captum", "xplique")
        )
        assert spearmanr(captum.flatten(), xplique.flatten()).statistic >= 0.99


@pytest.mark.parametrize("statistic", [{}, {"squared": True}, {"absolute": True}])
def test_smoothgrad_agrees_as_far_as_its_noise_allows(tensorflow, cnn, images, statistic):
    settings = {"samples": 40, "noise": 0.05, "channels": True, **statistic}
    captum, xplique = (
        attribute(cnn, images, 1, "smoothgrad", backend, **settings) for backend in ("captum", "xplique")
    )
    assert spearmanr(captum.flatten(), xplique.flatten()).statistic >= 0.95
    assert captum.abs().mean().item() == pytest.approx(xplique.abs().mean().item(), rel=0.1)
    few = {"samples": 3, "seed": 4}
    first, again = (attribute(cnn, images, 1, "smoothgrad", "xplique", **few) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.filterwarnings("ignore:TF is set to run eagerly")
@pytest.mark.parametrize("kind", ["deletion", "insertion"])
@pytest.mark.parametrize("activation, steps", [("softmax", 7), (None, 4)])
def test_deletion_and_insertion_equal_xpliques(tensorflow, cnn, images, kind, steps, activation):
    from xplique.metrics import Deletion, Insertion
    from xplique.wrappers import TorchWrapper

    maps, target = random_maps(images), torch.tensor([2, 0, 1])
    eager = tensorflow.config.functions_run_eagerly()
    try:
        theirs = {"deletion": Deletion, "insertion": Insertion}[kind](
            TorchWrapper(Score(cnn).eval(), "cpu", is_channel_first=True),
            images.permute(0, 2, 3, 1).numpy(),
            np.eye(3, dtype=np.float32)[target],
            steps=steps,
            baseline_mode=0.25,
            activation=activation,
        )
        expected = theirs.detailed_evaluate(maps.numpy())
        expected_area = theirs.evaluate(maps.numpy())
    finally:
        tensorflow.config.run_functions_eagerly(eager)
    settings = {"steps": steps, "baseline": 0.25, "activation": activation or "logit"}
    found = curve(cnn, images, maps, target, kind, **settings).mean(0)
    assert found == pytest.approx(list(expected.values()), abs=1e-4)
    frame = evaluate(cnn, images, maps, target, kind, **settings)
    assert frame.value.mean() == pytest.approx(float(expected_area), abs=1e-4)


def test_tensorflow_is_left_as_it_was(tensorflow, cnn, images):
    def draw(call):
        tensorflow.random.set_seed(7)
        first = tensorflow.random.normal((3,)).numpy()
        call()
        return first, tensorflow.random.normal((3,)).numpy()

    flags = [(m.training, len(m._forward_hooks)) for m in cnn.modules()]
    state, eager = torch.get_rng_state(), tensorflow.config.functions_run_eagerly()
    undisturbed = draw(lambda: None)
    around = draw(lambda: attribute(cnn, images, 0, "smoothgrad", "xplique", samples=2))
    assert np.array_equal(undisturbed, around)

    def fail(module, args, output):
        if len(output) > 1:
            raise RuntimeError("out of memory, say")

    handle = cnn[6].register_forward_hook(fail)
    with pytest.raises(Exception, match="out of memory"):
        attribute(cnn, images, 0, "saliency", "xplique")
    handle.remove()
    assert tensorflow.config.functions_run_eagerly() == eager
    assert torch.equal(torch.get_rng_state(), state) and all(p.requires_grad for p in cnn.parameters())
    assert [(m.training, len(m._forward_hooks)) for m in cnn.modules()] == flags
