"""Faces and a model of a few weights, with names that would break a page that forgets to escape."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers.data import FaceDataset


@pytest.fixture(scope="module")
def faces():
    """48 faces in three groups (one small); class 1 has a bright upper half; one label in 7 is swapped."""
    rng = np.random.default_rng(0)
    label = np.arange(48) % 2
    group = np.array(["<b>old</b>", "young & fit", "rare"])[np.r_[np.arange(44) % 4 // 2, [2, 2, 2, 2]]]
    images = rng.integers(0, 120, (48, 16, 16, 3), dtype=np.uint8)
    images[:, :8] += (100 * label).astype(np.uint8)[:, None, None, None]
    classes = ("calm", "<script>alert(1)</script>")
    annotated = np.where(np.arange(48) % 7 == 0, 1 - label, label)
    table = pd.DataFrame({"mood": np.array(classes)[annotated], "age": group})
    return FaceDataset(
        images, table, target="mood", protected="age", name="tiny", split="test", classes=classes
    )


@pytest.fixture(scope="module")
def model():
    """Says class 1 where the upper half is bright, so it errs exactly on the swapped labels."""
    pool, linear = nn.AdaptiveAvgPool2d((2, 1)), nn.Linear(2, 2)
    convolution = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        convolution.weight.fill_(1 / 3), convolution.bias.zero_()
        (
            linear.weight.copy_(torch.tensor([[0.0, 0.0], [20.0, 0.0]])),
            linear.bias.copy_(torch.tensor([0.0, -8.0])),
        )
    return nn.Sequential(convolution, nn.ReLU(), pool, nn.Flatten(), linear).eval()
