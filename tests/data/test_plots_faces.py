import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers.plots import faces as plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_grid_shows_every_image_once_in_order(faces):
    figure = plots.grid(faces[:10][0], titles=list("abcdefghij"), columns=4)
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == list("abcdefghij") and len(figure.axes) == 12
    assert [round(float(np.mean(axis.images[0].get_array())) * 255) for axis in shown] == list(range(10))
    assert "10 face images in 3 rows" in figure.get_label()


def test_both_forms_of_images_look_the_same(faces):
    from_tensor, from_bytes = plots.grid(faces[:3][0]), plots.grid(faces.images[:3])
    for left, right in zip(from_tensor.axes, from_bytes.axes, strict=True):
        np.testing.assert_allclose(left.images[0].get_array() * 255, right.images[0].get_array(), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"titles": ["a"]}, "titles: 1 captions do not fit 3"),
        ({"columns": 0}, "columns"),
        ({"images": np.zeros((3, 8, 8))}, "images"),
        ({"images": np.zeros((0, 8, 8, 3))}, "images"),
    ],
)
def test_a_grid_of_something_else_is_refused(faces, arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.grid(**{"images": faces[:3][0], **arguments})


@pytest.mark.parametrize(("by", "panels"), [("cell", 6), ("group", 3), ("target", 2)])
def test_mean_faces_are_the_means_of_their_images(faces, by, panels):
    figure = plots.mean_faces(faces, by)
    assert len(figure.axes) == panels
    means = {axis.get_xlabel(): np.mean(axis.images[0].get_array()) for axis in figure.axes}
    if by == "target":
        assert [np.mean(axis.images[0].get_array()) * 255 for axis in figure.axes] == pytest.approx([6, 5])
    if by == "cell":
        empty = [axis for axis in figure.axes if axis.get_xlabel() == "n = 0"]
        assert len(empty) == 3 and all(axis.texts[0].get_text() == "no images" for axis in empty)
        assert means["n = 6"] * 255 == pytest.approx(6)
    assert "(6 images)" in figure.get_label()


def test_the_mean_does_not_overflow_or_depend_on_the_batch():
    images = np.random.default_rng(0).integers(200, 256, (50, 4, 4, 3), dtype=np.uint8)
    rows = np.arange(0, 50, 3)
    np.testing.assert_allclose(
        plots.mean_image(images, rows, batch=4), images[rows].astype(float).mean(0) / 255
    )


def test_the_heat_map_writes_the_counts(faces):
    axis = plots.counts(faces)
    assert [text.get_text() for text in axis.texts] == ["0", "3", "0", "3", "6", "0"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("smiling", "age")
    assert "young and not smiling: 6" in axis.figure.get_label()


def test_the_bars_are_shares_within_groups_and_an_absent_group_has_none(faces):
    part = faces.subset(faces.table["age"] != "old")
    axis = plots.imbalance(part)
    heights = np.array([[bar.get_height() for bar in bars] for bars in axis.containers])
    np.testing.assert_allclose(heights, [[0, np.nan, 100], [100, np.nan, 0]])
    assert "n = 0" in axis.get_xticklabels()[1].get_text() and "%" in axis.get_ylabel()
    assert "old: no images" in axis.figure.get_label()
