"""DeepLift, the rules of ReLUs, and values of segments, against definitions computed by other means."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import densenet121, mobilenet_v2, resnet18

from helpers.attribution import attribute
from helpers.attribution.segments import grid

RULES = ["deeplift", "deeplift_shap", "guided_backprop", "deconvolution", "guided_grad_cam"]
LAYERS = ["layer_gradient_x_activation", "layer_conductance", "internal_influence"]
OF_SEGMENTS = ["feature_ablation", "shapley_value_sampling", "kernel_shap", "lime"]


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Modules(nn.Module):
    """As Captum wants it: each activation and pooling a module that runs once."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool, self.hidden, self.last = nn.MaxPool2d(2), nn.Linear(64, 9), nn.Linear(9, 3)

    def forward(self, x):
        x = self.relu2(self.conv2(self.relu1(self.norm(self.conv1(x)))))
        return self.last(self.relu3(self.hidden(torch.flatten(self.pool(x), 1))))


class Functions(Modules):
    def forward(self, x):
        x = torch.relu(self.conv2(F.relu(self.norm(self.conv1(x)))))
        return self.last(self.hidden(F.max_pool2d(x, 2).flatten(1)).clamp(min=0))


class Reused(Modules):
    def forward(self, x):
        x = self.relu1(self.conv2(self.relu1(self.norm(self.conv1(x)))))
        return self.last(self.relu1(self.hidden(torch.flatten(self.pool(x), 1))))


class InPlace(Modules):
    def forward(self, x):
        x = self.norm(self.conv1(x))
        x.relu_()
        x = F.relu(self.conv2(x), inplace=True)
        x = self.hidden(torch.flatten(self.pool(x), 1))
        torch.relu_(x)
        return self.last(x)


@pytest.mark.parametrize("form", [Functions, Reused, InPlace])
@pytest.mark.parametrize("name", RULES)
def test_how_the_model_is_written_makes_no_difference(pixels, form, name):
    model = seeded(Modules).double()
    other = form().double()
    other.load_state_dict(model.state_dict())
    layer = {"layer": "norm"} if name == "guided_grad_cam" else {}
    expected = attribute(model, pixels, 1, name, channels=True, **layer)
    assert expected.abs().sum() > 0
    assert_close(attribute(other, pixels, 1, name, channels=True, **layer), expected)


def test_captum_alone_is_silently_wrong_where_this_is_not(pixels):
    """If this fails, Captum has learned to refuse or to explain such models."""
    from captum.attr import GuidedBackprop

    model = seeded(Modules).double().eval()
    other = Functions().double().eval()
    other.load_state_dict(model.state_dict())
    right, wrong = (GuidedBackprop(each).attribute(pixels.clone().requires_grad_(), 1) for each in (model, other))
    assert (right - wrong).abs().max() > 0.1 * right.abs().max()
    assert_close(attribute(other, pixels, 1, "guided_backprop", channels=True).double(), right, rtol=1e-4, atol=1e-7)


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0) * (gradient > 0)


class Deconvolved(Guided):
    @staticmethod
    def backward(ctx, gradient):
        return gradient * (gradient > 0)


@pytest.mark.parametrize("name, rule", [("guided_backprop", Guided), ("deconvolution", Deconvolved)])
def test_the_rules_of_relus_are_those_of_a_function_written_by_hand(pixels, name, rule):
    model = seeded(Modules).double().eval()
    images = pixels.clone().requires_grad_()
    x = rule.apply(model.conv2(rule.apply(model.norm(model.conv1(images)))))
    output = model.last(rule.apply(model.hidden(model.pool(x).flatten(1))))
    (by_hand,) = torch.autograd.grad(output[:, 2].sum(), images)
    assert by_hand.abs().sum() > 0
    assert_close(attribute(model, pixels, 2, name, channels=True).double(), by_hand, rtol=1e-5, atol=1e-8)


def test_guided_grad_cam_is_captums(pixels):
    from captum.attr import GuidedGradCam

    model = seeded(Modules).double().eval()
    theirs = GuidedGradCam(model, model.pool).attribute(pixels.clone().requires_grad_(), 1, interpolate_mode="bilinear")
    assert theirs.abs().sum() > 0
    ours = attribute(model, pixels, 1, "guided_grad_cam", channels=True, layer="pool")
    assert_close(ours.double(), theirs.detach(), rtol=1e-4, atol=1e-8)


