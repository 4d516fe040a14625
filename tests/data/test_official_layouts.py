"""Each data set written file for file as its authors publish it, with what lies around in a real download, and read twice.

The second reading is a plain loop over lines or names, or another library's reader: torchvision's CelebA and LFW, scikit-learn's
LFW. Numbers of people and images are small, names and forms are the official ones. About 9 s on one thread.
"""

import csv
import os
import re

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from sklearn.datasets import _lfw

from helpers.data import load_faces
from helpers.data.sources.lfw import read_pairs
from helpers.data.sources.orl import _packaged_photographs

CELEBA = """5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry
Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open
Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair
Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young""".split()
LITTER = (".DS_Store", "Thumbs.db", "._1.jpg", "README.txt")


def photograph(path, seed, size):
    """A picture that only this seed gives, as a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize(size).save(path, quality=90)


def litter(*folders):
    for folder in folders:
        for name in LITTER:
            (folder / name).write_bytes(b"\0\1")
    (folders[0] / "__MACOSX").mkdir()
    (folders[0] / "__MACOSX" / "._1.jpg").write_bytes(b"\0\1")


def centre(path, size):
    """The central square by slices, of a picture at its own size or larger than `size` not at all."""
    array = np.asarray(Image.open(path).convert("RGB"))
    height, width = array.shape[:2]
    top, left = (height - size) // 2, (width - size) // 2
    return array[top : top + size, left : left + size]


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    root = tmp_path_factory.mktemp("celeba download")
    folder, n, rng = root / "celeba", 24, np.random.default_rng(0)
    for i in range(1, n + 1):
        photograph(folder / "img_align_celeba" / f"{i:06}.jpg", i, (178, 218))
    files = [f"{i:06}.jpg" for i in range(1, n + 1)]
    signs = rng.choice([-1, 1], (n, 40))
    rows = "".join(f"{file} {' '.join(f'{sign:2}' for sign in row)}\n" for file, row in zip(files, signs, strict=True))
    (folder / "list_attr_celeba.txt").write_text(f"{n}\n{' '.join(CELEBA)} \n{rows}")
    (folder / "list_eval_partition.txt").write_text("".join(f"{file} {i // 8}\n" for i, file in enumerate(files)))
    (folder / "identity_CelebA.txt").write_text("".join(f"{file} {2880 + i // 4 * 7}\n" for i, file in enumerate(files)))
    boxes = "".join(f"{file}    95  71 226 313\n" for file in files)
    (folder / "list_bbox_celeba.txt").write_text(f"{n}\nimage_id x_1 y_1 width height\n{boxes}")
    points = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    rows = "".join(f"{file} 69  109  106  113   77  142   73  152  108  154\n" for file in files)
    for name in ("list_landmarks_align_celeba", "list_landmarks_celeba"):
        (folder / f"{name}.txt").write_text(f"{n}\n{points} \n{rows}")
    (folder / "img_align_celeba.zip").write_bytes(b"PK\5\6" + bytes(18))
    litter(folder, folder / "img_align_celeba")
    return root


@pytest.mark.parametrize("split, name", [("all", "all"), ("train", "train"), ("validation", "valid"), ("test", "test")])
def test_celeba_is_what_torchvision_reads(celeba, split, name):
    class Unchecked(torchvision.datasets.CelebA):
        def _check_integrity(self):  # the checksums are those of the real files
            return True

    theirs = Unchecked(celeba, split=name, target_type=["attr", "identity"])
    ours = load_faces("celeba", root=celeba / "celeba", split=split, image_size=178)
    assert len(ours) == len(theirs) and ours.skipped == []
    assert ours.table["path"].tolist() == list(theirs.filename)
    assert (ours.table[CELEBA].to_numpy() == theirs.attr.numpy().astype(bool)).all()
    assert ours.table["identity"].astype(int).tolist() == theirs.identity[:, 0].tolist()
    assert [each for each in theirs.attr_names if each] == CELEBA
    for i in range(len(ours)):
        picture, (labels, _) = theirs[i]
        assert (ours.images[i] == np.asarray(picture)[20:198]).all() and ours.targets[i] == labels[CELEBA.index("Smiling")]


def test_celebas_copies_as_csv_are_what_a_plain_loop_reads(celeba, tmp_path):
    lists, folder = celeba / "celeba", tmp_path / "archive"
    (folder / "img_align_celeba").mkdir(parents=True)
    os.symlink(lists / "img_align_celeba", folder / "img_align_celeba" / "img_align_celeba")  # a folder within its namesake
    for stem, header in (("list_attr_celeba", CELEBA), ("list_eval_partition", ["partition"])):
        lines = (lists / f"{stem}.txt").read_text().splitlines()[2 * (stem == "list_attr_celeba") :]
        with (folder / f"{stem}.csv").open("w", newline="") as out:
            csv.writer(out).writerows([["image_id", *header], *(line.split() for line in lines)])
    (folder / "list_bbox_celeba.csv").write_text("image_id,x_1,y_1,width,height\n")
    (folder / "list_landmarks_align_celeba.csv").write_text("image_id,lefteye_x\n")
    with (folder / "list_attr_celeba.csv").open(newline="") as lines:
        wanted = {row.pop("image_id"): {name: value == "1" for name, value in row.items()} for row in csv.DictReader(lines)}
    ours = load_faces("celeba", root=folder, split="all", image_size=8).table
    assert {row["path"]: {name: row[name] for name in CELEBA} for row in ours.to_dict("records")} == wanted
    assert load_faces("celeba", root=folder, split="test", image_size=8).table["path"].tolist() == list(wanted)[16:]


LFW = {"Aaron_Eckhart": 1, "Aaron_Guiel": 1, "AJ_Cook": 1, "Abdullah_al-Attiyah": 3, "George_W_Bush": 4, "Zico": 2}
SCORED = ["Male", "Asian", "Eyeglasses", "Sunglasses", "Mustache", "Smiling", "No Beard", "Goatee", "Wearing Hat"]


@pytest.fixture(scope="module", params=["lfw", "lfw_funneled", "lfw-deepfunneled"])
def lfw(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lfw download") / "lfw-py"
    photos = [(person, number + 1) for person, count in LFW.items() for number in range(count)]
    for i, (person, number) in enumerate(photos):
        photograph(folder / request.param / person / f"{person}_{number:04}.jpg", i, (250, 250))
    scores = np.random.default_rng(3).normal(size=(len(photos), len(SCORED)))
    who = [f"{person.replace('_', ' ')}\t{number}\t" for person, number in photos]
    rows = [name + "\t".join(map(str, row)) for name, row in zip(who, scores, strict=True)]
    head = "# LFW Attributes version 1.0.2. Last updated 2010-11-23\n" + "\t".join(["#", "person", "imagenum", *SCORED])
    (folder / "lfw_attributes.txt").write_text("\n".join([head, *rows]) + "\n")
    (folder / "lfw-names.txt").write_text("".join(f"{person}\t{count}\n" for person, count in LFW.items()))
    people = [f"{person}\t{count}\n" for person, count in LFW.items()]
    (folder / "people.txt").write_text("2\n3\n" + "".join(people[:3]) + "3\n" + "".join(people[3:]))
    fold = "George_W_Bush\t1\t3\nZico\t1\t2\nAJ_Cook\t1\tZico\t2\nAaron_Guiel\t1\tGeorge_W_Bush\t4\n"
    (folder / "pairs.txt").write_text("2\t2\n" + fold * 2)
    (folder / "pairsDevTest.txt").write_text("2\n" + fold)
    for name in ("lfw.tgz", "lfw-funneled.tgz"):
        (folder / name).write_bytes(b"\x1f\x8b")
    if request.param == "lfw_funneled":  # its archive holds the lists of pairs as well
        (folder / request.param / "pairs_01.txt").write_text(fold)
    litter(folder)
    return folder, request.param, photos, scores


def unchecked(base):
    return type(base.__name__, (base,), {"_check_integrity": lambda self: True})


def test_lfw_is_what_torchvision_and_scikit_learn_read(lfw):
    folder, form, photos, scores = lfw
    ours = load_faces("lfw", root=folder, split="all", image_size=250)
    assert ours.skipped == [] and (ours.table[SCORED].to_numpy(dtype=bool) == (scores > 0)).all()
    kind = {"lfw": "original", "lfw_funneled": "funneled", "lfw-deepfunneled": "deepfunneled"}[form]
    theirs = unchecked(torchvision.datasets.LFWPeople)(folder.parent, image_set=kind)
    assert [os.path.relpath(path, theirs.images_dir) for path in theirs.data] == ours.table["path"].tolist()
    names = {code: name for name, code in theirs.class_to_idx.items()}
    assert [names[code] for code in theirs.targets] == ours.table["identity"].tolist()
    assert all((np.asarray(theirs[i][0]) == ours.images[i]).all() for i in range(len(ours)))
    if form != "lfw_funneled":
        return  # scikit-learn reads the funnelled photographs
    faces, target, people = _lfw._fetch_lfw_people(str(folder / form), color=True)
    told = {(people[code], np.rint(255 * face).astype(np.uint8).tobytes()) for code, face in zip(target, faces, strict=True)}
    same = {(who.replace("_", " "), face.tobytes()) for who, face in zip(ours.table["identity"], ours.images, strict=True)}
    assert told == same and len(told) == len(photos)


@pytest.mark.parametrize("name, split", [("pairs.txt", "10fold"), ("pairsDevTest.txt", "test")])
def test_lfws_pairs_are_what_torchvision_reads(lfw, name, split):
    folder, form, _, _ = lfw
    kind = {"lfw": "original", "lfw_funneled": "funneled", "lfw-deepfunneled": "deepfunneled"}[form]
    theirs = unchecked(torchvision.datasets.LFWPairs)(folder.parent, split=split, image_set=kind)
    ours = read_pairs(folder / name)
    first, second, same = zip(*((os.path.relpath(a, theirs.images_dir), os.path.relpath(b, theirs.images_dir), label)
                                for (a, b), label in zip(theirs.data, theirs.targets, strict=True)), strict=True)  # fmt: skip
    assert (list(first), list(second), list(same)) == (ours["p1"].tolist(), ours["p2"].tolist(), ours["label"].tolist())


def test_lfw_in_a_folder_of_its_own_name(lfw, tmp_path):
    folder, form, photos, _ = lfw
    (tmp_path / form).mkdir()
    os.symlink(folder / form, tmp_path / form / form)
    os.symlink(folder / "lfw_attributes.txt", tmp_path / "lfw_attributes.txt")
    assert len(load_faces("lfw", root=tmp_path, split="all", image_size=8)) == len(photos)


def test_fairface_is_what_a_plain_loop_reads(tmp_path):
    ages = ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"]
    races = ["White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern"]
    folder, rng, seed = tmp_path / "FairFace", np.random.default_rng(0), 0
    archive = folder / "fairface-img-margin025-trainval"
    for part, n in (("train", 30), ("val", 14)):
        lines = ["file,age,gender,race,service_test"]
        for i in range(1, n + 1):
            photograph(archive / part / f"{i}.jpg", seed := seed + 1, (224, 224))
            who = f"{rng.choice(ages)},{rng.choice(['Male', 'Female'])},{races[i % 7]},{rng.choice(['True', 'False'])}"
            lines.append(f"{part}/{i}.jpg,{who}")
        (folder / f"fairface_label_{part}.csv").write_text("\n".join(lines) + "\n")
    (folder / "fairface-img-margin025-trainval.zip").write_bytes(b"PK")
    litter(folder, archive, archive / "train")
    for split, parts in (("all", ("train", "val")), ("test", ("val",))):
        wanted = []
        for part in parts:
            with (folder / f"fairface_label_{part}.csv").open(newline="") as lines:
                wanted += list(csv.DictReader(lines))
        ours = load_faces("fairface", root=folder, split=split, image_size=224)
        assert ours.skipped == [] and len(ours) == len(wanted)
        for i, (row, line) in enumerate(zip(ours.table.to_dict("records"), wanted, strict=True)):
            assert row["path"] == line["file"] and all(row[name] == line[name] for name in ("age", "gender", "race"))
            assert row["service_test"] == (line["service_test"] == "True") and ours.targets[i] == (line["gender"] == "Female")
            assert (ours.images[i] == centre(archive / line["file"], 224)).all()


@pytest.mark.parametrize("above", ["UTKFace", "UTKFace/UTKFace", "utkface_aligned_cropped/UTKFace"])
def test_utkface_is_what_a_pattern_reads(tmp_path, above):
    folder, rng = tmp_path / above, np.random.default_rng(1)
    for i in range(25):
        name = f"{rng.integers(1, 117)}_{rng.integers(2)}_{rng.integers(5)}_2016121914{i:07}.jpg.chip.jpg"
        photograph(folder / name, i, (200, 200))
    odd = ["39_1_20170116174525125.jpg.chip.jpg", "61_1_20170109142408075.jpg.chip.jpg", "61_1_20170109150557335.jpg.chip.jpg"]
    twisted = ["55_0_0_20170116232725357jpg.chip.jpg", "24_0_1_20170116220224657 .jpg.chip.jpg"]
    for i, name in enumerate(odd + twisted):
        photograph(folder / name, 100 + i, (200, 200))
    litter(folder)
    (tmp_path / "UTKFace.tar.gz").write_bytes(b"\x1f\x8b")
    pattern = re.compile(r"(\d+)_([01])_([0-4])_(\d+)")
    wanted = {}
    for name in os.listdir(folder):
        if name.endswith(".chip.jpg") and (found := pattern.match(name)):
            age, gender, race, _ = found.groups()
            wanted[name] = (int(age), ["male", "female"][int(gender)], ["White", "Black", "Asian", "Indian", "Other"][int(race)])
    ours = load_faces("utkface", root=tmp_path, split="all", image_size=200)
    told = {row.path: (row.age, row.gender, row.race) for row in ours.table.itertuples()}
    assert told == wanted and len(wanted) == 27 and sorted(path for path, _ in ours.skipped) == odd
    assert all((image == centre(folder / path, 200)).all() for path, image in zip(ours.table["path"], ours.images, strict=True))


PLACES = ["", "BFW-Release", "Users/somebody/bfw", "BFW-Release/Users/somebody/bfw", "BFW-Release/bfw-faces-cropped/somebody/bfw"]


@pytest.mark.parametrize("above", PLACES)
def test_bfw_is_what_a_walk_reads(tmp_path, above):
    folder = tmp_path / above / "bfw-cropped-aligned"
    for g, subgroup in enumerate(f"{e}_{s}" for e in ("asian", "black", "indian", "white") for s in ("females", "males")):
        for person in range(2):
            for photo in range(2):
                name = f"{subgroup}/n{g:02}{person:04}/{photo + 10:04}_0{photo + 1}.jpg"
                photograph(folder / name, 100 * g + 10 * person + photo, (108, 124))
    (tmp_path / "bfw-v0.1.5-datatable.csv").write_text("fold,p1,p2,label\n")
    litter(tmp_path, folder, folder / "asian_females", folder / "asian_females" / "n000000")
    wanted = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.relpath(os.path.join(place, name), folder)
            if path.count(os.sep) == 2 and re.fullmatch(r"\d+_\d+\.jpg", name):
                subgroup, person, _ = path.split(os.sep)
                wanted[path] = (person, subgroup.split("_")[0], subgroup.endswith("females"))
    ours = load_faces("bfw", root=tmp_path, split="all", image_size=108)
    told = {row.path: (row.identity, row.ethnicity, row.woman) for row in ours.table.itertuples()}
    assert told == wanted and len(wanted) == 32 and ours.skipped == []
    assert all((image == centre(folder / path, 108)).all() for path, image in zip(ours.table["path"], ours.images, strict=True))


def test_orl_is_what_a_plain_loop_reads(tmp_path):
    root = tmp_path / "att_faces"
    packaged = _packaged_photographs()
    for person in range(1, 41):
        (root / f"s{person}").mkdir(parents=True)
        for photo in range(1, 11):
            os.symlink(packaged / f"s{person}" / f"{photo}.pgm", root / f"s{person}" / f"{photo}.pgm")
    litter(root, root / "s1")
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "data", "orl_attributes.csv"), newline="") as lines:
        wanted = {row["file"]: row for row in csv.DictReader(lines)}
    ours = load_faces("orl", root=root, split="all", image_size=92)
    assert len(ours) == len(wanted) == 400 and ours.skipped == []
    sent = 0
    for row, image in zip(ours.table.to_dict("records"), ours.images, strict=True):
        line = wanted[row["path"]]
        assert row["identity"] == "s" + line["subject"] and row["photo"] == int(line["photo"])
        assert all(row[name] == (line[name] == "1") for name in ("glasses", "woman", "facial_hair"))
        content = (root / row["path"]).read_bytes()
        pixels, sent = sent_as_text_and_back(content), sent + content.startswith(b"P5\r\n")
        assert (image == np.array(pixels, np.uint8).reshape(112, 92)[10:102, :, None]).all()
    assert sent == 152


def sent_as_text_and_back(content):
    """The 92×112 pixels of a PGM, whether or not a \\r was put before each \\n on its way, as in 152 of the packaged files."""
    text = content.startswith(b"P5\r\n")
    head = b"P5\r\n92 112\r\n255\r\n" if text else b"P5\n92 112\n255\n"
    assert content.startswith(head)
    pixels, rest = [], list(content[len(head) :])
    surplus = len(rest) - 92 * 112
    assert surplus == 0 or text
    for here, following in zip(rest, [*rest[1:], None], strict=True):
        if surplus and (here, following) == (13, 10):
            surplus -= 1
        else:
            pixels.append(here)
    return pixels
