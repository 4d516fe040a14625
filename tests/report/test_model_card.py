"""The model's card: the published sections in their order, metadata that parse, Markdown that nothing from the data breaks."""

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from torch import nn

import helpers
from helpers.data import FaceDataset
from helpers.data import card as data_card
from helpers.markdown import escaped, table
from helpers.report import STATED, model_card, write_card
from helpers.report.comparison import audit_of
from helpers.report.html import interval

PARSER = MarkdownIt("commonmark").enable("table")
PUBLISHED = [
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data", "Quantitative analyses",
    "Ethical considerations", "Caveats and recommendations",
]  # fmt: skip


def parts(card: str) -> tuple[dict, str]:
    """Front matter and body."""
    _, head, body = card.split("---\n", 2)
    return yaml.safe_load(head), body


def plain(tokens) -> list[str]:
    """The text of each block, as a reader sees it."""
    return ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]


def tables(body: str) -> list[list[list[str]]]:
    """Rows of cells of each table that a parser takes for one."""
    found, tokens = [], PARSER.parse(body)
    for i, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and tokens[i - 1].type in ("th_open", "td_open"):
            found[-1][-1] += plain([token])
    return found


@pytest.fixture(scope="module")
def card(model, faces, tmp_path_factory):
    path = write_card(
        model, faces, tmp_path_factory.mktemp("card") / "model.card.md", stated={"licence": "MIT", "name": "mood: a #1 | model"}
    )
    return path.read_text(encoding="utf-8")


def headings(body: str, level: str) -> list[str]:
    tokens = PARSER.parse(body)
    return plain([after for token, after in pairwise(tokens) if token.type == "heading_open" and token.tag == level])


def test_the_published_sections_come_in_order_and_none_is_empty(card):
    body = parts(card)[1]
    assert headings(body, "h1") == ["Model card: mood: a #1 | model"] and headings(body, "h2") == PUBLISHED
    assert headings(body, "h3") == ["Unitary results", "Intersectional results"]
    assert all(len(section.strip()) > 60 for section in re.split("^## .*$", body, flags=re.M)[1:])


def test_the_metadata_are_what_is_known_and_nothing_else(card, model, faces):
    head = parts(card)[0]
    assert head["license"] == "mit" and "language" not in head and "datasets" not in head
    assert "license" not in parts(text_of(model, faces, {}))[0]
    assert parts(text_of(model, faces, {"licence": "ask: me"}))[0]["license_name"] == "ask: me"
    (index,) = head["model-index"]
    assert index["name"] == "mood: a #1 | model"
    (result,) = index["results"]
    assert result["task"]["type"] == "image-classification" and result["dataset"]["name"] == "tiny"
    judged = audited(model, faces)
    measured = {each["type"]: each["value"] for each in result["metrics"]}
    assert head["metrics"] == list(measured) and measured["accuracy"] == pytest.approx(judged.value("accuracy"), abs=1e-6)
    assert measured["equalized_odds"] == pytest.approx(judged.gap("equalized_odds"), abs=1e-6)


def test_numbers_are_the_audits(card, model, faces):
    judged = audited(model, faces)
    found = [{row[0]: row for row in each} for each in tables(parts(card)[1])]
    by_group = next(each for each in found if "group" in each)
    place = by_group["group"].index("True positive rate")
    for group in judged.counts.groups:
        value = interval(judged.value("true_positive_rate", group), *judged.interval("true_positive_rate", group))
        assert by_group[group][place] == value
    gaps = next(each for each in found if "gap in" in each)
    assert gaps["Equalized odds"][1] == interval(judged.gap("equalized_odds"), *judged.gap_interval("equalized_odds"))


def audited(model, faces):
    return audit_of(helpers.models.predict(model, faces), faces)


def text_of(model, faces, said) -> str:
    judged = audit_of(helpers.models.predict(model, faces), faces, n_boot=10)
    return model_card.text(model, faces, judged, data_card(faces, labels=False), said, (), {})