def test_deeplift_is_the_rescale_rule_by_hand(pixels):
    """Two layers in NumPy: multipliers are Δout/Δin at the ReLU (Shrikumar et al. 2017, rescale rule)."""
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.ReLU(), nn.Linear(7, 3))).double()
    first, last = model[1], model[3]
    w1, b1, w2 = (part.detach().numpy() for part in (first.weight, first.bias, last.weight))
    base = np.full(192, 0.3)
    maps = attribute(model, pixels, [2, 0], "deeplift", channels=True, baseline=0.3)
    for image, target, found in zip(pixels, (2, 0), maps, strict=True):
        x = image.flatten().numpy()
        here, there = w1 @ x + b1, w1 @ base + b1
        multiplier = (np.maximum(here, 0) - np.maximum(there, 0)) / (here - there)
        by_hand = (x - base) * ((w2[target] * multiplier) @ w1)
        assert_close(found.flatten().double(), torch.from_numpy(by_hand), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("make", [resnet18, densenet121, mobilenet_v2])
def test_deeplift_is_complete_for_real_networks(make):
    """Their poolings overlap, their ReLUs are in place, reused, functional or cut off at six; all add up all the same."""
    model = seeded(lambda: make(num_classes=3)).eval()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.normal_(0, 0.2, generator=generator)
    images = torch.rand(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        change = (model(images) - model(torch.ones_like(images)))[:, 1]
    maps = attribute(model, images, 1, "deeplift", baseline="white")
    assert change.abs().min() > 0
    assert_close(maps.sum((1, 2)), change, rtol=1e-3, atol=1e-4)


def test_deeplift_follows_one_function_on_another(pixels):
    """Multipliers are multiplied (DeepLift's chain rule); Captum's hooks on a tensor between two modules miss one of them."""
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Tanh(), nn.Flatten(), nn.Linear(256, 2))).double()
    base = pixels.flip(0)
    with torch.no_grad():
        inner = [model[0](some) for some in (pixels, base)]
        outer = [some.relu().tanh() for some in inner]
        multiplier = (outer[0] - outer[1]) / (inner[0] - inner[1]) * model[4].weight[1].reshape(1, 4, 8, 8)
        by_hand = (pixels - base) * torch.einsum("nkhw,kc->nchw", multiplier, model[0].weight[:, :, 0, 0])
    maps = attribute(model, pixels, 1, "deeplift", channels=True, baseline=base)
    assert_close(maps.double(), by_hand, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 2, dilation=2, ceil_mode=True)])
def test_deeplift_is_complete_over_an_activation_and_a_pooling(pixels, pool):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), pool, nn.Sigmoid(), nn.Flatten()).double()
    base = pixels.flip(0)
    with torch.no_grad():
        change = (model(pixels) - model(base))[:, 1]
    assert_close(attribute(model, pixels, 1, "deeplift", baseline=base).sum((1, 2)).double(), change, rtol=1e-4, atol=1e-7)


def test_deeplift_of_max_pooling_does_not_mix_images(pixels):
    """Windows that overlap, with a border and a last one that sticks out."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Flatten(), nn.Linear(64, 2)).double()
    pixels[0, :, :4] = 0  # equal to the baseline, where the rule has no quotient
    whole = attribute(model, pixels, 1, "deeplift")
    with torch.no_grad():
        change = (model(pixels) - model(torch.zeros_like(pixels)))[:, 1]
    assert_close(whole.sum((1, 2)).double(), change, rtol=1e-5, atol=1e-7)
    for i in range(2):
        assert_close(attribute(model, pixels[i : i + 1], 1, "deeplift")[0], whole[i])


def test_deeplift_shap_is_captums_mean_over_baselines(pixels):
    from captum.attr import DeepLiftShap

    baselines = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    theirs = DeepLiftShap(model).attribute(pixels.clone(), baselines, 1)
    ours = attribute(model, pixels, 1, "deeplift_shap", channels=True, baselines=baselines)
    assert_close(ours.double(), theirs.detach(), rtol=1e-5, atol=1e-8)
    named = attribute(model, pixels, 1, "deeplift_shap", channels=True, baselines=["black", 0.5])
    single = [attribute(model, pixels, 1, "deeplift", channels=True, baseline=one) for one in ("black", 0.5)]
    assert_close(named, (single[0] + single[1]) / 2)


class Product(nn.Module):
    def forward(self, x):
        return (x * x.mean((2, 3), keepdim=True)).mean((2, 3))


class ByHand(nn.Module):
    def forward(self, x):
        return Guided.apply(x - 0.4).mean((2, 3))


@pytest.mark.parametrize(
    "name, model, message",
    [
        ("deeplift", Product(), "adds up to .* where its score changes by .*one of: mul;"),
        ("deeplift", nn.Sequential(nn.LayerNorm(8), nn.Flatten(), nn.Linear(192, 2)), "one of: layer_norm;"),
        ("deeplift_shap", nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.LogSoftmax(1)), "one of: log_softmax;"),
        ("deeplift", ByHand(), "functions that PyTorch does not show"),
        ("guided_backprop", nn.Sequential(nn.Conv2d(3, 2, 8), nn.GELU(), nn.Flatten()), "none runs in this model .*gelu"),
        ("deconvolution", ByHand(), "PyTorch does not show it"),
        ("guided_grad_cam", nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 2)), "none runs"),
        ("guided_backprop", nn.Sequential(nn.ReLU(), ByHand()), "PyTorch does not show it"),
    ],
)
def test_what_would_be_wrong_is_refused(pixels, name, model, message):
    with pytest.raises(ValueError, match=f"(?s)model: .*{message}.*integrated_gradients"):
        attribute(strong(model.double()), pixels, 1, name)


def strong(model):
    """The same weights at any import, and large enough for its functions to be far from linear."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    return model


