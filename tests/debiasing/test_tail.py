"""The methods that train or change what follows a layer, read from features captured once."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.debiasing.aclarc import aclarc
from helpers.debiasing.method import collect
from helpers.debiasing.pclarc import concept
from helpers.debiasing.rrclarc import MASKING, change, masked, rrclarc
from helpers.debiasing.tail import Tail, tail_of
from helpers.models import build, features, predict


class Block(nn.Module):
    """A residual block with a pool and a flattening that no module does."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.fc = nn.BatchNorm2d(6), nn.Linear(6, 2)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + self.two(F.relu(self.one(x)))
        return self.fc(F.relu(self.norm(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def block(planted):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Block().eval()
    problem = planted(n=300)
    return model, collect(model, problem.loader(), problem.images[:8], seed=0), problem


@pytest.mark.parametrize("layer, short", [("stem", True), ("one", False), ("two", False), ("norm", True)])
def test_the_short_cut_is_taken_only_where_it_gives_the_models_logits(block, layer, short):
    model, batch, _ = block
    tail = Tail(model, batch, layer)
    assert tail.short == short
    torch.testing.assert_close(tail.logits(), batch.logits, atol=1e-5, rtol=1e-4)
    rows = np.array([5, 17, 2])
    torch.testing.assert_close(Tail(model, batch.take(rows), layer).logits(), batch.logits[rows], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", ["network.layer3", "network.layer4.0", "network.avgpool"])
def test_a_resnet_is_cut_between_its_blocks(layer, planted):
    model, problem = build("resnet18", 2, seed=0).eval(), planted(n=300)
    data = [(F.interpolate(problem.images[:24], 32), torch.tensor(problem.y[:24]), torch.tensor(problem.group[:24]))]
    tail = Tail(model, collect(model, data, data[0][0][:4]), layer)
    assert tail.short and "network.fc" in tail.parts and not any(name.startswith("network.layer2") for name in tail.parts)
    torch.testing.assert_close(tail.logits(), tail.batch.logits, atol=1e-4, rtol=1e-3)
    assert ("network.layer4.1.conv2" in tail.parts) == (layer != "network.avgpool")


def test_the_copy_shares_nothing_with_the_model_and_everything_with_its_short_cut(block):
    model, batch, _ = block
    before = copy.deepcopy(model.state_dict())
    tail = Tail(model, batch, "norm")
    tail.put([p + 1 for p in tail.parameters])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.testing.assert_close(tail.logits(), tail.model(batch.data.all.dataset.tensors[0]), atol=1e-5, rtol=1e-4)
    assert torch.equal(tail.model.stem.weight, model.stem.weight) and not torch.equal(tail.model.fc.weight, model.fc.weight)


def test_the_last_parts_are_counted_from_the_end_and_cut_where_that_is_possible(block):
    model, batch, _ = block
    assert list(tail_of(model, batch, 1).parts) == ["fc"]
    assert set(tail_of(model, batch, 2).parts) >= {"norm", "fc"}
    assert set(tail_of(model, batch, 99).parts) == {"one", "two", "norm", "fc"}
    with pytest.raises(ValueError, match="n_layers: got 0"):
        tail_of(model, batch, 0)
    with pytest.raises(ValueError, match="nothing that could be trained runs after 'fc'"):
        Tail(model, batch, "fc")


@pytest.mark.parametrize("layer", ["stem", "norm"])
@pytest.mark.parametrize("method", [rrclarc, aclarc])
def test_only_what_runs_after_the_layer_is_trained(block, method, layer):
    model, batch, _ = block
    trained = method(model, batch, layer=layer, epochs=1)
    before = model.state_dict()
    changed = {name.split(".")[0] for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == ({"one", "two", "norm", "fc"} if layer == "stem" else {"fc"})
    assert list(trained.state_dict()) == list(model.state_dict()) and not trained.training
    assert all(p.requires_grad == q.requires_grad for p, q in zip(trained.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("outputs, groups", [(1, 2), (2, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("method", [rrclarc, aclarc])
def test_the_answer_no_longer_depends_on_the_concept(planted, batch_of, method, outputs, groups):
    classes = max(2, outputs)
    problem = planted(groups=groups, classes=classes, outputs=outputs, bias=0.97)
    batch = batch_of(problem)
    basis = torch.tensor(concept(batch, "penultimate", "signal", False)[1]).float()

    def along(model):
        weight = model[-1].weight - model[-1].weight.mean(0) * (outputs > 1)  # what all logits share changes nothing
        return (F.normalize(weight, dim=1) @ basis).abs().max().item()

    retrained = method(problem.model, batch)
    assert along(retrained) < 0.6 * along(problem.model)
    before, after = (predict(model, problem.loader()) for model in (problem.model, retrained))
    gaps = [spread_of_rates(found, problem) for found in (before, after)]
    assert gaps[1] < 0.6 * gaps[0]
    assert (after.y_pred == problem.y).mean() > (before.y_pred == problem.y).mean() - 0.02
    again = method(problem.model, batch)
    assert torch.equal(again[-1].weight, retrained[-1].weight)


def spread_of_rates(found, problem):
    rates = [
        [(found.y_pred == c)[(problem.y == k) & (problem.group == g)].mean() for g in range(problem.groups)]
        for c in range(problem.classes) for k in range(problem.classes)
    ]
    return max(np.ptp(r) for r in rates)


def test_more_weight_on_the_penalty_leaves_less_of_the_gradient(planted, batch_of):
    problem = planted(bias=0.97)
    batch = batch_of(problem)
    v = torch.tensor(concept(batch, "penultimate", "signal", False)[1]).float()
    left = [(rrclarc(problem.model, batch, lambda_rr=weight)[-1].weight @ v).square().sum().item() for weight in (0.0, 1e-2, 1.0)]
    assert left[0] > 2 * left[1] > 4 * left[2]


@pytest.mark.parametrize("pattern", MASKING)
def test_the_penalty_is_the_gradient_of_the_formula(pattern):
    """By finite differences of the masked answer along v."""
    draw = torch.Generator().manual_seed(0)
    weight, a = torch.randn(3, 5, generator=draw).double(), torch.randn(7, 5, generator=draw).double()
    v = F.normalize(torch.randn(5, 1, generator=draw).double(), dim=0)
    answer = lambda x: masked(x @ weight.T, torch.arange(7) % 3, pattern, torch.Generator().manual_seed(3))
    slope = (answer(a + 1e-6 * v.T) - answer(a - 1e-6 * v.T)) / 2e-6
    leaf = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(answer(leaf).sum(), leaf)
    near = {"atol": 1e-6, "rtol": 1e-6}
    torch.testing.assert_close(change(gradient, v, False, "l2"), slope.square().mean(), **near)
    torch.testing.assert_close(change(gradient, v, False, "l1"), slope.abs().mean(), **near)
    torch.testing.assert_close(change(gradient, v, False, "cosine"), (slope / gradient.norm(dim=1)).abs().mean(), **near)


def test_the_loss_is_trained_along_the_users_penalty_at_a_map(block):
    model, batch, problem = block
    rng = np.random.default_rng(0)
    for flatten in (False, True):
        trained = rrclarc(model, batch, layer="norm", epochs=20, flatten=flatten, lambda_rr=1e3)
        _, basis, _ = concept(batch, "norm", "signal", flatten)
        images = problem.images[rng.integers(0, 300, 20)]
        assert along_map(trained, images, basis, flatten) < 0.5 * along_map(model, images, basis, flatten)


def along_map(model, images, basis, flatten):
    seen = {}
    hook = model.norm.register_forward_hook(lambda _, __, out: seen.setdefault("x", out.detach().requires_grad_()))
    logits = model(images)
    hook.remove()
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), seen["x"])
    return change(gradient, torch.tensor(basis).float(), flatten, "l2").item()


def test_augmented_features_have_the_value_of_some_group_and_else_are_what_they_were(planted, batch_of, monkeypatch):
    problem = planted(groups=3)
    batch = batch_of(problem)
    seen = []

    def keep(self, given):
        self.between.seen = given
        seen.append((given, self.between.change(given)))
        return original(self, given)

    original = Tail.__call__
    monkeypatch.setattr(Tail, "__call__", keep)
    aclarc(problem.model, batch, epochs=1)
    x, changed = (torch.cat(parts).double() for parts in zip(*seen, strict=True))
    _, basis, cells = concept(batch, "penultimate", "signal", False)
    basis = torch.tensor(basis)
    groups = torch.tensor(cells.mean.mean(1)) @ basis
    distance = torch.cdist(changed @ basis, groups)
    assert distance.min(1).values.max() < 1e-4 and len(distance.argmin(1).unique()) == 3
    rest = torch.eye(24).double() - basis @ basis.T
    torch.testing.assert_close(changed @ rest, x @ rest, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "method, options, message",
    [
        (rrclarc, {"rr_loss_type": "l3"}, "rr_loss_type"),
        (rrclarc, {"masking_pattern": "logit"}, "masking_pattern"),
        (rrclarc, {"lambda_rr": -1}, "lambda_rr: got -1"),
        (rrclarc, {"epochs": 0}, "epochs: got 0"),
        (rrclarc, {"layer": "last"}, "nothing that could be trained runs after"),
        (aclarc, {"reference": 7}, "reference: 7"),
        (aclarc, {"lr": 0}, "lr: got 0"),
    ],
)
def test_bad_options_are_named(planted, batch_of, method, options, message):
    with pytest.raises(ValueError, match=message):
        method(planted(n=300).model, batch_of(planted(n=300)), **options)


def test_the_front_of_the_network_puts_out_what_it_did(block):
    model, batch, problem = block
    trained = aclarc(model, batch, layer="norm", epochs=1)
    np.testing.assert_array_equal(*(features(m, problem.loader(), "norm").features for m in (model, trained)))
