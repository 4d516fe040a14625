"""The page on paper: every section is in the PDF, and nothing is wider than the page."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from torch import nn

import helpers
from helpers.data import FaceDataset

CHROMIUM, READER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("pdftotext")
if CHROMIUM is None:
    pytest.skip("apt-get install chromium, to print the report", allow_module_level=True)

pytestmark = pytest.mark.timeout(300)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
GROUPS = 9


@pytest.fixture(scope="module")
def page(faces, tmp_path_factory):
    """A report with nine groups of long names, so that its tables are as wide as they get."""
    table = faces.table.assign(age=[f"a group with the long name {i % GROUPS}" for i in range(48)])
    many = FaceDataset(faces.images, table, target="mood", protected="age", classes=faces.classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2)).eval()
    results = {"as it is": model, "again": model}
    return helpers.report(
        model, many, tmp_path_factory.mktemp("print") / "r.html", attributions=["saliency"], results=results, n_boot=20
    )


def browse(*arguments: str) -> str:
    found = subprocess.run([CHROMIUM, *FLAGS, *arguments], capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.skipif(READER is None, reason="apt-get install poppler-utils, to read what was printed")
def test_every_section_is_printed(page, tmp_path):
    printed = tmp_path / "r.pdf"
    browse("--no-pdf-header-footer", f"--print-to-pdf={printed}", page.as_uri())
    said = subprocess.run([READER, "-layout", str(printed), "-"], capture_output=True, text=True, check=True).stdout
    assert said.count("\f") > 2
    together = " ".join(said.split())
    headings = re.findall("<h[123][^>]*>(.*?)</h[123]>", page.read_text("utf-8"))
    assert len(headings) > 10 and all(heading in together for heading in headings)
    assert re.search(r"1 / \d", together)  # pages are numbered


@pytest.mark.parametrize(("width", "paper"), [(680, True), (400, False)])  # A4 within its margins, a telephone
def test_nothing_is_wider_than_the_page(page, tmp_path, width, paper):
    """Laid out with the rules for paper: no table sticks out. On a telephone wide tables scroll, and the page does not."""
    text = page.read_text("utf-8")
    if paper:
        text = text.replace("@media print", "@media all")
    script = (
        "<script>const most = Math.max(...[...document.querySelectorAll(%r)].map(e => e.getBoundingClientRect().right));"
        "document.title = 'most ' + Math.ceil(most) + ' of ' + document.documentElement.clientWidth;</script>"
    ) % ("table, img, p, li" if paper else ".wide, img, p, li")
    frame = tmp_path / "inner.html"
    frame.write_text(text.replace("</body>", script + "</body>"), "utf-8")
    outer = tmp_path / "outer.html"  # a window cannot be made so narrow, a frame can
    outer.write_text(
        f"<body><iframe src='inner.html' style='width:{width}px;height:2000px;border:0'></iframe><script>onload = () => "
        "document.title = frames[0].document.title</script></body>", "utf-8"
    )  # fmt: skip
    said = browse("--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=5000", outer.as_uri())
    most, of = map(int, re.search(r"most (\d+) of (\d+)", said).groups())
    assert of <= width and most <= of


def test_the_fixture_has_wide_tables(page):
    assert len(np.unique(re.findall("a group with the long name [0-9]", page.read_text("utf-8")))) == GROUPS
