"""Tables as spreadsheets, databases and tired people write them. About 4 s on one thread."""

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.data import balanced, load_faces
from helpers.data.labels import encode, missing
from helpers.data.sources.table import read_table

PATHS = [f"pictures/{i}.png" for i in range(10)]
SMILE, AGE = [i % 2 for i in range(10)], ["old", "young", "old", "old", "young"] * 2


@pytest.fixture
def place(tree):
    return tree(*PATHS)


def lines(*rows, head="path,smile,age", end="\n"):
    return end.join([head, *rows]) + end


ROWS = [f"{path},{smile},{age}" for path, smile, age in zip(PATHS, SMILE, AGE, strict=True)]


def load(place, content, *, name="t.csv", split="all", target="smile", protected="age", **options):
    if isinstance(content, pd.DataFrame):
        content.to_parquet(place / name)
    elif isinstance(content, pa.Table):
        pq.write_table(content, place / name)
    else:
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_faces("table", root=place / name, split=split, target=target, protected=protected, image_size=8, **options)


def check(faces):
    assert (faces.classes, faces.groups) == (("not smile", "smile"), ("old", "young"))
    assert faces.images[:, 0, 0, 0].tolist() == list(range(10))
    assert faces.targets.tolist() == SMILE and [faces.groups[code] for code in faces.group] == AGE


@pytest.mark.parametrize(
    "content",
    [
        lines(*ROWS, end="\r\n"),
        lines(*ROWS, end="\r"),
        lines(*ROWS, end="\n\n"),
        lines(*ROWS).rstrip("\n"),
        "\ufeff" + lines(*ROWS, end="\r\n"),
        lines(*ROWS).encode("utf-16"),
        b"\xff\xfe" + lines(*ROWS, end="\r\n").replace(",", "\t").encode("utf-16-le"),
        b"\xfe\xff" + lines(*ROWS).encode("utf-16-be"),
        "sep=;\r\n" + lines(*ROWS, end="\r\n").replace(",", ";"),
        "\ufeffsep=,\n" + lines(*ROWS),
        lines(*(f'"{row.replace(",", chr(34) + "," + chr(34))}"' for row in ROWS)),
        lines(*(row.replace("/", "\\").replace(",", " , ") for row in ROWS), head=" path , smile,age "),
        lines(*(f"./{row}" for row in ROWS)),
        lines(*(f"../faces/{row}" for row in ROWS)),
        lines(*(f"{row},1" for row in ROWS), head="path,smile,age,"),
        lines(*(f"{i},{row}" for i, row in enumerate(ROWS)), head=",path,smile,age"),
        lines(*(row + ',"one, two\nthree"' for row in ROWS), head="path,smile,age,note"),
    ],
)
def test_tables_of_any_origin_read_alike(place, content):
    check(load(place, content))


@pytest.mark.parametrize(
    "no, yes", [("-1", "1"), ("0.0", "1.0"), ("-1.0", "1.0"), ("NO", "Yes "), ("false", "TRUE"), ("00", "01"), (" 0", "1 ")]
)
def test_two_values_that_mean_no_and_yes(place, no, yes):
    check(load(place, lines(*(f"{path},{(no, yes)[smile]},{age}" for path, smile, age in zip(PATHS, SMILE, AGE, strict=True)))))


FRAME = pd.DataFrame({"path": PATHS, "smile": SMILE, "age": AGE})


@pytest.mark.parametrize(
    "table",
    [
        FRAME.astype({"smile": "Int64"}),
        FRAME.assign(smile=FRAME["smile"].astype(bool).astype("boolean")),
        FRAME.astype({"smile": "float32"}),
        FRAME.astype({"smile": "int8"}),
        FRAME.astype({"smile": "category"}),
        FRAME.assign(smile=pd.Categorical(FRAME["smile"].astype(bool))),
        FRAME.astype({"age": "category", "path": "category"}),
        FRAME.set_index("path"),
        FRAME.assign(landmarks=[[1, 2]] * 10, box=[{"x": 1}] * 10, when=pd.Timestamp("2020-01-01")),
        pa.table({"path": pa.array(PATHS), "smile": pa.array(SMILE), "age": pa.array(AGE).dictionary_encode()}),
        pa.table({"path": pa.array(PATHS, pa.large_string()), "smile": pa.array(SMILE, pa.uint8()), "age": pa.array(AGE)}),
    ],
)
def test_every_kind_of_parquet_column_that_can_hold_a_label(place, table):
    check(load(place, table, name="t.parquet"))


