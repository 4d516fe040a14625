"""Measures of pictures against slow ones written out, and what must and must not change them (4 s on one thread)."""

import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage, stats

from helpers.data import FaceDataset, load_faces
from helpers.data.pictures import by_group, pictures, sizes


@pytest.fixture
def photographs():
    return load_faces("orl", split="all", image_size=64).images[::20]


def textbook(image):
    """One picture, in float64, with SciPy."""
    luma = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    laplacian = ndimage.convolve(luma, np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]))[1:-1, 1:-1]
    mirrored = np.corrcoef(luma.ravel(), luma[:, ::-1].ravel())[0, 1]
    clipped = ((luma <= 1) | (luma >= 254)).mean()
    return luma.mean() / 255, luma.std() / 255, laplacian.var(), (1 - mirrored) / 2, clipped


def test_measures_are_those_of_the_textbook(photographs):
    found = pictures(photographs)
    assert list(found) == ["brightness", "contrast", "sharpness", "asymmetry", "clipped"]
    np.testing.assert_allclose(found.to_numpy(), [textbook(image) for image in photographs], rtol=2e-4, atol=1e-6)


def test_blocks_and_memory_maps_change_nothing(photographs, tmp_path, monkeypatch):
    whole = pictures(photographs)
    np.save(tmp_path / "images.npy", photographs)
    monkeypatch.setattr(sys.modules["helpers.data.pictures"], "BLOCK", 3 * 64 * 64)
    pd.testing.assert_frame_equal(pictures(np.load(tmp_path / "images.npy", mmap_mode="r")), whole)


def test_each_measure_answers_to_its_own_cause(photographs):
    plain = pictures(photographs)
    darker = pictures((photographs * 0.5).astype(np.uint8))
    assert (darker["brightness"] < 0.51 * plain["brightness"]).all()
    np.testing.assert_allclose(darker["asymmetry"], plain["asymmetry"], atol=0.01)  # neither light nor contrast
    blurred = pictures(ndimage.gaussian_filter(photographs, (0, 1.5, 1.5, 0)))
    assert (blurred["sharpness"] < 0.1 * plain["sharpness"]).all()
    np.testing.assert_allclose(blurred["brightness"], plain["brightness"], atol=0.01)
    pd.testing.assert_series_equal(pictures(photographs[:, :, ::-1])["asymmetry"], plain["asymmetry"], atol=1e-5)
    both = np.concatenate([photographs[:, :, :32], photographs[:, :, 31::-1]], axis=2)
    assert (pictures(both)["asymmetry"] < 1e-5).all()
    assert (pictures(np.clip(photographs * 4.0, 0, 255).astype(np.uint8))["clipped"] > plain["clipped"] + 0.2).all()


def test_sharpness_compares_between_sizes(photographs):
    large = load_faces("orl", split="all", image_size=256).images[::20]
    ratio = pictures(large)["sharpness"] / pictures(photographs)["sharpness"]
    assert 0.5 < ratio.min() and ratio.max() < 2  # at their own sizes the Laplacians differ tenfold and more


def test_a_picture_of_one_grey_has_no_symmetry_to_speak_of():
    found = pictures(np.full((3, 16, 16, 3), 100, np.uint8))
    assert found["asymmetry"].isna().all() and (found[["contrast", "sharpness", "clipped"]] < 1e-6).all().all()


def test_sizes_are_read_from_headers(tmp_path, faces):
    for name, size in (("a.png", (30, 20)), ("b.jpg", (8, 90))):
        Image.new("RGB", size).save(tmp_path / name)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])  # the header is there, the pixels are not
    found = sizes([str(tmp_path / name) for name in ("a.png", "b.jpg", "cut.png", "absent.png")])
    np.testing.assert_array_equal(found, [[30, 20], [8, 90], [30, 20], [np.nan, np.nan]])
    assert "width" not in pictures(faces)
    orl = load_faces("orl", split="test", image_size=16)
    assert (pictures(orl.subset([3, 5]))[["width", "height"]] == [92, 112]).all().all()


def test_poses_of_the_table_are_used(faces):
    table = faces.table.assign(yaw=np.linspace(-30, 30, 12), roll=1)
    found = pictures(FaceDataset(faces.images, table, target="smiling", protected="age"))
    assert found["yaw"].tolist() == table["yaw"].tolist() and (found["roll"] == 1).all()


def test_intervals_count_people_not_pictures():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        person = np.repeat(np.arange(15), 8)
        values = pd.DataFrame({"x": rng.normal(size=15)[person] + 0.2 * rng.normal(size=120)})
        row = by_group(values, ["all"] * 120, person).iloc[0]
        covered += row["low"] <= 0 <= row["high"]
    assert (row["n"], row["people"]) == (120, 15)
    assert 0.91 < covered / 300 < 0.98  # an interval that counts pictures holds 0 in half of them
    values = pd.DataFrame({"x": rng.normal(size=40)})
    alone = by_group(values, ["a"] * 39 + ["b"]).set_index("group")
    expected = stats.ttest_1samp(values["x"][:39], 0).confidence_interval()
    np.testing.assert_allclose(alone.loc["a", ["low", "high"]].astype(float), expected)
    assert np.isnan(alone.loc["b", "low"])
