"""The notebooks ask what can be checked, their solutions are right, and their first cell installs what is missing.

The solutions run in kernels of their own: about 40 s of one processor for all together.
"""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from helpers import course

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
ASKED = sorted({key[:2] for key in course.EXERCISES})


def code(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def keys(path):
    return re.findall(r'course\.check\(\s*"([^"]+)"', "\n".join(cell.source for cell in code(path)))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_asks_every_exercise_once_and_in_order(path):
    wanted = sorted(key for key in course.EXERCISES if key[:2] == path.name[:2])
    assert keys(path) == wanted
    prose = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    for key in wanted:
        (cell,) = [cell.source for cell in code(path) if f'course.check("{key}"' in cell.source]
        assert re.search(r"^answer = \.\.\.  # ", cell, re.M), "an unanswered exercise"
        assert f'course.hint("{key}")' in cell
        assert f"### {key[3:]} · {course.EXERCISES[key].title} *(" in prose
        assert f"{course.EXERCISES[key].minutes} min)*" in prose
    assert not wanted or f"solutions/{path.name[:2]}_solutions.ipynb" in prose


def test_every_lesson_with_exercises_has_its_solutions():
    assert [path.name for path in SOLUTIONS] == [f"{lesson}_solutions.ipynb" for lesson in ASKED]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_every_solution_is_right(path, tmp_path):
    from nbclient import NotebookClient

    specification = importlib.util.spec_from_file_location("solutions_runner", NOTEBOOKS / "run.py")
    run = importlib.util.module_from_spec(specification)
    sys.modules["solutions_runner"] = run
    specification.loader.exec_module(run)

    content = nbformat.read(path, 4)
    cells = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells), "stored without outputs"
    assert keys(path) == sorted(key for key in course.EXERCISES if key[:2] == path.name[:2])
    with run.this_python_as_kernel():
        NotebookClient(content, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in cells:
        for key in re.findall(r'course\.check\(\s*"([^"]+)"', cell.source):
            (told,) = [out["data"]["text/plain"] for out in cell.outputs if "text/plain" in out.get("data", {})]
            assert told.startswith(f"{key}: right."), told


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=lambda path: path.stem)
def test_the_first_cell_installs_what_is_missing_and_else_does_nothing(path, monkeypatch, tmp_path):
    first = code(path)[0]
    assert first.metadata["tags"] == ["install"]
    root = ".." if path in LESSONS else "../.."
    plain = TransformerManager().transform_cell(first.source)
    asked = []

    class Shell:
        def run_line_magic(self, *words):
            asked.append(words)

    def execute():
        asked.clear()
        inside = {"get_ipython": Shell}
        # what IPython fills in for {source} when it runs a line
        exec(plain.replace("'install --quiet {source}'", "f'install --quiet {source}'"), inside)
        return list(asked)

    monkeypatch.chdir(path.parent)
    assert execute() == [], "helpers can be imported here"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert execute() == [("pip", f"install --quiet {root}")], "a clone that is not installed"
    (tmp_path / "content" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "content" / "deep")
    assert execute() == [("pip", "install --quiet candor-workbench")]


PLACES = {  # where a notebook is, and which folders are there beside it -> what is installed where nothing is
    "a clone's notebooks": ("clone/notebooks", ".."),
    "a clone's solutions": ("clone/notebooks/solutions", "../.."),
    "a clone's root, as editors may have it": ("clone", "."),
    "alone, as on Colab": ("content", "candor-workbench"),
    "inside another project": ("other/notebooks", "candor-workbench"),
}


@pytest.mark.parametrize("folder, source", PLACES.values(), ids=PLACES)
def test_the_first_cell_finds_what_to_install_in_a_python_that_has_nothing(folder, source, tmp_path):
    for made in ("clone/helpers", "clone/notebooks/solutions", "content", "other/notebooks", "other/helpers"):
        (tmp_path / made).mkdir(parents=True)
    for made in ("clone/pyproject.toml", "clone/helpers/__init__.py", "clone/helpers/problem.py", "other/pyproject.toml"):
        (tmp_path / made).touch()
    (cell,) = {code(path)[0].source for path in [*LESSONS, *SOLUTIONS]}
    plain = TransformerManager().transform_cell(cell).replace("'install --quiet {source}'", "source")
    stub = "get_ipython = lambda: type('Shell', (), {'run_line_magic': lambda self, magic, line: print(magic, line)})()\n"
    # -S: without site-packages, so that only what lies beside the notebook can be imported
    done = subprocess.run([sys.executable, "-S", "-E", "-c", stub + plain], cwd=tmp_path / folder, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"pip {source}\n", "")


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=lambda path: path.stem)
def test_no_cell_asks_a_shell(path):
    for cell in code(path):
        assert not re.search(r"^\s*(!|%%(bash|sh|cmd))", cell.source, re.M), cell.source


def rows(text, first):
    """The rows of a table whose first cell matches, each as its cells."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if re.match(rf"\| {first}", line)]


def test_the_instructors_page_has_the_course_s_own_numbers():
    page = (NOTEBOOKS / "INSTRUCTORS.md").read_text(encoding="utf-8")
    readme = (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")
    minutes = course.exercises().groupby("lesson")["minutes"].sum()
    for path in LESSONS:
        lesson = path.name[:2]
        (row,), (listed,) = rows(page, f"{lesson} [A-Z]"), rows(readme, rf"{lesson} \|")
        assert row[0] == f"{lesson} {listed[1]}" and row[1] == listed[-1]
        assert row[2] == (f"{minutes[lesson]} min" if lesson in minutes else "–")
        opening = nbformat.read(path, 4).cells[0].source
        assert row[3].split(", ")[0] in " ".join(opening.split()), "computing times are those of the lesson itself"
    named = set(re.findall(r"\b\d\d-\d\b", page))
    assert named <= set(course.EXERCISES) and len(named) > 20
    parts = ("What students should know", "Ninety minutes", "Six weeks", "How to assess", "Before you show faces")
    assert all(f"\n## {part}\n" in page for part in parts)
    plan = page.split("## Ninety minutes")[1].split("\n## ")[0]
    assert sum(int(row[0]) for row in rows(plan, r"\d+ \|")) == 90


class Anything:
    """Stands for the variables of a lesson."""

    def __getitem__(self, key):
        return self


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_with_its_exercises_unanswered(path, capsys):
    inside = dict.fromkeys(("orl", "model", "test", "result", "images", "fit", "report"), Anything())
    for cell in code(path):
        if "course.check" in cell.source:
            *before, last = ast.parse(cell.source).body
            exec(compile(ast.Module(before, []), path.name, "exec"), inside)
            verdict = eval(compile(ast.Expression(last.value), path.name, "eval"), inside)
            assert verdict.right is None and "not answered yet" in repr(verdict)
