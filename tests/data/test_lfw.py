"""LFW in its official layout, written file for file."""

import shutil

import numpy as np
import pytest
from PIL import Image

from helpers.data import load_faces
from helpers.data.sources.lfw import read_pairs

PHOTOS = {
    "Aaron_Eckhart": 1,
    "Abdullah_al-Attiyah": 3,
    "AJ_Cook": 1,
    "Jean-François_Pontal": 2,
    "Zoran_Djindjic": 4,
    "Yoko_Ono": 2,
}
NAMES = ["Male", "Smiling", "Eyeglasses", "No Beard", "Goatee", "Mustache", "Wearing Hat", "5 o' Clock Shadow"]
IMAGES = [(person, number + 1) for person, count in PHOTOS.items() for number in range(count)]
SCORES = np.random.default_rng(1).normal(size=(len(IMAGES), len(NAMES)))
PATHS = [f"{person}/{person}_{number:04}.jpg" for person, number in IMAGES]


def sheet(scores=SCORES, comment="# Attribute values of LFW, see the paper\n", mark="#\t"):
    head = comment + mark + "\t".join(["person", "imagenum", *NAMES]) + "\n"
    rows = [
        "\t".join([person.replace("_", " "), str(number), *map(repr, map(float, row))])
        for (person, number), row in zip(IMAGES, scores, strict=True)
    ]
    return head + "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i, path in enumerate(PATHS):
        (folder / "lfw" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 12), 15 * i).save(folder / "lfw" / path)
    (folder / "lfw_attributes.txt").write_text(sheet(), encoding="utf-8")
    return folder


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "lfw home")


def load(root, split="all", **options):
    return load_faces("lfw", root=root, split=split, image_size=8, **options)


def test_the_sign_of_a_score_is_the_label_of_its_image(original):
    faces = load(original)
    assert faces.table["path"].tolist() == PATHS and faces.skipped == []
    assert (faces.table[NAMES].to_numpy(dtype=bool) == (SCORES > 0)).all()
    assert faces.table["identity"].tolist() == [person for person, _ in IMAGES]
    assert np.abs(faces.images[:, 4, 4, 0].astype(int) - 15 * np.arange(len(PATHS))).max() <= 2
    own = dict(zip(NAMES, (SCORES > 0).T, strict=True))
    assert (faces.targets == own["Smiling"]).all() and (faces.group == ~own["Male"]).all()
    hair = faces.relabel(target="facial_hair", protected="head_covering")
    assert (hair.targets == (~own["No Beard"] | own["Goatee"] | own["Mustache"])).all()
    assert (hair.group == own["Wearing Hat"]).all()


@pytest.mark.parametrize(
    "text",
    [
        sheet(mark="# "),
        sheet(mark="#"),
        sheet(comment=""),
        sheet(comment="Attribute values\n"),
        "\ufeff" + sheet().replace("\n", "\r\n"),
        sheet().replace("Yoko Ono", "Yoko_Ono"),
    ],
)
def test_forms_of_the_header_and_of_line_ends_read_the_same(root, original, text):
    (root / "lfw_attributes.txt").write_bytes(text.encode())
    assert load(root).table.equals(load(original).table)


def test_the_splits_share_out_the_people(original):
    people = [set(load(original, split).table["identity"]) for split in ("train", "validation", "test")]
    assert sum(map(len, people)) == len(set.union(*people)) == len(PHOTOS)


def test_images_without_attributes_and_attributes_without_image_are_listed(root):
    lines = (root / "lfw_attributes.txt").read_text(encoding="utf-8").splitlines()
    (root / "lfw_attributes.txt").write_text("\n".join(line for line in lines if "AJ Cook" not in line), encoding="utf-8")
    (root / "lfw" / PATHS[2]).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks 1 of the 12 images of lfw_attributes.txt, such as {PATHS[2]}"):
        load(root)
    faces = load(root, on_error="skip")
    assert len(faces) == 11 and dict(faces.skipped) == {
        PATHS[2]: "listed in lfw_attributes.txt, but the file is not there",
        "AJ_Cook/AJ_Cook_0001.jpg": "no row in lfw_attributes.txt",
    }


