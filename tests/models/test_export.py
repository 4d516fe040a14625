"""A model as ONNX: the same logits for any number of images, in one file, or none."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from helpers.models import Affine, GroupThresholds, append_after, export, unedited


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
        )
        edited = append_after(network, "4", Affine(8, torch.randn(8, 8)))
    edited.classes = ("not smiling", "smiling")
    return edited.eval()


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return found


def test_the_file_gives_the_logits_of_the_edited_model_for_any_number_of_images(model, images, tmp_path):
    path = export(model, tmp_path / "fixed", images[:2])
    assert path == tmp_path / "fixed.onnx" and [p.name for p in tmp_path.iterdir()] == ["fixed.onnx"]
    with torch.no_grad():
        np.testing.assert_allclose(run(path, images=images), model(images), atol=1e-5)
        assert not np.allclose(run(path, images=images), unedited(model)(images), atol=1e-3)
    assert json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["classes"]) == ["not smiling", "smiling"]


def test_the_group_is_an_input_where_the_model_needs_it(model, images, tmp_path):
    grouped = append_after(model, "", GroupThresholds(2, torch.tensor([-3.0, 3.0])))
    path = export(grouped, tmp_path / "grouped.onnx", images[:2])
    group = torch.tensor([0, 1, 1, 0, 0, 1])
    with torch.no_grad():
        np.testing.assert_allclose(run(path, images=images, group=group), grouped(images, group=group), atol=1e-5)


def test_the_model_stays_as_it_is(model, images, tmp_path):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(model, tmp_path / "m", images[:2])
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()


def test_what_comes_out_different_is_not_written(images, tmp_path, monkeypatch):
    import helpers.models.exporting as module

    monkeypatch.setattr(module, "CLOSE", -1.0)
    monkeypatch.setattr(module, "ROUNDING", -1.0)
    with pytest.raises(ValueError, match="onnxruntime gives other logits, by up to"):
        export(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), tmp_path / "m", images[:2])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("example", [None, torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8), np.zeros((2, 3, 8, 8))])
def test_examples_that_do_not_do_are_named(model, example, tmp_path):
    with pytest.raises(ValueError, match="example: got .*two images or more"):
        export(model, tmp_path / "m", example)
