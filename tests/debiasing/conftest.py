"""Small biased problems with known structure, and a small network to go wrong on them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TRAINING = ["FINETUNE", "GDRO", "JTT", "FAIRRET", "FAIRTORCH", "SAVANIAFT", "ZHANGM"]  # methods that train the network
# A few steps, for tests that are not about how well a method does.
QUICK = {key: {"epochs": 1} for key in TRAINING[:5]} | {
    "SAVANIAFT": {"iterations": 2, "model_iterations": 2, "critic_iterations": 5},
    "ZHANGM": {"iterations": 4},
    "RRCLARC": {"epochs": 2},
    "ACLARC": {"epochs": 2},
    "SAVANIRP": {"T_iters": 2},
    "SAVANILWO": {"evaluations": 20},
}


class Planted:
    """Images whose channels carry target and group; `loader()` yields triples, `model` is trained on biased ones."""

    def __init__(self, groups=2, classes=2, n=600, bias=0.9, outputs=None, seed=0):
        rng = np.random.default_rng(seed)
        self.groups, self.classes = groups, classes
        self.y, self.group = rng.integers(0, classes, n), rng.integers(0, groups, n)
        self.images = self.draw(self.y, self.group, rng)
        self.model = network(outputs or classes, seed)
        tied = rng.integers(0, classes, n)
        where = np.where(rng.random(n) < bias, tied % groups, rng.integers(0, groups, n))
        self.train_head(self.draw(tied, where, rng), tied)

    def draw(self, y, group, rng):
        n = len(y)
        images = rng.normal(0.5, 0.15, (n, 3, 8, 8))
        images[:, 0] += 0.12 * (y / (self.classes - 1) - 0.5)[:, None, None] + rng.normal(0, 0.05, (n, 1, 1))
        angle = 2 * np.pi * group / max(self.groups, 3)
        images[:, 1] += 0.15 * np.cos(angle)[:, None, None]
        images[:, 2] += 0.15 * np.sin(angle)[:, None, None]
        return torch.tensor(images, dtype=torch.float32)

    def train_head(self, images, y):
        with torch.no_grad():
            x = self.model[:-1](images).numpy()
            fit = LogisticRegression(C=100, max_iter=5000).fit(x, y)
            weight, bias = torch.tensor(fit.coef_).float(), torch.tensor(fit.intercept_).float()
            last = self.model[-1]
            if last.out_features == 2:
                weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
            last.weight.copy_(weight)
            last.bias.copy_(bias)

    @property
    def dataset(self):
        return TensorDataset(self.images, torch.tensor(self.y), torch.tensor(self.group))

    def loader(self, batch_size=64, **options):
        return DataLoader(self.dataset, batch_size=batch_size, **options)


def network(outputs, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 24, 3), nn.LeakyReLU(0.3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, outputs)
        )
    return model.eval()


@pytest.fixture(scope="session")
def planted():
    """Factory of `Planted` problems, each made once."""
    made = {}

    def make(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = Planted(**options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def batch_of():
    """All rows of a planted problem as the methods see them."""
    from helpers.debiasing.method import collect

    return lambda problem, batch_size=64: collect(problem.model, problem.loader(batch_size), problem.images[:4])
