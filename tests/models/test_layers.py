"""Layers are found by how data flows, looked at without a trace."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.models import append_after, build, capture, features, find, flow
from helpers.models.affine import LowRank
from tests.models.conftest import SmallNet, make_faces

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Reversed(nn.Module):
    """Registered last to first, with an auxiliary head that is registered and run after the true one."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(4, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(3, 4, 3)
        self.unused = nn.Linear(4, 2)
        self.auxiliary = nn.Linear(4, 7)

    def forward(self, x):
        h = torch.flatten(self.pool(F.relu(self.conv(x))), 1)
        logits = self.classifier(h)
        self.kept = self.auxiliary(h)
        return logits


class FunctionalHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 4, generator=torch.Generator().manual_seed(1)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return F.linear(self.pool(self.conv(x)).flatten(1), self.weight)


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 2, 16), nn.Conv2d(3, 2, 16), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(torch.cat([self.a(x), self.b(x)], 1).flatten(1))


def with_functional_steps():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(5, 2))


@pytest.mark.parametrize(
    "model, last, penultimate",
    [
        (Reversed(), "classifier", "pool"),
        (FunctionalHead(), "", "pool"),
        (with_functional_steps(), "4", "2"),
        (SmallNet(), "head", "body.4"),
    ],
)
def test_roles_follow_the_data(model, last, penultimate, hookless):
    if isinstance(model, nn.Sequential):
        penultimate = find(model, "penultimate", X)
        assert penultimate in ("2", "3")  # dropout passes on what the ReLU puts out: both are that layer
    assert find(model, "last", X) == last
    assert find(model, "penultimate", X) == penultimate
    with capture(model.eval(), penultimate) as seen:
        logits = model(X)
    owner = model.get_submodule(last)
    bias = getattr(owner, "bias", None)
    assert torch.allclose(F.linear(seen[penultimate].flatten(1), owner.weight, bias), logits, atol=1e-6)
    hookless(model)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_roles_in_a_resnet_frozen_and_edited(architecture):
    model = build(architecture, ("a", "b", "c")).requires_grad_(False).train()
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(model.state_dict())
    assert (find(model, "last", x), find(model, "penultimate", x)) == ("network.fc", "network.avgpool")
    d = model.network.fc.in_features
    edited = append_after(append_after(model, "network.avgpool", LowRank(d, 2)), "", LowRank(3, 1))
    assert find(edited, "penultimate", x) == "layer.network.avgpool"
    assert model.training and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())  # no BatchNorm step


def test_several_feeding_layers_are_named_instead_of_guessed():
    with pytest.raises(ValueError, match="a, b"):
        find(TwoBranches(), "penultimate", X)


def test_a_model_cut_from_its_gradient_is_refused_with_advice():
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    model.register_forward_hook(lambda module, args, output: output.detach())
    with pytest.raises(ValueError, match="give the layer's name"):
        find(model, "last", X)


def test_names_and_modules_are_found_and_misspellings_answered():
    model = build(seed=1)
    assert find(model, "network.layer4") == find(model, model.network.layer4) == "network.layer4"
    with pytest.raises(ValueError, match="Did you mean 'network.layer4'"):
        find(model, "network.layr4")
    with pytest.raises(ValueError, match="not a part"):
        find(model, nn.ReLU())
    with pytest.raises(ValueError, match="example"):
        find(model, "last")


def test_flow_is_the_order_of_execution_not_of_registration(hookless):
    model = Reversed()
    assert flow(model, X) == ["conv", "pool", "classifier", "auxiliary"]
    assert [name for name, _ in model.named_modules()][1] == "classifier"
    hookless(model)


def test_capture_gives_what_the_layer_put_out_even_before_an_in_place_relu(hookless, small):
    small.eval()
    with capture(small, "body.1", "") as seen:
        logits = small(X)
    by_hand = small.body[1](small.body[0](X))
    assert by_hand.min() < 0
    assert torch.equal(seen["body.1"], by_hand)
    assert torch.equal(seen[""], logits.detach()) and not seen[""].requires_grad
    hookless(small)


def test_no_hook_stays_after_an_unknown_name_or_an_error_inside(hookless, small):
    with pytest.raises(ValueError, match="Did you mean 'head'"), capture(small, "body.0", "heat"):
        pass
    hookless(small)
    with pytest.raises(KeyboardInterrupt), capture(small, "body.0"):
        raise KeyboardInterrupt
    hookless(small)


def test_features_are_those_of_one_pass_in_the_order_of_the_data(hookless, small):
    faces = make_faces(n=11)
    small.train()
    found = features(small, faces, batch_size=4)
    assert small.training and small.body[3].training
    small.eval()
    images, targets, group = faces[:]
    expected = small.body(images).flatten(1).detach().numpy()
    assert found.layer == "body.4" and found.features.dtype == np.float32
    np.testing.assert_allclose(found.features, expected, atol=1e-6)
    np.testing.assert_allclose(found.logits, small(images).detach().numpy(), atol=1e-6)
    assert (found.y == targets.numpy()).all() and (found.group == group.numpy()).all()
    assert features(small, faces, "body.0", batch_size=4).features.shape == (11, 8, 7, 7)
    hookless(small)


def test_features_run_the_model_once_an_image(small):
    seen = []
    small.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    features(small, make_faces(n=11), batch_size=4)
    assert sum(seen) == 11 + 1  # and one image to follow through the layers


def test_features_of_a_layer_that_does_not_run_say_which_do():
    with pytest.raises(ValueError, match="conv, pool, classifier"):
        features(Reversed(), make_faces(n=3), "unused")
