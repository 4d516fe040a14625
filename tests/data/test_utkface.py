"""UTKFace in its official layout: everything is in the names."""

import pandas as pd
import pytest
from PIL import Image

from helpers.data import load_faces
from helpers.data.sources.utkface import read_names
from helpers.data.vocabulary import AGE_GROUPS

RACES = ["White", "Black", "Asian", "Indian", "Other"]
AGES = [0, 2, 3, 9, 10, 19, 20, 69, 70, 116]
GROUPS = ["0-2", "0-2", "3-9", "3-9", "10-19", "10-19", "20-29", "60-69", "more than 70", "more than 70"]
PEOPLE = [(age, gender, race) for age in AGES for gender in (0, 1) for race in range(5)]
BAD = {  # official names that lack a field, and others that nobody can read
    "39_1_20170116174525125.jpg.chip.jpg": "four fields",
    "61_1_20170109142408075.jpg.chip.jpg": "four fields",
    "61_1_20170109150557335.jpg.chip.jpg": "four fields",
    "53__0_20170116184028385.jpg": "gender",
    "26_2_0_20170116184028385.jpg": "gender",
    "26_1_5_20170116184028385.jpg": "race",
    "x_1_1_20170116184028385.jpg": "age",
    "260_1_1_20170116184028385.jpg": "age",
    "photo.jpg": "four fields",
}


def name(i, age, gender, race):
    return f"{age}_{gender}_{race}_201701161725{i:05}.jpg" + ".chip.jpg" * (i % 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "UTKFace"
    folder.mkdir()
    for i, person in enumerate(PEOPLE):
        Image.new("L", (10, 10), 2 * i).save(folder / name(i, *person))
    for file in (*BAD, "._1_0_0_20170116172500000.jpg"):
        (folder / file).write_bytes(b"not read")
    (folder / "notes.txt").write_text("")
    return folder


def load(root, split="all", **options):
    return load_faces("utkface", root=root, split=split, image_size=8, **options)


@pytest.mark.parametrize("above", [False, True])
def test_every_name_is_read_and_goes_with_its_image(root, above):
    faces = load(root.parent if above else root)
    assert len(faces) == len(PEOPLE)
    told = {path: tuple(row) for path, *row in faces.table[["path", "age", "gender", "race"]].itertuples(index=False)}
    assert told == {name(i, a, g, r): (a, ("male", "female")[g], RACES[r]) for i, (a, g, r) in enumerate(PEOPLE)}
    number = {name(i, *person): i for i, person in enumerate(PEOPLE)}
    for path, grey, woman in zip(faces.table["path"], faces.images[:, 4, 4, 0], faces.targets, strict=True):
        assert abs(int(grey) - 2 * number[path]) <= 2 and woman == PEOPLE[number[path]][1]
    assert faces.table["datetime"].str.fullmatch(r"201701161725\d{5}").all()
    assert faces.groups == tuple(sorted(RACES))


def test_ages_fall_into_fairfaces_groups(root):
    faces = load(root, target="age_group", protected="race_annotation")
    assert faces.classes == AGE_GROUPS
    wanted = dict(zip(AGES, GROUPS, strict=True))
    assert [faces.classes[code] for code in faces.targets] == [wanted[age] for age in faces.table["age"]]


def test_names_that_lack_a_field_are_listed_with_the_reason(root):
    listed = dict(load(root, "train").skipped)
    assert set(listed) == set(BAD)
    for file, word in BAD.items():
        assert word in listed[file]


def test_a_space_or_a_doubled_ending_in_a_name_does_no_harm():
    names = ["24_0_1_20170116220224657 .jpg.chip.jpg", "55_0_0_20170116232725357jpg.chip.jpg", "1_0_0_1.png"]
    table, bad = read_names(pd.Series(names))
    assert table["datetime"].tolist() == ["20170116220224657", "20170116232725357", "1"]
    assert table["age"].tolist() == [24, 55, 1] and table["race"].tolist() == ["Black", "White", "White"] and bad == []


def test_splits_share_out_the_images_by_seed(root):
    parts = [set(load(root, split, seed=1).table["path"]) for split in ("train", "validation", "test")]
    assert list(map(len, parts)) == [60, 20, 20] and len(set.union(*parts)) == 100
    assert parts[0] != set(load(root, "train", seed=2).table["path"])


def test_a_folder_without_such_names_is_refused_with_where_to_get_them(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match="no image with such a name .1 others, such as photo.jpg.*susanqq"):
        load(tmp_path)
    (tmp_path / "photo.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="no image with such a name .0 others"):
        load(tmp_path)
