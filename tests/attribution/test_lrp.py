"""LRP against a hand computation of its rules, and on models that zennit alone explains wrongly without a word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.models import resnet18
from torchvision.ops import Permute

from helpers.attribution import attribute
from helpers.attribution.lrp import COMPOSITES
from helpers.models.affine import LowRank
from helpers.models.editing import append_after
from helpers.models.resnet import FaceClassifier


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def biasless(*widths):
    layers = [nn.Flatten()]
    for into, out in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(into, out, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def settled(model, seed=0):
    """Batch norms as after training: other means, variances and scales than at the start."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            lows = {"running_mean": -0.2, "running_var": 0.5, "weight": 0.5, "bias": -0.2}
            for tensor, low in ((getattr(module, name), low) for name, low in lows.items()):
                tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def rule_by_hand(x, weights, target, epsilon, plus=False, flat_first=False):
    """The epsilon rule (Bach et al. 2015, eq. 58), or z+ for all layers but the last, in NumPy on an MLP without biases."""
    inputs, z = [], x
    for weight in weights:
        inputs.append(z)
        z = np.maximum(weight @ z, 0) if weight is not weights[-1] else weight @ z
    relevance = np.where(np.arange(len(z)) == target, z, 0)
    for i in reversed(range(len(weights))):
        shares = weights[i] * inputs[i]
        if plus and i < len(weights) - 1:
            shares = np.maximum(shares, 0)
        if flat_first and i == 0:
            shares = np.ones_like(shares)
        total = shares.sum(1)
        relevance = (shares * (relevance / (total + epsilon * np.where(total < 0, -1, 1)))[:, None]).sum(0)
    return relevance


@pytest.mark.parametrize("composite, flat", [("epsilon", False), ("epsilon_plus_flat", True)])
@pytest.mark.parametrize("epsilon", [1e-6, 0.25])
def test_the_epsilon_rule_is_the_textbook_one(pixels, composite, flat, epsilon):
    model = seeded(lambda: biasless(192, 10, 6, 3))
    options = {"epsilon": epsilon} | ({"stabilizer": epsilon} if flat else {})
    maps = attribute(model, pixels, [2, 0], "lrp", channels=True, composite=composite, **options)
    weights = [layer.weight.detach().numpy() for layer in model if isinstance(layer, nn.Linear)]
    for image, target, found in zip(pixels, (2, 0), maps, strict=True):
        by_hand = rule_by_hand(image.flatten().numpy(), weights, target, epsilon, flat_first=flat)
        assert_close(found.flatten().double(), torch.from_numpy(by_hand), rtol=1e-4, atol=1e-7)


def test_the_plus_rule_is_the_textbook_one(pixels):
    """Convolutions of 1 × 1 on an image of one pixel are the linear layers of the hand computation."""
    model = seeded(lambda: biasless(3, 5, 4, 3))
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    convolutions = []
    for layer in layers[:-1]:
        convolution = nn.Conv2d(layer.in_features, layer.out_features, 1, bias=False)
        convolution.weight.data = layer.weight.data[:, :, None, None]
        convolutions += [convolution, nn.ReLU()]
    cnn = nn.Sequential(*convolutions, nn.Flatten(), layers[-1]).double()
    image = pixels[:1, :, :1, :1]
    maps = attribute(cnn, image, 1, "lrp", channels=True, composite="epsilon_plus", epsilon=1e-6, stabilizer=1e-6)
    by_hand = rule_by_hand(image.flatten().numpy(), [layer.weight.detach().numpy() for layer in layers], 1, 1e-6, plus=True)
    assert np.abs(by_hand).sum() > 1e-3
    assert_close(maps.flatten().double(), torch.from_numpy(by_hand), rtol=1e-4, atol=1e-7)


