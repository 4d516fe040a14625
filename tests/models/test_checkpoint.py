"""A model that went through disk is the same model; a damaged file never is one."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from helpers.models import Affine, LowRank, append_after, build, edits, load, predict, save, train
from tests.models.conftest import SmallNet, make_faces

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def edited():
    model = build("resnet18", ("calm", "glad", "sad"), seed=3)
    model = append_after(model, "network.avgpool", LowRank(512, 2, random(512), random(512, 2), random(512, 2)))
    model = append_after(model, "network.layer2", Affine(128, bias=random(128)))
    return append_after(model, "", Affine(3, random(3, 3))).eval()


@pytest.mark.parametrize("outputs", [("a", "b"), 1, 5])
def test_outputs_are_bit_equal_after_the_round_trip(tmp_path, outputs):
    model = build("resnet18", outputs, seed=1).eval()
    save(model, tmp_path / "m", metrics={"accuracy": np.float64(0.5)})
    again = load(tmp_path / "m")
    assert torch.equal(again(X), model(X)) and not again.training
    assert again.classes == model.classes and again.architecture == "resnet18"
    assert again.info["metrics"] == {"accuracy": 0.5}


def test_an_edited_model_comes_back_with_its_edits(tmp_path, edited):
    edits(edited)[0][1].enabled = False
    path = save(edited, tmp_path / "deep" / "m-1.5.safetensors")
    assert path.name == "m-1.5.safetensors"
    again = load(tmp_path / "deep" / "m-1.5")
    assert torch.equal(again(X), edited(X)) and again.classes == ("calm", "glad", "sad")
    assert [(n, type(e).__name__, e.enabled) for n, e in edits(again)] == [
        ("network.layer2", "Affine", False),
        ("network.avgpool", "LowRank", True),
        ("", "Affine", True),
    ]
    edits(edited)[0][1].enabled = edits(again)[0][1].enabled = True
    assert torch.equal(again(X), edited(X))


def test_the_description_says_what_the_model_is(tmp_path):
    faces = make_faces(12, size=32)
    model = train(faces, epochs=1, batch_size=6, progress=False, device="cpu")
    save(model, tmp_path / "m", metrics={"gap": float("nan")})
    about = json.loads((tmp_path / "m.json").read_text())
    assert about["architecture"] == "resnet18" and about["classes"] == ["calm", "glad"] and about["image_size"] == 32
    assert (
        set(about["versions"]) == {"torch", "torchvision", "candor"} and about["versions"]["torch"] == torch.__version__
    )
    assert about["info"]["data"]["target"] == "mood" and np.isnan(about["info"]["metrics"]["gap"])
    again = load(tmp_path / "m")
    assert again.history.equals(model.history)
    np.testing.assert_array_equal(predict(again, faces).logits, predict(model, faces).logits)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.json", "m.safetensors"]


def test_a_foreign_model_needs_an_instance(tmp_path):
    model = append_after(SmallNet(seed=1), "body.4", Affine(8, bias=random(8))).eval()
    save(model, tmp_path / "m")
    with pytest.raises(ValueError, match="SmallNet.*load"):
        load(tmp_path / "m")
    fresh = SmallNet(seed=2)
    again = load(tmp_path / "m", model=fresh)
    assert torch.equal(again(X), model(X)) and not torch.equal(fresh.head.weight, again.head.weight)
    with pytest.raises(ValueError, match="do not fit"):
        load(tmp_path / "m", model=SmallNet(5))


def test_a_resnet_whose_head_was_replaced_counts_as_foreign(tmp_path):
    model = build()
    model.network.fc = nn.Sequential(nn.Linear(512, 4), nn.ReLU(), nn.Linear(4, 2))
    save(model, tmp_path / "m")
    with pytest.raises(ValueError, match="model="):
        load(tmp_path / "m")


class Unregistered(nn.Module):
    def forward(self, x):
        return x


def test_what_could_not_be_loaded_is_not_saved(tmp_path, small):
    with pytest.raises(ValueError, match="Unregistered.*@edit"):
        save(append_after(small, "head", Unregistered()), tmp_path / "m")
    with pytest.raises(ValueError, match="metrics: cannot be written as JSON"):
        save(small, tmp_path / "m", metrics={"model": small})
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_files(tmp_path, small, monkeypatch):
    save(small, tmp_path / "m")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr("helpers.models.checkpoint._digest", lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(SmallNet(seed=9), tmp_path / "m")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def change(file, **values):
    about = json.loads(file.read_text())
    for key, value in values.items():
        about.pop(key) if value is None else about.update({key: value})
    file.write_text(json.dumps(about))


@pytest.mark.parametrize(
    "damage, error, message",
    [
        (lambda w, d: d.unlink(), FileNotFoundError, "description file .*m.json is missing"),
        (lambda w, d: w.unlink(), FileNotFoundError, "weights file .*m.safetensors is missing"),
        (lambda w, d: d.write_text("{"), ValueError, "not readable JSON"),
        (lambda w, d: d.write_text("[]"), ValueError, "lacks format"),
        (lambda w, d: change(d, sha256=None), ValueError, "lacks sha256"),
        (lambda w, d: change(d, format=99), ValueError, "format 99"),
        (lambda w, d: w.write_bytes(w.read_bytes()[:-8]), ValueError, "checksum differs"),
        (lambda w, d: save(build(seed=8), w), ValueError, None),
        (lambda w, d: change(d, architecture="resnet34"), ValueError, "do not fit.*Missing key"),
        (lambda w, d: change(d, outputs=5), ValueError, "do not fit.*size mismatch"),
        (lambda w, d: change(d, edits=[]), ValueError, "do not fit"),
        (
            lambda w, d: change(d, edits=[{"layer": "", "type": "Afine", "config": {}, "enabled": True}]),
            ValueError,
            "Did you mean 'Affine'",
        ),
    ],
)
def test_damaged_and_mismatched_files_are_refused(tmp_path, edited, damage, error, message):
    path = save(edited, tmp_path / "m")
    description = path.with_suffix(".json")
    if message is None:  # the description of one save beside the weights of another
        text = description.read_text()
        damage(path, description)
        description.write_text(text)
        message = "checksum differs"
    else:
        damage(path, description)
    with pytest.raises(error, match=message):
        load(path)


def test_weights_that_are_no_safetensors_are_refused(tmp_path, small):
    from helpers.models.checkpoint import _digest

    path = save(small, tmp_path / "m")
    path.write_bytes(b"\xff" * 64)
    change(path.with_suffix(".json"), sha256=_digest(path))
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load(path, model=small)


def test_an_edited_model_exports(edited):
    exported = torch.export.export(edited, (X,)).module()
    torch.testing.assert_close(exported(X), edited(X))


def test_an_edited_model_runs_in_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = append_after(SmallNet(), "body.4", LowRank(8, 2, random(8), random(8, 2), random(8, 2)))
    model = append_after(append_after(model, "body.1", Affine(8, random(8, 8))), "", Affine(2, random(2, 2))).eval()
    torch.onnx.export(model, (X,), tmp_path / "m.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    np.testing.assert_allclose(logits, model(X).detach().numpy(), atol=1e-4)
