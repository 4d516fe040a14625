"""`helpers.train` with fairness losses: it removes a planted bias, resumes to the same bytes and knows one loss from another."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers import losses
from helpers.bias import statistics as of
from helpers.data.base import FaceDataset
from helpers.models import resume, train

#: Models that start at zero have small logits, which look like probabilities for a while.
pytestmark = pytest.mark.filterwarnings("ignore:.* takes logits")

QUICK = {"epochs": 3, "batch_size": 16, "progress": False, "device": "cpu"}
ODDS = of.StackedLinearFractionalStatistic(of.TruePositiveRate(), of.FalsePositiveRate())


def make_faces(n=48, classes=2, groups=2, seed=0, link=0.8):
    """Images whose red tells the target, dimly, and whose blue tells the group, with which the target goes together."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    target = np.where(rng.random(n) < link, group % classes, rng.integers(0, classes, n))
    images = rng.integers(0, 60, (n, 6, 6, 3))
    images[..., 0] += (target * 25 + rng.normal(30, 25, n).clip(0, 100)).astype(int)[:, None, None]
    images[..., 2] += (group * 60)[:, None, None]
    moods, hats = ("calm", "glad", "sad")[:classes], ("a", "b", "c")[:groups]
    table = pd.DataFrame({"mood": np.array(moods)[target], "hat": np.array(hats)[group]})
    return FaceDataset(
        images.clip(0, 255).astype(np.uint8), table,
        target="mood", protected="hat", name="planted", split="train", classes=moods, groups=hats,
    )  # fmt: skip


class Pooled(nn.Module):
    """Mean colours and a linear layer, with dropout so that the order of random numbers matters."""

    def __init__(self, outputs=2, dropout=0.1):
        super().__init__()
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(3, outputs)
        nn.init.zeros_(self.head.weight), nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(self.dropout(x.mean((2, 3))))


def bytes_of(model):
    return b"".join(value.contiguous().numpy().tobytes() for value in model.state_dict().values())


LOSSES = {
    "norm": lambda groups: losses.NormLoss(ODDS, p=2),
    "lse": lambda groups: losses.LSELoss(of.PositiveRate()),
    "moving": lambda groups: losses.NormLoss(losses.MovingStatistic(ODDS, 0.9)),
    "unbiased": lambda groups: losses.UnbiasedSquareLoss(of.TruePositiveRate()),
    "lagrangian": lambda groups: losses.AugmentedLagrangianLoss(of.PositiveRate(), 0.0, decay=0.5),
    "kl": lambda groups: losses.KLProjectionLoss(ODDS),
    "js": lambda groups: losses.JensenShannonProjectionLoss(of.PositiveRate()),
    "se": lambda groups: losses.SquaredEuclideanProjectionLoss(of.PositiveRate()),
    "tv": lambda groups: losses.TotalVariationProjectionLoss(of.PositiveRate()),
    "parity": lambda groups: losses.DemographicParityLoss(range(groups), alpha=5),
    "equalized odds": lambda groups: losses.EqualizedOddsLoss(range(10, 10 + groups), alpha=5),
}
every = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)
REMEMBERING = ["moving", "lagrangian"]


@every
@pytest.mark.parametrize(("outputs", "classes"), [(1, 2), (2, 2), (3, 3)])
def test_every_loss_trains_every_kind_of_model(make, outputs, classes):
    faces = make_faces(classes=classes, groups=3)
    with_it = train(faces, Pooled(outputs), fairness=make(3), **QUICK)
    without = train(faces, Pooled(outputs), **QUICK)
    assert bytes_of(with_it) != bytes_of(without) and with_it.history.loss.notna().all()
    assert all(value.isfinite().all() for value in with_it.state_dict().values())


def test_one_logit_and_two_that_start_alike_see_the_same_loss():
    faces, seen = make_faces(), {1: [], 2: []}
    for outputs in seen:
        loss = losses.NormLoss(of.PositiveRate())

        def fairness(*batch, loss=loss, kept=seen[outputs]):
            kept.append(batch)
            return loss(*batch)

        train(faces, Pooled(outputs), fairness=fairness, **QUICK | {"epochs": 1})
    for one, two in zip(seen[1][0], seen[2][0], strict=True):
        assert one.shape == two.shape
        torch.testing.assert_close(one, two)