def test_a_score_of_nought_is_no_label(root):
    scores = SCORES.copy()
    scores[3, 1] = 0
    (root / "lfw_attributes.txt").write_text(sheet(scores), encoding="utf-8")
    with pytest.raises(ValueError, match="'smiling': 1 of 13 labels are missing .rows 3"):
        load(root)
    assert len(load(root, target="glasses")) == 13


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("imagenum", "image"), "expected a line '#, person, imagenum"),
        (lambda t: "", "expected a line '#, person, imagenum"),
        (lambda t: t[: t.rindex("\t")], "Expected 10 columns"),
        (lambda t: t.replace("Zoran Djindjic\t2", "Zoran Djindjic\t1"), "lists Zoran_Djindjic/Zoran_Djindjic_0001.jpg twice"),
        (lambda t: t.replace("Yoko Ono\t1\t", "../Yoko Ono\t1\t"), "'../Yoko_Ono/../Yoko_Ono_0001.jpg', which leads out"),
        (lambda t: t.replace("Yoko Ono\t1\t", "\t1\t"), "names no image"),
        (lambda t: t.replace("Yoko Ono\t1\t", "Yoko Ono\t1.0\t"), "int64"),
        (lambda t: t.replace("Yoko Ono\t1\t", "Yoko Ono\t1\tx"), "double"),
    ],
)
def test_a_damaged_list_is_named_with_what_is_wrong(root, change, message):
    (root / "lfw_attributes.txt").write_text(change(sheet()), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        load(root)
    assert "lfw_attributes.txt" in str(caught.value)


def test_what_is_missing_is_named_with_where_to_get_it(root):
    (root / "lfw").rename(root / "lfw_funneled")
    assert len(load(root)) == 13
    (root / "lfw_attributes.txt").unlink()
    with pytest.raises(FileNotFoundError, match="no lfw_attributes.txt. .*fetch lfw"):
        load(root)
    shutil.rmtree(root / "lfw_funneled")
    with pytest.raises(FileNotFoundError, match="no lfw nor lfw_funneled nor lfw-deepfunneled. .*fetch lfw"):
        load(root)


FOLD = "Yoko_Ono\t1\t2\nZoran_Djindjic\t4\t1\nYoko_Ono\t2\tAJ_Cook\t1\nAaron_Eckhart\t1\tZoran_Djindjic\t3\n"


@pytest.mark.parametrize("head, folds", [("2\t2\n", 2), ("2\n", 1)])
def test_the_official_pairs_name_images_people_and_folds(original, tmp_path, head, folds):
    (tmp_path / "pairs.txt").write_text(head + FOLD * folds)
    pairs = read_pairs(tmp_path / "pairs.txt")
    assert pairs["label"].tolist() == [1, 1, 0, 0] * folds and pairs["fold"].tolist() == [i // 4 for i in range(4 * folds)]
    assert pairs.iloc[2, 1:5].tolist() == ["Yoko_Ono/Yoko_Ono_0002.jpg", "AJ_Cook/AJ_Cook_0001.jpg", "Yoko_Ono", "AJ_Cook"]
    assert pairs.iloc[1, 1:3].tolist() == ["Zoran_Djindjic/Zoran_Djindjic_0004.jpg", "Zoran_Djindjic/Zoran_Djindjic_0001.jpg"]
    assert all((original / "lfw" / path).is_file() for path in [*pairs["p1"], *pairs["p2"]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\t2\n" + FOLD, "should hold 2 folds of 2 pairs"),
        ("1\t2\n" + FOLD.replace("\t4\t1", "\tfour\t1"), "is no list of pairs"),
        ("", "is no list of pairs"),
        ("1\t2\nYoko_Ono\t1\n", "is no list of pairs"),
    ],
)
def test_a_list_that_holds_no_such_pairs_is_refused(tmp_path, text, message):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / "pairs.txt")
    with pytest.raises(FileNotFoundError, match="there is no"):
        read_pairs(tmp_path / "absent.txt")