def test_a_model_that_chooses_its_layers_by_the_input_is_refused(pixels):
    class Choosing(Modules):
        def forward(self, x):
            return super().forward(x) if x.sum() > 150 else self.last(self.hidden(self.pool(self.conv1(x)).flatten(1)).relu())

    for name in ("guided_backprop", "deeplift"):
        with pytest.raises(ValueError, match="which layers to run.*integrated_gradients"):
            attribute(Choosing().double(), pixels, 1, name)


@pytest.fixture
def interacting():
    """A score with interactions between the quarters of the image, quick enough for all their subsets."""
    return seeded(Modules).double().eval()


def subsets_by_hand(model, image, base, codes, target):
    """f of every subset of segments."""
    count, values = int(codes.max()) + 1, {}
    with torch.no_grad():
        for size in range(count + 1):
            for shown in combinations(range(count), size):
                keep = torch.isin(codes, torch.tensor(shown, dtype=torch.int64))
                values[shown] = model(torch.where(keep, image, base)[None])[0, target].item()
    return values


def shapley_by_hand(values, count):
    result = np.zeros(count)
    for i in range(count):
        for shown in (subset for subset in values if i not in subset):
            share = factorial(len(shown)) * factorial(count - len(shown) - 1) / factorial(count)
            result[i] += share * (values[tuple(sorted((*shown, i)))] - values[shown])
    return result


def test_values_of_four_segments_against_all_sixteen_subsets(interacting, pixels):
    codes = grid(8, 8, 2)
    runs = {
        "feature_ablation": {},
        "shapley_value_sampling": {"samples": 1500},
        "kernel_shap": {"samples": 1500},
    }
    maps = {
        name: attribute(interacting, pixels, [1, 2], name, segments=2, baseline=0.5, batch_size=512, **options)
        for name, options in runs.items()
    }
    for i, target in enumerate((1, 2)):
        values = subsets_by_hand(interacting, pixels[i], torch.full_like(pixels[i], 0.5), codes, target)
        whole = values[(0, 1, 2, 3)]
        exact = shapley_by_hand(values, 4)
        drops = [whole - values[tuple(k for k in range(4) if k != j)] for j in range(4)]
        assert np.abs(exact - drops).max() > 0.02 * np.abs(exact).max()  # there are interactions
        for name, by_hand in (("feature_ablation", drops), ("shapley_value_sampling", exact), ("kernel_shap", exact)):
            found = np.array([maps[name][i][codes == j].unique().item() for j in range(4)])
            tolerance = {"feature_ablation": 1e-5, "kernel_shap": 0.02, "shapley_value_sampling": 0.02}[name]
            assert np.abs(found - by_hand).max() < tolerance * np.abs(exact).max(), name
            if name != "feature_ablation":
                assert found.sum() == pytest.approx(whole - values[()], abs=1e-4)


