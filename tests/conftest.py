"""What all tests share: figures without a window, one thread a process, and the order in which processes take them."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow
SHARED = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1  # several processes run the tests
if SHARED:  # what they start, such as the notebooks, has one thread too
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")

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


def pytest_collection_modifyitems(items):
    """The file that takes longest begins first where processes share the files: begun last, it would end alone."""
    if SHARED:
        items.sort(key=lambda item: item.path.name != "test_course.py")


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    """Figures that a test drew would otherwise pile up until matplotlib warns."""
    yield
    plt.close("all")
