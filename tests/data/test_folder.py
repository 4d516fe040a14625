import numpy as np
import pandas as pd
import pytest

from helpers.data import load_faces


def grouped(n=4, classes=("sad", "smile"), groups=("bare", "hat")):
    """Files class/group/image."""
    return [f"{c}/{g}/{i}.png" for c in classes for g in groups for i in range(n)]


def load(root, split="all", **options):
    return load_faces("folder", root=root, split=split, image_size=8, **options)


def test_two_levels_are_class_and_group(tree):
    files = grouped()
    faces = load(tree(*files))
    assert (faces.target, faces.classes) == ("class", ("sad", "smile"))
    assert (faces.protected, faces.groups) == ("group", ("bare", "hat"))
    assert faces.table["path"].tolist() == sorted(files) and faces.name == "faces"
    for i, path in enumerate(faces.table["path"]):
        assert path.split("/")[:2] == [faces.classes[faces.targets[i]], faces.groups[faces.group[i]]]
        assert faces.images[i, 0, 0, 0] == files.index(path)
    assert faces.table["identity"].is_unique


def test_three_levels_name_the_person_and_splits_keep_people_apart(tree):
    root = tree(*[f"{c}/{g}/p{p}/{i}.png" for c in "ab" for g in "xy" for p in range(5) for i in range(2)])
    parts = [load(root, split) for split in ("train", "validation", "test")]
    people = [set(part.table["identity"]) for part in parts]
    assert [len(each) for each in people] == [3, 1, 1] and len(set.union(*people)) == 5
    assert sum(map(len, parts)) == 40
    assert {part.classes + part.groups for part in parts} == {("a", "b", "x", "y")}


def test_levels_may_be_named(tree):
    root = tree(*[f"{g}/{s}/{i}.png" for g in ("hat", "bare") for s in ("smile", "sad") for i in range(2)])
    faces = load(root, levels=("cover", "mouth"), target="mouth", protected="cover")
    assert (faces.classes, faces.groups) == (("sad", "smile"), ("bare", "hat"))
    with pytest.raises(ValueError, match="levels: expected 2 different names .* got \\('a',\\)"):
        load(root, levels="a")
    with pytest.raises(ValueError, match="levels"):
        load(root, levels=("a", "path"))
    with pytest.raises(ValueError, match="levels: name the 4 levels"):
        load(tree("a/b/c/d/1.png", root="deep"))


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_a_table_of_attributes_gives_the_groups_and_the_second_level_the_person(tree, slash):
    files = [f"{c}/p{p}/{i}.png" for c in ("no", "yes") for p in range(5) for i in range(2)]
    root = tree(*files)
    sheet = pd.DataFrame(
        {"path": [file.replace("/", slash) for file in files], "age": [i % 3 for i in range(20)]}
    )
    sheet.sample(frac=1, random_state=0).to_csv(root / "ages.csv", index=False)
    faces = load(root, attributes=root / "ages.csv")
    assert faces.protected == "age" and faces.table["identity"].nunique() == 5 and faces.skipped == []
    assert dict(zip(faces.table["path"], faces.group, strict=True)) == {
        file: i % 3 for i, file in enumerate(files)
    }


def test_attributes_that_do_not_fit_the_tree_are_named(tree, tmp_path):
    root, sheet = tree("a/1.png", "b/2.png"), tmp_path / "s.csv"
    cases = {
        "path,hat\na/1.png,1\n": "no row for 1 of 2 images, such as b/2.png",
        "path,hat\na/1.png,1\na/1.png,0\nb/2.png,1\n": "lists a/1.png twice",
        "file,hat\na/1.png,1\n": "no column 'path'. Columns: file, hat",
        "path,class\na/1.png,1\nb/2.png,0\n": "'class', which is a level",
        "path,hat,age\na/1.png,1,1\nb/2.png,0,2\n": "name the column of groups to compare: hat, age",
        "path,hat\na/1.png,1\nb/2.png,\n": "'hat': 1 of 2 labels are missing",
    }
    for text, message in cases.items():
        sheet.write_text(text)
        with pytest.raises(ValueError, match=message):
            load(root, attributes=sheet)
    with pytest.raises(FileNotFoundError, match="absent.csv does not exist"):
        load(root, attributes=tmp_path / "absent.csv")


def test_one_level_alone_says_how_to_give_groups(tree):
    with pytest.raises(ValueError, match="protected: the tree has no level of groups. Give attributes="):
        load(tree("a/1.png", "b/2.png"))


def test_official_splits_are_used(tree):
    files = [f"{s}/{file}" for s in ("train", "val", "test") for file in grouped(2)]
    root = tree(*files)
    for split, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert load(root, split).table["path"].tolist() == sorted(f for f in files if f.startswith(folder))
    assert len(load(root, "all")) == len(files) and "split" not in load(root).table


