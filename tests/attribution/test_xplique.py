"""The two libraries check each other: equal maps and equal scores at equal settings."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from helpers.attribution import attribute, curve, evaluate, random_maps
from helpers.attribution.masking import enlarged_masks, ratio, weighed
from helpers.attribution.method import METHODS
from helpers.attribution.score import Score

TARGET = torch.tensor([2, 0, 1])

OTHER_SEGMENTS = {"lime", "kernel_shap"}  # defined by what is hidden, and the libraries hide other things
SHARED = [
    name for name, backend in METHODS if backend == "xplique" and (name, "captum") in METHODS and name not in OTHER_SEGMENTS
]
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


@pytest.mark.parametrize("name, options", [("saliency", {}), ("hsic", {"designs": 20, "grid": 4})])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_any_precision_are_taken(tensorflow, cnn, images, name, options, dtype):
    expected, found = (
        attribute(copy.deepcopy(cnn).to(kind), images, [2, 0, 1], name, "xplique", **options).flatten()
        for kind in (torch.float32, dtype)
    )
    assert np.corrcoef(expected, found)[0, 1] > (0.999 if dtype == torch.float64 else 0.9)


def test_every_deterministic_method_is_compared():
    assert {name for name, _ in OPTIONS} == set(DETERMINISTIC)  # sobol and hsic are Xplique's alone


@pytest.mark.parametrize("name", SHARED)
def test_both_explain_the_same_side_of_one_logit(tensorflow, cnn, images, name):
    options = {"smoothgrad": {"noise": 0.0, "samples": 2}, "integrated_gradients": {"steps": 10}}.get(name, {})
    if name in ("square_grad", "vargrad"):
        options = {"noise": 0.02, "samples": 300}
    model = one_logit(cnn)
    for target in (0, 1):
        captum, xplique = (
            attribute(model, images, target, name, backend, **options) for backend in ("captum", "xplique")
        )
        assert spearmanr(captum.flatten(), xplique.flatten()).statistic >= 0.99


@pytest.mark.parametrize("name", ["square_grad", "vargrad"])
def test_moments_of_the_gradient_agree_as_far_as_their_noise_allows(tensorflow, cnn, images, name):
    settings = {"samples": 200, "noise": 0.05, "channels": True}
    ours, xplique = (attribute(cnn, images, 1, name, backend, **settings) for backend in ("torch", "xplique"))
    assert spearmanr(ours.flatten(), xplique.flatten()).statistic >= 0.9
    assert ours.mean().item() == pytest.approx(xplique.mean().item(), rel=0.1)
    with pytest.raises(ValueError, match="samples: 1"):
        attribute(cnn, images, 1, "vargrad", "xplique", samples=1)


@pytest.mark.filterwarnings("ignore:TF is set to run eagerly")
@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_rise_equals_xpliques_for_the_same_masks(tensorflow, cnn, images, monkeypatch, baseline):
    from xplique.attributions import Rise

    used = []
    apply = Rise._apply_masks

    def note(image, cells, value):
        shown, masks = apply(image, cells, value)
        used.append((np.array(cells, dtype=np.float32)[..., 0], np.array(masks)[..., 0]))
        return shown, masks

    monkeypatch.setattr(Rise, "_apply_masks", staticmethod(note))
    options = {"samples": 40, "grid": 5, "keep": 0.4, "baseline": baseline, "batch_size": 16}
    expected = attribute(cnn, images, TARGET, "rise", "xplique", **options)
    monkeypatch.undo()
    score = Score(cnn).eval()
    for number, image in enumerate(images):
        parts = used[3 * number : 3 * number + 3]  # 16, 16 and 8 masks
        masks = torch.from_numpy(np.concatenate([masks for _, masks in parts]))
        many = image.expand(40, -1, -1, -1)
        sums = weighed(score, many, TARGET[number].expand(40), masks, torch.full_like(many, baseline)).sum(0)
        torch.testing.assert_close(ratio(sums[None], torch.tensor([40]))[0], expected[number], rtol=1e-4, atol=1e-5)
    for cells, masks in used:  # and the masks are ours, cut out at one of the places
        cells, room = torch.from_numpy(cells), int(16 * 1.2) - 16 + 1
        places = [(i / room + 1e-6, j / room + 1e-6) for i in range(room) for j in range(room)]
        made = [enlarged_masks(cells, torch.tensor([place] * len(cells)), (16, 16)).numpy() for place in places]
        assert min(np.abs(mine - masks).max() for mine in made) < 1e-5


@pytest.mark.parametrize("name, options", [("lime", {"penalty": 1e-6, "samples": 60}), ("kernel_shap", {"samples": 120})])
@pytest.mark.parametrize("baseline", ["black", "mean"])
def test_regressions_on_segments_are_exact_for_a_linear_model(tensorflow, linear, weight, images, name, options, baseline):
    """Each square's slope is what it adds to the logit against the baseline: Σ w (x − b) over it."""
    found = attribute(linear, images, [0, 1, 1], name, "xplique", segments=3, baseline=baseline, **options)
    start = images.mean((2, 3), keepdim=True) if baseline == "mean" else 0
    adds = (weight[[0, 1, 1]] * (images - start)).sum(1)
    for rows in (slice(0, 6), slice(6, 11), slice(11, 16)):
        for columns in (slice(0, 6), slice(6, 11), slice(11, 16)):
            part = found[:, rows, columns]
            assert torch.equal(part, part[:, :1, :1].expand_as(part))
            torch.testing.assert_close(part[:, 0, 0], adds[:, rows, columns].sum((1, 2)), rtol=1e-2, atol=1e-2)


