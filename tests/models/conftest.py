"""Small data and small models, so that a property costs milliseconds to check."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers.data.base import FaceDataset


def make_faces(n=24, size=16, groups=3, seed=0, split="train", classes=2):
    """Noise whose brightness tells the class, with `groups` groups of unequal sizes."""
    rng = np.random.default_rng(seed)
    code = np.arange(n) % classes
    group = np.minimum(rng.geometric(0.5, n) - 1, groups - 1)
    images = rng.integers(0, 120, (n, size, size, 3)) + (code * (120 // (classes - 1)))[:, None, None, None]
    table = pd.DataFrame({"mood": np.array(["calm", "glad", "sad"])[code], "hat": np.array(["a", "b", "c"])[group]})
    return FaceDataset(
        images.astype(np.uint8),
        table,
        target="mood",
        protected="hat",
        name="noise",
        split=split,
        classes=("calm", "glad", "sad")[:classes],
        groups=("a", "b", "c")[:groups],
    )


class SmallNet(nn.Module):
    """Convolution, batch normalisation, dropout: what makes a training run hard to repeat."""

    def __init__(self, outputs=2, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2),
                nn.BatchNorm2d(8),
                nn.ReLU(inplace=True),
                nn.Dropout(0.2),
                nn.AdaptiveAvgPool2d(1),
            )
            self.head = nn.Linear(8, outputs)

    def forward(self, x):
        return self.head(torch.flatten(self.body(x), 1))


@pytest.fixture(autouse=True)
def one_thread():
    """Several test processes share the machine's cores, and sums in one order make the same bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def faces():
    return make_faces()


@pytest.fixture
def small():
    return SmallNet()


@pytest.fixture
def hookless():
    """Call with a model: no hook is left on any of its modules."""

    def check(model):
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())

    return check
