"""A sweep over fairness losses: what it keeps, what breaks off in it, and how it chooses."""

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
from helpers.problem import Problem


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
