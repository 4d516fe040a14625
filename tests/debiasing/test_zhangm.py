import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers.debiasing import debias
from helpers.debiasing.tuning import cell_weights, plain, tune
from helpers.debiasing.zhangm import Adversary, away_from, train_adversary, zhangm


def test_the_direction_is_equation_one_of_all_weights_together():
    draw = torch.Generator().manual_seed(0)
    helps = [torch.randn(4, 3, generator=draw), torch.randn(5, generator=draw), None, torch.randn(2, generator=draw)]
    tells = [torch.randn(4, 3, generator=draw), torch.randn(5, generator=draw), torch.randn(6, generator=draw), None]
    found = away_from(helps, tells, 0.7)
    shapes = [(4, 3), (5,), (6,), (2,)]
    whole = lambda parts: torch.cat([(torch.zeros(s) if p is None else p).flatten() for p, s in zip(parts, shapes, strict=True)])
    g, h, d = whole(helps), whole(tells), whole(found)
    torch.testing.assert_close(d, g - (g @ h) / (h @ h) * h - 0.7 * h)
    assert (d @ h).item() == pytest.approx(-0.7 * (h @ h).item(), rel=1e-4)  # a step along -d never helps the adversary
    assert all(part.shape == shape for part, shape in zip(found, shapes, strict=True))


def test_without_an_adversarys_gradient_the_targets_stays():
    helps = [torch.ones(3), None]
    assert torch.equal(away_from(helps, [torch.zeros(3), None], 1.0)[0], torch.ones(3))
    assert away_from(helps, [torch.zeros(3), None], 1.0)[1] is None


def fitted(logits, target, group, shown, groups, hidden=()):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adversary = Adversary(max(2, logits.shape[1]), shown, groups, hidden)
    optimizer = torch.optim.Adam(adversary.parameters(), lr=0.05)
    for _ in range(150):
        train_adversary(adversary, optimizer, logits, target, group)
    with torch.no_grad():
        return F.cross_entropy(adversary(logits, target), group).item()


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_the_adversary_finds_the_group_only_where_the_criterion_is_broken(outputs):
    draw, classes = torch.Generator().manual_seed(0), max(2, outputs)
    target = torch.randint(0, classes, (2000,), generator=draw)
    tied = torch.where(torch.rand(2000, generator=draw) < 0.8, target, torch.randint(0, 3, (2000,), generator=draw))
    of_label = F.one_hot(target, classes).float() * 2 + torch.randn(2000, classes, generator=draw)
    leaky = of_label + F.one_hot(tied, 3).float()[:, :classes]
    narrow = lambda logits: logits[:, 1:] - logits[:, :1] if outputs == 1 else logits
    given_label = torch.stack([tied[target == k].bincount(minlength=3) for k in range(classes)]).float()
    chance = -(given_label / len(tied) * (given_label / given_label.sum(1, keepdim=True)).clamp(min=1e-9).log()).sum().item()
    # Equalized odds holds: given the label, the logits tell nothing. Demographic parity does not.
    assert fitted(narrow(of_label), target, tied, classes, 3) > chance - 0.01
    base = (tied.bincount(minlength=3) / len(tied)).clamp(min=1e-9)
    assert fitted(narrow(of_label), target, tied, 0, 3) < -(base * base.log()).sum().item() - 0.05
    assert fitted(narrow(leaky), target, tied, classes, 3) < chance - 0.02
    assert fitted(narrow(leaky), target, tied, classes, 3, hidden=(8,)) < chance - 0.02


@pytest.mark.parametrize("groups, outputs", [(2, 1), (3, 2)])
def test_the_gap_shrinks_and_the_accuracy_does_not(planted, groups, outputs):
    problem, fresh = (planted(groups=groups, outputs=outputs, bias=0.97, seed=s) for s in (0, 5))
    results = debias(problem.model, problem.loader(), "ZHANGM", test_dataloader=fresh.loader())
    before, after = results["Vanilla"], results["ZHANGM"]
    assert after.get_metric("equalized_odds") < 0.7 * before.get_metric("equalized_odds")
    assert after.get_metric("balanced_accuracy") > before.get_metric("balanced_accuracy")


def test_the_warm_up_is_plain_training_and_what_follows_is_not(planted, batch_of):
    problem = planted(n=300, seed=3)
    batch, how = batch_of(problem), {"lr": 1e-3, "batch_size": 32, "augment": "flip"}
    plainly = tune(problem.model, batch, plain, epochs=1, weights=cell_weights(batch), **how)
    count = 10  # steps of 32 images in an epoch of 300

    def trained(warm_up):
        found = zhangm(problem.model, batch, iterations=count, warm_up=warm_up, **how)
        return torch.cat([parameter.flatten() for parameter in found.parameters()][: len(list(plainly.parameters()))])

    expected = torch.cat([parameter.flatten() for parameter in plainly.parameters()])
    assert torch.equal(trained(1.0), expected)
    away = [(trained(share) - expected).norm().item() for share in (0.9, 0.5, 0.0)]
    assert 0 < away[0] < away[1] < away[2]


def test_rounds_and_hidden_layers(planted, batch_of):
    problem = planted(n=300)
    found = zhangm(problem.model, batch_of(problem), iterations=2, model_iterations=3, critic_linear=(8, 4), bias_metric="DP_GAP")
    assert np.isfinite(found(problem.images[:4]).detach().numpy()).all()


@pytest.mark.parametrize(
    "option, value",
    [("alpha", -1), ("warm_up", 1.5), ("warm_up", float("nan")), ("critic_lr", 0), ("iterations", 0), ("critic_iterations", 1.5)],
)
def test_an_option_out_of_its_range_is_named(option, value, planted, batch_of):
    problem = planted(n=60)
    with pytest.raises(ValueError, match=f"{option}: got {value}"):
        zhangm(problem.model, batch_of(problem), **{option: value})
