"""Lessons where students run them: JupyterLab in Chromium, "Restart Kernel and Run All Cells…" by clicks on the menu.

Pictures of what a student sees go to build/jupyterlab.
"""

import ast
import json
import os
import re
import secrets
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from tests.browser import chromium
from tests.browser.chromium import By, Keys, asked_for, browser, elsewhere, served, wait

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURES = REPOSITORY / "build" / "jupyterlab"
LESSONS = ("01_know_your_faces", "11_recognising_not_just_classifying")
LONGEST = 900  # seconds for a lesson: where the cache is empty, it draws the faces first
SETTINGS = {
    # All cells stay in the page, so that all can be looked at; and nobody is asked whether news may be fetched.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
FAILING = ["print('fine')", "figure = 1 / 0", "print('never reached')"]

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that is running: its address, its token and the folder that it shows."""

    home: str
    token: str
    folder: Path


@dataclass(frozen=True)
class Ran:
    """A notebook after it ran: `failures` in sentences, the saved code `cells`, `alts` of figures, what the page asked for."""

    failures: list[str]
    cells: list
    alts: list[str]
    urls: list[str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab as `make lab` starts it, on a copy of the notebooks and with settings of its own."""
    root = tmp_path_factory.mktemp("student")
    folder = root / "my course" / "notebooks"
    shutil.copytree(REPOSITORY / "notebooks", folder, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    cells = [nbformat.v4.new_code_cell(source) for source in FAILING]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "failing.ipynb")
    (root / "config" / "labconfig").mkdir(parents=True)
    (root / "config" / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    own = {f"JUPYTER_{name}_DIR": str(root / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces"), "JUPYTERLAB_SETTINGS_DIR": str(root / "settings")}
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **own, "PYTHONPATH": paths, "PIP_NO_INDEX": "1"}
    environment.pop("MPLBACKEND", None)  # a student's kernel chooses it
    port, token = chromium.port(), secrets.token_hex()
    command = [
        sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", "--allow-root",
    ]  # fmt: skip
    with served(command, root / "log.txt", "is running at", cwd=REPOSITORY, env=environment):
        yield Lab(f"http://127.0.0.1:{port}/", token, folder)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def click(driver, selector, words):
    """Click the first visible element of these that says just these words."""

    def done():
        for each in driver.find_elements(By.CSS_SELECTOR, selector):
            if each.text.strip() == words and each.is_displayed():
                each.click()
                return True

    wait(done, f"{words!r} can be clicked")


def idle(driver):
    return driver.find_elements(By.CSS_SELECTOR, '.jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status="idle"]')


def code_cells(driver):
    """Of each code cell in the page: its prompt, whether it shows a traceback, and (is it drawn, its alt) of each figure."""
    return driver.execute_script("""
        const shows = (cell, kind) => [...cell.querySelectorAll('.jp-OutputArea-output' + kind)]
        return [...document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell')].map(cell => ({
            prompt: cell.querySelector('.jp-InputPrompt').textContent.trim(),
            traceback: shows(cell, '').some(each => each.textContent.includes('Traceback (most recent call last)')),
            figures: shows(cell, ' img').map(each => [each.naturalWidth > 0, each.alt])
                .concat(shows(cell, ' svg').map(each => [each.clientWidth > 0, each.getAttribute('aria-label') || '']))
        }))""")


def finished(driver):
    """Whether cells have run and none runs or waits: where one fails, JupyterLab takes the others off its list."""
    prompts = [cell["prompt"] for cell in code_cells(driver)]
    return idle(driver) and prompts[0] != "[ ]:" and "[*]:" not in prompts


def begun(driver, seconds=60):
    """Whether the first cell, which takes no time, has its number soon."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if re.fullmatch(r"\[\d+\]:", code_cells(driver)[0]["prompt"]):
            return True
        time.sleep(0.2)
    return False


def run_all(driver, lab, name):
    """Open a notebook, restart and run all by the menu, save by the keyboard; what then is in the page and in the file."""
    asked_for(driver)
    driver.get(f"{lab.home}lab/workspaces/{name[:2]}/tree/{name}.ipynb?token={lab.token}")  # a workspace without other notebooks
    wait(lambda: name in driver.current_url and idle(driver), "the kernel is ready")
    for _ in range(3):  # on a loaded machine JupyterLab may lose the first message to a kernel that was restarted: nothing runs
        click(driver, ".lm-MenuBar-itemLabel", "Kernel")
        click(driver, ".lm-Menu-itemLabel", "Restart Kernel and Run All Cells…")
        click(driver, ".jp-Dialog .jp-mod-accept", "Restart")
        if begun(driver):
            break
    wait(lambda: finished(driver), f"{name} has run", LONGEST)
    driver.switch_to.active_element.send_keys(Keys.CONTROL, "s")
    seen = code_cells(driver)
    cells = saved(lab.folder / f"{name}.ipynb", [each["prompt"] for each in seen])
    alts = [alt for each in seen for _, alt in each["figures"]]
    return Ran(failures(seen, cells), cells, alts, asked_for(driver))


def saved(path, prompts):
    """The code cells of the file, once it holds the numbers that the page shows."""

    def same():
        cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        return [f"[{cell.execution_count or ' '}]:" for cell in cells] == prompts and cells

    return wait(same, f"{path.name} is saved")


def failures(seen, cells):
    """What is wrong with cells, as the page shows them or as they are in the file; a sentence for each."""
    found = []
    for number, (page, cell) in enumerate(zip(seen, cells, strict=True), 1):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        found += [f"code cell {number} failed: {error.ename}: {error.evalue}" for error in errors]
        if page["traceback"] and not errors:
            found.append(f"code cell {number} shows a traceback")
        if not cell.execution_count:
            found.append(f"code cell {number} did not run")
        found += [f"code cell {number} has a figure that is not drawn" for drawn, _ in page["figures"] if not drawn]
    return found


def shown(source):
    """How many figures a cell shows whatever happens: its statements `show(…)` that no condition or loop holds."""
    plain = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith("%"))
    calls = [each.value for each in ast.parse(plain).body if isinstance(each, ast.Expr) and isinstance(each.value, ast.Call)]
    return sum(getattr(call.func, "id", "") == "show" for call in calls)


def stored(cell):
    """How many figures the outputs of a cell hold in the file."""
    data = [output.get("data", {}) for output in cell.outputs]
    return sum(each.get("text/html", "").count("<img ") or any(kind.startswith("image/") for kind in each) for each in data)


def photograph(driver, name):
    PICTURES.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(PICTURES / f"{name}.png"))


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_runs_from_the_menu_and_its_figures_appear(name, lab, student):
    ran = run_all(student, lab, name)
    for place, figure in {"first": 0, "last": -1}.items():
        if figures := student.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output img"):
            student.execute_script("arguments[0].scrollIntoView({block: 'center'})", figures[figure])
            time.sleep(0.5)  # until it is painted, for the picture alone
        photograph(student, f"{name}-{place}")
    assert ran.failures == []
    assert ran.cells[0].metadata.tags == ["install"] and ran.cells[0].outputs == [], "nothing had to be installed"
    assert all(stored(cell) >= shown(cell.source) for cell in ran.cells)
    assert len(ran.alts) == sum(map(stored, ran.cells)) >= 7
    assert all(len(alt.split()) > 3 for alt in ran.alts) and not any("without a description" in alt for alt in ran.alts)
    assert ran.urls and elsewhere(ran.urls, lab.home) == []


def test_a_cell_that_fails_is_named(lab, student):
    ran = run_all(student, lab, "failing")
    photograph(student, "failing")
    assert ran.failures == ["code cell 2 failed: ZeroDivisionError: division by zero", "code cell 3 did not run"]