def test_a_missing_validation_split_is_cut_from_training(tree):
    root = tree(*[f"{s}/{file}" for s in ("train", "test") for file in grouped(5)])
    parts = [load(root, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [16, 4, 20]
    assert all(path.startswith("train") for part in parts[:2] for path in part.table["path"])
    assert not set(parts[0].table["path"]) & set(parts[1].table["path"])


def test_an_absent_official_split_is_named(tree):
    with pytest.raises(ValueError, match="no official split 'test'; it has train, validation"):
        load(tree(*[f"{s}/{file}" for s in ("train", "val") for file in grouped(1)]), "test")


def test_a_person_in_two_official_splits_is_an_error(tree):
    root = tree(
        *[
            f"{s}/{c}/x/{p}/1.png"
            for s, p in (("train", "ann"), ("test", "ann"), ("train", "bo"))
            for c in "ab"
        ]
    )
    with pytest.raises(
        ValueError, match="1 identities are in two splits of 'faces', such as 'ann' in test and train"
    ):
        load(root, "train")
    assert len(load(root, "all")) == 6


def test_a_class_that_training_lacks_is_an_error(tree):
    root = tree(*[f"{s}/{file}" for s in ("train", "test") for file in grouped(1)], "test/smirk/hat/1.png")
    with pytest.raises(
        ValueError,
        match="test/smirk/hat/1.png has the class 'smirk', outside the classes of train: sad, smile",
    ):
        load(root, "train")


def test_an_empty_class_is_named(tree):
    root = tree(*grouped(1))
    (root / "frown" / "hat").mkdir(parents=True)
    with pytest.raises(ValueError, match="class folder .*frown has no images"):
        load(root)
    (root / "frown" / "hat" / "readme.txt").touch()
    with pytest.raises(ValueError, match="class folder .*frown has no images"):
        load(root)


def test_no_images_at_all(tree, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in class folders. Expected folders class"):
        load(tmp_path / "empty")
    with pytest.raises(ValueError, match="2 images lie in it directly"):
        load(tree("1.png", "2.png", root="flat"))


def test_uneven_depth_is_named(tree):
    with pytest.raises(ValueError, match="different depths: a/x/1.png and b/1.png"):
        load(tree("a/x/1.png", "b/1.png"))


def test_hidden_files_are_passed_over_and_others_listed(tree):
    root = tree(
        *grouped(1),
        "sad/hat/notes.txt",
        "README.md",
        "sad/.cache/1.png",
        "sad/hat/._1.png",
        "__MACOSX/a/1.png",
        "loose.png",
    )
    faces = load(root)
    assert len(faces) == 4
    assert sorted(faces.skipped) == [
        ("README.md", "not an image file"),
        ("loose.png", "outside the class folders"),
        ("sad/hat/notes.txt", "not an image file"),
    ]


def test_links_are_followed_but_not_in_circles(tree, tmp_path):
    root = tree(*grouped(2))
    (root / "sad" / "hat" / "loop").symlink_to(root)
    elsewhere = tree(*[f"{g}/{i}.png" for g in ("bare", "hat") for i in range(2)], root="elsewhere")
    (root / "frown").symlink_to(elsewhere)
    faces = load(root)
    assert faces.classes == ("frown", "sad", "smile") and len(faces) == 12


def test_the_order_is_sorted_whatever_the_disk_says(tree, monkeypatch):
    files = grouped(3)
    backwards = load(tree(*reversed(files), root="one"), "train")
    forwards = load(tree(*files, root="two"), "train")
    assert backwards.table["path"].tolist() == forwards.table["path"].tolist()


def test_a_damaged_image_stops_or_is_skipped(tree):
    root = tree(*grouped(3))
    (root / "sad" / "hat" / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match="sad/hat/1.png: the image file is empty"):
        load(root)
    faces = load(root, on_error="skip")
    assert len(faces) == len(faces.images) == len(faces.table) == 11
    assert [path for path, _ in faces.skipped] == ["sad/hat/1.png"]
    assert "sad/hat/1.png" not in set(faces.table["path"])
    assert faces.images[:, 0, 0, 0].tolist() == [i for i in range(12) if i != 4]


def test_wrong_labels_show_before_the_images_are_read(tree, monkeypatch):
    def unexpected(*_, **__):
        raise AssertionError("read images before the labels were checked")

    monkeypatch.setattr("helpers.data.sources.files.decode_all", unexpected)
    with pytest.raises(ValueError, match="target: no column 'clas'"):
        load(tree(*grouped(1)), target="clas")


def test_too_few_people_for_three_splits(tree):
    root = tree("a/x/1.png", "b/y/2.png")
    with pytest.raises(ValueError, match="2 cannot fill 3 splits"):
        load(root, "train")
    assert np.array_equal(load(root).targets, [0, 1])
