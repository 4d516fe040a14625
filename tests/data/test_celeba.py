"""CelebA in its official layout, written file for file."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from helpers.data import load_faces
from helpers.data.sources.celeba import read_attributes

OWN = """5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry
Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open
Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair
Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young""".split()
N = 30
TRUTH = np.random.default_rng(0).random((N, 40)) < 0.5
FILES = [f"{i + 1:06}.jpg" for i in range(N)]
PARTITION = [0] * 16 + [1] * 6 + [2] * 8
IDENTITY = [i // 2 + 7 for i in range(N)]


def attributes(form, values=TRUTH, files=FILES):
    signs = np.where(values, 1, -1)
    if form == "csv":
        rows = [",".join([file, *map(str, row)]) for file, row in zip(files, signs, strict=True)]
        return "\n".join([",".join(["image_id", *OWN]), *rows]) + "\n"
    rows = [f"{file}  " + " ".join(f"{v:2}" for v in row) for file, row in zip(files, signs, strict=True)]
    return "\n".join([str(len(files)), " ".join(OWN) + " ", *rows]) + "\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("CelebA")
    (folder / "img_align_celeba").mkdir()
    for i, file in enumerate(FILES):
        Image.new("L", (44, 54), 8 * i).save(folder / "img_align_celeba" / file)
    (folder / "list_attr_celeba.txt").write_text(attributes("txt"))
    pair = lambda values: "".join(f"{file} {value}\n" for file, value in zip(FILES, values, strict=True))
    (folder / "list_eval_partition.txt").write_text(pair(PARTITION))
    (folder / "identity_CelebA.txt").write_text(pair(IDENTITY))
    return folder


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "CelebA")


def load(root, split="all", **options):
    return load_faces("celeba", root=root, split=split, image_size=8, **options)


def test_every_label_image_and_person_is_where_it_was(original):
    faces = load(original)
    assert faces.table["path"].tolist() == FILES and faces.skipped == []
    assert (faces.table[OWN].to_numpy() == TRUTH).all() and faces.table[OWN].dtypes.eq(bool).all()
    assert faces.table["identity"].tolist() == list(map(str, IDENTITY))
    assert np.abs(faces.images[:, 4, 4, 0].astype(int) - 8 * np.arange(N)).max() <= 2


def test_common_names_mean_what_the_own_columns_say(original):
    faces = load(original)
    own = dict(zip(OWN, TRUTH.T, strict=True))
    assert faces.classes == ("not smiling", "smiling") and (faces.targets == own["Smiling"]).all()
    assert faces.groups == ("not woman", "woman") and (faces.group == ~own["Male"]).all()
    hair = faces.relabel(target="facial_hair", protected=("glasses", "head_covering"))
    assert (hair.targets == (~own["No_Beard"] | own["Goatee"] | own["Mustache"])).all()
    assert (hair.group == 2 * own["Eyeglasses"] + own["Wearing_Hat"]).all()
    assert (faces.relabel(target="Wearing_Lipstick").targets == own["Wearing_Lipstick"]).all()


def test_the_official_splits_are_taken_and_the_others_keep_people_apart(original):
    sizes = {split: load(original, split) for split in ("train", "validation", "test")}
    assert {split: faces.table["path"].tolist() for split, faces in sizes.items()} == {
        "train": FILES[:16],
        "validation": FILES[16:22],
        "test": FILES[22:],
    }
    drawn = [load(original, split, splits="seed", seed=3) for split in sizes]
    people = [set(faces.table["identity"]) for faces in drawn]
    assert list(map(len, people)) == [9, 3, 3] and len(set.union(*people)) == 15


@pytest.mark.parametrize("change", ["csv", "csv, BOM and Windows", "BOM and Windows", "wide", "tabs", "0 and 1"])
def test_copies_of_the_lists_read_the_same(root, change):
    file = root / "list_attr_celeba.txt"
    wanted = read_attributes(file)
    if "csv" in change:
        for name, values in (("list_eval_partition", PARTITION), ("identity_CelebA", IDENTITY)):
            (root / f"{name}.txt").unlink()
            rows = [f"{f},{v}" for f, v in zip(FILES, values, strict=True)]
            (root / f"{name}.csv").write_text("\n".join(["image_id,value", *rows]))
        file.unlink()
        file = file.with_suffix(".csv")
        file.write_text(attributes("csv"))
    text = file.read_text()
    changed = {"wide": (" ", "     "), "tabs": (" ", "\t"), "0 and 1": ("-1", " 0")}
    text = text.replace(*changed.get(change, ("", "")))
    if "Windows" in change:
        text = "\ufeff" + text.replace("\n", "\r\n")
    file.write_bytes(text.encode())
    assert read_attributes(file).equals(wanted)
    faces = load(root, "validation")
    assert faces.table["path"].tolist() == FILES[16:22] and faces.table["identity"].tolist() == [str(i) for i in IDENTITY[16:22]]


@pytest.mark.parametrize("places", [("Img", "Anno", "Eval"), ("img_align_celeba", "", "")])
def test_the_official_subfolders_are_looked_into(root, places):
    (root / "img_align_celeba").rename(root / "images")
    for place in filter(None, places):
        (root / place).mkdir()
    (root / "images").rename(root / places[0] / "img_align_celeba")
    if places[1]:
        for name, place in (("list_attr_celeba", "Anno"), ("identity_CelebA", "Anno"), ("list_eval_partition", "Eval")):
            (root / f"{name}.txt").rename(root / place / f"{name}.txt")
    assert len(load(root, "test")) == 8


def test_missing_images_stop_the_loading_or_are_listed(root):
    (root / "img_align_celeba" / FILES[2]).unlink()
    (root / "img_align_celeba" / FILES[20]).unlink()
    (root / "img_align_celeba" / "000031.jpg").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"lacks 2 of the 30 images of list_attr_celeba.txt, such as 000003.jpg"):
        load(root)
    faces = load(root, "train", on_error="skip")
    assert faces.table["path"].tolist() == [file for file in FILES[:16] if file != FILES[2]]
    assert (faces.table[OWN].to_numpy() == np.delete(TRUTH[:16], 2, 0)).all()
    reasons = dict(faces.skipped)
    assert set(reasons) == {FILES[2], FILES[20], "000031.jpg"}
    assert "not there" in reasons[FILES[2]] and reasons["000031.jpg"] == "no row in list_attr_celeba.txt"


def test_without_the_list_of_people_only_the_official_splits_are_safe(root):
    (root / "identity_CelebA.txt").unlink()
    assert load(root, "test").table["identity"].is_unique
    with pytest.raises(FileNotFoundError, match="no identity_CelebA.txt nor identity_CelebA.csv"):
        load(root, splits="seed")


def test_people_in_two_official_splits_are_refused(root):
    people = [1] * N
    (root / "identity_CelebA.txt").write_text("".join(f"{f} {p}\n" for f, p in zip(FILES, people, strict=True)))
    with pytest.raises(ValueError, match="1 identities are in two splits of 'celeba', such as '1' in test and train and"):
        load(root, "train")
    assert len(load(root)) == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[: t.rindex("000029")], "announces 30 images, but it lists 28"),
        (lambda t: t[: t.rindex(" ") - 10], "not 41 cells a line"),
        (lambda t: t.replace(FILES[4], FILES[3]), "lists 000004.jpg twice"),
        (lambda t: t.replace("-1", "2", 1), "column '.*' holds 2 .*accepted: -1 and 1, or 0 and 1"),
        (lambda t: t.replace("-1", "yes", 1), "yes"),
        (lambda t: t.replace(FILES[6], f"{FILES[6]} 1"), "more than 41 cells|not 41 cells a line"),
        (lambda t: t.replace(FILES[0], f"{FILES[0]} 1 1"), "more than 41 cells|not 41 cells a line"),
        (lambda t: t.replace(FILES[4], "/etc/hostname"), "'/etc/hostname', which leads out of the folder of its images"),
        (lambda t: t.replace(FILES[4], "../../000004.jpg"), "'../../000004.jpg', which leads out"),
        (lambda t: t.replace(FILES[4], "C:\\000004.jpg"), "which leads out"),
        (lambda t: t.replace(FILES[4], "0000\0004.jpg"), "which leads out"),
        (lambda t: t.replace("Bangs", "identity"), "an attribute is called 'identity', which means something else here"),
        (lambda t: "0" + t[t.index("\n") : t.index(FILES[0])], "the file has no rows"),
        (lambda t: "9" * 30 + t[t.index("\n") :], "announces 9+ images, but it lists 30"),
        (lambda t: t.split("\n", 1)[1], "its first line is '5_o_Clock_Shadow"),
        (lambda t: "", "its first line is ''"),
    ],
)
def test_a_damaged_list_is_named_with_what_is_wrong(root, change, message):
    file = root / "list_attr_celeba.txt"
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        load(root)
    assert "list_attr_celeba.txt" in str(caught.value)


def test_a_blank_label_stays_missing_and_is_counted_only_where_it_matters(root):
    (root / "list_attr_celeba.txt").unlink()
    lines = attributes("csv").splitlines()
    cells = lines[5].split(",")
    cells[1 + OWN.index("Smiling")] = ""
    for name, sign in (("No_Beard", ""), ("Goatee", "-1"), ("Mustache", "-1")):
        cells[1 + OWN.index(name)] = sign
    lines[5] = ",".join(cells)
    (root / "list_attr_celeba.csv").write_text("\n".join(lines))
    for target in ("smiling", "Smiling", "facial_hair"):
        with pytest.raises(ValueError, match="1 of 30 labels are missing .rows 4"):
            load(root, target=target)
    assert len(load(root, target="glasses")) == N


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("img_align_celeba", "no img_align_celeba/img_align_celeba nor img_align_celeba nor Img/img_align_celeba"),
        ("list_attr_celeba.txt", "no list_attr_celeba.txt nor list_attr_celeba.csv"),
        ("list_eval_partition.txt", "no list_eval_partition.txt"),
    ],
)
def test_what_is_missing_is_named_with_where_to_get_it(root, gone, message):
    place = root / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(FileNotFoundError, match=message + ".*mmlab"):
        load(root, "train")


@pytest.mark.parametrize("name", ["img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"])
def test_a_folder_where_a_file_should_be_or_the_other_way_round_is_not_there(root, name):
    place = root / name
    (shutil.rmtree if place.is_dir() else os.remove)(place)
    place.mkdir() if place.suffix else place.touch()
    with pytest.raises(FileNotFoundError, match=f"has no .*{name}.*mmlab"):
        load(root, "train")


def test_a_partition_that_does_not_cover_all_images_is_named(root):
    file = root / "list_eval_partition.txt"
    text = file.read_text()
    file.write_text(text.replace(f"{FILES[9]} 0\n", ""))
    with pytest.raises(ValueError, match=f"no partition for 1 of 30 images, such as {FILES[9]}"):
        load(root, "train")
    file.write_text(text.replace(f"{FILES[9]} 0\n", f"{FILES[9]} 3\n"))
    with pytest.raises(ValueError, match=f"{FILES[9]} is in no partition"):
        load(root, "train")
