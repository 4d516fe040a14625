"""Edits at layers of a real network: its last block, its classifier, several layers at once."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers.debiasing import debias
from helpers.models import build, features


@pytest.fixture(scope="module")
def faces():
    draw = torch.Generator().manual_seed(0)
    group, y = torch.randint(0, 3, (120,), generator=draw), torch.randint(0, 2, (120,), generator=draw)
    shift = 0.2 * (group / 2) + 0.2 * y
    images = torch.rand(120, 3, 32, 32, generator=draw) * 0.5 + shift[:, None, None, None]
    return DataLoader(TensorDataset(images, y, group), batch_size=40), group.numpy()


def spread(model, loader, group, layer, rows):
    """Distance between the groups' means over images and positions."""
    x = features(model, loader, layer).features[rows].astype(float)
    x = x.mean((2, 3)) if x.ndim == 4 else x
    means = np.stack([x[group[rows] == g].mean(0) for g in range(3)])
    return np.linalg.norm(means - means.mean(0))


@pytest.mark.parametrize("layer", ["network.layer4", "network.layer2.0.conv1", "last", ["network.layer3", "penultimate"]])
def test_leace_makes_group_means_equal_wherever_it_acts(faces, layer):
    from helpers.debiasing.debias import split
    from helpers.debiasing.method import collect

    loader, group = faces
    model = build("resnet18", 2, seed=0).eval()
    rows, _ = split(collect(model, loader, next(iter(loader))[0][:2]), 0, None)
    result = debias(model, loader, "LEACE", methods_config={"LEACE": {"layer": layer}})["LEACE"]
    assert result.error is None
    names = [name for name, _ in result.edits]
    assert len(names) == (2 if isinstance(layer, list) else 1)
    for name in names[-1:]:  # what comes before others is moved on by them
        assert spread(result.model, loader, group, name, rows) < 1e-3 * spread(model, loader, group, name, rows)


@pytest.mark.parametrize("key", ["PCLARC", "INLP", "RRCLARC", "ACLARC"])
@pytest.mark.parametrize("layer", ["network.layer4", ["network.layer3", "penultimate"]])
def test_the_others_act_at_maps_and_at_several_layers_too(faces, key, layer):
    loader, _ = faces
    model = build("resnet18", 2, seed=0).eval()
    quick = {"epochs": 1} if key in ("RRCLARC", "ACLARC") else {}
    result = debias(model, loader, key, methods_config={key: {"layer": layer} | quick})[key]
    assert result.error is None and result.edits
    before, after = (m(next(iter(loader))[0]) for m in (model, result.model))
    assert torch.isfinite(after).all() and not torch.allclose(before, after)