class Residual(nn.Module):
    """Without biases, over a max pooling, a residual sum and a mean; its convolutions have no negative weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.last = nn.Linear(4, 3, bias=False)
        self.first.weight.data.abs_(), self.second.weight.data.abs_()  # so that z+ always finds where to go

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.relu(self.second(x) + x)
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "epsilon_plus_flat", "excitation_backprop"])
def test_relevance_is_conserved_without_biases(pixels, composite):
    model = seeded(Residual).double()
    with torch.no_grad():
        score = model(pixels)[:, 1]
    assert score.abs().min() > 0.1
    small = {"epsilon" if composite == "epsilon" else "stabilizer": 1e-9}
    maps = attribute(model, pixels, 1, "lrp", composite=composite, **small)
    assert_close(maps.sum((1, 2)).double(), score, rtol=1e-4, atol=1e-6)


def test_epsilon_towards_zero_is_gradient_times_input(pixels):
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), biasless(54, 7, 3))).double()
    maps = attribute(model, pixels, [0, 2], "lrp", channels=True, composite="epsilon", epsilon=1e-12)
    expected = attribute(model, pixels, [0, 2], "gradient_input", channels=True)
    assert expected.abs().sum() > 0.1
    assert_close(maps, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_resnet_is_explained_as_with_zennits_own_canonizer(composite):
    from zennit.composites import COMPOSITES as ZENNITS
    from zennit.torchvision import ResNetCanonizer

    if composite not in ZENNITS:
        pytest.skip("the ε rule everywhere is not one of zennit's composites")
    model = settled(seeded(lambda: resnet18(num_classes=2))).double()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = attribute(model, image, 1, "lrp", composite=composite, channels=True)
    kwargs = {"low": 0.0, "high": 1.0} if "box" in composite else {}
    image.requires_grad_()
    with ZENNITS[composite](canonizers=[ResNetCanonizer()], **kwargs).context(model) as hooked:
        output = hooked(image)[:, 1]
        (theirs,) = torch.autograd.grad(output.sum(), image, retain_graph=True)
    theirs = theirs * output.detach()  # relevance is linear in where it starts
    assert torch.corrcoef(torch.stack([ours.double().flatten(), theirs.flatten()]))[0, 1] > 0.9999
    assert (ours - theirs).abs().max() < 2e-3 * theirs.abs().max()  # it merges with a variance that is off by 1e-5


class Modules(nn.Module):
    """As the libraries want it: each activation a module of its own."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool, self.last = nn.AvgPool2d(2), nn.Linear(64, 3)

    def forward(self, x):
        x = self.relu1(self.norm(self.conv1(x)))
        x = self.relu2(self.conv2(x))
        x = self.relu3(self.conv2(x))  # the convolution is reused in all forms
        return self.last(torch.flatten(self.pool(x), 1))


class Functions(Modules):
    def forward(self, x):
        x = F.relu(self.norm(self.conv1(x)))
        x = torch.relu(F.conv2d(x, self.conv2.weight, self.conv2.bias, padding=1))
        x = self.conv2(x).clamp(min=0)
        return F.linear(F.avg_pool2d(x, 2).flatten(1), self.last.weight, self.last.bias)


class Reused(Modules):
    def forward(self, x):
        x = self.relu1(self.norm(self.conv1(x)))
        x = self.relu1(self.conv2(x))
        x = self.relu1(self.conv2(x))
        return self.last(torch.flatten(self.pool(x), 1))


class InPlace(Modules):
    def forward(self, x):
        x = self.norm(self.conv1(x))
        x.relu_()
        x = F.relu(self.conv2(x), inplace=True)
        x = self.conv2(x)
        torch.relu_(x)
        return self.last(torch.flatten(self.pool(x), 1))


FORMS = [Functions, Reused, InPlace]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_how_the_model_is_written_makes_no_difference(pixels, form, composite):
    model = settled(seeded(Modules)).double()
    other = form().double().eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert_close(other(pixels), model(pixels))
    expected = attribute(model, pixels, 1, "lrp", composite=composite)
    assert expected.abs().sum() > 0
    assert_close(attribute(other, pixels, 1, "lrp", composite=composite), expected, rtol=1e-4, atol=1e-7)