@pytest.mark.parametrize(
    "table, message",
    [
        (FRAME.assign(age=[["old"], ["young"]] * 5), "column 'age': labels are words, whole numbers or yes/no"),
        (FRAME.assign(age=[{"years": 3}, {"years": 4}] * 5), "column 'age': labels are words"),
        (FRAME.assign(smile=pd.array([0, 1, None, 1, 0] * 2, dtype="Int64")), "'smile': 2 of 10 labels are missing .rows 2, 7"),
        (FRAME.assign(smile=pd.array([True, None] * 5, dtype="boolean")), "'smile': 5 of 10 labels are missing"),
        (FRAME.assign(age=pd.Categorical(["old", None] * 5)), "'age': 5 of 10 labels are missing"),
        (FRAME.assign(smile=np.linspace(0, 1, 10)), "column 'smile': .* it holds fractions"),
        (FRAME.iloc[:0], "has no rows"),
        (pa.table([pa.array(PATHS), pa.array(SMILE), pa.array(SMILE)], ["path", "smile", "smile"]), "t.parquet cannot be read"),
    ],
)
def test_parquet_columns_that_are_no_labels_are_named(place, table, message):
    with pytest.raises(ValueError, match=message):
        load(place, table, name="t.parquet")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read as a table"),
        (b"\n\n", "cannot be read as a table"),
        ("\ufeff", "cannot be read as a table"),
        ("path,smile,age", "has no rows"),
        ("path,smile,age\r\n", "has no rows"),
        (lines(*ROWS).encode("utf-16-le"), "holds NUL bytes.*save it as UTF-8"),
        (lines(*ROWS).replace("old", "ölt").encode("latin-1"), "save it as UTF-8"),
        (lines(*(f"{row},more" for row in ROWS)), "rows with more cells than its header"),
        (lines(*ROWS, f"{PATHS[0]},1,old,more"), "cannot be read as a table"),
        (lines(*ROWS, f'"{PATHS[0]},1,old'), "cannot be read as a table"),
        (lines(*(f"{row},1" for row in ROWS), head="path,smile,age,smile"), "the column 'smile' is named twice"),
        (lines(*(f"{row},1" for row in ROWS), head="path,smile,age, age"), "the column 'age' is named twice"),
        (lines(*ROWS, ROWS[0], ROWS[3]), r"path: pictures/0.png is listed twice \(2 repeated rows\); keep one row an image"),
        (lines(*ROWS, ",1,old"), r"path: 1 of 11 rows of column 'path' are blank \(first: row 10\)"),
        (lines(*ROWS, "pictures/x.png"), "'smile': 1 of 11 labels are missing .rows 10"),
        ("# a comment\n" + lines(*ROWS), "rows with more cells than its header"),
        (lines(*ROWS, head="file,smile,age"), "path: no column 'path'.*Columns: file, smile, age"),
    ],
)
def test_tables_that_cannot_be_trusted_are_named_with_what_is_wrong(place, content, message):
    with pytest.raises(ValueError, match=message):
        load(place, content)


def test_bad_rows_among_good_ones_are_listed_once_each(place):
    (place / "pictures" / "9.png").write_bytes(b"")
    bad = ["", "  ,1,old", ROWS[1], f"{PATHS[2]},1,young", "pictures/10.png,1,old", f"{PATHS[3]}x,,young", "pic\0.png,0,old"]
    rows = [*ROWS, *bad]
    (place / "pictures" / "3.pngx").write_bytes((place / PATHS[3]).read_bytes())
    faces = load(place, lines(*rows), on_error="skip")
    assert faces.table["path"].tolist() == PATHS[:9] and faces.targets.tolist() == SMILE[:9]
    listed = dict(faces.skipped)
    assert len(faces.skipped) == len(listed) == 7
    assert "row 12 contradicts" in listed[PATHS[2]] and "row 11 repeats" in listed[PATHS[1]]
    assert listed["row 10"] == "names no image" and listed[f"{PATHS[3]}x"] == "column 'smile': no label"
    assert "empty" in listed[PATHS[9]] and all("no such image" in listed[path] for path in ("pictures/10.png", "pic\0.png"))


