"""On a GPU every loss has the value and the gradient that it has on the CPU, and remembers the same."""

import pytest
import torch
from torch.nn import functional as F

from helpers import losses
from helpers.bias import statistics as of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

ODDS = of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate())
STATISTICS = {
    "rate": of.PositiveRate(),
    "precision": of.PositivePredictiveValue(),
    "odds": ODDS,
    "rate and recall": of.StackedLinearFractionalStatistic(of.PositiveRate(), of.TruePositiveRate()),
}


class OwnSquare(losses.ProjectionLoss):
    def torch_distance(self, pred, proj):
        return (pred - proj[:, 1:]).square().mean()


LOSSES = {
    "norm": losses.NormLoss,
    "norm, p=inf": lambda statistic: losses.NormLoss(statistic, p=float("inf")),
    "lse": losses.LSELoss,
    "moving": lambda statistic: losses.NormLoss(losses.MovingStatistic(statistic, 0.7)),
    "unbiased": losses.UnbiasedSquareLoss,
    "lagrangian": lambda statistic: losses.AugmentedLagrangianLoss(statistic, 0.01, decay=0.5),
    "kl": losses.KLProjectionLoss,
    "js": losses.JensenShannonProjectionLoss,
    "se": losses.SquaredEuclideanProjectionLoss,
    "tv": losses.TotalVariationProjectionLoss,
    "own": OwnSquare,
}


def batch(seed, outputs=1, groups=3, rows=90):
    dice = torch.Generator().manual_seed(seed)
    group = torch.randint(groups, (rows,), generator=dice)
    logit = torch.randn(rows, outputs, generator=dice) + 0.5 * group[:, None]
    return logit, group, torch.randint(max(outputs, 2), (rows, 1), generator=dice)


def both(call, logit, *rest, device, **options):
    logit, *rest = (each.to(device) for each in (logit, *rest))
    logit.requires_grad_()
    value = call(logit, *rest, **options)
    assert value.device.type == device
    return value.detach().cpu(), torch.autograd.grad(value, logit)[0].cpu()


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_values_and_gradients_are_those_of_the_cpu(kind, name, outputs):
    here, there = LOSSES[kind](STATISTICS[name]), LOSSES[kind](STATISTICS[name])
    close = {"rtol": 1e-4, "atol": 1e-5} if kind in ("tv", "own") else {"rtol": 1e-5, "atol": 1e-7}
    for seed in range(2):  # the second one finds something remembered
        logit, group, label = batch(seed, outputs)
        sens = F.one_hot(group, 4).float()  # one group is absent
        arguments = logit, sens, label.float()
        torch.testing.assert_close(both(there, *arguments, device="cuda"), both(here, *arguments, device="cpu"), **close)


@pytest.mark.parametrize("kind", ["kl", "js", "se", "tv", "own"])
def test_projections_are_those_of_the_cpu(kind):
    logit, group, label = batch(3)
    loss, sens = LOSSES[kind](ODDS), F.one_hot(group, 3).float()
    expected = loss.project(logit, sens, label.float(), target_statistic=0.4)
    found = loss.project(*(each.cuda() for each in (logit, sens, label.float())), target_statistic=0.4)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("kind", [losses.DemographicParityLoss, losses.EqualizedOddsLoss])
def test_constraints_are_those_of_the_cpu_whether_moved_or_not(kind, outputs):
    logit, group, label = batch(4, outputs)
    for loss in (kind(range(4)), kind(range(4)).cuda()):
        there = both(lambda out, s, y, loss=loss: loss(None, out, s, y), logit, group, label, device="cuda")
        here = both(lambda out, s, y: kind(range(4))(None, out, s, y), logit, group, label, device="cpu")
        torch.testing.assert_close(there, here)
        sens = F.one_hot(group, 4).cuda()
        torch.testing.assert_close(loss.on_batch(logit.cuda(), sens, label.float().cuda()).cpu(), here[0])


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(kind, dtype):
    logit, group, label = (each.cuda() for each in batch(5))
    sens = F.one_hot(group, 3).float()
    expected = LOSSES[kind](ODDS)(logit, sens, label.float())
    with torch.autocast("cuda", dtype=dtype):
        assert LOSSES[kind](ODDS)(logit, sens, label.float()) == expected
    assert LOSSES[kind](ODDS)(logit.to(dtype), sens, label).item() == pytest.approx(expected.item(), rel=0.1, abs=0.01)


@pytest.mark.parametrize("kind", ["moving", "lagrangian"])
def test_what_was_remembered_on_the_gpu_goes_on_on_the_cpu(tmp_path, kind):
    loss, other = LOSSES[kind](ODDS), LOSSES[kind](ODDS)
    logit, group, label = batch(6)
    sens = F.one_hot(group, 3).float()
    loss(logit.cuda(), sens.cuda(), label.cuda())
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    other.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True, map_location="cpu"))
    logit = logit.flip(0)
    expected = loss(logit.cuda(), sens.cuda(), label.cuda())
    torch.testing.assert_close(other(logit, sens, label), expected.cpu())
    loss(logit, sens, label)  # and so does the object itself


@pytest.mark.parametrize("kind", LOSSES)
def test_a_tensor_left_on_the_cpu_is_named(kind):
    logit, group, label = batch(7)
    with pytest.raises(ValueError, match="sens: on cpu, but pred is on cuda"):
        LOSSES[kind](ODDS)(logit.cuda(), F.one_hot(group, 3), label.cuda())
