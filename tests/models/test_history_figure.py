"""The training figure shows the history, labelled, with alternative text."""

import matplotlib
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from helpers.plots.training import history


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "epoch": [1, 2],
            "loss": [0.7, 0.4],
            "accuracy": [0.5, 0.8],
            "balanced_accuracy": [0.5, 0.75],
            "validation_loss": [0.8, 0.5],
            "validation_accuracy": [0.4, 0.7],
            "validation_balanced_accuracy": [0.45, 0.65],
            "seconds": [1.0, 1.0],
        }
    )


def test_every_column_is_drawn_and_every_axis_named(frame):
    figure = history(frame)
    left, right = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for axes in figure.axes for line in axes.lines}
    assert drawn["loss, validation"] == [0.8, 0.5] and drawn["balanced accuracy, training"] == [0.5, 0.75]
    assert len(drawn) == 6 and all(axes.get_xlabel() and axes.get_ylabel() for axes in (left, right))
    assert "0.800 to 0.500" in figure.get_label() and "2 epochs" in figure.get_label()
    plt.close(figure)


def test_a_run_without_validation_and_things_without_history(frame):
    figure = history(frame[["epoch", "loss", "accuracy", "balanced_accuracy"]])
    assert sum(len(axes.lines) for axes in figure.axes) == 3 and "Training loss" in figure.get_label()
    plt.close(figure)
    with pytest.raises(ValueError, match="no history"):
        history(object())
    with pytest.raises(ValueError, match="lacks accuracy"):
        history(frame.drop(columns="accuracy"))
