import numpy as np
import pandas as pd
import pytest

from helpers.data import load_faces


@pytest.fixture
def photos(tree):
    """A folder with pictures 0.png … 9.png, and where a table of them goes."""
    return tree(*[f"pictures/{i}.png" for i in range(10)])


def frame(**columns):
    paths = [f"pictures/{i}.png" for i in range(10)]
    return pd.DataFrame(
        {"path": paths, "smile": [0, 1] * 5, "age": ["old", "young", "old", "old", "young"] * 2, **columns}
    )


def load(root, split="all", target="smile", protected="age", **options):
    return load_faces(
        "table", root=root, split=split, target=target, protected=protected, image_size=8, **options
    )


def check(faces):
    assert (faces.classes, faces.groups) == (("not smile", "smile"), ("old", "young"))
    assert faces.images[:, 0, 0, 0].tolist() == list(range(10))
    assert faces.targets.tolist() == [0, 1] * 5 and faces.group.tolist() == [0, 1, 0, 0, 1] * 2


@pytest.mark.parametrize(
    "write",
    [
        lambda data, file: data.to_csv(file, index=False),
        lambda data, file: data.to_csv(file, index=False, encoding="utf-8-sig"),
        lambda data, file: data.to_csv(file, index=False, lineterminator="\r\n"),
        lambda data, file: data.to_csv(file, index=False, sep=";"),
        lambda data, file: data.to_csv(file, index=False, sep="\t"),
        lambda data, file: data.rename(columns=" {} ".format).to_csv(file, index=False),
        lambda data, file: data.assign(path=data["path"].str.replace("/", "\\")).to_csv(file, index=False),
        lambda data, file: data.assign(age=data["age"] + " ").to_csv(file, index=False),
    ],
    ids=["plain", "bom", "windows", "semicolon", "tab", "blanks", "backslash", "trailing"],
)
def test_tables_from_any_spreadsheet_read_alike(photos, write):
    write(frame(), photos / "faces.csv")
    check(load(photos / "faces.csv"))


def test_parquet_reads_as_csv_does(photos):
    frame(smile=[False, True] * 5).to_parquet(photos / "faces.parquet")
    check(load(photos / "faces.parquet"))


@pytest.mark.parametrize(
    "words",
    [
        ("no", "yes"),
        ("No", "YES"),
        ("false", "true"),
        ("False", "True"),
        (0, 1),
        (-1, 1),
        ("0", "1"),
        ("-1", "1"),
    ],
)
def test_yes_and_no_in_every_spelling(photos, words):
    frame(smile=list(words) * 5).to_csv(photos / "faces.csv", index=False)
    check(load(photos / "faces.csv"))


def test_the_images_may_lie_elsewhere_and_paths_may_be_absolute(photos, tmp_path):
    data = frame(path=[f"{i}.png" for i in range(10)])
    data.to_csv(tmp_path / "t.csv", index=False)
    check(load(tmp_path / "t.csv", images=photos / "pictures"))
    data.assign(path=str(photos / "pictures") + "/" + data["path"]).to_csv(tmp_path / "t.csv", index=False)
    check(load(tmp_path / "t.csv"))
    with pytest.raises(FileNotFoundError, match="images="):
        load(tmp_path / "t.csv", images=photos / "nowhere")


def test_other_columns_come_along_and_the_path_column_may_be_called_otherwise(photos):
    frame(weight=np.linspace(0, 1, 10)).rename(columns={"path": "File"}).to_csv(photos / "t.csv", index=False)
    faces = load(photos / "t.csv", path="File")
    check(faces)
    assert faces.table["weight"].tolist() == pytest.approx(np.linspace(0, 1, 10))


def test_people_stay_in_one_split(photos):
    frame(who=[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]).to_csv(photos / "t.csv", index=False)
    parts = [load(photos / "t.csv", split, identity="who") for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert len(set.union(*(set(part.table["identity"]) for part in parts))) == 5
    assert all(len(part.classes) == len(part.groups) == 2 for part in parts)
    frame(identity=[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]).to_csv(photos / "t.csv", index=False)
    assert load(photos / "t.csv", "train").table["path"].tolist() == parts[0].table["path"].tolist()


def test_official_splits_are_used_when_asked_for(photos):
    frame(split=["Train"] * 5 + ["val"] * 2 + ["test "] * 3).to_csv(photos / "t.csv", index=False)
    sizes = [
        len(load(photos / "t.csv", split, split_column="split")) for split in ("train", "validation", "test")
    ]
    assert sizes == [5, 2, 3]
    assert (
        load(photos / "t.csv", "train").table["split"].nunique() > 1
    )  # by seed: the column is just a column
    frame(split=["train"] * 9 + ["holdout"]).to_csv(photos / "t.csv", index=False)
    with pytest.raises(
        ValueError, match=r"'holdout' \(1 rows\) is no split; accepted: train, validation, test"
    ):
        load(photos / "t.csv", "train", split_column="split")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "smlie"}, "target: no column 'smlie'. Did you mean 'smile'.*Columns: path, smile, age"),
        ({"target": None}, "target: name the column of the table to use. Columns: path, smile, age"),
        ({"protected": None}, "protected: name the column"),
        ({"protected": "hat"}, "protected: no column 'hat'"),
        ({"path": "file"}, "path: no column 'file'"),
        ({"identity": "who"}, "identity: no column 'who'"),
        ({"split_column": "part"}, "split_column: no column 'part'"),
    ],
)
def test_a_missing_column_is_named_with_those_there_are(photos, arguments, message):
    frame().to_csv(photos / "t.csv", index=False)
    with pytest.raises(ValueError, match=message):
        load(photos / "t.csv", **arguments)


def test_blanks_are_counted_and_none_is_a_word(photos):
    frame(age=["old", "", "NA", "young", "none"] * 2).to_csv(photos / "t.csv", index=False)
    with pytest.raises(ValueError, match="'age': 4 of 10 labels are missing"):
        load(photos / "t.csv")
    frame(smile=["yes", "no", "", "yes", "no"] * 2).to_csv(photos / "t.csv", index=False)
    with pytest.raises(ValueError, match="'smile': 2 of 10 labels are missing"):
        load(photos / "t.csv")
    frame(age=["none", "hat"] * 5).to_csv(photos / "t.csv", index=False)
    assert load(photos / "t.csv").groups == ("hat", "none")
    frame(path=["pictures/0.png", " ", *["pictures/1.png"] * 8]).to_csv(photos / "t.csv", index=False)
    with pytest.raises(ValueError, match=r"path: 1 of 10 rows .* blank \(first: row 1\)"):
        load(photos / "t.csv")


def test_a_missing_image_is_named_or_skipped(photos):
    frame().to_csv(photos / "t.csv", index=False)
    (photos / "pictures" / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match="3.png: no such image"):
        load(photos / "t.csv")
    faces = load(photos / "t.csv", on_error="skip")
    assert len(faces) == 9 and faces.skipped[0][0] == "pictures/3.png"


def test_files_that_are_no_tables(photos, tmp_path):
    cases = {
        "a.xlsx": (b"PK", "ends in '.xlsx'"),
        "b.csv": (b"", "cannot be read"),
        "c.csv": (b"path,a\n", "no rows"),
        "d.parquet": (b"PAR", "cannot be read"),
        "e.csv": ("path,ä\nx,1\n".encode("latin-1"), "cannot be read"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.* {message}"):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load(photos)
