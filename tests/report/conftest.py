"""Faces and a model of a few weights, with names that would break a page that forgets to escape."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers.data import FaceDataset


@pytest.fixture
def faces():
    """48 faces of 16 px in three groups (one of them small) and two classes; class 1 is bright in its upper half."""
    rng = np.random.default_rng(0)
    label = np.arange(48) % 2
    group = np.array(["<b>old</b>", "young & fit", "rare"])[np.r_[np.arange(44) % 4 // 2, [2, 2, 2, 2]]]
    images = rng.integers(0, 120, (48, 16, 16, 3), dtype=np.uint8)
    images[:, :8] += (100 * label).astype(np.uint8)[:, None, None, None]
    table = pd.DataFrame({"mood": np.array(["calm", "<script>alert(1)</script>"])[label], "age": group})
    return FaceDataset(images, table, target="mood", protected="age", name="tiny", split="test", classes=("calm", "<script>alert(1)</script>"))


@pytest.fixture
def model():
    """A convolutional classifier of two logits, fixed by a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    return layers.eval()