def test_lime_is_the_weighted_ridge_regression_it_says(interacting, pixels):
    """With enough samples it nears the regression on all subsets, each weighted by its nearness."""
    codes, target = grid(8, 8, 2), 1
    values = subsets_by_hand(interacting, pixels[0], torch.zeros_like(pixels[0]), codes, target)
    shown = np.array([[j in subset for j in range(4)] for subset in values], dtype=float)
    weight = np.exp(-(((1 - np.sqrt(shown.mean(1))) / 0.25) ** 2))
    samples = 4096
    exact = Ridge(alpha=2.0 * 16 / samples).fit(shown, list(values.values()), weight).coef_
    maps = attribute(interacting, pixels[:1], target, "lime", segments=2, samples=samples, batch_size=1024)
    found = np.array([maps[0][codes == j].unique().item() for j in range(4)])
    assert np.abs(found - exact).max() < 0.06 * np.abs(exact).max()


@pytest.mark.parametrize("name", OF_SEGMENTS)
def test_segments_are_the_users(linear, weight, images, name):
    """On a linear model every one of them gives a segment the sum of weight times pixel, whatever its shape and code."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(3, 6, (3, 16, 16), generator=generator) * 7
    options = {} if name == "feature_ablation" else {"samples": 40}
    options |= {"penalty": 1e-9, "nearness": 10.0} if name == "lime" else {}
    maps = attribute(linear, images, 1, name, segments=masks, **options)
    product = (weight[1] * images).sum(1)
    for i in range(3):
        for code in masks.unique():
            place = masks[i] == code
            assert_close(maps[i][place], product[i][place].sum().expand(int(place.sum())), rtol=1e-2, atol=1e-2)
    assert_close(attribute(linear, images, 1, name, segments=masks, batch_size=1, **options), maps, rtol=1e-3, atol=1e-4)
    shared = attribute(linear, images[:1], 1, name, segments=masks[0].numpy(), **options)
    assert_close(shared[0], maps[0], rtol=1e-3, atol=1e-4)


def test_a_grid_covers_the_image_in_pieces_of_like_size():
    for height, width, count in [(64, 64, 8), (17, 30, 5), (8, 8, 8)]:
        codes = grid(height, width, count)
        sizes = torch.bincount(codes.flatten())
        assert len(sizes) == count**2 and sizes.min() >= (height // count) * (width // count)
        assert sizes.max() <= -(-height // count) * -(-width // count)


@pytest.mark.parametrize("name", [*OF_SEGMENTS[1:], "gradient_shap", "square_grad", "vargrad"])
def test_the_same_seed_gives_the_same_bytes(cnn, images, name):
    options = {"samples": 30} | ({"segments": 3} if name in OF_SEGMENTS else {})
    first, again = (attribute(cnn, images, 0, name, seed=5, **options) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, attribute(cnn, images, 0, name, seed=6, **options))


def test_gradient_shap_is_exact_on_a_linear_model_and_converges(cnn, linear, weight, images):
    maps = attribute(linear, images, 1, "gradient_shap", channels=True, baselines=[0.25], samples=3)
    assert_close(maps, (images - 0.25) * weight[1])
    many = attribute(cnn, images, 1, "gradient_shap", channels=True, baselines=["white"], samples=400)
    exact = attribute(cnn, images, 1, "integrated_gradients", channels=True, baseline="white", steps=50)
    assert (many - exact).abs().max() < 0.1 * exact.abs().max()


def test_square_grad_and_vargrad_are_moments_of_the_gradient():
    class Cubic(nn.Module):  # f = Σ x³ / 3 has gradient x², whose moments under noise are those of a normal variable
        def forward(self, x):
            cubes = (x**3).sum((1, 2, 3)) / 3
            return torch.stack([0 * cubes, cubes], dim=1)

    image, noise = torch.full((1, 3, 16, 16), 0.5), 0.2
    square = attribute(Cubic(), image, 1, "square_grad", channels=True, noise=noise, samples=200).mean().item()
    variance = attribute(Cubic(), image, 1, "vargrad", channels=True, noise=noise, samples=200).mean().item()
    fourth = 0.5**4 + 6 * 0.5**2 * noise**2 + 3 * noise**4
    assert square == pytest.approx(fourth, rel=0.03)
    few = [attribute(Cubic(), image, 1, "vargrad", channels=True, noise=noise, samples=3, seed=i).mean().item() for i in range(8)]
    assert np.mean(few) == pytest.approx(fourth - (0.5**2 + noise**2) ** 2, rel=0.1)
    assert variance == pytest.approx(fourth - (0.5**2 + noise**2) ** 2, rel=0.05)
    assert attribute(Cubic(), image, 1, "vargrad", noise=0.0, samples=4).abs().max() < 1e-6


def test_layer_methods_at_a_linear_layer_can_be_written_down(pixels):
    """At the output A of the convolution the gradient is that of the last layer, and A changes by W x on the way from black."""
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 3))).double()
    maps = {name: attribute(model, pixels, 2, name, layer="0") for name in LAYERS}
    with torch.no_grad():
        output = model[0](pixels)
        change = output - model[0](torch.zeros_like(pixels))
        slope = model[2].weight[2].reshape(1, 4, 8, 8)
    assert_close(maps["layer_gradient_x_activation"].double(), (output * slope).sum(1), rtol=1e-5, atol=1e-7)
    assert_close(maps["layer_conductance"].double(), (change * slope).sum(1), rtol=1e-5, atol=1e-7)
    assert_close(maps["internal_influence"].double(), slope.sum(1).expand(2, -1, -1), rtol=1e-5, atol=1e-7)


def test_conductance_through_a_layer_adds_up(pixels):
    model = seeded(Modules).double().eval()
    maps = attribute(model, pixels, 1, "layer_conductance", layer="relu2", steps=100)
    with torch.no_grad():
        change = (model(pixels) - model(torch.zeros_like(pixels)))[:, 1]
    assert_close(maps.sum((1, 2)).double(), change, rtol=0.02, atol=1e-3)


def test_layer_methods_take_the_last_feature_map_or_refuse(cnn, pixels):
    for name in LAYERS:
        assert_close(attribute(cnn, pixels.float(), 1, name), attribute(cnn, pixels.float(), 1, name, layer=cnn[6]))
        with pytest.raises(ValueError, match="layer: the output of '9' has 2 dimensions"):
            attribute(cnn, pixels.float(), 1, name, layer="last")


@pytest.mark.parametrize("name", ["deeplift", "deeplift_shap", "gradient_shap", "square_grad", "vargrad", *OF_SEGMENTS])
def test_methods_find_the_square_that_the_model_looks_at(looks_at_square, images, square, name):
    class Squared(nn.Module):  # so that its gradient, too, depends on the image
        def forward(self, x):
            return torch.tanh(looks_at_square(x) / 9)

    options = {"segments": square, "samples": 20} if name in OF_SEGMENTS else {}
    options.pop("samples", None) if name == "feature_ablation" else None
    maps = attribute(Squared(), images, 1, name, **options).abs()
    assert maps[:, square].mean() > 20 * maps[:, ~square].mean()


class Batches(TorchDispatchMode):
    """The largest batch that any convolution sees."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "convolution" in func.__name__:
            self.largest = max(self.largest, len(args[0]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*OF_SEGMENTS, "gradient_shap", "square_grad", "vargrad"])
