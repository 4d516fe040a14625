"""Each method against a definition computed by other means."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.testing import assert_close
from torchvision.models import resnet18

from helpers.attribution import attribute, methods, random_maps
from helpers.attribution.baselines import NAMED, baseline_of
from helpers.attribution.captum import last_feature_layer
from helpers.attribution.method import METHODS, method

CAPTUM = [name for name, backend in METHODS if backend == "captum"]
QUICK = {
    "integrated_gradients": {"steps": 5},
    "smoothgrad": {"samples": 4},
    "rise": {"samples": 8, "grid": 3},
    "shapley_value_sampling": {"segments": 3, "samples": 2},
    "kernel_shap": {"segments": 3, "samples": 30},
    "lime": {"segments": 3, "samples": 30},
}


OWN = {"lime": {"keep", "width", "nearness"}}  # what the libraries draw and weigh differs, as the table says


def logits(model, images):
    with torch.no_grad():
        return model.eval()(images)


def test_gradient_input_of_a_linear_model_is_weight_times_pixel(linear, weight, images):
    maps = attribute(linear, images, [0, 1, 0], "gradient_input", channels=True)
    assert_close(maps, images * weight[[0, 1, 0]])
    assert_close(attribute(linear, images, [0, 1, 0], "gradient_input"), maps.sum(1))


@pytest.mark.parametrize("baseline", [*NAMED, 0.3, "tensor", "tensors"])
@pytest.mark.parametrize("quadrature", ["gausslegendre", "trapezoid"])
def test_integrated_gradients_of_a_linear_model_are_exact_at_two_steps(linear, weight, images, baseline, quadrature):
    generator = torch.Generator().manual_seed(3)
    given = {
        "tensor": torch.rand(3, 16, 16, generator=generator),
        "tensors": torch.rand(images.shape, generator=generator),
    }
    baseline = given.get(baseline, baseline)
    start = baseline if torch.is_tensor(baseline) else baseline_of(baseline, images)
    maps = attribute(linear, images, 1, channels=True, steps=2, baseline=baseline, quadrature=quadrature, batch_size=2)
    assert_close(maps, (images - start) * weight[1])


@pytest.mark.parametrize("quadrature", ["gausslegendre", "trapezoid"])
def test_integrated_gradients_add_up_to_the_change_of_the_logit(cnn, images, quadrature):
    maps = attribute(cnn, images, 1, "integrated_gradients", baseline="white", quadrature=quadrature, steps=50)
    change = logits(cnn, images)[:, 1] - logits(cnn, torch.ones_like(images))[:, 1]
    assert change.abs().min() > 0.01
    assert_close(maps.sum((1, 2)), change, rtol=0.01, atol=0)


def test_saliency_is_the_modulus_of_the_slope(cnn, images):
    cnn.double()
    maps = attribute(cnn, images.double(), 1, "saliency", channels=True)
    signed = attribute(cnn, images.double(), 1, "saliency", channels=True, absolute=False)
    assert (signed < 0).any() and (maps >= 0).all()
    for place in [(0, 0, 3, 4), (1, 2, 15, 0), (2, 1, 8, 8)]:
        up, down = images.double(), images.double()
        up[place] += 1e-6
        down[place] -= 1e-6
        slope = (logits(cnn, up) - logits(cnn, down))[place[0], 1].item() / 2e-6
        assert signed[place].item() == pytest.approx(slope, rel=1e-4, abs=1e-8)
        assert maps[place].item() == pytest.approx(abs(slope), rel=1e-4, abs=1e-8)


def test_smoothgrad_without_noise_is_the_gradient_and_with_noise_averages_it(cnn, linear, weight, images):
    gradient = attribute(cnn, images, 0, "saliency", channels=True, absolute=False)
    assert_close(attribute(cnn, images, 0, "smoothgrad", channels=True, noise=0, samples=3), gradient)
    still = attribute(cnn, images, 0, "smoothgrad", channels=True, noise=0, samples=3, squared=True)
    assert_close(still, gradient**2)
    modulus = attribute(cnn, images, 0, "smoothgrad", channels=True, noise=0, samples=3, absolute=True)
    assert_close(modulus, gradient.abs())
    assert_close(attribute(linear, images, 1, "smoothgrad", channels=True)[0], weight[1])


def test_smoothgrad_has_noise_of_the_stated_size():
    class Square(nn.Module):  # f = Σ x³ / 3 has gradient x², whose mean under noise is x² + σ²
        def forward(self, x):
            cubes = (x**3).sum((1, 2, 3)) / 3
            return torch.stack([0 * cubes, cubes], dim=1)

    maps = attribute(Square(), torch.full((1, 3, 16, 16), 0.5), 1, "smoothgrad", channels=True, noise=0.2, samples=100)
    assert maps.mean().item() == pytest.approx(0.25 + 0.04, abs=0.005)


@pytest.mark.parametrize("patch, stride", [(4, 2), (5, 3), (8, 8)])
def test_occlusion_is_the_mean_drop_over_the_patches_on_a_pixel(cnn, images, patch, stride):
    """The textbook loop; a last patch that sticks out is cut off at the border."""
    total, count = torch.zeros(3, 16, 16), torch.zeros(16, 16)
    starts = range(0, 16 - patch + stride, stride)
    for top in starts:
        for left in starts:
            hidden = images.clone()
            hidden[:, :, top : top + patch, left : left + patch] = 0.25
            drop = (logits(cnn, images) - logits(cnn, hidden))[:, 1]
            total[:, top : top + patch, left : left + patch] += drop[:, None, None]
            count[top : top + patch, left : left + patch] += 1
    maps = attribute(cnn, images, 1, "occlusion", patch=patch, stride=stride, baseline=0.25)
    assert_close(maps, total / count, rtol=1e-4, atol=1e-6)


def test_occlusion_of_a_linear_model_at_patch_one_is_gradient_times_input(linear, weight, images):
    maps = attribute(linear, images, 1, "occlusion", patch=1, stride=1)
    assert_close(maps, (weight[1] * images).sum(1), rtol=1e-3, atol=1e-4)


def test_grad_cam_is_the_textbook_sum(cnn, images):
    cnn.eval()
    head, tail = cnn[:6], cnn[6:]
    features = head(images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(tail(features)[:, 2].sum(), features)
    signed = (gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).detach()
    up = interpolate(signed, size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    assert_close(attribute(cnn, images, 2, "grad_cam", layer="5", relu=False), up)
    assert_close(attribute(cnn, images, 2, "grad_cam", layer=cnn[5], relu=False), up)
    relu = interpolate(signed.relu(), size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    assert_close(attribute(cnn, images, 2, "grad_cam", layer="5"), relu)


def test_grad_cam_finds_a_planted_patch():
    """A detector of bright red feeds the class, a detector of green speaks against it."""
    model = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-0.5)
        model[0].weight[0, 0], model[0].weight[1, 1] = 1 / 9, 1 / 9
        model[4].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, 4:12, 20:28] = 1
    image[:, 1, 20:28, 4:12] = 1
    maps = attribute(model, image, 1, "grad_cam")
    assert maps[0, 4:12, 20:28].sum() > 0.95 * maps.sum() > 0
    against = attribute(model, image, 1, "grad_cam", relu=False)
    assert against[0, 23, 7] < 0 < against[0, 7, 23]


def test_the_default_layer_follows_the_data_not_the_order_of_registration():
    class Twisted(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.second = nn.Conv2d(4, 4, 3)
            self.first = nn.Conv2d(3, 4, 3)
            self.unused = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))

    assert last_feature_layer(Twisted(), torch.rand(1, 3, 16, 16)) == "second"
    assert last_feature_layer(resnet18(num_classes=2).eval(), torch.rand(1, 3, 64, 64)) == "layer4"


@pytest.mark.parametrize("name", CAPTUM)
def test_one_logit_is_explained_from_both_sides(cnn, images, name):
    one = nn.Sequential(*cnn[:-1], nn.Linear(32, 1)).eval()
    two = nn.Sequential(one, nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        two[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
    for target in (0, 1, None):
        options = QUICK.get(name, {})
        same = attribute(two, images, target, name, **options)
        if "grad_cam" not in name:
            assert_close(attribute(one, images, target, name, **options), same)
        else:  # its ReLU hides one side, so compare without
            layer = {"relu": False}
            assert_close(attribute(one, images, target, name, **layer), attribute(two, images, target, name, **layer))


def test_the_default_target_is_the_predicted_class(cnn, images):
    predicted = logits(cnn, images).argmax(1)
    assert_close(attribute(cnn, images, method="saliency"), attribute(cnn, images, predicted, "saliency"))
    one = nn.Sequential(*cnn[:-1], nn.Linear(32, 1)).eval()
    sides = torch.stack([attribute(one, images, side, "gradient_input") for side in (0, 1)])
    chosen = (logits(one, images)[:, 0] > 0).long()
    assert_close(attribute(one, images, method="gradient_input"), sides[chosen, torch.arange(3)])


@pytest.mark.parametrize("name", CAPTUM)
def test_images_are_explained_one_by_one_whatever_the_batch(cnn, images, name):
    """Each image's map depends on that image and its own target only, and the batch size changes nothing."""
    still = {"noise": 0.0, "samples": 3}
    options = {
        "smoothgrad": still,
        "square_grad": still,
        "gradient_shap": still | {"baselines": ["black"]},  # which of several is drawn depends on how many are at once
        "integrated_gradients": {"steps": 6},
    }.get(name, QUICK.get(name, {}))
    if name == "vargrad":
        pytest.skip("without noise there is no map, and noise is drawn batch by batch")
    target = torch.tensor([2, 0, 1])
    whole = attribute(cnn, images, target, name, **options)
    assert whole.shape == (3, 16, 16) and whole.dtype == torch.float32 and whole.abs().sum() > 0
    for batch_size in (1, 2, 7):
        assert_close(
            attribute(cnn, images, target, name, batch_size=batch_size, **options), whole, rtol=1e-4, atol=1e-6
        )
    for i in range(3):
        alone = attribute(cnn, images[i : i + 1], int(target[i]), name, **options)
        assert_close(alone[0], whole[i], rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_map_and_another_seed_another(cnn, images):
    first, again = (attribute(cnn, images, 0, "smoothgrad", samples=4, seed=5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, attribute(cnn, images, 0, "smoothgrad", samples=4, seed=6))
    assert torch.equal(random_maps(images, 1), random_maps(images, 1))
    assert not torch.equal(random_maps(images, 1), random_maps(images, 2))
    assert random_maps(images).shape == (3, 16, 16) and 0.4 < random_maps(images).mean() < 0.6


def test_it_works_where_gradients_are_switched_off(cnn, images):
    expected = attribute(cnn, images, 1, "saliency")
    with torch.no_grad():
        assert_close(attribute(cnn, images, 1, "saliency"), expected)
    with torch.inference_mode():
        pixels, codes, black = images.clone(), torch.ones(3, dtype=torch.int64), torch.zeros(3, 16, 16)
        assert_close(attribute(cnn, pixels, codes, "saliency"), expected)
        attribute(cnn, pixels, codes, steps=2, baseline=black)
    assert_close(attribute(cnn, pixels, codes, "saliency"), expected)
    attribute(cnn, pixels, codes, steps=2, baseline=black)
    attribute(cnn, pixels, codes, "occlusion", baseline=black)


@pytest.mark.parametrize("name", CAPTUM)
def test_a_model_in_half_precision_is_explained_in_it(cnn, images, name):
    options = {"smoothgrad": {"noise": 0.05, "samples": 4}, "integrated_gradients": {"steps": 4}}.get(name, {})
    whole = attribute(cnn, images, 1, name, **options)
    half = attribute(cnn.bfloat16(), images, 1, name, **options)
    assert half.dtype == torch.float32
    assert torch.corrcoef(torch.stack([whole.flatten(), half.flatten()]))[0, 1] > 0.9


def test_the_table_of_methods_tells_the_truth(cnn, images):
    table = methods()
    assert len(table) == len(METHODS) >= 26
    assert not table.duplicated(["name", "backend"]).any() and table.notna().all().all()
    for row in table[table.backend.isin(["torch", "captum"])].itertuples():
        options = QUICK.get(row.name, {})
        repeatable = torch.equal(
            attribute(cnn, images, 0, row.name, row.backend, seed=1, **options),
            attribute(cnn, images, 0, row.name, row.backend, seed=2, **options),
        )
        assert repeatable == row.deterministic
        blind = Blind(cnn)
        if row.needs_gradient:
            with pytest.raises(ValueError, match="no gradient.*occlusion"):
                attribute(blind, images, 0, row.name, row.backend)
        else:
            seeing, not_seeing = (attribute(model, images, 0, row.name, row.backend, **options) for model in (cnn, blind))
            assert_close(not_seeing, seeing)


def test_backends_share_options_and_defaults():
    for (name, backend), entry in METHODS.items():
        for other in {other for known, other in METHODS if known == name} - {backend}:
            others = METHODS[name, other].defaults
            shared = entry.defaults.keys() & others.keys()
            assert {key: entry.defaults[key] for key in shared} == {key: others[key] for key in shared}
            assert entry.defaults.keys() ^ others.keys() <= OWN.get(name, set()) | {"quadrature", "tolerance", "most"}


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'saliency'.*already registered"):
        method("saliency", backend="captum", needs_gradient=True, deterministic=True, passes="", definition="")(print)


class Blind(nn.Module):
    """A model whose output has no gradient, as one that runs in another library."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        with torch.no_grad():
            return self.model(x)
