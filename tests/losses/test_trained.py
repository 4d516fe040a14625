"""Losses in `helpers.train`: a planted bias goes, runs resume, several classes and one logit are taken."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import helpers
from helpers import losses
from helpers.bias import statistics as of
from helpers.data.base import FaceDataset
from helpers.frontier import sweep
from helpers.models import predict
from helpers.problem import Problem

ODDS = of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate())


def planted(n=400, classes=2, seed=0, split="train", together=0.8):
    """Red tells the class, faintly; blue tells the group, plainly; in training the two go together."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, n)
    group = np.where(rng.random(n) < together, target % 2, 1 - target % 2)
    images = rng.integers(60, 196, (n, 8, 8, 3)).astype(float)
    images[..., 0] += (target * 6)[:, None, None]
    images[..., 2] += (group * 40)[:, None, None]
    names = ("calm", "glad", "sad")[:classes]
    table = pd.DataFrame({"mood": np.array(names)[target], "hat": np.array(["a", "b"])[group]})
    return FaceDataset(
        images.clip(0, 255).astype(np.uint8), table, target="mood", protected="hat", name="planted", split=split,
        classes=names, groups=("a", "b"),
    )  # fmt: skip


class Net(nn.Module):
    def __init__(self, outputs=2, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(8, outputs)

    def forward(self, x):
        return self.head(self.body((x - 0.5) * 4))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(loss=None, strength=1.0, outputs=2, epochs=12, faces=None, **options):
    faces = planted(classes=max(outputs, 2)) if faces is None else faces
    return helpers.train(
        faces, Net(outputs), epochs=epochs, batch_size=50, lr=0.03, fairness=loss, strength=strength, progress=False, **options
    )


def gap(model, faces=None):
    found = predict(model, planted(1000, seed=1, together=0.5) if faces is None else faces)
    return helpers.audit(found.y_true, found.y_pred, found.group, n_boot=20).gap("demographic_parity")


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(
    ("make", "strength"),
    [
        (lambda: losses.NormLoss(of.PositiveRate()), 1.0),
        (lambda: losses.KLProjectionLoss(of.PositiveRate()), 5.0),
        (lambda: losses.TotalVariationProjectionLoss(of.PositiveRate()), 2.0),
        (lambda: losses.DemographicParityLoss([0, 1]), 20.0),
        (lambda: losses.UnbiasedSquareLoss(of.PositiveRate()), 20.0),
        (lambda: losses.AugmentedLagrangianLoss(of.PositiveRate(), 0.05), 1.0),
    ],
)
def test_training_with_a_loss_removes_a_planted_bias(make, strength, outputs):
    plain, fair = run(outputs=outputs), run(make(), strength, outputs)
    assert gap(plain) > 0.3
    assert gap(fair) < gap(plain) / 2


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.NormLoss(losses.MovingStatistic(ODDS, 0.9)),
        lambda: losses.AugmentedLagrangianLoss(ODDS, 0.05),
    ],
)
def test_a_run_with_a_loss_that_remembers_resumes_to_the_same_bytes(make, tmp_path, monkeypatch):
    undisturbed = run(make(), epochs=3)
    calls = []

    def stopping(self, *arguments):
        calls.append(1)
        if len(calls) > 20:  # in the third epoch
            raise KeyboardInterrupt
        return forward(self, *arguments)

    forward = Net.forward
    with monkeypatch.context() as patched:
        patched.setattr(Net, "forward", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(make(), epochs=3, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").exists()
    assert same(undisturbed, run(make(), epochs=3, checkpoint=tmp_path / "run"))


def test_a_used_loss_starts_afresh():
    loss = losses.AugmentedLagrangianLoss(ODDS, 0.05)
    assert same(run(loss, epochs=2), run(loss, epochs=2))


def test_a_checkpoint_knows_the_loss_it_was_made_with(tmp_path):
    run(losses.NormLoss(of.PositiveRate(), p=1), epochs=1, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="fairness was .*p=1.*, is now .*p=2"):
        run(losses.NormLoss(of.PositiveRate(), p=2), epochs=1, checkpoint=tmp_path / "run")


@pytest.mark.parametrize(
    "loss",
    [losses.NormLoss(ODDS), losses.KLProjectionLoss(of.PositiveRate()), losses.EqualizedOddsLoss([0, 1]),
     losses.NormLoss(losses.MovingStatistic(of.PositiveRate())), losses.AugmentedLagrangianLoss(of.TruePositiveRate())],
)  # fmt: skip
def test_three_classes_are_trained_with_each_loss(loss):
    model = run(loss, outputs=3, epochs=2)
    assert np.isfinite(model.history["loss"]).all()
    assert not same(model, run(outputs=3, epochs=2))


def test_a_constraint_loss_needs_as_many_groups_as_the_data_have():
    with pytest.raises(ValueError, match="sensitive_classes: 3 given, but the data have 2 groups"):
        run(losses.DemographicParityLoss([0, 1, 2]), epochs=1)


def test_a_sweep_is_kept_goes_on_and_chooses_on_validation(tmp_path, monkeypatch):
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path))
    train, validation, test = (planted(200, seed=k, split=s) for k, s in enumerate(("train", "validation", "test")))
    problem = Problem(train, validation, test, run(faces=train, epochs=3))
    tried = {"plain": None, "Norm": losses.NormLoss(of.PositiveRate()), "broken": Broken()}
    found = sweep(problem, tried, {"Norm": (0.1, 3.0), "broken": (1.0,)}, epochs=4, lr=0.03, batch_size=50, progress=False)
    assert list(found.table["loss"]) == ["plain", "Norm", "Norm"] and list(found.table["strength"]) == [0.0, 0.1, 3.0]
    assert list(found.failed["loss"]) == ["broken"] and "nan" in found.failed["error"][0]
    weak, strong = found.table["demographic_parity"][1:]
    assert strong < weak
    chosen = found.best(0.0, ["Norm"], "demographic_parity")
    assert found.table.loc[chosen, "validation_demographic_parity"] == found.table["validation_demographic_parity"][1:].min()
    assert found.best(1.1) is None
    again = helpers.audit(found.y_true["test"], found.y_pred["test"][2], found.group["test"], n_boot=20)
    assert again.gap("demographic_parity") == pytest.approx(strong)
    assert found.compare(1, 2).names == ("Norm x 0.1 [1]", "Norm x 3 [2]")

    monkeypatch.setattr(helpers, "train", None)  # nothing is left to train
    kept = sweep(problem, dict(list(tried.items())[:2]), {"Norm": (0.1, 3.0)}, epochs=4, lr=0.03, batch_size=50, progress=False)
    pd.testing.assert_frame_equal(kept.table, found.table)
    with pytest.raises(ValueError, match="strengths: none given for 'Norm'"):
        sweep(problem, tried, {}, progress=False)


class Broken(nn.Module):
    def forward(self, logit, sens, label):
        return logit.sum() * torch.nan
