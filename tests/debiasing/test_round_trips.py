"""An edited model is an ordinary module: copied, saved, exported and folded, it gives the same outputs."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.debiasing import METHODS, debias, fold
from helpers.models import Affine, append_after, build, load, save
from tests.debiasing.conftest import QUICK

AFFINE = ["LEACE", "PCLARC", "NT"]
GROUPED = ["GT", "ROC"]  # called with the group


@pytest.fixture(scope="module")
def faces():
    draw = torch.Generator().manual_seed(0)
    group, y = torch.randint(0, 3, (96,), generator=draw), torch.randint(0, 2, (96,), generator=draw)
    images = (
        torch.rand(96, 3, 32, 32, generator=draw) * 0.5
        + 0.2 * (group / 2)[:, None, None, None]
        + 0.2 * y[:, None, None, None]
    )
    return images, y, group


@pytest.fixture(scope="module")
def corrected(faces):
    model = build("resnet18", classes=("no", "yes"), seed=0)
    return debias(model, DataLoader(TensorDataset(*faces), batch_size=32), methods_config=QUICK)


def outputs(model, faces):
    images, _, group = faces
    with torch.no_grad():
        return model(images[:16], group=group[:16]) if getattr(model, "needs_group", False) else model(images[:16])


@pytest.mark.parametrize("key", sorted(METHODS))
def test_saved_and_loaded(corrected, faces, key, tmp_path):
    model = corrected[key].get_model()
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    torch.testing.assert_close(outputs(again, faces), outputs(model, faces), atol=1e-5, rtol=0)
    assert getattr(again, "needs_group", False) == (key in GROUPED) and again.classes == ("no", "yes")


@pytest.mark.parametrize("key", sorted(METHODS))
def test_copied_and_cast(corrected, faces, key):
    model = corrected[key].get_model()
    copied = copy.deepcopy(model)
    torch.testing.assert_close(outputs(copied, faces), outputs(model, faces), atol=0, rtol=0)
    assert torch.isfinite(outputs(copied.double(), (faces[0].double(), *faces[1:]))).all()


@pytest.mark.parametrize("key, strict", [(key, False) for key in sorted(METHODS)] + [("LEACE", True), ("GT", True)])
def test_exported(corrected, faces, key, strict):
    model = corrected[key].get_model()
    options = {"kwargs": {"group": faces[2][:16]}} if key in GROUPED else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing about a missing group while exporting
        program = torch.export.export(model, (faces[0][:16],), strict=strict, **options)
    found = program.module()(faces[0][:16], **options.get("kwargs", {}))
    torch.testing.assert_close(found, outputs(model, faces), atol=1e-5, rtol=0)


def test_thresholds_export_without_a_group_too(corrected, faces):
    model = corrected["GT"].get_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        program = torch.export.export(model, (faces[0][:16],))
    with pytest.warns(UserWarning, match="pooled"):
        torch.testing.assert_close(program.module()(faces[0][:16]), model(faces[0][:16]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", AFFINE)
def test_folded(corrected, faces, key, tmp_path):
    model = corrected[key].get_model()
    for folded in (model.fold(), copy.deepcopy(model).fold(), fold(model, faces[0][:4])):
        torch.testing.assert_close(outputs(folded, faces), outputs(model, faces), atol=1e-5, rtol=0)
        assert list(folded.state_dict()) == list(corrected["Vanilla"].model.state_dict())
        assert not hasattr(folded, "fold")
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    torch.testing.assert_close(outputs(fold(again, faces[0][:4]), faces), outputs(model, faces), atol=1e-5, rtol=0)


def test_a_copy_folds_itself_and_not_its_original(corrected, faces):
    copied = copy.deepcopy(corrected["LEACE"].get_model())
    with torch.no_grad():
        copied.network.fc.bias.add_(3.0)
    torch.testing.assert_close(outputs(copied.fold(), faces), outputs(copied, faces), atol=1e-5, rtol=0)


def test_an_edit_after_a_linear_folds_into_it_and_both_edits_of_a_layer_fold(faces):
    draw = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 6), nn.ReLU(), nn.Linear(6, 2, bias=False)).eval()
    for name, width in (("1", 6), ("2", 6), ("2", 6), ("3", 2)):
        edit = Affine(width, torch.randn(width, width, generator=draw), torch.randn(width, generator=draw))
        model = append_after(model, name, edit)
    folded = fold(model, faces[0][:4])
    torch.testing.assert_close(outputs(folded, faces), outputs(model, faces), atol=1e-4, rtol=1e-4)
    assert [type(m).__name__ for m in folded] == ["Flatten", "Linear", "ReLU", "Linear"]


def test_what_cannot_be_folded_is_refused(corrected, faces):
    for key in ("GT", "DFR", "Vanilla"):
        assert not hasattr(corrected[key].model, "fold")
        with pytest.raises(ValueError, match="nothing to fold"):
            fold(corrected[key].model)
    early = append_after(corrected["Vanilla"].model, "network.conv1", Affine(64))
    with pytest.raises(ValueError, match="only a Linear"):
        fold(early, faces[0][:4])
    late = append_after(corrected["Vanilla"].model, "network.avgpool", Affine(512))
    with pytest.raises(ValueError, match="example"):
        fold(late)


def test_switched_off_the_model_is_as_it_was(corrected, faces):
    for key in (*AFFINE, "GT"):
        model = copy.deepcopy(corrected[key].get_model())
        from helpers.models import edits

        edits(model)[-1][1].enabled = False
        torch.testing.assert_close(outputs(model, faces), outputs(corrected["Vanilla"].model, faces))