def test_segments_may_be_the_users_own_for_each_image(tensorflow, looks_at_square, square):
    picture = torch.full((1, 3, 16, 16), 0.2)
    picture[:, :, square] = 0.9
    split = (torch.arange(16) < 8).long()[:, None].expand(16, 16) + 5
    both, codes = picture.repeat(2, 1, 1, 1), torch.stack([square.long() + 2, split])
    found = attribute(looks_at_square, both, 1, "kernel_shap", "xplique", samples=200, segments=codes)
    assert found[0][square].min() > found[0][~square].max() + 1e-3
    for own, part in zip(found, codes, strict=True):
        assert all(len(own[part == code].unique()) == 1 for code in part.unique())
    with pytest.raises(ValueError, match="baseline: .*one colour"):
        attribute(looks_at_square, picture, 1, "lime", "xplique", baseline="blur")
    with pytest.raises(ValueError, match="segments: a grid of 0"):
        attribute(looks_at_square, picture, 1, "lime", "xplique", segments=0)


@pytest.mark.parametrize("estimator", ["jansen", "homma", "janon", "glen", "saltelli"])
def test_sobol_indices_of_a_linear_model_are_the_squares_of_what_cells_add(tensorflow, linear, weight, images, estimator):
    options = {"grid": 4, "designs": 128, "estimator": estimator, "baseline": 0.3}
    found = attribute(linear, images, 1, "sobol", "xplique", **options)
    adds = (weight[1] * (images - 0.3)).sum(1).reshape(3, 4, 4, 4, 4).sum((2, 4))
    share = adds**2 / (adds**2).sum((1, 2), keepdim=True)
    middle = found.reshape(3, 4, 4, 4, 4)[:, :, 1:3, :, 1:3].mean((2, 4))  # of each cell; enlarging smooths the edges
    for one, other in zip(middle, share, strict=True):  # image by image: Xplique's Janon shifts all indices of an image
        assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.9
    assert torch.equal(found, attribute(linear, images, 1, "sobol", "xplique", seed=9, **options))
    with pytest.raises(ValueError, match="designs: 12; .*power of two"):
        attribute(linear, images, 1, "sobol", "xplique", designs=12)


@pytest.mark.parametrize("estimator", ["binary", "rbf", "sobolev"])
def test_hsic_finds_the_square_that_the_model_sees(tensorflow, looks_at_square, square, images, estimator):
    found = attribute(looks_at_square, images, 1, "hsic", "xplique", grid=8, designs=128, estimator=estimator)
    assert all(picture[square].mean() > 3 * picture[~square].mean() for picture in found)
    with pytest.raises(ValueError, match="estimator: .*binary, rbf, sobolev"):
        attribute(looks_at_square, images, 1, "hsic", "xplique", estimator="gauss")


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
