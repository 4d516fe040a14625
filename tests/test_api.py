"""The public entrance: eight verbs, loaded when they are used."""

import subprocess
import sys
import time

import matplotlib.pyplot as plt
import pytest

import helpers
from helpers.files import check, whole
from helpers.names import choose


def python(code: str) -> str:
    """Output of a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()


def test_import_is_quick_and_loads_no_framework():
    started = time.perf_counter()
    loaded = python("import sys, helpers; print(*{m.split('.')[0] for m in sys.modules})")
    assert time.perf_counter() - started < 2
    assert not {"torch", "tensorflow", "xplique", "captum", "matplotlib", "pandas"} & set(loaded.split())


@pytest.mark.parametrize("name", helpers.__all__)
def test_every_verb_is_callable_and_documented(name):
    assert callable(getattr(helpers, name))
    assert name in dir(helpers)


@pytest.mark.parametrize(
    "order", ["import helpers; helpers.report", "import helpers.report.html, helpers.bias.audit"]
)
def test_verbs_that_share_a_name_with_a_module_work_whichever_comes_first(order):
    code = f"""{order}
import inspect, sys
import helpers, helpers.report.html, helpers.bias.audit
from helpers import report
from helpers.report import render
assert callable(report) and report is helpers.report and helpers.report.html.render is render
assert 'faces' in inspect.signature(report).parameters
assert all(inspect.isfunction(getattr(helpers, name)) for name in helpers.__all__ if name != 'report')
print('tensorflow' in sys.modules or 'xplique' in sys.modules)"""
    assert python(code) == "False"


def test_an_unknown_verb_is_an_attribute_error_that_names_the_verbs():
    with pytest.raises(AttributeError, match="'adit'.*audit"):
        getattr(helpers, "adit")  # noqa: B009


def test_the_version_is_that_of_the_distribution():
    metadata = pytest.importorskip("importlib.metadata")
    try:
        assert metadata.version("candor-workbench") == helpers.__version__
    except metadata.PackageNotFoundError:
        pytest.skip("not installed")


def test_a_name_is_matched_in_any_case_and_a_near_miss_is_named():
    assert choose("orl", ["ORL", "folder"], "name") == "ORL"
    with pytest.raises(
        ValueError, match=r"name: unknown name 'foldr'\. Did you mean 'folder'\?.*ORL, folder"
    ):
        choose("foldr", ["ORL", "folder"], "name")


def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with whole(path) as part:
        assert part.suffix == ".html"  # savefig and to_csv choose their format by it
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_written_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "usual").write_text("")
    with whole(tmp_path / "new" / "file") as part:
        part.write_text("")
    assert (tmp_path / "new" / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_paths_that_cannot_be_written_are_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--out: .*is a folder"):
        check(tmp_path, "--out")
    with pytest.raises(ValueError, match="is a file"):
        check(tmp_path / "file" / "page.html")
    assert check(tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    assert not (tmp_path / "new").exists()


def test_a_figure_is_shown_once_with_its_words_and_closed(monkeypatch, capsys):
    from helpers.plots import alt, img, png, show

    figure, axes = plt.subplots()
    axes.plot([0, 1])
    alt(axes, 'Rises from 0 to "1" <fast>')
    assert 'alt="Rises from 0 to &quot;1&quot; &lt;fast&gt;"' in img(figure)
    assert png(figure) == png(figure)
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    show(axes)
    assert [set(bundle) for bundle in shown] == [{"text/html", "text/plain"}]
    assert not plt.fignum_exists(figure.number)

    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    show(alt(plt.figure(), "Words alone"))
    assert capsys.readouterr().out == "Words alone\n"