def test_no_pass_is_larger_than_the_batch(cnn, images, name):
    options = {} if name == "feature_ablation" else {"samples": 20}
    options |= {"segments": 3} if name in OF_SEGMENTS else {}
    with Batches() as seen:
        attribute(cnn, images, 0, name, batch_size=4, **options)
    assert 1 < seen.largest <= 4


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("lime", {"segments": 17}, r"segments: a grid of 17 × 17; accepted: 2 to 16"),
        ("lime", {"segments": 1}, "segments: a grid of 1 × 1"),
        ("lime", {"segments": "slic"}, "segments: 'slic'; expected the number of a grid's rows"),
        ("lime", {"segments": torch.rand(16, 16)}, "segments: torch.float32; expected whole numbers"),
        ("lime", {"segments": torch.ones(8, 8, dtype=torch.int64)}, r"segments: shape \(8, 8\); expected \(16, 16\)"),
        ("feature_ablation", {"segments": torch.ones(16, 16, dtype=torch.bool)}, "segments: image 0 has only one"),
        ("kernel_shap", {"segments": 4, "samples": 16}, "samples: 16 for 16 segments"),
        ("shapley_value_sampling", {"samples": 0}, "samples: 0"),
        ("gradient_shap", {"baselines": "black"}, "baselines: 'black'; expected one or more"),
        ("deeplift_shap", {"baselines": ["blak"]}, "baseline: .*Did you mean 'black'"),
        ("deeplift_shap", {"baselines": torch.zeros(2, 3, 8, 8)}, r"baseline: shape \(3, 8, 8\)"),
        ("lime", {"nearness": 0.0}, "penalty, nearness: 2.0, 0.0"),
        ("vargrad", {"samples": 1}, "samples: 1; vargrad needs at least 2"),
        ("lime", {"channels": True}, "channels: lime has one value a pixel"),
    ],
)
def test_bad_options_are_named(cnn, images, name, options, message):
    with pytest.raises(ValueError, match=message):
        attribute(cnn, images, 0, name, **options)
