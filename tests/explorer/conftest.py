"""A folder with a small model for drawn faces, as a visitor could name it, and a cache of its own."""

import pytest

from helpers.explorer.choice import Choice
from helpers.explorer.state import State
from tests.explorer.small import small_model


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANDOR_CACHE", str(folder / "cache"))
        small_model(folder)
        yield folder


@pytest.fixture(scope="session")
def opened(root):
    """A state with the small model open; tests that change what is open make one of their own."""
    state = State(root)
    state.open(Choice(model="small.safetensors"))
    return state