def test_blank_labels_are_left_out_on_demand_and_an_empty_column_is_not(place):
    rows = [f"{path},{'' if i < 3 else smile},{age}" for i, (path, smile, age) in enumerate(zip(PATHS, SMILE, AGE, strict=True))]
    faces = load(place, lines(*rows), on_error="skip")
    assert faces.table["path"].tolist() == PATHS[3:] and faces.targets.tolist() == SMILE[3:]
    assert [path for path, _ in faces.skipped] == PATHS[:3]
    for on_error in ("raise", "skip"):
        with pytest.raises(ValueError, match="'smile': 10 of 10 labels are missing"):
            load(place, lines(*(f"{path},,old" for path in PATHS)), on_error=on_error)


def test_the_split_of_a_person_does_not_hang_on_blanks_elsewhere(place):
    whole = {split: set(load(place, lines(*ROWS), split=split).table["path"]) for split in ("train", "validation", "test")}
    holes = lines(*(row.replace("young", "") if i in (1, 4) else row for i, row in enumerate(ROWS)))
    for split, paths in whole.items():
        assert set(load(place, holes, split=split, on_error="skip").table["path"]) == paths - {PATHS[1], PATHS[4]}


def test_people_are_who_is_written_there(place):
    rows = [f"{row},{('007', '7', '07')[i % 3]}" for i, row in enumerate(ROWS)]
    for head, option in (("identity", {}), ("who", {"identity": "who"}), (" who", {"identity": "who"})):
        faces = load(place, lines(*rows, head=f"path,smile,age,{head}"), **option)
        assert faces.table["identity"].tolist() == [("007", "7", "07")[i % 3] for i in range(10)]
    with pytest.raises(ValueError, match="identities: 1 of 10 are missing; a split needs to know whose face it is"):
        load(place, lines(*rows[:9], rows[9][:-3], head="path,smile,age,identity"), split="train")


def test_labels_that_differ_only_in_capitals_are_said(place):
    with pytest.warns(UserWarning, match="column 'age': 'OLD', 'old' are different labels, though only their capitals differ"):
        faces = load(place, lines(*ROWS).replace("old", "OLD", 1))
    assert faces.groups == ("OLD", "old", "young")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(place, lines(*ROWS))


def test_ten_thousand_columns(place):
    more = np.random.default_rng(0).integers(0, 9, (10, 10_000))
    rows = [f"{row},{','.join(map(str, cells))}" for row, cells in zip(ROWS, more, strict=True)]
    faces = load(place, lines(*rows, head="path,smile,age," + ",".join(f"c{i}" for i in range(10_000))))
    check(faces)
    assert (faces.table[[f"c{i}" for i in range(10_000)]].to_numpy() == more).all()


def test_a_path_may_be_absolute_and_lead_out_of_the_folder(place, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    content = lines(*(f"{place}/{row}" if i % 2 else f"../faces/{row}" for i, row in enumerate(ROWS)))
    check(load(tmp_path / "elsewhere", content))


def test_a_class_of_one_and_a_group_of_none_are_kept_and_counted(place):
    rows = [f"{path},{'rare' if i == 4 else 'common'},{age},x" for i, (path, age) in enumerate(zip(PATHS, AGE, strict=True))]
    faces = load(place, lines(*rows, head="path,smile,age,hat"), protected=("age", "smile"))
    assert faces.counts().to_numpy().tolist() == [[6, 0], [0, 0], [3, 0], [0, 1]]
    assert faces.groups == ("old, common", "old, rare", "young, common", "young, rare")
    parts = [load(place, lines(*rows, head="path,smile,age,hat"), split=split) for split in ("train", "validation", "test")]
    assert all(part.classes == ("common", "rare") for part in parts) and sum(part.targets.sum() for part in parts) == 1
    with pytest.raises(ValueError, match="no image|empty|none"):
        balanced(faces)
    only = load(place, lines(*rows, head="path,smile,age,hat"), protected="hat")
    assert only.groups == ("x",) and len(balanced(only)) == 2


@pytest.mark.parametrize("blank", [None, float("nan"), pd.NA, "", "  ", "\t", "\u00a0"])
def test_every_kind_of_blank_is_no_label(blank):
    column = pd.Series(["yes", blank, "no"], dtype=object)
    assert missing(column).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="1 of 3 labels are missing .rows 1"):
        encode(column, "smile")


def test_reading_keeps_words_that_look_like_something_else(tmp_path):
    words = ["none", "None", "n/a", "-", "?", "1e5x", "0x10", "NaNa", "inf."]
    (tmp_path / "t.csv").write_text("path,word\n" + "".join(f"{i}.png,{word}\n" for i, word in enumerate(words)))
    assert read_table(tmp_path / "t.csv")["word"].tolist() == words
