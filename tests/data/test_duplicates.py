"""Copies and leaks that were planted, and the hash and its pairs against slow ones written out (6 s on one thread)."""

import io
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.fft import dctn

from helpers.data import FaceDataset, duplicates, leaks, load_faces
from helpers.data.duplicates import close_pairs, phash
from helpers.data.sources.bfw import SUBGROUPS


@pytest.fixture(scope="module")
def orl():
    return load_faces("orl", split="all")


def dataset(images, **columns):
    table = pd.DataFrame({"x": np.arange(len(images)) % 2, "g": "a", **columns})
    return FaceDataset(images, table, target="x", protected="g")


def changed(image, how):
    picture = Image.fromarray(image)
    side = picture.size[0]
    if how == "compressed":
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=60)
        picture = Image.open(file)
    elif how == "resized":
        picture = picture.resize((side // 2, side // 2), 3).resize((side, side), 3)
    elif how == "lightened":
        picture = picture.point(lambda value: min(255, 1.15 * value + 5))
    return np.asarray(picture.convert("RGB"))


def test_the_hash_is_that_of_the_textbook(orl):
    def textbook(image):
        luma = image.astype(np.float64) @ [0.299, 0.587, 0.114]
        small = np.array([[luma[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(32)] for i in range(32)])
        low = dctn(small, norm="ortho")[:8, :8]
        value, median = 0, sorted(low.ravel())
        median = (median[31] + median[32]) / 2
        for k in range(64):
            value |= int(low[k // 8, k % 8] > median) << k
        return value

    # A coefficient within rounding of the median may fall on either side of it.
    bits = [bin(int(ours) ^ textbook(image)).count("1") for ours, image in zip(phash(orl.images[:60]), orl.images, strict=False)]
    assert max(bits) <= 1 and sum(bits) <= 1


@pytest.mark.parametrize("distance", [0, 1, 3, 7])
def test_bands_find_every_pair_and_no_other(distance):
    rng = np.random.default_rng(distance)
    centres = rng.integers(1 << 63, size=40, dtype=np.uint64)
    hashes = np.repeat(centres, 20)
    for _ in range(4):  # up to four flips of each, so that distances from 0 to 8 occur
        hashes ^= np.where(rng.random(800) < 0.7, np.uint64(1) << rng.integers(64, size=800, dtype=np.uint64), np.uint64(0))
    one, other = close_pairs(hashes, distance)
    all_distances = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = np.argwhere(np.triu(all_distances <= distance, 1))
    np.testing.assert_array_equal(np.stack([one, other], axis=1), expected)
    assert distance == 0 or len(expected) > 20


def test_chunks_change_nothing(monkeypatch):
    hashes = np.random.default_rng(0).integers(8, size=300, dtype=np.uint64)
    whole = close_pairs(hashes, 2)
    monkeypatch.setattr(sys.modules["helpers.data.duplicates"], "CHUNK", 100)
    np.testing.assert_array_equal(close_pairs(hashes, 2), whole)
    assert [len(each) for each in close_pairs(hashes[:0], 2)] == [0, 0]


def test_planted_copies_are_found_and_nobody_else(orl):
    plain = duplicates(orl)
    assert len(plain) == 1  # two moments of one sitting, alike to the eye
    assert (orl.table["identity"].to_numpy()[plain["first"]] == orl.table["identity"].to_numpy()[plain["second"]]).all()
    ways = ("same", "compressed", "resized", "lightened")
    copies = np.stack([changed(orl.images[6 * i], way) for i, way in enumerate(np.repeat(ways, 12))])
    found = duplicates(np.concatenate([orl.images, copies]))
    planted = found[found["second"] >= 400]
    assert set(zip(planted["first"], planted["second"], strict=True)) == {(6 * i, 400 + i) for i in range(48)}
    assert len(found) == len(plain) + 48
    assert (planted.loc[planted["second"] < 412, "correlation"] == 1).all()


def test_a_picture_that_is_there_a_thousand_times_takes_a_row_a_copy(orl):
    images = np.concatenate([np.repeat(orl.images[:1], 1000, axis=0), np.full((500, 64, 64, 3), 90, np.uint8), orl.images[50:60]])
    found = duplicates(images)
    assert len(found) == 999 + 499 and set(found["first"]) == {0, 1000}


def test_a_leak_of_people_and_pictures_is_found_exactly(orl):
    nobody = leaks(orl.subset(slice(0, 200)), orl.subset(slice(200, 400)))
    assert nobody.n_train == nobody.n_test == len(nobody.identities) == 0
    train = orl.subset(np.r_[0:200, 0:3])  # three training pictures twice
    test = orl.subset(np.r_[200:400, 1, 1, 77])
    found = leaks(train, test)
    assert (found.n_train, found.n_test) == (3, 3)
    assert set(found.pictures["train"]) == {1, 201, 77} and set(found.pictures["test"]) == {200, 201, 202}
    assert found.pictures["train_path"].tolist() == found.pictures["test_path"].tolist()
    assert found.identities.to_dict("records") == [
        {"identity": "s1", "train": 13, "test": 2},
        {"identity": "s8", "train": 10, "test": 1},
    ]
    assert "2 people are in both splits; 3 training pictures and 3 test pictures" in str(found)


def test_compressed_copies_between_splits_are_found_with_the_best_of_their_copies(orl):
    test = dataset(np.stack([changed(orl.images[i], "compressed") for i in (5, 105)]))
    found = leaks(orl, test)
    assert found.identities is None and "train_path" not in found.pictures
    assert list(zip(found.pictures["train"], found.pictures["test"], strict=True)) == [(5, 0), (105, 1)]
    assert (found.pictures["correlation"] < 1).all()


def test_the_mistake_of_the_bfw_tutorial_is_found(tmp_path, orl):
    """The indices of one split were saved and those of another trained on: whoever is in both has leaked."""
    rng = np.random.default_rng(0)
    for k, subgroup in enumerate(SUBGROUPS):
        for person in range(5):
            for photo in range(10):
                place = tmp_path / "bfw-cropped-aligned" / subgroup / f"n{k}{person}"
                place.mkdir(parents=True, exist_ok=True)
                image = orl.images[50 * k + 10 * person + photo]
                Image.fromarray(image).save(place / f"{photo:04}_01.jpg", quality=95)
    faces = load_faces("bfw", root=tmp_path, split="all")
    saved, other = rng.permutation(400), rng.permutation(400)
    evaluated, trained_on = np.sort(saved[280:]), np.sort(other[:280])
    common = np.intersect1d(evaluated, trained_on)
    assert len(common) > 50
    train, test = faces.subset(trained_on), faces.subset(evaluated)
    found = leaks(train, test)
    exact = found.pictures[found.pictures["correlation"] == 1]
    assert exact["train_path"].tolist() == exact["test_path"].tolist() == faces.table["path"].to_numpy()[common].tolist()
    assert len(found.pictures) <= len(exact) + 1  # the pair of one sitting
    assert len(found.identities) == 40
    assert leaks(*(load_faces("bfw", root=tmp_path, split=split) for split in ("train", "test"))).n_train == 0


@pytest.mark.parametrize(("options", "message"), [({"distance": 8}, "distance.*0 to 7, got 8"), ({"same": 0}, "same.*got 0")])
def test_settings_out_of_range_are_refused(orl, options, message):
    with pytest.raises(ValueError, match=message):
        duplicates(orl, **options)
    with pytest.raises(ValueError, match=message):
        leaks(orl, orl, **options)
