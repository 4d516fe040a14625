"""Every lesson runs from top to bottom under papermill, its own assertions included, and is fit to be stored and read."""

import importlib.util
import sys
from pathlib import Path

import nbformat
import pytest

from video import story

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
specification = importlib.util.spec_from_file_location("course_runner", NOTEBOOKS / "run.py")
run = importlib.util.module_from_spec(specification)
sys.modules["course_runner"] = run
specification.loader.exec_module(run)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The course, executed as `make tutorial` does: the error of each lesson, and the folder of the results."""
    out = tmp_path_factory.mktemp("course")
    done = run.course(LESSONS, out, {"profile": "quick"}, with_report=False, jobs=min(2, run.CORES))
    return {outcome.name: outcome.error for outcome in done}, out / "notebooks"


@pytest.mark.timeout(2400)  # the first to ask has the whole course executed
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_and_its_claims_hold(path, course):
    errors, folder = course
    assert errors[path.stem] == ""
    page = (folder / path.name).with_suffix(".html").read_text(encoding="utf-8")
    figures = page.count('src="data:image/png')
    assert figures >= 2
    assert "Figure without a description" not in page
    assert "Traceback" not in page


@pytest.mark.timeout(2400)
def test_the_film_finds_its_figures_and_numbers_in_the_course(course):
    _, folder = course
    scenes = story.read(story.BOARD.read_text(encoding="utf-8"))
    shots = [shot for scene in scenes for shot in scene.shots]
    runs = {shot.lesson: story.lesson(next(folder.glob(f"{shot.lesson}_*.ipynb"))) for shot in shots}
    values = story.values(scenes, runs)
    for shot in shots:
        assert story.fill(shot.words, values)
        assert not shot.figure or story.figure(runs[shot.lesson], shot.figure)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_is_stored_without_outputs_and_has_its_parts(path):
    content = nbformat.read(path, 4)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    prose = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", ())]
    defined = {}
    exec(parameters.source, defined)  # our own notebook: five assignments
    assert {"dataset", "data_root", "target", "protected", "profile"} <= set(defined)
    assert defined["profile"] == "quick"
    parts = "After this lesson you can, Predict, What we learned, Pitfalls, Exercises, On your own data, Further reading"
    for part in parts.split(", "):
        assert part in prose, part
    assert any("assert " in cell.source for cell in code)


def test_the_readme_lists_every_lesson():
    readme = (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")
    assert [path.name[:2] for path in LESSONS] == ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11"]
    for path in LESSONS:
        title = nbformat.read(path, 4).cells[0].source.splitlines()[0].split("·")[1].strip()
        assert title in readme
