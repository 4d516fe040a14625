"""One self-contained HTML page from plain tables, texts and figures."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.files import whole
from helpers.plots.show import alt_text, png


@dataclass(frozen=True)
class Table:
    """A table with its caption; cells are texts, the first of each row names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, frame: pd.DataFrame, caption: str) -> Table:
        """From a DataFrame: numbers get three digits, a missing value the words "not defined"."""
        rows = tuple(tuple(text(value) for value in row) for row in frame.itertuples(index=False))
        return cls(caption, tuple(str(column) for column in frame.columns), rows)


@dataclass(frozen=True)
class Picture:
    """A figure as PNG inside the page, with the words for those who cannot see it and a caption for all."""

    source: str  # a data URI
    alt: str
    caption: str

    @classmethod
    def of(cls, drawing: Axes | Figure, caption: str) -> Picture:
        """From a drawing; its alternative text is that of `helpers.plots.alt`."""
        return cls(
            "data:image/png;base64," + base64.b64encode(png(drawing)).decode(), alt_text(drawing), caption
        )


@dataclass(frozen=True)
class Points:
    """A list, one point after the other."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in the order given: texts (paragraphs), lists, headings, tables and pictures."""

    heading: str
    parts: tuple[str | Points | Heading | Table | Picture, ...]


@dataclass(frozen=True)
class Told:
    """A section, and what it comes to in a sentence ("" where nothing can be said)."""

    section: Section
    said: str


@dataclass(frozen=True)
class Page:
    """A whole report: title, the summary that comes first with its points, and the sections."""

    title: str
    summary: str
    sections: tuple[Section, ...]
    footer: str = ""
    points: tuple[str, ...] = ()


def pieces(frame: pd.DataFrame, caption: str, most: int = 5) -> list[Table]:
    """A wide table as several of at most `most` columns beside the first, which all have: a page of paper holds no more."""
    parts = max(1, math.ceil((frame.shape[1] - 1) / most))
    each = math.ceil((frame.shape[1] - 1) / parts)
    return [
        Table.of(frame.iloc[:, [0, *range(1 + i * each, min(1 + (i + 1) * each, frame.shape[1]))]],
                 caption + (f" ({i + 1} of {parts})" if parts > 1 else ""))
        for i in range(parts)
    ]  # fmt: skip


def text(value: object, digits: int = 3) -> str:
    """A value as a person reads it: "0.412", "1,024", "yes", and "not defined" for NaN.

    >>> text(0.41234), text(1024), text(float("nan")), text("women")
    ('0.412', '1,024', 'not defined', 'women')
    """
    if isinstance(value, str):
        return value
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return "not defined"
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if pd.api.types.is_integer(value):
        return f"{value:,}"
    if pd.api.types.is_float(value):
        return f"{value:.{digits}f}" if math.isfinite(value) else str(value)
    return str(value)


def interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """A value with its interval: "0.412 [0.350, 0.471]"; a value without one stands alone."""
    if pd.isna(value) or pd.isna(low) or pd.isna(high):
        return text(value, digits)
    return f"{text(float(value), digits)} [{text(float(low), digits)}, {text(float(high), digits)}]"


def render(page: Page) -> str:
    """The page as HTML text. What comes from data or users is escaped; nothing is loaded from elsewhere."""
    environment = Environment(
        loader=PackageLoader("helpers.report", "."),
        autoescape=True,  # by name, `select_autoescape` would overlook the template's own ending, .html.j2
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kinds = {"table": Table, "picture": Picture, "points": Points, "heading": Heading}
    for name, kind in kinds.items():
        environment.tests[name] = lambda part, kind=kind: isinstance(part, kind)
    environment.filters["unbroken"] = unbroken
    return environment.get_template("page.html.j2").render(page=page)


def unbroken(cell: str) -> str:
    """A cell whose intervals no line break parts; between a value and its interval there may be one."""
    return re.sub(r"(\[[-+.\d]+,|\]) (?=[-+.\d]+\]|[▲▼])", "\\1\u00a0", cell)


def write(page: Page, path: str | Path) -> Path:
    """Write the page to `path` at once or not at all, and return the path.

    Raises
    ------
    ValueError : `path` is a folder or cannot be written.
    """
    content = render(page)
    with whole(path) as part:
        part.write_text(content, encoding="utf-8")
    return Path(path)


def sentence(items: Sequence[str]) -> str:
    """Names as they stand in a sentence: "a", "a and b", "a, b and c"."""
    items = [str(item) for item in items]
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))