def soft_gap(model, faces):
    images, _, group = faces[:]
    with torch.no_grad():
        out = model(images.float())
    prob = out.softmax(1)[:, 1] if out.shape[1] == 2 else out[:, 0].sigmoid()
    return abs(prob[group == 1].mean() - prob[group == 0].mean()).item()


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(
    ("loss", "strength"),
    [
        (lambda: losses.NormLoss(of.PositiveRate()), 1.0),
        (lambda: losses.KLProjectionLoss(of.PositiveRate()), 20.0),
        (lambda: losses.DemographicParityLoss(alpha=20), 1.0),
        (lambda: losses.UnbiasedSquareLoss(of.PositiveRate()), 20.0),
        (lambda: losses.AugmentedLagrangianLoss(of.PositiveRate(), 0.05, rate=0.1, decisions=False), 1.0),
    ],
    ids=["norm", "kl", "parity", "unbiased", "lagrangian"],
)
def test_training_removes_a_planted_bias(loss, strength, outputs):
    faces, options = make_faces(400, link=0.6), {"epochs": 15, "batch_size": 50, "lr": 0.3, "progress": False, "device": "cpu"}
    biased = train(faces, Pooled(outputs, dropout=0.0), **options)
    fairer = train(faces, Pooled(outputs, dropout=0.0), fairness=loss(), strength=strength, **options)
    assert soft_gap(biased, faces) > 0.4
    assert soft_gap(fairer, faces) < 0.4 * soft_gap(biased, faces)
    # It is the bias that is gone and not the sense: what is left is better than calling everybody the same.
    assert fairer.history.accuracy.iloc[-1] > 0.55


@pytest.mark.parametrize("kind", REMEMBERING + ["norm", "kl", "parity"])
def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path, kind, monkeypatch):
    faces, path, options = make_faces(), tmp_path / "state.pt", QUICK | {"epochs": 4}
    undisturbed = train(faces, Pooled(), fairness=LOSSES[kind](2), **options)
    write, written = resume.write, []

    def write_then_stop(*arguments):
        write(*arguments)
        written.append(1)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume, "write", write_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(faces, Pooled(), fairness=LOSSES[kind](2), checkpoint=path, **options)
    monkeypatch.undo()
    resumed = train(faces, Pooled(), fairness=LOSSES[kind](2), checkpoint=path, **options)
    assert bytes_of(resumed) == bytes_of(undisturbed)
    if kind in REMEMBERING:  # the test can tell: without what the loss remembers it would go elsewhere
        saved = torch.load(path, weights_only=True)
        assert any(saved["fairness"].values() if "fairness" in saved else saved["state"]["fairness"].values())


@pytest.mark.parametrize("kind", REMEMBERING)
def test_a_loss_that_was_used_gives_the_run_of_a_fresh_one(kind):
    loss, faces = LOSSES[kind](2), make_faces()
    first = train(faces, Pooled(), fairness=loss, **QUICK)
    assert bytes_of(train(faces, Pooled(), fairness=loss.eval(), **QUICK)) == bytes_of(first)
    train(make_faces(classes=3, groups=3), Pooled(3), fairness=loss, **QUICK)
    assert bytes_of(train(faces, Pooled(), fairness=loss, **QUICK)) == bytes_of(first)


CHANGES = {
    "another p": (losses.NormLoss(of.PositiveRate()), losses.NormLoss(of.PositiveRate(), p=2)),
    "another loss": (losses.NormLoss(of.PositiveRate()), losses.LSELoss(of.PositiveRate())),
    "another statistic": (losses.NormLoss(of.PositiveRate()), losses.NormLoss(of.TruePositiveRate())),
    "another beta": (losses.NormLoss(of.FScore(1)), losses.NormLoss(of.FScore(2))),
    "another decay": tuple(losses.NormLoss(losses.MovingStatistic(of.PositiveRate(), decay)) for decay in (0.9, 0.99)),
    "another gap": tuple(losses.AugmentedLagrangianLoss(of.PositiveRate(), gap) for gap in (0.1, 0.2)),
    "another rate": tuple(losses.AugmentedLagrangianLoss(of.PositiveRate(), rate=rate) for rate in (0.1, 0.2)),
    "probabilities": tuple(losses.AugmentedLagrangianLoss(of.PositiveRate(), decisions=each) for each in (True, False)),
    "another alpha": tuple(losses.DemographicParityLoss(alpha=alpha) for alpha in (1, 2)),
    "another tolerance": tuple(losses.DemographicParityLoss(tolerance=each) for each in (0.0, 0.1)),
    "another norm": tuple(losses.EqualizedOddsLoss(p_norm=each) for each in (1, 2)),
    "another end": tuple(losses.KLProjectionLoss(of.PositiveRate(), proj_eps=each) for each in (0.0, 0.1)),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_of_a_run_with_another_loss_is_refused(tmp_path, before, after):
    faces, path = make_faces(), tmp_path / "state.pt"
    options = QUICK | {"epochs": 1}
    train(faces, Pooled(), fairness=before, checkpoint=path, **options)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="fairness"):
        train(faces, Pooled(), fairness=after, checkpoint=path, **options)
    with pytest.raises(ValueError, match="fairness"):
        train(faces, Pooled(), checkpoint=path, **options)
    assert path.read_bytes() == kept
    train(faces, Pooled(), fairness=copy.deepcopy(before), checkpoint=path, **options)


def test_the_loss_comes_with_the_groups_of_the_data_and_no_others():
    with pytest.raises(ValueError, match="sensitive_classes: 2 given, but the data have 3 groups"):
        train(make_faces(groups=3), Pooled(), fairness=losses.DemographicParityLoss(), **QUICK)