def test_batch_norms_are_merged_by_the_flow_of_data_not_by_registration(pixels):
    """zennit's sequential canonizer would merge the norm into the convolution registered before it."""

    class Twisted(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.norm, self.first = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(3, 4, 3)
            self.last = nn.Linear(4, 2)

        def forward(self, x):
            x = self.norm(self.first(x)).relu()
            return self.last(self.second(x).relu().mean((2, 3)))

    model = settled(seeded(Twisted)).double()
    straight = nn.Sequential(
        nn.utils.fusion.fuse_conv_bn_eval(model.first, model.norm), nn.ReLU(), model.second, nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.last,
    ).eval()  # fmt: skip
    for composite in ("epsilon_plus", "epsilon"):
        maps = attribute(model, pixels, 1, "lrp", composite=composite)
        assert_close(maps, attribute(straight, pixels, 1, "lrp", composite=composite), rtol=1e-4, atol=1e-7)


def test_what_two_branches_take_is_not_merged_and_scaled_branches_share(pixels):
    """A convolution that a norm and a sum read stays as it is; a branch times a constant counts by what it gives."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 2, bias=False)

        def forward(self, x):
            x = self.conv(x)
            x = torch.add(self.norm(x), x, alpha=3)
            return self.last((2 - (2 - x / 4)).mean((2, 3)))

    model = seeded(Branches).double().eval()
    model.norm.running_var.fill_(4.0)
    with torch.no_grad():
        score = model(pixels)[:, 1]
    maps = attribute(model, pixels, 1, "lrp", composite="epsilon", epsilon=1e-12, channels=True)
    assert_close(maps.sum((1, 2, 3)).double(), score, rtol=1e-4, atol=1e-6)
    assert_close(maps, attribute(model, pixels, 1, "gradient_input", channels=True), rtol=1e-3, atol=1e-6)


def test_normalisation_and_edits_pass_relevance_on(pixels):
    """Neither the scale of the pixels nor an eraser that does nothing changes the map; an eraser of the cause takes it away."""
    network = settled(seeded(Modules)).double()
    model = FaceClassifier(network, "none", ("a", "b", "c"), 3).double().eval()
    maps = attribute(model, pixels, 1, "lrp", composite="epsilon_plus")
    normalised = model.normalise(pixels).detach().requires_grad_()
    from zennit.composites import EpsilonPlus

    merged = nn.Sequential(nn.utils.fusion.fuse_conv_bn_eval(network.conv1, network.norm), nn.ReLU(), network.conv2, nn.ReLU())
    twice = nn.Sequential(*merged, seeded(lambda: nn.Conv2d(4, 4, 3, padding=1)).double(), nn.ReLU(), network.pool, nn.Flatten())
    twice[4].load_state_dict(network.conv2.state_dict())
    with EpsilonPlus().context(nn.Sequential(*twice, network.last).eval()) as hooked:
        output = hooked(normalised)[:, 1]
        (relevance,) = torch.autograd.grad(output, normalised, output.detach())
    assert_close(maps.double(), relevance.sum(1), rtol=1e-4, atol=1e-6)
    still = append_after(model, "network.pool", LowRank(64, 1).double())
    assert_close(attribute(still, pixels, 1, "lrp", composite="epsilon_plus"), maps, rtol=1e-3, atol=1e-5)
    everything = LowRank(64, 64, down=torch.eye(64), up=torch.eye(64)).double()
    erased = append_after(model, "network.pool", everything)
    assert attribute(erased, pixels, 1, "lrp", composite="epsilon_plus").abs().max() < 1e-6 * maps.abs().max()


def test_the_box_is_that_of_the_pixels_behind_the_normalisation(pixels):
    model = FaceClassifier(settled(seeded(Modules)), "none", ("a", "b", "c"), 3).double().eval()
    low, high = (model.normalise(torch.full((1, 3, 1, 1), value, dtype=torch.float64)) for value in (0.0, 1.0))
    default = attribute(model, pixels, 1, "lrp", composite="epsilon_gamma_box")
    assert_close(attribute(model, pixels, 1, "lrp", composite="epsilon_gamma_box", low=low, high=high), default)
    assert not torch.equal(attribute(model, pixels, 1, "lrp", composite="epsilon_gamma_box", low=-9.0, high=9.0), default)


def test_relevance_is_conserved_with_biases_that_take_none(pixels):
    model = settled(seeded(Modules)).double()
    with torch.no_grad():
        score = model(pixels)[:, 1]
    lost, kept = (attribute(model, pixels, 1, "lrp", composite="epsilon", zero_params=zero) for zero in (None, "bias"))
    assert (lost.sum((1, 2)) - score).abs().min() > 0.01
    assert_close(kept.sum((1, 2)).double(), score, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_half_precision_gives_the_same_picture(pixels, composite):
    model = settled(seeded(Modules))
    whole = attribute(model, pixels.float(), 1, "lrp", composite=composite)
    half = attribute(model.bfloat16(), pixels.float(), 1, "lrp", composite=composite)
    assert torch.corrcoef(torch.stack([whole.flatten(), half.flatten()]))[0, 1] > 0.9


def test_a_linear_model_written_as_one_function_keeps_its_square(looks_at_square, images, square):
    maps = attribute(looks_at_square, images, 1, "lrp", composite="epsilon")
    assert maps[:, square].sum() > 0 and maps[:, ~square].abs().max() == 0


def test_one_logit_is_explained_from_both_sides(pixels):
    one = settled(seeded(lambda: nn.Sequential(Modules(), nn.Linear(3, 1)))).double()
    two = nn.Sequential(one, nn.Linear(1, 2, bias=False).double())
    two[1].weight.data = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    for target in (0, 1, None):
        assert_close(attribute(one, pixels, target, "lrp"), attribute(two, pixels, target, "lrp"), rtol=1e-3, atol=1e-6)


def test_each_image_is_explained_on_its_own(pixels):
    model = settled(seeded(Modules)).double()
    whole = attribute(model, pixels, [0, 2], "lrp")
    assert_close(attribute(model, pixels, [0, 2], "lrp", batch_size=1), whole, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["guided_backprop", "deconvolution"])
def test_captum_and_zennit_agree(pixels, name):
    model = settled(seeded(Reused)).double()
    maps = attribute(model, pixels, 1, name, "zennit", channels=True)
    assert_close(maps, attribute(model, pixels, 1, name, "captum", channels=True))


def test_captums_epsilon_rule_agrees(pixels):
    from captum.attr import LRP

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.pool, self.last = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Linear(36, 3)

        def forward(self, x):
            return self.last(torch.flatten(self.pool(self.relu(self.conv(x))), 1))

    model = seeded(Small).double()
    theirs = LRP(model).attribute(pixels.clone(), 2).detach()
    ours = attribute(model, pixels, 2, "lrp", composite="epsilon", epsilon=1e-9, channels=True).double()
    assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_a_missing_package_is_named(pixels, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="'zennit' needs the package zennit"):
        attribute(seeded(Modules).double(), pixels, 0, "lrp")


class Attention(nn.Module):
    def forward(self, x):
        return (x * x.mean((2, 3), keepdim=True)).mean((2, 3))


@pytest.mark.parametrize(
    "model, message",
    [
        (Attention(), "no rule for mul"),
        (nn.Sequential(Permute([0, 2, 3, 1]), nn.LayerNorm(3), nn.Flatten(), nn.Linear(192, 2)), "no rule for layer_norm"),
        (nn.Sequential(nn.Conv2d(3, 2, 8), nn.Softmax(1), nn.Flatten()), "no rule for softmax"),
        (torch.jit.script(nn.Sequential(nn.Conv2d(3, 2, 8), nn.ReLU(), nn.Flatten())), "PyTorch does not show"),
        (nn.Sequential(nn.Conv2d(3, 2, 7), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten()), "running statistics"),
    ],
)
def test_what_has_no_rule_is_refused(pixels, model, message):
    with pytest.raises(ValueError, match=f"model: .*{message}.*use method='integrated_gradients'"):
        attribute(model.double(), pixels, 0, "lrp")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"composite": "epsilon_plus_flatt"}, "composite: .*Did you mean 'epsilon_plus_flat'"),
        ({"gamma": 0.5}, "gamma: composite 'epsilon_plus_flat' does not take it; it takes: epsilon, stabilizer, zero_params"),
        ({"epsilon": -1.0}, "epsilon: -1.0; expected a number of at least 0"),
        ({"composite": "epsilon_gamma_box", "low": 1.0, "high": 0.0}, "low: it is not below high"),
        ({"composite": "epsilon", "stabilizer": 0.1}, "stabilizer: composite 'epsilon' does not take it; it takes: epsilon"),
        ({"composite": "excitation_backprop", "epsilon": 0.1}, "epsilon: composite 'excitation_backprop' does not take it"),
    ],
)
def test_options_that_do_not_fit_are_named(pixels, options, message):
    with pytest.raises(ValueError, match=message):
        attribute(seeded(Modules).double(), pixels, 0, "lrp", **options)


def test_neither_hook_nor_weight_is_left_behind_even_after_an_error(pixels):
    model = settled(seeded(Modules)).double()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    calls = 0

    def fail(module, args, output):
        nonlocal calls
        calls += 1
        if calls > 4:
            raise RuntimeError("out of memory, say")

    handle = model.relu3.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        attribute(model, pixels, 0, "lrp")
    handle.remove()
    attribute(model, pixels, 0, "lrp")
    assert_close(model.state_dict(), weights, rtol=0, atol=0)
    for module in model.modules():
        assert not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
        assert "forward" not in vars(module) and not hasattr(module, "canonizer_sum")
