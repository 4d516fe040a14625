"""Predictions are the model's, in the data's order, and leave model and random state as they were."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from helpers.models import features, predict
from tests.models.conftest import SmallNet, make_faces


@pytest.mark.parametrize("outputs, classes", [(1, 2), (2, 2), (3, 3)])
def test_predictions_match_the_logits_computed_by_hand(outputs, classes):
    faces, model = make_faces(n=11, classes=classes), SmallNet(outputs).eval()
    images, targets, group = faces[:]
    logits = model(images).detach().double()
    found = predict(model, faces, batch_size=4)
    assert (found.y_true == targets.numpy()).all() and (found.group == group.numpy()).all()
    assert found.logits.shape == (11, outputs) and found.logits.dtype == np.float32
    assert found.y_pred.dtype == found.y_true.dtype == found.group.dtype == np.int64
    assert found.y_score.dtype == np.float64
    if outputs == 1:
        score, hard = torch.sigmoid(logits[:, 0]), logits[:, 0] > 0
    else:
        score, hard = logits.softmax(1), logits.argmax(1)
        score = score[:, 1] if outputs == 2 else score
    np.testing.assert_allclose(found.y_score, score.numpy(), atol=1e-6)
    assert (found.y_pred == hard.long().numpy()).all()


def test_mode_and_random_state_come_back_even_after_an_error(faces, small):
    small.train()
    small.body[1].eval()  # a frozen BatchNorm is a common choice, and has to survive
    state, running = torch.get_rng_state(), small.body[1].running_mean.clone()
    loader = DataLoader(list(zip(*faces[:], strict=True)), batch_size=5, shuffle=True)
    predict(small, loader)
    with pytest.raises(ValueError):
        predict(small, [(torch.zeros(2, 3, 16, 16), torch.tensor([0, 9]), torch.tensor([0, 0]))])
    assert small.training and small.body[3].training and not small.body[1].training
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(small.body[1].running_mean, running)


def test_data_sets_loaders_and_lists_agree(faces, small):
    by_set = predict(small, faces)
    rows = list(zip(*faces[:], strict=True))
    for data in (faces.loader(7), DataLoader(rows, batch_size=5), rows):
        other = predict(small, data, batch_size=3)
        assert (other.y_true == by_set.y_true).all()
        np.testing.assert_allclose(other.logits, by_set.logits, atol=1e-6)


def test_the_group_reaches_a_model_that_needs_it(faces):
    class ByGroup(nn.Module):
        needs_group = True

        def forward(self, images, group):
            return torch.stack([group, 1 - group], 1).float()

    found = predict(ByGroup(), faces)
    assert (found.logits[:, 0] == faces.group).all()


def images(n=2):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


ZEROS = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    "batch, message",
    [
        ((images(), ZEROS), "2 parts"),
        ((images(), ZEROS, ZEROS.float()), "groups of type torch.float32"),
        (((images() * 255).to(torch.uint8), ZEROS, ZEROS), "divide uint8"),
        ((images().permute(0, 2, 3, 1), ZEROS, ZEROS), "permute"),
        ((images(), torch.zeros(3, dtype=torch.int64), ZEROS), r"targets of type .* for 2 images"),
        ((images(), ZEROS + 4, ZEROS), "target 4 is outside the 2 classes"),
        ((images(), ZEROS - 1, ZEROS), "target -1"),
    ],
)
def test_batches_that_do_not_fit_are_named(batch, message, small):
    with pytest.raises(ValueError, match=message):
        predict(small, [batch])


def test_empty_data_devices_and_outputs_that_do_not_fit(faces, small):
    with pytest.raises(ValueError, match="empty"):
        predict(small, [])
    with pytest.raises(ValueError, match="device: 'cuda:77'"):
        predict(small, faces, device="cuda:77")
    with pytest.raises(ValueError, match="device: 'gpu'"):
        predict(small, faces, device="gpu")
    with pytest.raises(ValueError, match=r"3 outputs do not fit the target's 2 classes \(calm, glad\)"):
        predict(SmallNet(3), faces)
    with pytest.raises(ValueError, match="logits"):
        predict(nn.Flatten(0), faces)
    small.classes = ("glad", "calm")
    with pytest.raises(ValueError, match="its classes are calm, glad, the model's the same in another order, glad, calm"):
        predict(small, faces)
    small.classes = ("sad", "glad")  # another question asked of the same model is no mistake
    assert len(predict(small, faces).y_pred) == len(faces)


def test_a_model_in_another_precision_is_given_images_in_it(faces, small):
    exact, half = predict(small.eval(), faces), predict(copy.deepcopy(small).to(torch.bfloat16).eval(), faces)
    assert half.logits.dtype == np.float32
    np.testing.assert_allclose(half.logits, exact.logits, atol=0.1)
    double = predict(copy.deepcopy(small).double().eval(), faces)
    np.testing.assert_allclose(double.logits, exact.logits, atol=1e-5)
    assert features(copy.deepcopy(small).to(torch.bfloat16).eval(), faces).features.dtype == np.float32


def test_the_bar_counts_batches_whatever_the_data_are(faces, small, capsys):
    single = [(image, int(target), int(group)) for image, target, group in zip(*faces[:], strict=True)]
    for data in (faces, single, DataLoader(single, batch_size=4)):
        predict(small, data, batch_size=4, progress=True)
        assert f"{-(-len(faces) // 4)}/{-(-len(faces) // 4)}" in capsys.readouterr().err
