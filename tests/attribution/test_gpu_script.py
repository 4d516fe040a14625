"""The benchmark for a GPU also runs without one, so that it is known to run before one is at hand."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest
import torch
from torch import nn

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "attribution_gpu.py"


def script():
    spec = importlib.util.spec_from_file_location("attribution_gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_measures_what_a_method_does_and_the_share_of_the_model(dtype):
    arguments = f"--device cpu --side 32 --dtype {dtype} --model small --images 2 --seconds 0.02 --few".split()
    names = ["smoothgrad", "grad_cam", "rise", "lrp", "lime"]
    table = script().main([*arguments, *(part for name in names for part in ("--only", name))])
    assert set(table.method) == set(names) and (table["images/s"] > 0).all()
    assert table["in the model"].between(0, 1).all() and (table["in the model"] > 0).all()
    counted = table.set_index(["method", "backend"])
    assert counted.loc[("smoothgrad", "torch"), ["forward", "backward"]].tolist() == [4, 4]


def test_the_time_in_the_model_is_what_its_passes_take():
    gpu = script()
    class Slow(nn.Module):
        def forward(self, x):
            time.sleep(0.01)
            return x.sum((1, 2, 3))[:, None].repeat(1, 2)

    clock = gpu.Clock("cpu")
    model = gpu.Watched(Slow(), clock)
    model(torch.rand(2, 3, 8, 8))
    time.sleep(0.05)
    model(torch.rand(2, 3, 8, 8))
    assert 0.02 <= model.seconds() < 0.06 and model.seconds() == 0
