"""The problem of the lessons, where two of them ask for it at once."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch

import helpers
from helpers import models
from helpers.data import FaceDataset
from helpers.problem import load_problem


def test_of_two_that_ask_at_once_one_trains_and_the_other_takes_its_model(tmp_path, monkeypatch):
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path))
    table = pd.DataFrame({"mood": ["calm", "glad"] * 6, "hat": ["a", "b", "b"] * 4})
    faces = FaceDataset(np.zeros((12, 32, 32, 3), np.uint8), table, target="mood", protected="hat")
    begun = []

    def train(data, **options):
        begun.append(data)
        time.sleep(0.5)  # long enough for the other to find no model yet
        return models.build("resnet18", classes=data.classes, seed=len(begun)).eval()

    monkeypatch.setattr(helpers, "load_faces", lambda *place, **options: faces)
    monkeypatch.setattr(helpers, "train", train)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: load_problem("table").model, range(2))
    assert len(begun) == 1
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
