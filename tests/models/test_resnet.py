"""ResNets are made from a seed or a file, and say what is wrong with either."""

import socket

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from helpers.models import build
from helpers.models.resnet import MEAN, STD

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_normalisation_comes_first_and_the_rest_is_torchvisions():
    model = build("resnet18", 3, seed=4).eval()
    plain = torchvision.models.resnet18(num_classes=3).eval()
    plain.load_state_dict(model.network.state_dict())
    mean, std = torch.tensor(MEAN).reshape(3, 1, 1), torch.tensor(STD).reshape(3, 1, 1)
    torch.testing.assert_close(model(X), plain((X - mean) / std), atol=1e-4, rtol=1e-4)
    assert [name for name, _ in model.named_children()] == ["normalise", "network"]


def test_the_seed_decides_and_the_global_state_is_not_touched():
    state = torch.get_rng_state()
    one, same, other = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.network.conv1.weight, other.network.conv1.weight)


def test_classes_as_names_or_a_number():
    assert build(classes=("calm", "glad", "sad"))(X).shape == (2, 3)
    single = build(classes=1)
    assert single(X).shape == (2, 1) and len(single.classes) == 2
    assert build(classes=4).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("classes", [0, -1, True, ("one",), ("a", "a"), "yes", 2.0])
def test_bad_classes_are_refused(classes):
    with pytest.raises(ValueError, match="classes"):
        build(classes=classes)


def test_an_unknown_architecture_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'resnet18'"):
        build("resnet81")
    with pytest.raises(ValueError, match="DEFAULT"):
        build(weights="IMAGENET")


@pytest.mark.parametrize("suffix, prefix", [(".pth", ""), (".safetensors", "network."), (".pth", "module.")])
def test_weights_from_a_file_keep_the_body_and_fit_the_head(tmp_path, suffix, prefix):
    plain = torchvision.models.resnet18(num_classes=1000)
    state, path = {prefix + key: value for key, value in plain.state_dict().items()}, tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = build("resnet18", 2, weights=path, seed=3)
    assert torch.equal(model.network.layer4[1].conv2.weight, plain.layer4[1].conv2.weight)
    assert torch.equal(model.network.fc.weight, build("resnet18", 2, seed=3).network.fc.weight)
    assert torch.equal(build("resnet18", 1000, weights=str(path)).network.fc.weight, plain.fc.weight)


def test_files_that_are_missing_damaged_or_of_another_network(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pth"):
        build(weights=tmp_path / "none.pth")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="broken.pth"):
        build(weights=broken)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not fit resnet18"):
        build(weights=tmp_path / "other.pth")


def test_a_pickled_model_is_not_run(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(ValueError, match="run code"):
        build(weights=tmp_path / "whole.pth")


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConnectionError, match=r"resnet18 DEFAULT.*network.*weights=None.*safetensors"):
        build(weights="DEFAULT")
