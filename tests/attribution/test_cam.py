"""The family of Grad-CAM against NumPy, theorems and planted truth, on convolutions and on transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.testing import assert_close
from torchvision.models import resnet18, swin_t, vit_b_16
from torchvision.models.vision_transformer import VisionTransformer

from helpers.attribution import attribute
from helpers.attribution.feature_layer import find
from helpers.attribution.score import Score

from .conftest import seeded

FAMILY = [
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "xgrad_cam",
    "eigen_cam",
    "eigen_grad_cam",
    "score_cam",
    "ablation_cam",
]
TARGET = torch.tensor([2, 0, 1])


def numpy_map(name, activation, gradient, after_mask, after_ablation, score):
    """One image: activation and gradient (k, h, w); functions of a channel to the score under its mask, or without it."""
    a, g = activation.astype(float), gradient.astype(float)
    k = len(a)
    if name in ("eigen_cam", "eigen_grad_cam"):
        product = a if name == "eigen_cam" else a * g
        matrix = product.reshape(k, -1).T
        values, vectors = np.linalg.eigh(matrix.T @ matrix)  # by another route than the singular value decomposition
        found = (matrix @ vectors[:, -1]).reshape(a.shape[1:])
        return found * np.sign((found * (1 if name == "eigen_cam" else product.sum(0))).sum())
    if name == "hires_cam":
        return sum(g[c] * a[c] for c in range(k))
    if name == "layer_cam":
        return sum(np.maximum(g[c], 0) * a[c] for c in range(k))
    weight = []
    for c in range(k):
        if name == "grad_cam":
            weight.append(g[c].mean())
        elif name == "xgrad_cam":
            weight.append((g[c] * a[c]).sum() / a[c].sum())
        elif name == "grad_cam_plus_plus":
            with np.errstate(invalid="ignore"):
                share = np.nan_to_num(g[c] ** 2 / (2 * g[c] ** 2 + g[c] ** 3 * a[c].sum()))
            weight.append((share * np.maximum(g[c], 0)).sum())
        elif name == "score_cam":
            weight.append(np.exp(after_mask(c)))
        elif name == "ablation_cam":
            weight.append(score - after_ablation(c))
    weight = np.array(weight)
    weight = weight / weight.sum() if name == "score_cam" else weight
    return np.tensordot(weight, a, 1)


def expected_maps(name, head, tail, images, target, relu):
    """Maps of a model tail(head(x)), image by image; head puts out (1, k, h, w)."""
    maps = []
    for image, code in zip(images[:, None], target.tolist(), strict=True):
        activation = head(image).detach().requires_grad_()
        score = tail(activation)[0, code]
        (gradient,) = torch.autograd.grad(score, activation)

        def after_mask(channel, image=image, activation=activation, code=code):
            shown = interpolate(activation[:, [channel]], size=image.shape[2:], mode="bilinear", align_corners=False)
            shown = (shown - shown.min()) / (shown.max() - shown.min())
            return tail(head(image * shown))[0, code].item()

        def after_ablation(channel, activation=activation, code=code):
            without = activation.detach().clone()
            without[:, channel] = 0
            return tail(without)[0, code].item()

        found = numpy_map(name, activation.detach()[0].numpy(), gradient[0].numpy(), after_mask, after_ablation, score.item())
        maps.append(torch.from_numpy(np.maximum(found, 0) if relu else found).float())
    return interpolate(torch.stack(maps)[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def assert_same(found, expected):
    assert expected.abs().max() > 0
    assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("name", FAMILY)
def test_each_member_equals_numpy(cnn, images, name, relu):
    cnn.eval()
    expected = expected_maps(name, cnn[:6], cnn[6:], images, TARGET, relu)
    for layer in ("5", cnn[5]):
        for batch_size in (2, 64):
            found = attribute(cnn, images, TARGET, name, layer=layer, relu=relu, batch_size=batch_size)
            assert_same(found, expected)


@pytest.mark.parametrize("layer", ["0", "1", "4", "5"])
def test_grad_cam_equals_captums_at_any_layer(cnn, images, layer):
    """Also before an in-place ReLU, which must not rewrite what is explained."""
    ours, captums = (attribute(cnn, images, TARGET, "grad_cam", backend, layer=layer) for backend in ("torch", "captum"))
    assert_close(ours, captums, rtol=1e-4, atol=1e-6)


def pooled(channels=8, classes=3):
    """A mean over positions and a linear layer follow the last map."""

    def make():
        return nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, classes),
        )

    return seeded(make).eval()


def test_before_a_mean_and_a_linear_layer_the_weights_agree(images):
    """There G is constant over positions: HiResCAM and XGrad-CAM are Grad-CAM."""
    model = pooled()
    grad = attribute(model, images, TARGET, "grad_cam", relu=False)
    for name in ("hires_cam", "xgrad_cam"):
        assert_same(attribute(model, images, TARGET, name, relu=False), grad)
    early = {"layer": "2", "relu": False}
    one, other = (attribute(model, images, TARGET, name, **early) for name in ("grad_cam", "hires_cam"))
    assert not torch.allclose(one, other, rtol=0.1)  # elsewhere they differ


def test_hires_cam_adds_up_to_the_logit(images):
    """With the mean over positions of a linear head, Σ G A is the logit less its bias (completeness; Draelos & Carin 2020)."""
    model = pooled()
    activation = model[:5](images)
    small = attribute(model, images, TARGET, "hires_cam", relu=False, layer="4")
    logit = model(images).gather(1, TARGET[:, None])[:, 0] - model[7].bias[TARGET]
    scale = small[0].numel() / activation[0, 0].numel()
    assert_close(small.sum((1, 2)) / scale, logit.detach(), rtol=0.2, atol=0.02)  # enlarging keeps sums but at the border


@pytest.mark.parametrize("name", FAMILY)
def test_a_planted_patch_is_found(name):
    """One channel sees red and feeds the class, another sees green and speaks against it: the red patch matters."""
    model = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-0.5)
        model[0].weight[0, 0], model[0].weight[1, 1] = 1 / 9, 1 / 9
        model[4].weight.copy_(torch.tensor([[0.0, 0.0], [100.0, -100.0]]))
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, 4:12, 20:28] = 1
    image[:, 1, 20:28, 4:12] = 0.7 if name.startswith("eigen") else 1  # which looks for the strongest, not for the class
    found = attribute(model, image, 1, name)[0]
    assert found[4:12, 20:28].sum() > 0.9 * found.sum() > 0


def vit(size=32, patch=8, layers=3):
    def make():
        model = VisionTransformer(
            image_size=size, patch_size=patch, num_layers=layers, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3
        )
        nn.init.normal_(model.heads.head.weight)
        return model

    return seeded(make).eval()


class Patches(nn.Module):
    """A transformer in miniature: tokens of a convolution, `extra` tokens before them, mixing, and a mean or the first token."""

    def __init__(self, pool, extra=0, linear=False):
        super().__init__()
        self.embed = nn.Linear(3 * 64, 6) if linear else nn.Conv2d(3, 6, 8, 8)
        self.extra = nn.Parameter(torch.randn(1, extra, 6))
        self.norm, self.mix, self.last = nn.LayerNorm(6), nn.Linear(6, 6), nn.LayerNorm(6)
        self.head, self.pool = nn.Linear(6, 3), pool

    def forward(self, x):
        if isinstance(self.embed, nn.Linear):
            x = self.embed(nn.functional.unfold(x, 8, stride=8).transpose(1, 2))
        else:
            x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.extra.expand(len(x), -1, -1), x], 1)
        x = x + self.mix(self.norm(x).cumsum(1).div(x.shape[1]).flip(1))
        x = self.last(x)
        return self.head(x[:, 0] if self.pool == "first" else x.mean(1))


def layer_of(model, size=(32, 32), layer=None):
    return find(Score(model), layer, torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)), torch.tensor([1]))


def test_the_default_layer_of_a_transformer_is_the_last_whose_patches_count():
    found = layer_of(vit())
    assert found.name == "encoder.layers.encoder_layer_2.ln_1" and found.grid == (4, 4)
    mean = layer_of(seeded(lambda: Patches("mean", extra=5)).eval(), (32, 48))
    assert (mean.name, mean.grid) == ("last", (4, 6))
    first = layer_of(seeded(lambda: Patches("first", extra=1)).eval(), (32, 48))
    assert (first.name, first.grid) == ("norm", (4, 6))
    linear = layer_of(seeded(lambda: Patches("mean", extra=1, linear=True)).eval(), (24, 48))
    assert (linear.name, linear.grid) == ("last", (3, 6))
    assert layer_of(resnet18(num_classes=2).eval(), (64, 64)).name == "layer4"


def test_the_default_layers_of_torchvisions_transformers():
    with torch.device("meta"):  # only the names
        names = dict(vit_b_16().named_modules())
    assert "encoder.layers.encoder_layer_11.ln_1" in names
    swin = seeded(lambda: swin_t(num_classes=2)).eval()
    found = layer_of(swin, (64, 64))
    assert (found.name, found.grid, found.channels_last) == ("permute", None, False)
    assert layer_of(swin, (64, 64), "features.5").channels_last


@pytest.mark.parametrize("name", FAMILY)
def test_tokens_become_maps_without_the_class_token(name):
    """Each member on a transformer equals NumPy's, from the patches' tokens laid out by hand."""
    model = vit()
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    block = model.encoder.layers[-1]

    def head(image):
        tokens = model._process_input(image)
        tokens = torch.cat([model.class_token, tokens], 1) + model.encoder.pos_embedding
        for layer in model.encoder.layers[:-1]:
            tokens = layer(tokens)
        head.before, normed = tokens, block.ln_1(tokens)
        head.token = normed[:, :1]
        return normed[:, 1:].transpose(1, 2).reshape(1, 16, 4, 4)

    def tail(maps):
        normed = torch.cat([head.token, maps.flatten(2).transpose(1, 2)], 1)
        tokens = head.before + block.self_attention(normed, normed, normed, need_weights=False)[0]
        tokens = tokens + block.mlp(block.ln_2(tokens))
        return model.heads(model.encoder.ln(tokens)[:, 0])

    assert_close(tail(head(images[:1])), model(images[:1]))
    expected = expected_maps(name, head, tail, images, TARGET, relu=False)
    assert_same(attribute(model, images, TARGET, name, relu=False, batch_size=2), expected)


def test_a_patch_that_a_transformer_sees_is_found():
    """Only tokens of bright patches speak for the class: it is found in a picture that is not square."""
    model = seeded(lambda: Patches("mean", extra=1)).eval()
    with torch.no_grad():
        model.embed.weight.zero_()
        model.embed.weight[0], model.embed.bias[:] = 0.2, torch.linspace(-1, 1, 6)
        model.mix.weight.zero_(), model.extra.zero_()
        model.head.weight.zero_()
        model.head.weight[1, 0] = 1
    image = torch.zeros(1, 3, 32, 48)
    image[:, :, 8:16, 24:32] = 1
    found = attribute(model, image, 1, "hires_cam")[0]
    assert divmod(found.argmax().item(), 48)[0] in range(8, 16) and divmod(found.argmax().item(), 48)[1] in range(24, 32)


def test_what_has_no_map_is_refused_with_the_reason(cnn, images):
    transformer, pictures = vit(), torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match="layer: '9' gives an output with 2 dimensions; expected a map"):
        attribute(cnn, images, 0, "layer_cam", layer="9")
    with pytest.raises(ValueError, match="'encoder.layers.encoder_layer_2.self_attention' gives no tensor"):
        attribute(transformer, pictures, 0, "grad_cam", layer="encoder.layers.encoder_layer_2.self_attention")
    with pytest.raises(ValueError, match="layer: '' gives the logits"):
        attribute(cnn, images, 0, "hires_cam", layer="")
    with pytest.raises(ValueError, match="layer: unknown name 'encoder.layers.encoder_layer_9'.*Did you mean"):
        attribute(transformer, pictures, 0, "grad_cam", layer="encoder.layers.encoder_layer_9")

    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.unseen, self.idle = pooled(), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            self.unseen(x)
            return self.seen(x)

    model = seeded(Aside)
    with pytest.raises(ValueError, match="layer: the score does not depend on 'unseen'"):
        attribute(model, images, 0, "grad_cam", layer="unseen")
    with pytest.raises(ValueError, match="layer: 'idle' does not run"):
        attribute(model, images, 0, "eigen_cam", layer="idle")


def test_a_channel_that_is_flat_makes_no_nan(images):
    model = pooled()
    with torch.no_grad():
        model[3].weight[:4].zero_()
        model[3].bias[:4] = -1
    for name in FAMILY:
        assert attribute(model, images, TARGET, name).isfinite().all()


def test_the_layer_is_looked_for_once_a_call(cnn, images):
    passes = []
    cnn[0].register_forward_hook(lambda module, args, output: passes.append(len(output)))
    attribute(cnn, images, TARGET, "grad_cam", batch_size=1)
    one = len(passes)
    passes.clear()
    attribute(cnn, images.repeat(2, 1, 1, 1), TARGET.repeat(2), "grad_cam", batch_size=1)
    assert len(passes) == one + 3


def test_layers_of_a_compiled_model_are_those_of_the_model(cnn, images):
    for method, options in (("grad_cam", {"layer": "4"}), ("guided_grad_cam", {}), ("score_cam", {})):
        compiled = torch.compile(cnn, backend="eager")
        assert_close(attribute(compiled, images, TARGET, method, **options), attribute(cnn, images, TARGET, method, **options))


def test_layers_of_torchscript_are_refused_by_name(cnn, images):
    for script in (torch.jit.script(cnn), torch.jit.trace(cnn.eval(), images), nn.Sequential(torch.jit.script(cnn))):
        with pytest.raises(ValueError, match="model: grad_cam looks at layers, and those of TorchScript cannot be watched.*rise"):
            attribute(script, images, TARGET, "grad_cam")
        assert attribute(script, images, TARGET, "saliency").shape == (3, 16, 16)
