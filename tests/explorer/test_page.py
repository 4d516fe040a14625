"""The whole page without a browser: what its controls do (about 10 s)."""

import time
from dataclasses import replace

import pytest

from helpers import models
from helpers.explorer.page import Page
from tests.explorer.small import small_photographs


@pytest.fixture
def page(root):
    """A page that remembers what it said."""
    page = Page(str(root), model="small.safetensors")
    page.told = []
    say = page.say

    def remember(words):
        page.told.append(words)
        say(words)

    page.say = page.jobs.say = remember
    return page


def opened(page):
    page.start()
    page.jobs.wait("open")
    assert "are open" in page.told[-1], page.told
    return page


def go(page, title):
    number = [tab.title for tab in page.tabs].index(title)
    page.tab.selected_index = number
    for kind in ("look", "what if", "fix", "compare"):
        page.jobs.wait(kind)
    return page.tabs[number]


def test_the_page_is_there_before_anything_heavy_is_imported():
    import subprocess
    import sys

    heavy = "torch", "pandas", "matplotlib", "tensorflow", "captum"
    code = f"import sys; from helpers.explorer.page import Page; Page(); print([n for n in {heavy} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_opening_fills_what_was_left_open(page):
    opened(page)
    assert (page.data.value, page.target.value, page.protected.value) == ("illustrated", "smiling", "glasses")
    assert page.stop.disabled and not page.open.disabled
    audit = page.tabs[0]
    assert 'alt="Gaps between groups' in audit.gaps.value and "threshold 0.50" in audit.rates.value


def test_a_method_that_a_model_cannot_be_explained_by_is_left_out_by_name(page):
    look = go(opened(page), "Look")
    look.methods[3].value = "score_cam"
    page.jobs.wait("look")
    page.state.maps = failing(page.state.maps, "score_cam")
    look.faces.children[3].children[1].value = True
    page.jobs.wait("look")
    assert "Score cam is left out: no layer" in page.told[-1] and "saliency" in look.maps.value


def failing(maps, bad):
    def call(rows, method, model="Vanilla"):
        if method == bad:
            raise ValueError("no layer")
        return maps(rows, method, model)

    return call


def test_a_failed_opening_leaves_all_as_it_was(page):
    audit = opened(page).tabs[0]
    before = audit.gaps.value
    page.model.value = "nowhere.keras"
    page.start()
    page.jobs.wait("open")
    assert "there is no 'nowhere.keras'" in page.told[-1] and audit.gaps.value == before and not page.open.disabled
    page.protected.value = "hair_length"
    assert "Groups are now made by hair_length" in page.told[-1] and audit.gaps.value != before


def test_running_nothing_is_a_sentence(page):
    fix = go(opened(page), "Fix")
    fix.methods.value = ()
    fix.run.click()
    assert page.told[-1].startswith("Methods: none is selected")


def test_files_are_linked_under_a_name_that_nobody_guesses(page, tmp_path):
    page.downloads = str(tmp_path)
    report = go(opened(page), "Report")
    report.csv.click()
    page.jobs.wait("table")
    folder, = tmp_path.iterdir()
    assert len(folder.name) > 20 and (folder / "audit.csv").is_file()
    assert f'href="voila/files/downloads/{folder.name}/audit.csv" download="audit.csv"' in report.links.value
    page.downloads, report._folder = None, None
    report.csv.click()
    page.jobs.wait("table")
    assert 'href="data:text/csv;base64,' in report.links.value


def test_three_classes(root, page):
    model = models.build("resnet18", ("dark", "light", "medium"))
    loaded = {"data": "illustrated", "target": "skin_tone", "protected": ["glasses"], "image_size": 32, "seed": 0}
    models.save(model.eval(), root / "three.safetensors", loaded=loaded | {"option": {"n": 48, "n_jobs": 1}})
    page.model.value = "three.safetensors"
    audit = opened(page).tabs[0]
    assert audit.threshold.disabled and "no threshold" in audit.all.value and "<table>" in audit.rates.value
    assert "maps are shown" in (go(page, "Look") and page.told[-1])
    what_if = go(page, "What if")
    what_if.values["skin_tone"].value = {"light": "dark", "medium": "dark", "dark": "light"}[what_if.values["skin_tone"].value]
    page.jobs.wait("what if")
    assert "as it was and" in page.told[-1]
    fix = go(page, "Fix")
    fix.methods.value = ("LEACE", "NT")
    fix.run.click()
    page.jobs.wait("fix")
    page.jobs.wait("compare")
    assert any("NT failed: target: 3 classes" in words for words in page.told)
    assert "LEACE against the model as it was" in fix.table.value


def test_a_photograph_is_covered_instead_of_redrawn(root, page):
    small_photographs(root)
    page.data.value, page.target.value, page._protected = "faces.csv", "smiling", "age"
    what_if = go(opened(page), "What if")
    assert "cannot be redrawn" in what_if.note.value and list(what_if.values) == ["top", "left", "height", "width"]
    before = what_if.pair.value
    what_if.values["height"].value = 32
    page.jobs.wait("what if")
    assert what_if.pair.value != before and "as it was and" in page.told[-1]


def test_a_cancelled_run_keeps_what_was_finished(page, monkeypatch):
    from helpers.debiasing.method import METHODS

    opened(page)
    page.protected.value = "skin_tone"
    fix = go(page, "Fix")
    slow = METHODS["DFR"].function

    def wait(model, batch, **options):
        fix.stop.click()
        for _ in range(1000):
            time.sleep(0.01)
        return slow(model, batch, **options)

    monkeypatch.setitem(METHODS, "DFR", replace(METHODS["DFR"], function=wait))
    fix.methods.value = ("LEACE", "DFR")
    fix.run.click()
    page.jobs.wait("fix")
    assert page.told[-1] == "Cancelled. What was finished before is kept."
    assert page.state.kept_fixes() == ["LEACE"] and not fix.run.disabled and fix.stop.disabled
    fix.methods.value = ("LEACE",)
    fix.run.click()
    page.jobs.wait("fix")
    page.jobs.wait("compare")
    assert "LEACE against the model as it was" in fix.table.value


def test_the_names_offered_are_those_of_the_data_sets():
    from helpers.data import SOURCES
    from helpers.explorer.page import DATA

    assert set(DATA) == set(SOURCES) - {"folder", "table"}
