"""Methods on models that PyTorch cannot see into: those that need scores alone work, the others say what they need. 5 s."""

import copy
import json

import numpy as np
import pytest
import torch

import helpers
from helpers.__main__ import main
from helpers.debiasing import METHODS, debias
from helpers.models import export, foreign, load, predict, save
from tests.models.conftest import SmallNet, make_faces
from tests.models.others import GENDER, path_of

ON_SCORES = ("NT", "ROC", "GT")


@pytest.fixture(scope="module")
def faces():
    return make_faces(n=160, size=16, seed=1)


@pytest.fixture(scope="module")
def both(faces, tmp_path_factory):
    """A network, and the same as an ONNX file read back."""
    network = SmallNet().eval()
    network.classes = faces.classes
    file = tmp_path_factory.mktemp("net") / "net.onnx"
    export(network, file, torch.rand(2, 3, 16, 16))
    return network, foreign.load(file, classes=faces.classes)


@pytest.fixture(scope="module")
def results(both, faces):
    return debias(both[1], faces, methods="all", test_dataloader=make_faces(n=80, size=16, seed=2))


@pytest.mark.parametrize("key", ON_SCORES)
def test_thresholds_are_those_of_the_network_in_pytorch(key, both, faces, results):
    test = make_faces(n=80, size=16, seed=2)
    own = debias(both[0], faces, methods=key, test_dataloader=test)[key]
    other = results[key]
    assert other.error is None
    one, two = predict(own.get_model(), test), predict(other.get_model(), test)
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-4)
    assert (one.y_pred == two.y_pred).all()
    assert own.get_all_metrics()["pareto"] == pytest.approx(other.get_all_metrics()["pareto"], abs=1e-6, nan_ok=True)


def test_the_others_say_what_they_need_and_what_is_accepted(results):
    refused = {key: result.error for key, result in results.items() if result.error}
    assert set(refused) == set(METHODS) - set(ON_SCORES)
    for key, reason in refused.items():
        assert f"{key} needs its " in reason and ("features" in reason or "weights" in reason)
        assert all(name in reason for name in ON_SCORES)


def test_a_group_read_from_features_is_refused(both, faces):
    result = debias(both[1], faces, methods="GT", methods_config={"GT": {"group": "inferred"}})["GT"]
    assert "PyTorch sees no layers" in result.error


def test_the_given_model_is_left_as_it_was(both, faces):
    before = predict(both[1], faces).logits
    debias(both[1], faces, methods=ON_SCORES)
    assert (predict(both[1], faces).logits == before).all()


def test_thresholds_are_saved_beside_the_models_own_file(both, faces, results, tmp_path):
    edited = results["GT"].get_model()
    path = save(edited, tmp_path / "fair")
    again = load(path, model=both[1])
    assert (predict(again, faces).logits == predict(edited, faces).logits).all()
    with pytest.raises(ValueError, match="PyTorch sees no weights"):
        save(copy.deepcopy(both[1]), tmp_path / "alone")


def test_the_same_in_a_shell(tmp_path, capsys):
    steps = {"scale": 255, "mean": [122.782, 117.001, 104.298], "std": 256, "outputs": "probabilities"}
    steps |= {"classes": {"not glasses": 1, "glasses": 0}}  # a network of something else, so that a threshold has work to do
    (tmp_path / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
    command = ["debias", "--model", str(path_of(GENDER)), "--preprocessing", str(tmp_path / "steps.json"), "--data", "orl"]
    command += ["--target", "glasses", "--image-size", "32", "--method", "NT", "--method", "LEACE"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "LEACE needs its features" in capsys.readouterr().out
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"NT.json", "NT.safetensors", "table.csv"}


def test_what_can_be_examined_is(results):
    test = make_faces(n=80, size=16, seed=2)
    kept = {key: results[key] for key in ("Vanilla", *ON_SCORES)}
    seen = helpers.examine(kept, test, progress=False)
    assert len(seen.probe) == 0 and sum("PyTorch cannot see into it" in note for note in seen.notes) == 4
    for key in ON_SCORES:
        assert seen.results[key].get_metric("balanced_accuracy") == pytest.approx(results[key].get_metric("balanced_accuracy"))