def test_crossed_groups_have_unitary_and_intersectional_results(faces, tmp_path):
    crossed = FaceDataset(
        faces.images, faces.table.assign(side=np.where(np.arange(48) % 3, "left", "right")), target="mood",
        protected=["age", "side"], classes=faces.classes,
    )  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2)).eval()
    body = parts(write_card(model, crossed, tmp_path / "c.md", n_boot=10).read_text("utf-8"))[1]
    alone, together = body.split("### Unitary results")[1].split("### Intersectional results")
    firsts = lambda text: [{row[0] for row in each} for each in tables(text)]
    judged = audited(model, crossed)
    assert any({"left", "right"} < each for each in firsts(alone)) and "Not measured" not in together
    assert set(judged.counts.groups) < firsts(together)[0]


def test_one_attribute_says_that_intersections_were_not_measured(card):
    assert "Not measured" in card.split("### Intersectional results")[1].split("## ")[0]


def test_every_statement_is_printed_or_said_to_be_missing(model, faces):
    said = {key: f"Said of {key}." for key in STATED}
    full, bare = text_of(model, faces, said), text_of(model, faces, {})
    seen = " ".join(plain(PARSER.parse(parts(full)[1])))
    assert all(f"Said of {key}." in seen for key in STATED) and "not stated" not in seen
    missing = " ".join(plain(PARSER.parse(parts(bare)[1])))
    assert all(question in missing for key, question in STATED.items() if key != "name")


@given(st.text(max_size=40))
def test_a_text_is_shown_as_it_is(text):
    wanted = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    assert "".join(plain(PARSER.parse(escaped(text)))) == wanted
    tokens = PARSER.parse(escaped(text))
    assert {token.type for token in tokens} <= {"paragraph_open", "inline", "paragraph_close"}
    assert {child.type for token in tokens for child in token.children or ()} <= {"text"}


@given(st.lists(st.lists(st.text(max_size=12), min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_table_stays_a_table_whatever_its_cells_hold(rows):
    frame = pd.DataFrame(rows, columns=["a|b", "`c`", "<d>"])
    (found,) = tables("\n".join(table(frame)))
    shown = lambda cell: " ".join("".join(sign if sign.isprintable() else " " for sign in cell).split())
    assert found == [list(frame.columns), *([shown(cell) for cell in row] for row in rows)]


NAMES = st.lists(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).map(lambda name: "n" + name.strip() + "|`"),
    min_size=2, max_size=2, unique=True,
)  # fmt: skip


@settings(max_examples=20)
@given(NAMES, NAMES, st.text(min_size=1, max_size=20).filter(str.strip))
def test_names_of_any_kind_leave_card_and_metadata_whole(classes, groups, said):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"t": np.array(classes, object)[np.arange(12) % 2], "g": np.array(groups, object)[np.arange(12) // 6]})
    faces = FaceDataset(
        rng.integers(0, 255, (12, 8, 8, 3), dtype=np.uint8), table, target="t", protected="g", classes=classes, groups=groups,
        name=classes[0], split="test",
    )  # fmt: skip
    judged = helpers.audit(
        faces.targets, np.arange(12) % 2, faces.group, groups=faces.groups, classes=faces.classes, n_boot=5
    )
    described = DESCRIBED[0] if DESCRIBED else DESCRIBED.append(data_card(faces, labels=False)) or DESCRIBED[0]
    card = model_card.text(nn.Linear(1, 2), faces, judged, described, {"name": said, "ethics": said}, (), {})
    head, body = parts(card)
    assert head["model-index"][0]["name"] == said and headings(body, "h2") == PUBLISHED
    kinds = {child.type for token in PARSER.parse(body) for child in token.children or ()}
    assert kinds <= {"text", "code_inline", "softbreak"} and "html_block" not in {token.type for token in PARSER.parse(body)}
    assert len(tables(body)) == 4


DESCRIBED: list = []  # what is looked at in pictures does not hang on names, and takes most of the time
