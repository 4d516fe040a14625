"""Photographs composed of ORL faces, so that the truth is known. 15 seconds on one thread."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import load_faces
from helpers.__main__ import main
from helpers.bias.uncertainty import critical, wilson
from helpers.data import preparing, threads
from helpers.data.detecting import align, find
from helpers.data.preparing import Prepared, prepare
from helpers.data.sources.orl import _packaged_photographs

GREY = (128, 128, 128)


def photo(name: str, times: int = 2) -> Image.Image:
    picture = Image.open(_packaged_photographs() / f"{name}.pgm").convert("RGB")
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.BICUBIC)


def contents(folder) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A tree of every kind of photograph, and labels: groups a and b, five people."""
    top = tmp_path_factory.mktemp("source") / "my photos"
    rows = []

    def put(path: str, picture: Image.Image, group: str, person: str, **options) -> None:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(top / path, **options)
        rows.append((path, group, person))

    for k in range(1, 5):
        put(f"plain/s1 {k}.png", photo(f"s1/{k}"), "a", "one")
        put(f"plain/Grüße {k}.jpg", photo(f"s2/{k}"), "a", "two", quality=95)
        put(f"plain/s4 {k}.webp", photo(f"s4/{k}"), "b", "four", lossless=True)
    put("plain/s1 1.bmp", photo("s5/1"), "b", "five")  # the same name but for its ending
    put("none/wall.png", Image.new("RGB", (300, 200), GREY), "b", "five")
    put("none/noise.png", Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)), "b", "four")
    two = Image.new("RGB", (700, 400), GREY)
    two.paste(photo("s1/5", 3), (20, 30))
    two.paste(photo("s2/5"), (430, 90))
    put("two.png", two, "a", "one")
    exif = Image.Exif()
    exif[0x0112] = 8
    put("turned.png", photo("s2/6").rotate(-90, expand=True), "a", "two", exif=exif)
    (top / "broken.jpg").write_bytes(b"no picture")
    rows.append(("broken.jpg", "a", "one"))
    (top / "notes.txt").write_text("no image")
    labels = pd.DataFrame(rows, columns=["path", "group", "who"])
    labels.to_csv(top.parent / "labels.csv", index=False)
    return top


@pytest.fixture(scope="module")
def done(photos, tmp_path_factory) -> Prepared:
    out = tmp_path_factory.mktemp("result") / "out"
    return prepare(photos, out, size=64, labels=photos.parent / "labels.csv", protected="group", identity="who")


def test_what_is_there_is_found_and_what_is_not_is_missed(done, photos):
    missed = done.missed.set_index("source")["reason"]
    assert set(missed.index) == {"none/wall.png", "none/noise.png", "broken.jpg"}
    assert missed["none/wall.png"] == missed["none/noise.png"] == "no face"
    # and not where the file lies
    assert missed["broken.jpg"].startswith("unreadable: not an image in a known format (")
    found = done.found.set_index("source")
    assert len(found) == 15 and found.index.is_unique
    assert found.loc["two.png", "faces"] == 2 and found.loc["two.png", "left"] < 200  # the larger one
    assert (found.drop("two.png")["faces"] == 1).all()
    for source in ("plain/Grüße 2.jpg", "plain/s4 3.webp"):
        picture = np.asarray(Image.open(photos / source).convert("RGB"))
        (face,) = find(picture)
        written = np.asarray(Image.open(done.out / found.loc[source, "path"]))
        np.testing.assert_array_equal(written, align(picture, face, 64))
        assert found.loc[source, "roll"] == pytest.approx(face.roll, abs=0.01)
        np.testing.assert_allclose(found.loc[source, ["left", "top", "right", "bottom"]].astype(float), face.box)
        np.testing.assert_allclose(found.loc[source, list(preparing.PLACES)].astype(float), np.ravel(face.landmarks))
    upright = find(np.asarray(photo("s2/6")))[0]
    assert found.loc["turned.png", "nose_x"] == upright.landmarks[4][0]
    for ending in ("png", "bmp"):
        assert found.loc[f"plain/s1 1.{ending}", "path"] == f"faces/plain/s1 1.{ending}.png"


