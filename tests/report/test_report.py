"""The report: complete, self-contained, accessible, escaped, and written whole or not at all."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from torch import nn

import helpers
from helpers.debiasing import CorrectionResult
from helpers.models import predict
from helpers.plots import alt
from helpers.report import Page, Picture, Section, Table, assemble, fixes, rejudge, render, write
from helpers.report import looks as looks_module
from helpers.report.comparison import verdict_of
from helpers.report.html import interval, pieces, sentence, text, unbroken

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Tags with their attributes, and whether every tag is closed in its turn."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(model, faces, tmp_path_factory):
    """A whole report with one method that works, one that failed and a bare module."""
    results = {
        "Vanilla": CorrectionResult("Vanilla", model),
        "CONSTANT": CorrectionResult("CONSTANT", Constant(), seconds=1.5),
        "BROKEN": CorrectionResult("BROKEN", error="singular <matrix>"),
    }
    asked = tmp_path_factory.mktemp("out") / "new" / "report.html"
    path = helpers.report(
        model, faces, asked, results=results, attributions=["saliency", "occlusion"],
        stated={"intended_use": "To be <tried> & | tested."},
    )  # fmt: skip
    assert path == asked and {file.name for file in path.parent.iterdir()} == {"report.html", "report.card.md"}
    return path


@pytest.fixture(scope="module")
def page(written):
    return written.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def card(written):
    return written.with_name("report.card.md").read_text(encoding="utf-8")


class Constant(nn.Module):
    """Calls every face the same: no gap and no use."""

    def forward(self, images):
        return images.new_tensor([[1.0, 0.0]]).expand(len(images), 2)


def test_the_page_loads_nothing_and_runs_nothing(page):
    outline = Outline(page)
    assert not outline.of("script") and not outline.of("link") and not outline.of("iframe")
    assert all(image["src"].startswith("data:image/png;base64,") for image in outline.of("img"))
    assert all(link["href"].startswith("#section-") for link in outline.of("a"))
    assert "url(" not in page and "@import" not in page


def test_the_page_is_accessible(page):
    outline = Outline(page)
    assert outline.of("html")[0]["lang"] == "en-GB" and len(outline.of("h1")) == 1
    assert len(outline.of("img")) == 6 and all(len(image["alt"]) > 20 for image in outline.of("img"))
    assert len(outline.of("table")) == len(outline.of("caption")) > 10
    assert all(cell.get("scope") in ("row", "col") for cell in outline.of("th"))
    scrolled = [part for part in outline.of("div") if "wide" in part.get("class", "")]
    assert len(scrolled) == len(outline.of("table")) and all(part["tabindex"] == "0" and part["aria-label"] for part in scrolled)
    targets = {heading["id"] for heading in outline.of("h2")}
    assert {link["href"][1:] for link in outline.of("a")} == targets and len(targets) == len(HEADINGS)


HEADINGS = (
    "Intended use",
    "The data",
    "Is it biased?",
    "Could the pictures explain it?",
    "Where does it look, and can that be trusted?",
    "What does each fix cost?",
    "What this page does not show",
    "How this page was made",
)


def test_the_sections_come_in_order_and_none_is_empty(page):
    assert re.findall("<h2[^>]*>(.*?)</h2>", page) == list(HEADINGS)
    assert page.index('id="summary"') < page.index("<nav") < page.index("<h2")
    for body in page.split("</h2>")[1:]:
        said = re.sub("<[^>]*>", "", body.split("</section>")[0]).strip()
        assert len(said) > 60 and "nan" not in said.lower().split()


def test_what_nobody_stated_is_said_to_be_missing_and_how_to_state_it(page, model, faces, tmp_path):
    said = "".join(Outline(page).texts)
    assert "Intended use: To be <tried> & | tested." in said and "Out of scope: not stated. What should nobody" in said
    assert "(out_of_scope)" in said and "--state" in said
    assert "What is it for? (intended_use)" not in said
    bare = helpers.report(model, faces, tmp_path / "r.html", attributions=(), n_boot=10).read_text("utf-8")
    assert "Nobody has stated what the model is for" in bare and "No fix was tried" in bare


def test_trust_scores_are_those_of_evaluate_and_noise_is_not_better_than_itself(page, model, faces):
    rows = looks_module.spread(faces, looks_module.SCORED, 0)
    images = faces[rows][0]
    maps = helpers.attribute(model, images, method="occlusion")
    frame = helpers.evaluate(model, images, maps, metrics=["deletion", "insertion"], steps=25)
    said = "".join(Outline(page).texts)
    for mean in frame.groupby("metric")["value"].mean():
        assert f"{mean:.3f} [" in said
    means = pd.DataFrame(np.tile(0.5 + np.arange(16)[:, None] / 100, 4), index=range(16), columns=pd.MultiIndex.from_product(
        [["deletion", "insertion"], ["same", looks_module.NOISE]]
    ))  # fmt: skip
    assert looks_module.better(means, "same", 0.95, 0, 100) == []
    means["deletion", "same"] -= 0.1
    assert looks_module.better(means, "same", 0.95, 0, 100) == ["deletion"]


def test_interval_and_test_of_a_gap_are_not_made_to_agree():
    def told(low, p):
        judged = SimpleNamespace(
            gap_interval=lambda name: (low, 0.9), confidence=0.95, seed=0,
            test=lambda seed: pd.DataFrame({"statistic": ["equalized_odds"], "p_holm": [p]}),
        )  # fmt: skip
        return " ".join(assemble.chance(judged))

    assert "does not explain" in told(0.1, 0.01) and "could make such a gap" in told(0.0, 0.4)
    assert "not settled" in told(0.1, 1.0) and "does not reject" in told(0.1, 1.0)
    assert "not settled" in told(0.0, 0.01) and "rejects" in told(0.0, 0.01)
    assert told(np.nan, np.nan) == ""


def test_groups_that_gain_or_lose_are_marked():
    row = {"change": -0.25, "low": -0.5, "high": -0.125, "verdict": "levels down"}
    assert fixes.change(pd.Series(row)) == "-0.250 [-0.500, -0.125] ▼"
    assert fixes.change(pd.Series(row | {"verdict": "within noise"})) == "-0.250 [-0.500, -0.125]"
    assert fixes.change(pd.Series(row | {"change": np.nan})) == "not defined"


def test_no_line_break_parts_an_interval_or_its_sign():
    assert unbroken("-0.250 [-0.500, -0.125] ▼") == "-0.250 [-0.500,\u00a0-0.125]\u00a0▼"
    assert unbroken("a [b, c] d, 0.5") == "a [b, c] d, 0.5"


def test_a_wide_table_comes_in_pieces_with_every_column_once():
    frame = pd.DataFrame([[str(i) for i in range(12)]], columns=[f"c{i}" for i in range(12)])
    parts = pieces(frame, "wide")
    assert all(part.columns[0] == "c0" and len(part.columns) <= 6 for part in parts)
    assert sum((part.columns[1:] for part in parts), ()) == tuple(frame.columns[1:])
    assert [part.columns for part in pieces(frame.iloc[:, :3], "narrow")] == [("c0", "c1", "c2")]


def test_names_from_the_data_are_escaped_everywhere(page):
    assert "<script>" not in page and "<b>old</b>" not in page and "<matrix>" not in page
    assert (
        "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        and "&lt;b&gt;old&lt;/b&gt;" in page
        and "young &amp; fit" in page
    )


def test_the_summary_comes_first_and_says_what_the_audit_says(page, model, faces):
    said = "".join(Outline(page).texts)
    found = predict(model, faces)
    audit = helpers.audit(found.y_true, found.y_pred, found.group, groups=faces.groups, classes=faces.classes)
    assert f"{audit.gap('equalized_odds'):.3f} [" in page.split('class="summary"')[1].split("</p>")[0]
    assert f"balanced accuracy of {audit.value('balanced_accuracy'):.3f} [" in said
    assert said.index("balanced accuracy of") < said.index("Contents" if "Contents" in said else "The faces")


def test_small_cells_failures_and_useless_methods_are_told(page):
    said = "".join(Outline(page).texts)
    assert (
        "“rare”, “calm” (2)" in said or "“rare”, “calm” (3)" in said or "“rare”, “calm” (1)" in said
    )  # fewer than SMALL_CELL faces
    assert "singular <matrix>" in said and "predicts one class" in said
    assert "0.500 [" in said  # the balanced accuracy of the constant model


def test_the_gap_table_has_the_p_values_of_the_audit(page, model, faces):
    found = predict(model, faces)
    tests = helpers.audit(found.y_true, found.y_pred, found.group, groups=faces.groups, classes=faces.classes).test()
    assert "p (Holm)" in page
    assert f"{tests.set_index('statistic').loc['equalized_odds', 'p_holm']:.3g}" in page
    assert "more often than once in five times" in page or "could not have shown" in page


def test_a_closed_gap_is_put_down_to_the_groups_that_pay_for_it():
    faces = SimpleNamespace(groups=("first", "second"), classes=("no", "yes"))
    y, group = np.tile([0, 1], 200), np.repeat([0, 1], 200)
    says = lambda answer: SimpleNamespace(y_true=y, y_pred=answer, group=group)
    biased = says(np.where(group == 0, y, 1))  # right for the first group, always yes for the second
    assert verdict_of(biased, says(y), faces) == "gap closes by levelling up second in false positive rate"
    assert verdict_of(biased, says(np.ones_like(y)), faces) == "gap closes by levelling down first in false positive rate"
    assert verdict_of(biased, biased, faces) == "gap within noise"


def test_every_method_after_the_first_has_a_verdict(model, faces):
    judged = rejudge({"Vanilla": model, "CONSTANT": Constant(), "BROKEN": CorrectionResult("BROKEN", error="no")}, faces)
    assert [bool(judged[name].note) for name in judged] == [False, True, False]


def test_the_page_does_not_depend_on_the_callers_figure_settings_and_keeps_them(model, faces, tmp_path):
    pages = []
    for colour in ("white", "#123456"):
        with plt.rc_context({"axes.facecolor": colour, "font.size": 30 if pages else 8}):
            before = dict(plt.rcParams)
            helpers.report(model, faces, tmp_path / "page.html", attributions=["saliency"], examples=1, n_boot=10)
            assert dict(plt.rcParams) == before
        pages.append((tmp_path / "page.html").read_text("utf-8"))
    assert pages[0] == pages[1]


def test_the_same_seed_gives_the_same_page(model, faces, tmp_path):
    options = {"attributions": ["smoothgrad"], "examples": 2, "seed": 3}
    first = helpers.report(model, faces, tmp_path / "a.html", **options).read_bytes()
    assert first == helpers.report(model, faces, tmp_path / "b.html", **options).read_bytes()


def test_three_classes_and_crossed_groups_make_a_page(faces, tmp_path):
    table = faces.table.assign(kind=np.array(["a", "b", "c"])[np.arange(48) % 3], side=np.arange(48) % 2 == 0)
    three = helpers.data.FaceDataset(faces.images, table, target="kind", protected=["age", "side"])
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).eval()
    path = helpers.report(
        model,
        three,
        tmp_path / "three.html",
        attributions=["gradient_input", "grad_cam"],
        results={"as it is": model},
    )
    said = "".join(Outline(path.read_text()).texts)
    assert "young & fit, side" in said and "Gradient × input" in said
    assert (
        "Grad-CAM does not work on this model" in said
    )  # it has no convolution, and the rest of the page is there


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "."}, "path: .*is a folder"),
        ({"attributions": ["saliencey"]}, "attributions: unknown name 'saliencey'. Did you mean 'saliency'"),
        ({"examples": 0}, "examples: .*at least 1, got 0"),
        ({"results": [1]}, "results: expected a dict"),
        ({"stated": {"intended_us": "x"}}, "stated: unknown name 'intended_us'. Did you mean 'intended_use'"),
        ({"stated": {"licence": " "}}, "stated: licence: expected a text"),
        ({"stated": ["licence"]}, "stated: expected a dict"),
        ({"about": {"consnt": "x"}}, "about: unknown name 'consnt'. Did you mean 'consent'"),
    ],
)
def test_bad_input_is_refused_before_the_model_runs(change, message, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "predict", lambda *a, **k: pytest.fail("ran"))
    with pytest.raises(ValueError, match=message):
        helpers.report(None, faces, **{"path": tmp_path / "report.html", **change})
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_fit_leaves_no_file(faces, tmp_path):
    with pytest.raises(ValueError, match="2 classes|outputs|classes"):
        helpers.report(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), faces, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_results_are_judged_on_the_faces_given_and_on_nothing_else(model, faces):
    elsewhere = CorrectionResult("M", model, audit="of other faces", degenerate=True, seconds=2.0)
    judged = rejudge({"M": elsewhere}, faces)["M"]
    found = predict(model, faces)
    assert judged.audit.value("accuracy") == pytest.approx((found.y_true == found.y_pred).mean())
    assert not judged.degenerate and judged.seconds == 2.0 and elsewhere.audit == "of other faces"
    with pytest.raises(ValueError, match="at least one"):
        rejudge({}, faces)


def test_the_panel_takes_faces_from_every_group_and_class_in_turn(faces):
    cells = {(faces.group[row], faces.targets[row]) for row in assemble.spread(faces, 6)}
    assert len(cells) == 6
    assert len(set(assemble.spread(faces, 48))) == 48 and len(assemble.spread(faces, 100)) == 48


def test_tables_pictures_and_order_of_a_page(tmp_path):
    figure = alt(plt.figure(figsize=(1, 1)), "A 'quoted' \"word\" & <more>")
    frame = pd.DataFrame({"name": ["a|b", "<i>"], "value": [0.12345, np.nan], "count": [12345, 0]})
    sections = (
        Section("Second <h>", ("para & text", Table.of(frame, "cap <t>"), Picture.of(figure, "the figure"))),
    )
    page = render(Page("T & t", "Sum.", sections, "the end"))
    outline = Outline(page)
    assert outline.of("img")[0]["alt"] == "A 'quoted' \"word\" & <more>"
    said = "".join(outline.texts).split("</style>")[-1]
    parts = [
        "Sum.",
        "para & text",
        "cap <t>",
        "a|b",
        "0.123",
        "12,345",
        "not defined",
        "the figure",
        "the end",
    ]
    places = [said.index(part) for part in parts]
    assert places == sorted(places)
    assert write(Page("T", "S", ()), tmp_path / "empty.html").exists()


def test_values_are_written_for_people():
    values = (0.5, np.float32(0.25), np.int64(1234), True, np.bool_(False), None, pd.NA, "x", float("inf"))
    assert [text(value) for value in values] == [
        "0.500", "0.250", "1,234", "yes", "no", "not defined", "not defined", "x", "inf",
    ]  # fmt: skip
    assert (
        interval(0.5, 0.25, 0.75) == "0.500 [0.250, 0.750]" and interval(float("nan"), 0, 1) == "not defined"
    )
    assert [sentence(items) for items in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_a_variant_is_reported_with_what_was_wanted_and_achieved(model, faces, tmp_path):
    part = faces.variant({"age=rare": 0.1})
    path = helpers.report(model, part, tmp_path / "r.html", attributions=(), n_boot=20)
    texts = Outline(path.read_text()).texts
    assert "age=rare" in texts and "the rest" in texts and "has no more: this sets the size" in texts
