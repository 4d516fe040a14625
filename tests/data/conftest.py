"""Trees of tiny image files in the layouts that the sources read."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data import FaceDataset


def write_image(path, value=128, size=(12, 12)):
    """A flat image file whose pixels tell which file it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.fixture
def make_image():
    return write_image


@pytest.fixture
def tree(tmp_path):
    """Make `tree("a/b/1.png", …)`: a folder with those files; images are flat, the n-th has grey value n."""

    def make(*files, root="faces"):
        for n, file in enumerate(files):
            path = tmp_path / root / file
            if path.suffix == ".png":
                write_image(path, n % 256)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("not a picture")
        return tmp_path / root

    return make


@pytest.fixture
def faces():
    """Twelve faces, image i has the value i everywhere, three groups, no one-year-olds among the smiling."""
    table = pd.DataFrame(
        {
            "smiling": [True, False] * 6,
            "age": ["old", "young", "middle", "young"] * 3,
            "score": [1, 2, 3] * 4,
            "identity": [f"p{i // 2}" for i in range(12)],
        }
    )
    images = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None, None, None], (12, 8, 8, 3))
    return FaceDataset(images, table, target="smiling", protected="age")
