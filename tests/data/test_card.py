"""What a card says is what was planted, in all its forms, and nothing in the data can break them (8 s on one thread)."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from helpers.data import FaceDataset, card, load_faces, table_card
from helpers.data.card import ABSENT, QUESTIONS
from helpers.plots.show import alt_text

EVIL = "<script>alert(1)</script>|a\n# b](http://x)"


@pytest.fixture(scope="module")
def split():
    return load_faces("orl", protected="woman"), load_faces("orl", protected="woman", split="test")


@pytest.fixture(scope="module")
def leaking(split):
    """A training set with one picture twice, two test people in it, and a hole in a column; files of two sizes."""
    train, test = split
    images = np.concatenate([train.images, train.images[5:6], test.images[:20]])
    table = pd.concat([train.table, train.table[5:6], test.table[:20]], ignore_index=True).assign(remark="yes")
    table.loc[:9, "remark"] = [None, np.nan, "", " ", *["yes"] * 6]
    faces = FaceDataset(images, table, target="glasses", protected="woman", name=EVIL, split="train")
    faces.folder = train.folder
    return card(faces, test, about={"purpose": EVIL})


def test_the_card_holds_what_was_planted(leaking, split):
    train, test = split
    assert (leaking.n, leaking.people) == (261, 26)
    assert leaking.counts.to_numpy().sum() == 261 and leaking.test_counts.equals(test.counts())
    assert leaking.missing.set_index("column")["missing"].to_dict()["remark"] == 4
    assert leaking.missing["missing"].sum() == 4
    pairs = set(zip(leaking.duplicates["first"], leaking.duplicates["second"], strict=True))
    assert (5, 240) in pairs and len(pairs) <= 4
    assert leaking.leaks.n_train == leaking.leaks.n_test == 20 and len(leaking.leaks.identities) == 2
    assert leaking.sizes.to_dict("records") == [{"width": 92, "height": 112, "n": 261}]
    assert leaking.groups.set_index("group").loc["woman", "people"] == 3
    rows = leaking.pictures.query("measure == 'brightness'").set_index("group")
    expected = train.images[train.group == 1].astype(float) @ [0.299, 0.587, 0.114]
    assert rows.loc["woman", "value"] == pytest.approx(expected.mean() / 255, abs=1e-4)
    assert (rows["low"] < rows["value"]).all() and rows.loc["woman", "people"] == 3
    np.testing.assert_allclose(leaking.mean_faces["woman"], train.images[train.group == 1].mean(0) / 255)


def test_unknown_fields_are_said_to_be_unknown_and_asked_for(split):
    text = card(split[0], labels=False).to_markdown()
    for key in ("purpose", "consent", "maintenance"):
        assert f"{key.capitalize()}: unknown." in text and f"- {QUESTIONS[key]}" in text
    assert "AT&T Laboratories Cambridge, to be credited" in text and QUESTIONS["licence"] not in text
    assert "No test split was given" in text and "Suspicious labels" not in text
    full = card(split[0], labels=False, about=dict.fromkeys(QUESTIONS, "known.")).to_markdown()
    assert "unknown." not in full and "None is open." in full
    with pytest.raises(ValueError, match="about: unknown name 'license'.*Did you mean 'licence'"):
        card(split[0], about={"license": "MIT"})


def test_what_the_data_says_cannot_break_the_card(leaking, tmp_path):
    text = leaking.to_markdown()
    assert "<script" not in text and "\n# b" not in text and not re.search(r"(?<!\\)\]\(", text)
    assert text.count("\n# ") == 0 and text.startswith("# Data card: ")
    for rows in text.split("\n\n"):
        if rows.startswith("| "):
            assert len({row.replace("\\|", "").count("|") for row in rows.splitlines()}) == 1
    page = leaking.save(tmp_path / "card.html").read_text(encoding="utf-8")
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    assert "script" not in {tag for tag, _ in tags} and {"table", "caption", "img", "h2"} <= {tag for tag, _ in tags}
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")


def test_the_json_holds_the_tables(leaking, tmp_path):
    read = json.loads(leaking.save(tmp_path / "card.json").read_text(encoding="utf-8"))
    assert read["n"] == 261 and read["counts"]["woman"]["glasses"] == 0
    assert read["leaks"]["pictures"][0]["train_path"] == read["leaks"]["pictures"][0]["test_path"]
    assert len(read["suspicious"]["marked"]) == leaking.suspicious.n
    with pytest.raises(ValueError, match="path.*'.pdf'.*Accepted: .md, .html, .json"):
        leaking.save(tmp_path / "card.pdf")
    assert not (tmp_path / "card.pdf").exists()


def test_the_figure_shows_faces_counts_sizes_and_light(leaking):
    figure = leaking.plot()
    titles = [axis.get_title(loc) for axis in figure.axes for loc in ("left", "center") if axis.get_title(loc)]
    expected = {"woman", "not woman", "Pictures by group and class", "Sizes of the files"}
    expected |= {"Brightness by group", "Sharpness by group"}
    assert expected <= set(titles)
    assert "261 pictures of 26 people" in alt_text(figure)


def test_a_table_with_holes_has_a_card_though_it_cannot_be_loaded():
    table = pd.DataFrame({
        "smile": ["yes", "no", None, "yes", "no", " "],
        "g": [1, 0, 1, np.nan, 0, 1],
        "h": ["u", "v", "u", "v", "u", "v"],
        "identity": ["p", "p", "q", None, "r", "r"],
    })  # fmt: skip
    found = table_card(table, "smile", ["g", "h"], name="sheet")
    assert list(found.counts.columns) == ["no", "yes", ABSENT]
    assert found.counts.loc["g, u"].tolist() == [0, 1, 1] and found.counts.loc[f"{ABSENT}, v"].tolist() == [0, 1, 0]
    assert found.counts.to_numpy().sum() == 6 and found.people == 3
    assert found.missing.set_index("column")["missing"].to_dict() == {"smile": 2, "g": 1, "h": 0, "identity": 1}
    text = found.to_markdown()
    assert "3 of 6 rows lack the target or a group" in text and "The pictures were not looked at" in text
    assert found._repr_html_().count("<img") == 0
    with pytest.raises(ValueError, match="no pictures"):
        found.plot()
    with pytest.raises(ValueError, match="protected: no column 'f'"):
        table_card(table, "smile", "f")


def test_labels_that_cannot_be_judged_are_a_note():
    images = np.random.default_rng(0).integers(256, size=(6, 8, 8, 3), dtype=np.uint8)
    faces = FaceDataset(images, pd.DataFrame({"y": [0] * 6, "g": list("aabbcc")}), target="y", protected="g", classes=("n", "p"))
    found = card(faces)
    assert found.suspicious is None and "every label of 'y' is 'n'" in found.to_markdown()
    assert "unknown" in found.to_markdown() and found.people is None
