"""Models whose explanation is known, or that are small enough to explain by brute force."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def seeded(make):
    """Build a module from a fixed seed without touching the global random state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def cnn():
    """Three classes; in-place ReLU, batch norm, pooling and dropout, as real models have them."""

    def make():
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Softplus(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(32, 3),
        )
        with torch.no_grad():
            for layer in (model[0], model[4], model[9]):
                layer.weight.mul_(4)  # at the initial scale the logits hardly depend on the image
        return model

    return seeded(make).train()  # in training mode, as it comes out of training


class Linear(nn.Module):
    """Logits of `weight` (classes, C, H, W): every attribution of it can be written down."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return torch.einsum("nchw,kchw->nk", x, self.weight) + 0.5


@pytest.fixture
def weight():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def linear(weight):
    return Linear(weight.clone())


@pytest.fixture
def square():
    """A bool mask (16, 16) of a 6 × 6 square off the centre."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[8:14, 2:8] = True
    return mask


@pytest.fixture
def looks_at_square(square):
    """A two-class model that sees nothing but the square: logit 1 is the brightness inside it."""
    weight = torch.zeros(2, 3, 16, 16)
    weight[1, :, square] = 1 / 9
    return Linear(weight)
