"""What all tests share: figures without a window, and one thread a process."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

torch.set_num_threads(1)  # the models of the tests are tiny: more threads wait for each other


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    """Figures that a test drew would otherwise pile up until matplotlib warns."""
    yield
    plt.close("all")
