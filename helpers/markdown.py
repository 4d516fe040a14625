"""Texts and tables as Markdown in which nothing that comes from data is taken for markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

INTERVAL = r"\[[-+.\d]+, [-+.\d]+\](?![\[(:])"  # reads better as it is, and is no link
MARKUP = r"[\\`*\[\]#|~$]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])"  # an underscore between letters is none


def escaped(text: object) -> str:
    r"""A text as Markdown shows it, in one line: no markup, no HTML, no cell or line that comes from the data.

    >>> print(escaped("a|b <i> `c`\n# d"))
    a\|b &lt;i&gt; \`c\` \# d
    >>> print(escaped("facial_hair, _a_"))
    facial_hair, \_a\_
    >>> print(escaped("-0.250 [-0.400, -0.100]"), escaped("- a"), escaped("[a](b)"))
    -0.250 [-0.400, -0.100] \- a \[a\](b)
    """
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())
    plain = re.sub(rf"({INTERVAL})|({MARKUP})", lambda found: found[1] or "\\" + found[2], plain)
    plain = plain.replace("<", "&lt;").replace(">", "&gt;")  # which every reader of Markdown takes for text
    return re.sub(r"^(\d{0,9})([-+=.)])(?=\s|$|\2)", r"\1\\\2", plain)  # what would begin a list, a rule or a heading


def table(frame: pd.DataFrame) -> list[str]:
    """The lines of a table of texts; the first column is set to the left, the others to the right."""
    line = lambda cells: "| " + " | ".join(escaped(cell) or " " for cell in cells) + " |"
    rule = "|" + "|".join([" --- ", *[" ---: "] * (frame.shape[1] - 1)]) + "|"
    return [line(frame.columns), rule, *(line(row) for row in frame.itertuples(index=False))]


def bullets(items: Sequence[str]) -> list[str]:
    """A list, one line an item."""
    return [f"- {escaped(item)}" for item in items]
