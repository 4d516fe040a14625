"""The course runner: a failing notebook is told of and does not stop the others."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

RUN = Path(__file__).resolve().parents[2] / "notebooks" / "run.py"
specification = importlib.util.spec_from_file_location("course_run", RUN)
run = importlib.util.module_from_spec(specification)
sys.modules["course_run"] = run
specification.loader.exec_module(run)


def notebook(path: Path, *cells: str) -> None:
    """A notebook with a parameters cell and the given code cells."""
    parameters = nbformat.v4.new_code_cell("profile = 'none'\nn = 1", metadata={"tags": ["parameters"]})
    content = nbformat.v4.new_notebook(cells=[parameters, *map(nbformat.v4.new_code_cell, cells)])
    nbformat.write(content, path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A course of three, the second of which fails: exit code, printed table, folder of results."""
    folder = tmp_path_factory.mktemp("course with spaces")
    lesson = (
        "import os, sys, matplotlib\n"
        "print('SEEN', profile, n, kind, sys.executable, os.path.basename(os.getcwd()), "
        "matplotlib.get_backend())"
    )
    figure = (
        "import matplotlib.pyplot as plt\nfrom helpers.plots import alt, show\n"
        "figure, axes = plt.subplots(figsize=(1, 1))\nshow(alt(axes, 'Empty <axes>'))"
    )
    notebook(folder / "01_good.ipynb", lesson, figure)
    notebook(
        folder / "02_bad.ipynb",
        "print('before')",
        "raise ValueError('no\\nsuch\\tface')",
        "print('AF' + 'TER')",
    )
    notebook(folder / "03_next.ipynb", "print('REACHED')")
    notebook(folder / "draft.ipynb", "raise SystemExit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "report", lambda path, profile: "")
        import contextlib
        import io

        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            code = run.main(
                ["--notebooks", str(folder), "--out", str(folder / "out"), "-p", "n=[2, 3]", "kind=drawn"]
            )
    return code, printed.getvalue(), folder / "out" / "notebooks"


def test_the_table_names_each_notebook_and_the_failing_cell(finished):
    code, printed, _ = finished
    assert code == 1
    rows = {line.split()[0]: line for line in printed.splitlines() if line}
    assert rows["01_good"].endswith("ok") and rows["03_next"].endswith("ok") and rows["report"].endswith("ok")
    # the parameters cell is [1], the injected one [2], then the notebook's own
    assert rows["02_bad"].endswith("cell [4]: ValueError: no such face")
    assert rows["all"].endswith("1 of 4 failed") and "draft" not in rows


def test_parameters_python_folder_and_backend_reach_the_notebook(finished):
    _, _, folder = finished
    outputs = nbformat.read(folder / "01_good.ipynb", 4).cells
    text = next(
        out["text"] for cell in outputs for out in cell.get("outputs", []) if "SEEN" in out.get("text", "")
    )
    inline = "module://matplotlib_inline.backend_inline"
    assert text.split() == [
        "SEEN",
        "quick",
        "[2,",
        "3]",
        "drawn",
        sys.executable,
        *folder.parents[1].name.split(),
        inline,
    ]


def test_the_failed_notebook_is_written_up_to_its_failing_cell_and_the_rest_goes_on(finished):
    _, _, folder = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        f"{stem}.{kind}" for stem in ("01_good", "02_bad", "03_next") for kind in ("ipynb", "html")
    }
    failed = (folder / "02_bad.html").read_text()
    assert "before" in failed and "ValueError" in failed and "AFTER" not in failed
    assert "REACHED" in (folder / "03_next.html").read_text()


def test_alternative_text_of_figures_survives_the_conversion(finished):
    _, _, folder = finished
    page = (folder / "01_good.html").read_text()
    assert 'alt="Empty &lt;axes&gt;"' in page and "No description has been provided" not in page


def test_only_chooses_by_number_and_an_unknown_one_is_refused(tmp_path, capsys):
    for name in ("01_a", "02_b"):
        notebook(tmp_path / f"{name}.ipynb")
    found = run.notebooks(tmp_path)
    assert [path.stem for path in run.select(found, ["02"])] == ["02_b"]
    assert run.main(["--notebooks", str(tmp_path), "--only", "07", "--out", str(tmp_path / "out")]) == 2
    assert "--only 07: no such notebook; there are 01_a, 02_b" in capsys.readouterr().err
    assert run.main(["--notebooks", str(tmp_path), "-p", "nonsense"]) == 2
    assert not (tmp_path / "out").exists()


def test_values_are_read_as_json_or_text():
    assert run.assignment("n=3") == ("n", 3)
    assert run.assignment('protected=["a", "b"]') == ("protected", ["a", "b"])
    assert run.assignment("data_root=my photos/a=b") == ("data_root", "my photos/a=b")
    with pytest.raises(ValueError, match="NAME=VALUE"):
        run.assignment("3=n")


def test_a_report_that_fails_is_a_row_of_the_table(tmp_path):
    error = run.report(tmp_path / "report.html", "quik")
    assert error.startswith("ValueError: profile: unknown name 'quik'. Did you mean 'quick'?")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", run.THREADS)
def test_notebooks_side_by_side_share_the_cores(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(run, "CORES", 6)
    with run.sharing_cores(2):
        assert os.environ[name] == "3"
    assert name not in os.environ
    with run.sharing_cores(1):
        assert name not in os.environ
    monkeypatch.setenv(name, "5")
    with run.sharing_cores(2):
        assert os.environ[name] == "5"
    assert os.environ[name] == "5"


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interrupted_course_ends_at_once_and_leaves_nothing_half_written(tmp_path):
    notebook(tmp_path / "01_quick.ipynb")
    for name in ("02_slow", "03_slow", "04_slow"):
        notebook(tmp_path / f"{name}.ipynb", f"open(r'{tmp_path}/begun', 'a').write('x')", "import time; time.sleep(300)")
    command = [sys.executable, str(RUN), "--notebooks", str(tmp_path), "--out", str(tmp_path / "out"), "--no-report"]
    course = subprocess.Popen(
        [*command, "--only", "03", "--only", "04", "--only", "01"], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests run in the background have it ignored
    )  # fmt: skip
    for _ in range(600):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.1)
    began = time.monotonic()
    course.send_signal(signal.SIGINT)
    _, told = course.communicate(timeout=60)
    assert course.returncode == 130 and "Interrupted" in told and time.monotonic() - began < 30
    assert not list((tmp_path / "out" / "notebooks").glob(".*"))
