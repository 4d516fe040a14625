"""FairFace in its official layout, written file for file."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data import load_faces
from helpers.data.vocabulary import AGE_GROUPS

RACES = ["White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern"]
SIZES = {"train": 63, "val": 21}


def labels(part):
    rng = np.random.default_rng(len(part))
    n = SIZES[part]
    return pd.DataFrame(
        {
            "file": [f"{part}/{i + 1}.jpg" for i in range(n)],
            "age": [AGE_GROUPS[i % 9] for i in range(n)],
            "gender": np.where(rng.random(n) < 0.5, "Female", "Male"),
            "race": [RACES[i % 7] for i in range(n)],
            "service_test": rng.random(n) < 0.5,
        }
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("FairFace")
    for part, n in SIZES.items():
        (folder / part).mkdir()
        for i in range(n):
            Image.new("L", (12, 12), 3 * i).save(folder / part / f"{i + 1}.jpg")
        labels(part).to_csv(folder / f"fairface_label_{part}.csv", index=False)
    return folder


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "FairFace")


def load(root, split="all", **options):
    return load_faces("fairface", root=root, split=split, image_size=8, **options)


def test_every_label_and_image_is_where_it_was(original):
    faces = load(original)
    wanted = pd.concat([labels("train"), labels("val")], ignore_index=True)
    assert faces.table["path"].tolist() == wanted["file"].tolist() and faces.skipped == []
    for column in ("age", "gender", "race", "service_test"):
        assert faces.table[column].tolist() == wanted[column].tolist()
    grey = [3 * (int(path.split("/")[1][:-4]) - 1) for path in wanted["file"]]
    assert np.abs(faces.images[:, 4, 4, 0].astype(int) - grey).max() <= 2
    assert faces.classes == ("not woman", "woman") and (faces.targets == (wanted["gender"] == "Female")).all()
    assert faces.groups == tuple(sorted(RACES))


def test_ages_keep_the_order_of_years_not_of_letters(original):
    faces = load(original, target="age_group", protected="race_annotation")
    assert faces.classes == AGE_GROUPS and faces.targets.tolist() == [i % 9 for i in range(63)] + [i % 9 for i in range(21)]
    assert load(original, "test", target="age").classes == AGE_GROUPS


def test_val_is_the_test_and_a_fifth_of_train_the_validation(original):
    parts = {split: load(original, split).table["path"] for split in ("train", "validation", "test")}
    assert parts["test"].tolist() == labels("val")["file"].tolist()
    assert sorted([*parts["train"], *parts["validation"]]) == sorted(labels("train")["file"])
    assert len(parts["validation"]) == 13  # of 63


@pytest.mark.parametrize("archive", ["fairface-img-margin025-trainval", "fairface-img-margin125-trainval"])
def test_the_archives_may_stay_in_their_folders(root, archive):
    for part in SIZES:
        (root / archive).mkdir(exist_ok=True)
        (root / part).rename(root / archive / part)
    assert len(load(root, "test")) == 21


def test_what_lies_where_fetch_puts_it_needs_no_root(root, monkeypatch):
    monkeypatch.setenv("CANDOR_CACHE", str(root.parent))
    root.rename(root.parent / "fairface")
    assert len(load(None, "test")) == 21


def test_bom_windows_ends_and_backslashes_are_read(root):
    for part in SIZES:
        file = root / f"fairface_label_{part}.csv"
        text = file.read_text().replace("/", "\\").replace("\n", "\r\n")
        file.write_bytes(("\ufeff" + text).encode())
    assert load(root).table["path"].tolist() == [*labels("train")["file"], *labels("val")["file"]]


def test_blanks_after_the_commas_and_spreadsheets_unicode_text_are_read(root, original):
    for part, change in (("train", (",", ", ")), ("val", (",", "\t"))):
        file = root / f"fairface_label_{part}.csv"
        file.write_bytes(file.read_text().replace(*change).encode("utf-16" if part == "val" else "utf-8"))
    assert load(root).table.equals(load(original).table)


def test_missing_images_stop_the_loading_or_are_listed(root):
    (root / "val" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of the 84 images .* such as val/2.jpg"):
        load(root)
    faces = load(root, "test", on_error="skip")
    assert len(faces) == 20 and [path for path, _ in faces.skipped] == ["val/2.jpg"]
    assert faces.table["race"].tolist() == labels("val")["race"].drop(1).tolist()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("age", "9-Mar", "column 'age' holds '9-Mar' .1 rows. .a spreadsheet program reads 3-9 and 10-19 as dates"),
        ("race", "Latino", "column 'race' holds 'Latino' .* accepted: Black, East Asian"),
        ("gender", "f", "column 'gender' holds 'f'"),
        ("file", "train/1.jpg", "lists train/1.jpg; expected val/<image>.jpg"),
        ("file", "val/2.jpg", "lists val/2.jpg twice"),
        ("race", "", "'race': 1 of 84 labels are missing"),
        ("gender", "", "'woman': 1 of 84 labels are missing"),
    ],
)
def test_values_that_fairface_does_not_have_are_named(root, column, value, message):
    table = labels("val")
    table.loc[0, column] = value
    table.to_csv(root / "fairface_label_val.csv", index=False)
    with pytest.raises(ValueError, match=message):
        load(root)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("fairface_label_val.csv", "no fairface_label_val.csv"),
        ("train", "no train nor fairface-img-margin025-trainval/train"),
        ("val", "lacks 21 of the 84 images"),
    ],
)
def test_what_is_missing_is_named_with_where_to_get_it(root, gone, message):
    place = root / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(FileNotFoundError, match=message + ".*joojs/fairface"):
        load(root)


def test_a_label_file_without_a_column_is_named(root):
    labels("train").drop(columns="race").to_csv(root / "fairface_label_train.csv", index=False)
    with pytest.raises(ValueError, match="fairface_label_train.csv: lacks the column race; it has file, age, gender"):
        load(root)
