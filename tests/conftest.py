"""What all tests share: figures without a window, one thread a process, and the order in which processes take them."""

import ctypes
import gc
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
# Where a change is judged (CI=true, as Hypothesis's own "ci" profile has it) the examples are the same each time, so that a
# failure is the change's; everywhere else they are new ones each time, and so go on looking for what nobody has met.
settings.register_profile(
    "candor", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ, print_blob=True
)
settings.load_profile("candor")


def pytest_configure(config):
    """Where several processes share the tests, each has one thread, and so has what it starts, such as the notebooks."""
    if len(config.getoption("tx", None) or []) > 1:
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(name, "1")  # inherited by the processes, which have not begun yet


def pytest_collection_modifyitems(items):
    """The course takes longest: where processes share the files, it begins first, so that it does not end alone."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.name != "test_course.py")


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    """Figures that a test drew would otherwise pile up until matplotlib warns, and its style would be the next test's."""
    with plt.rc_context():
        yield
    plt.close("all")


@pytest.fixture(autouse=True, scope="module")
def memory_goes_back():
    """glibc keeps what is freed: over thousands of tests a process came to hold 10 GB of which it used one."""
    yield
    gc.collect()
    try:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # not Linux, or another libc
        return
    trim(0)
