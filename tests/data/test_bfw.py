import shutil

import numpy as np
import pytest

from helpers.data import load_faces
from helpers.data.sources.bfw import SUBGROUPS
from helpers.plots.faces import mean_faces


@pytest.fixture
def root(tmp_path, make_image):
    """The official layout: three people of two photographs a subgroup, and the three known label errors."""
    folder = tmp_path / "BFW-Release" / "bfw-cropped-aligned"
    for g, subgroup in enumerate(SUBGROUPS):
        for person in range(3):
            for photo in range(2):
                make_image(
                    folder / subgroup / f"n{g:03}{person:03}" / f"{photo:04}_01.jpg",
                    10 * g + 5,
                    size=(27, 31),
                )
    for file in (
        "asian_females/n002509/0139_03.jpg",
        "white_females/n003391/0017_02.jpg",
        "asian_males/n006741/0275_02.jpg",
    ):
        make_image(folder / file)
    return tmp_path


def test_the_folders_say_who_is_who(root):
    faces = load_faces("bfw", root=root, split="all", image_size=8)
    assert len(faces) == 48 and faces.table["identity"].nunique() == 24
    assert (faces.target, faces.classes) == ("woman", ("not woman", "woman"))
    assert (faces.protected, faces.groups) == ("ethnicity", ("asian", "black", "indian", "white"))
    assert faces.counts().to_numpy().tolist() == [[6, 6]] * 4
    subgroups = set(
        zip(
            faces.table["subgroup"],
            faces.table["ethnicity"],
            faces.table["gender"],
            faces.table["woman"],
            strict=True,
        )
    )
    assert subgroups == {
        ("AF", "asian", "female", True),
        ("AM", "asian", "male", False),
        ("BF", "black", "female", True),
        ("BM", "black", "male", False),
        ("IF", "indian", "female", True),
        ("IM", "indian", "male", False),
        ("WF", "white", "female", True),
        ("WM", "white", "male", False),
    }
    for path, subgroup, value in zip(
        faces.table["path"], faces.table["subgroup"], faces.images[:, 4, 4, 0], strict=True
    ):
        assert path.split("/")[0] == SUBGROUPS[(int(value)) // 10] and path[0].upper() == subgroup[0]


@pytest.mark.parametrize("inner", ["", "BFW-Release", "BFW-Release/bfw-cropped-aligned"])
def test_the_root_may_be_any_folder_on_the_way(root, inner):
    assert (
        load_faces("bfw", root=root / inner, split="all", image_size=8).table["path"][0]
        == "asian_females/n000000/0000_01.jpg"
    )


def test_known_label_errors_are_left_out_and_listed(root):
    faces = load_faces("bfw", root=root, split="all", image_size=8)
    assert sorted(path for path, _ in faces.skipped) == [
        "asian_females/n002509/0139_03.jpg",
        "asian_males/n006741/0275_02.jpg",
        "white_females/n003391/0017_02.jpg",
    ]
    assert not {path for path, _ in faces.skipped} & set(faces.table["path"])
    kept = load_faces("bfw", root=root, split="all", image_size=8, keep_label_errors=True)
    assert len(kept) == 51 and kept.skipped == []


def test_the_splits_share_out_the_people(root):
    people = [
        set(load_faces("bfw", root=root, split=s, image_size=8).table["identity"])
        for s in ("train", "validation", "test")
    ]
    assert len(set.union(*people)) == sum(map(len, people)) == 24


def test_the_mean_faces_stand_as_in_the_paper(root):
    """Females above males, Asian, Black, Indian and White from left to right, each the mean of its subgroup."""
    faces = load_faces("bfw", root=root, target="ethnicity", protected="gender", split="all", image_size=8)
    axes = np.array(mean_faces(faces).axes).reshape(2, 4)
    assert [axis.get_title() for axis in axes[0]] == ["asian", "black", "indian", "white"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["female", "male"]
    for row, gender in enumerate(("females", "males")):
        for column, ethnicity in enumerate(("asian", "black", "indian", "white")):
            grey = 10 * SUBGROUPS.index(f"{ethnicity}_{gender}") + 5  # what the fixture painted
            shown = axes[row, column].images[0].get_array()
            np.testing.assert_allclose(shown * 255, grey, atol=1)
            assert axes[row, column].get_xlabel() == "n = 6"


def test_what_is_missing_is_named_with_where_to_get_it(root, tmp_path):
    folder = root / "BFW-Release" / "bfw-cropped-aligned"
    shutil.rmtree(folder / "white_males")
    with pytest.raises(FileNotFoundError, match="no folder white_males. Request BFW from its authors"):
        load_faces("bfw", root=root)
    (folder / "white_males").mkdir()
    with pytest.raises(FileNotFoundError, match="white_males has no image"):
        load_faces("bfw", root=root)
    with pytest.raises(FileNotFoundError, match="asian_females, asian_males, black_females"):
        load_faces("bfw", root=tmp_path.parent)
