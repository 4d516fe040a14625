"""A template covers each pixel once, moves with the landmarks it is given, and lies on the parts of real aligned faces."""

import numpy as np
import pytest

from helpers.data import load_faces
from helpers.data.masks import REGIONS
from helpers.data.templates import ALIGNED, template


@pytest.mark.parametrize("aligned", sorted(ALIGNED))
@pytest.mark.parametrize("size", [32, 64, (218, 178)])
def test_each_pixel_is_in_one_region_and_the_landmarks_in_theirs(aligned, size):
    masks = template(size, aligned)
    assert set(masks) <= set(REGIONS) and list(masks) == [name for name in REGIONS if name in masks]
    assert (sum(mask.astype(int) for mask in masks.values()) == 1).all() and all(mask.any() for mask in masks.values())
    height, width = masks["skin"].shape
    for (x, y), name in zip(ALIGNED[aligned], ("eyes", "eyes", "mouth"), strict=True):
        assert masks[name][int(y * height), int(x * width)]
    assert masks["skin"].sum() > masks["nose"].sum() and masks["hair"].sum() > masks["mouth"].sum()


def test_it_scales_mirrors_moves_and_tilts_with_the_face():
    points = np.array([(0.4, 0.45), (0.6, 0.45), (0.5, 0.65)])
    masks = template(96, points)
    for name, mask in template(192, points).items():
        assert np.mean(mask.reshape(96, 2, 96, 2).mean((1, 3)).round() == masks[name]) > 0.98
    for name, mask in masks.items():
        assert (mask == mask[:, ::-1]).mean() > 0.97, name  # these points are symmetric
    moved = template(96, points + [1 / 8, -1 / 8])
    for name in ("eyes", "mouth", "nose", "brows"):
        np.testing.assert_array_equal(moved[name], np.roll(masks[name], (-12, 12), (0, 1)))
    tilted = template(96, [(0.43, 0.38), (0.57, 0.52), (0.36, 0.59)])
    assert tilted["eyes"].sum() == pytest.approx(masks["eyes"].sum(), rel=0.1)  # as large, whichever way the head lies


def test_on_real_faces_the_darkest_places_are_eyes_mouth_and_hair():
    mean = load_faces("orl", split="all", image_size=64).images.mean((0, 3))
    masks = template(64, "orl")
    for columns, rows, name in [(range(18, 25), range(15, 40), "eyes"), (range(41, 48), range(15, 40), "eyes"),
                                (range(28, 38), range(46, 58), "mouth")]:  # fmt: skip
        darkest = rows[mean[np.ix_(rows, columns)].mean(1).argmin()]
        assert masks[name][darkest, columns].all(), (name, darkest)
    assert mean[masks["hair"]].mean() < mean[masks["skin"]].mean() - 20


def test_what_is_no_alignment_is_refused():
    for aligned, message in [
        ("celebs", "aligned: .*Did you mean 'celeba'"),
        ([(0.3, 0.4), (0.7, 0.4)], "aligned: .*three"),
        ([(0.3, 0.4), (0.7, 0.4), (0.5, 76)], "aligned: .*in .0, 1."),
        ([(0.7, 0.4), (0.3, 0.4), (0.5, 0.7)], "left of the second"),
        ([(0.3, 0.8), (0.7, 0.8), (0.5, 0.5)], "the mouth below both"),
        (None, "aligned: None given"),
    ]:
        with pytest.raises(ValueError, match=message):
            template(64, aligned)
    for size in (0, 64.0, (64,), "64", True):
        with pytest.raises(ValueError, match="size: .*whole number of pixels"):
            template(size)