def test_shares_by_group_are_those_counted_by_hand(done):
    table = done.by_group.set_index(["attribute", "group"])
    assert table.loc[("", "all"), ["value", "n", "people"]].tolist() == [15 / 17, 17, 4]
    assert table.loc[("group", "a"), ["value", "n", "people"]].tolist() == [1.0, 10, 2]  # the unreadable one says nothing
    assert table.loc[("group", "b"), ["value", "n", "people"]].tolist() == [5 / 7, 7, 2]
    low, high = wilson(np.array([5.0]), np.array([7.0]), critical(0.95))
    assert table.loc[("group", "b"), "high"] - table.loc[("group", "b"), "low"] > high[0] - low[0]  # two people, not seven
    (row,) = done.differences.itertuples()
    assert (row.group, row.other, round(row.difference, 4)) == ("a", "b", round(2 / 7, 4)) and 0 <= row.p <= 1
    assert done.photographs["kept"].sum() == 15 and len(done.photographs) == 17
    text = done.to_markdown()
    assert "| group | b | 71.4 % |" in text and "| group | a | b | +28.6 | " in text and f" | {row.p:.3f} |" in text


def test_without_people_the_intervals_are_wilsons(photos, tmp_path):
    plain = prepare(photos, tmp_path / "out", size=64, labels=photos.parent / "labels.csv", protected="group")
    row = plain.by_group.set_index("group").loc["b"]
    np.testing.assert_allclose(row[["low", "high"]].astype(float), np.ravel(wilson([5], [7], critical(0.95))))
    assert row["people"] == 7


def test_the_result_is_a_data_set(done):
    faces = load_faces("table", root=done.out / "faces.csv", target="identity", protected="group", split="all")
    assert len(faces) == 15 and faces.groups == ("a", "b") and {"roll", "yaw", "score"} <= set(faces.table)
    first = np.asarray(Image.open(done.out / faces.table["path"][0]))
    np.testing.assert_array_equal(faces.images[0], first)  # 64 pixels, as they were written


@pytest.mark.parametrize(("which", "faces", "reason"), [("all", 2, None), ("one", 0, "several faces: 2"), ("largest", 1, None)])
def test_which_of_several(photos, tmp_path, which, faces, reason):
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(photos / "two.png", source)
    made = prepare(source, tmp_path / "out", size=32, which=which)
    assert len(made.found) == faces == len(list((tmp_path / "out" / "faces").rglob("*.png")))
    assert list(made.missed["reason"]) == ([reason] if reason else [])
    assert made.by_group["value"].tolist() == [float(faces > 0)] and made.by_group["n"].tolist() == [1]


def test_small_faces_are_missed_as_too_small(photos, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    photo("s1/1").save(source / "a.png")
    made = prepare(source, tmp_path / "out", smallest=300)
    assert made.found.empty and made.missed["reason"].tolist() == ["too small: the largest face has 149 pixels"]
    assert prepare(source, tmp_path / "other").found["faces"].tolist() == [1]


def test_a_second_run_does_nothing(done, photos, monkeypatch):
    before = {file: file.stat().st_mtime_ns for file in done.out.rglob("*") if file.name != ".lock"}
    monkeypatch.setattr(preparing, "decode_whole", None)  # nothing is looked at
    again = prepare(photos, done.out, size=64, labels=photos.parent / "labels.csv", protected="group", identity="who")
    assert {file: file.stat().st_mtime_ns for file in done.out.rglob("*") if file.name != ".lock"} == before
    pd.testing.assert_frame_equal(again.found, done.found)
    pd.testing.assert_frame_equal(again.by_group, done.by_group)


@pytest.mark.parametrize("calls", [1, 5, 12])
def test_after_a_kill_it_goes_on_and_ends_with_the_same_bytes(done, photos, tmp_path, monkeypatch, calls):
    arguments = {"size": 64, "labels": photos.parent / "labels.csv", "protected": "group", "identity": "who"}
    real, seen = preparing.decode_whole, []

    def killed(path):
        if len(seen) == calls:
            raise KeyboardInterrupt
        seen.append(path)
        return real(path)

    monkeypatch.setattr(preparing, "decode_whole", killed)
    monkeypatch.setattr(preparing, "CHUNK", 2)
    monkeypatch.setattr(threads, "cpu_count", lambda: 1)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, out, **arguments)
    monkeypatch.setattr(preparing, "decode_whole", lambda path: seen.append(path) or real(path))
    assert not (out / "faces.csv").exists()
    with (out / "found.jsonl").open("a") as log:
        log.write('{"source": "torn')
    (out / "faces" / "plain").mkdir(parents=True, exist_ok=True)
    for name in ("faces/plain/.s1 4.png-half.png", ".faces-half.csv"):  # as a hard kill leaves them
        (out / name).write_bytes(b"half")
    seen.clear()
    prepare(photos, out, **arguments)
    assert len(seen) <= 18 - calls // 2 * 2  # whole tasks that were done are not done again
    assert contents(out) == contents(done.out)


