"""MuFidelity and average stability have Xplique's values at equal settings and equal draws. TensorFlow is imported here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.attribution import attribute, evaluate, random_maps
from helpers.attribution.score import Score

pytestmark = pytest.mark.filterwarnings("ignore:TF is set to run eagerly")
TARGET = torch.tensor([2, 0, 1])


@pytest.fixture(scope="module")
def tensorflow():
    from helpers.attribution.xplique import load_tensorflow

    tensorflow = load_tensorflow()
    eager = tensorflow.config.functions_run_eagerly()
    yield tensorflow
    tensorflow.config.run_functions_eagerly(eager)


def theirs(metric, cnn, images, target=TARGET, **settings):
    """Xplique's metric of that name on our model and images."""
    import xplique.metrics
    from xplique.wrappers import TorchWrapper

    model = TorchWrapper(Score(cnn).eval(), "cpu", is_channel_first=True)
    rows = images.permute(0, 2, 3, 1).numpy()
    return getattr(xplique.metrics, metric)(model, rows, np.eye(3, dtype=np.float32)[target.numpy()], **settings)


@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.parametrize("grid, side, share, baseline", [(9, 16, 0.2, 0.0), (5, 16, 0.4, 0.25), (None, 16, 0.1, 0.5)])
def test_mu_fidelity(tensorflow, cnn, images, monkeypatch, grid, side, share, baseline, activation):
    cells = grid or side
    drawn = np.random.default_rng(0).random((40, cells**2), dtype=np.float32)
    monkeypatch.setattr(tensorflow.random, "uniform", lambda *args, **options: tensorflow.constant(drawn))
    settings = {"grid_size": grid, "subset_percent": share, "baseline_mode": baseline, "nb_samples": 40}
    maps = random_maps(images)
    expected = []
    for i in range(3):  # one by one, for Xplique tells the mean only
        metric = theirs("MuFidelity", cnn, images[[i]], TARGET[[i]], activation=activation, **settings)
        expected.append(metric.evaluate(maps[[i]].numpy()))
    subsets = (drawn <= share).reshape(40, cells, cells)
    frame = evaluate(
        cnn, images, maps, TARGET, "mu_fidelity", subsets=subsets, baseline=baseline, activation=activation or "logit"
    )
    assert frame.value.to_numpy() == pytest.approx(expected, abs=1e-3)  # float32 sums may change places


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_average_stability(tensorflow, cnn, images, distance):
    images = images * 0.9  # so that no shift leaves [0, 1], where `attribute` would refuse it
    metric = theirs("AverageStability", cnn, images, radius=0.1, distance=distance, nb_samples=6)

    def explain(rows, one_hot):
        pictures = torch.from_numpy(np.array(rows)).permute(0, 3, 1, 2)
        return attribute(cnn, pictures, np.argmax(np.array(one_hot), 1), "gradient_input").numpy()

    shifts = np.array(metric.noisy_masks).transpose(0, 3, 1, 2)
    maps = attribute(cnn, images, TARGET, "gradient_input")
    frame = evaluate(
        cnn, images, maps, TARGET, "average_stability", explain="gradient_input", shifts=shifts, distance=distance
    )
    assert frame.value.mean() == pytest.approx(metric.evaluate(explain), rel=1e-5)
