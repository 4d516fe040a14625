"""The pages hold together: links lead somewhere, and code is code."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for folder in (".", "docs", "data", "video", "notebooks") for page in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def anchors(page):
    """The names by which GitHub reaches a page's headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_pictures_are_described(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for picture, words, where in LINK.findall(text):
        assert words.strip(), f"{where} has no words"
        assert not picture or len(words) > 40, f"{where}: its alternative text says what the figure shows"
        if "://" in where:
            continue
        path, _, anchor = where.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{where} is not there"
        assert not anchor or anchor in anchors(target), f"{where}: no such heading"


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert f"](docs/{page.name})" in readme, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_pages_is_python(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        compile(textwrap.dedent(block).replace("…", "..."), page.name, "exec")