def test_changed_and_vanished_photographs(photos, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("s1/1", "s2/1", "s4/1"):
        photo(name).save(source / f"{name.split('/')[0]}.png")
    first = prepare(source, out, size=32)
    photo("s5/3").save(source / "s1.png")  # another face under the old name
    (source / "s2.png").unlink()  # withdrawn: its face has to go too
    second = prepare(source, out, size=32)
    assert second.found["source"].tolist() == ["s1.png", "s4.png"]
    assert not (out / "faces" / "s2.png.png").exists() and (out / "faces" / "s4.png.png").exists()
    assert second.found["left"][0] != first.found["left"][0]
    clean = prepare(source, tmp_path / "clean", size=32)
    assert contents(tmp_path / "clean") == contents(out) and len(clean.found) == 2


def test_tables_folders_and_names_as_sources(photos, tmp_path):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    photo("s1/1").save(outside / "a.png")
    listed = tmp_path / "tables"
    listed.mkdir()
    photo("s2/1").save(listed / "a.png")
    pd.DataFrame({"path": ["a.png", "../elsewhere/a.png", str(outside / "a.png"), "gone.png"], "sex": list("fmmf")}).to_csv(
        listed / "list.csv", index=False
    )
    made = prepare(listed / "list.csv", tmp_path / "out", size=32, protected="sex")
    assert len(made.found) == 3 and made.found["path"].is_unique
    inside = [(tmp_path / "out" / path).resolve() for path in made.found["path"]]
    assert all(file.is_relative_to((tmp_path / "out").resolve()) and file.is_file() for file in inside)
    assert made.missed["reason"].str.startswith("unreadable").tolist() == [True]
    assert made.by_group.query("group == 'f'")["n"].tolist() == [1]  # the file that is not there says nothing

    tree = tmp_path / "tree"
    for path, name in (("w/x/p1/1.png", "s10/1"), ("w/y/p2/1.png", "s8/1"), ("m/x/p3/1.png", "s1/1")):
        (tree / path).parent.mkdir(parents=True)
        photo(name).save(tree / path)
    made = prepare(tree, tree / "prepared", size=32)  # in the source itself: not taken for photographs the next time
    assert made.found[["class", "group", "identity"]].values.tolist() == [["m", "x", "p3"], ["w", "x", "p1"], ["w", "y", "p2"]]
    assert made.by_group["attribute"].tolist() == ["", "group", "group"]
    assert len(prepare(tree, tree / "prepared", size=32).found) == 3
    assert len(load_faces("folder", root=tree / "prepared" / "faces", split="all")) == 3  # the tree is kept


def test_a_named_data_set(tmp_path):
    made = prepare("orl", tmp_path / "out", size=32, protected=["woman", "glasses"])
    assert len(made.found) + len(made.missed) == 400 and len(made.missed) < 12
    table = made.by_group.set_index(["attribute", "group"])
    assert table.loc[("woman", "woman"), ["n", "people"]].tolist() == [40, 4]
    assert table.loc[("glasses", "glasses"), "n"] == 119
    lost = made.missed["source"].isin(made.missed.query("glasses")["source"]).sum()
    assert table.loc[("glasses", "glasses"), "value"] == pytest.approx(1 - lost / 119)
    with pytest.raises(ValueError, match="'illustrated' has no photographs in files"):
        prepare("illustrated", tmp_path / "drawn")


def test_a_link_does_not_lead_out(tmp_path):
    source, out, other = (tmp_path / name for name in ("source", "out", "other"))
    (source / "sub").mkdir(parents=True)
    photo("s1/1").save(source / "sub" / "a.png")
    photo("s1/2").save(source / "b.png")
    other.mkdir()
    prepare(source, out, size=32)
    shutil.rmtree(out / "faces" / "sub")
    (out / "faces" / "sub").symlink_to(other, target_is_directory=True)
    with pytest.raises(ValueError, match="a link leads out of it"):
        prepare(source, out, size=32)
    assert not list(other.iterdir())


def test_the_command_line(photos, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["prepare", str(photos), "--out", str(out), "--size", "32", "--labels", str(photos.parent / "labels.csv")]
    assert main([*command, "--protected", "group", "--identity", "who"]) == 0
    said = capsys.readouterr().out
    assert "| group | a | 100.0 % |" in said and "15 faces: " in said and "3 photographs missed" in said and "missed.csv" in said
    assert len(pd.read_csv(out / "missed.csv")) == 3
    assert json.loads((out / "prepare.json").read_text())["size"] == 32
    assert main([*command, "--protected", "grup"]) == 2
    assert "Did you mean 'group'" in capsys.readouterr().err


def test_bad_input_is_named(done, photos, tmp_path):
    labels = photos.parent / "labels.csv"
    with pytest.raises(ValueError, match="holds faces prepared with size 64, now 32"):
        prepare(photos, done.out, size=32, labels=labels)
    for place in (photos, photos.parent):
        with pytest.raises(ValueError, match="out: .* holds the source"):
            prepare(photos, place, labels=labels)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no prepared faces"):
        prepare(photos, tmp_path / "full", labels=labels)
    with pytest.raises(ValueError, match="which: unknown name 'biggest'"):
        prepare(photos, tmp_path / "a", which="biggest")
    with pytest.raises(ValueError, match="size: 3"):
        prepare(photos, tmp_path / "a", size=3)
    with pytest.raises(ValueError, match=r"source \(there is no such folder or file\): unknown name 'orll'. Did you mean 'orl'"):
        prepare("orll", tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        prepare(tmp_path / "none.csv", tmp_path / "a")
    with pytest.raises(ValueError, match="broken.jpg: cannot read the image"):
        prepare(photos, tmp_path / "b", on_error="raise")
    with pytest.raises(ValueError, match="labels: only for a folder"):
        prepare("orl", tmp_path / "c", labels=labels)
    pd.DataFrame({"path": ["plain/s1 1.png"], "score": [1]}).to_csv(tmp_path / "clash.csv", index=False)
    with pytest.raises(ValueError, match="a column 'score' of its own"):
        prepare(photos, tmp_path / "d", labels=tmp_path / "clash.csv")
    pd.DataFrame({"path": ["x.png", "x.png"], "g": [1, 2]}).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(ValueError, match="lists x.png twice"):
        prepare(photos, tmp_path / "d", labels=tmp_path / "twice.csv")
    with pytest.raises(ValueError, match="x.png is listed 2 times"):
        prepare(tmp_path / "twice.csv", tmp_path / "d")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        prepare(tmp_path / "empty", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_labels_that_do_not_fit_are_told(photos, tmp_path):
    table = pd.read_csv(photos.parent / "labels.csv").iloc[:10]
    table.loc[10] = ["gone.png", "a", "one"]
    table.to_csv(tmp_path / "labels.csv", index=False)
    made = prepare(photos, tmp_path / "out", size=32, labels=tmp_path / "labels.csv", protected="group")
    assert any("1 rows of the labels name no image" in note and "gone.png" in note for note in made.notes)
    assert any("8 photographs have no row" in note for note in made.notes)
    assert "(not annotated)" in set(made.by_group["group"]) and made.by_group.query("attribute != ''")["n"].sum() == 17
