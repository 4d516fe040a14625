"""What all tests share: figures without a window, and one thread a process."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)  # the models of the tests are tiny: more threads wait for each other

# A loaded machine is slow, not wrong: what a property says must not depend on how fast its examples are drawn.
settings.register_profile("candor", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("candor")


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    """Figures that a test drew would otherwise pile up until matplotlib warns."""
    yield
    plt.close("all")
