"""What a check says of an answer, in one or two sentences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape

SAID = {True: "right", False: "not yet", None: "not answered yet"}


@dataclass(frozen=True)
class Verdict:
    """Right, not yet, or not answered yet (`right` is True, False or None), with the reason and where to look next.

    True in a condition only if the answer is right. Jupyter shows it as a sentence.
    """

    right: bool | None
    why: str
    look: str = ""
    key: str = ""

    def of(self, key: str) -> Verdict:
        """The same verdict, under the key of its exercise."""
        return replace(self, key=key)

    def __bool__(self) -> bool:
        return self.right is True

    def __repr__(self) -> str:
        return " ".join(filter(None, [f"{self.key}: {SAID[self.right]}.", self.why, self.look]))

    def _repr_markdown_(self) -> str:
        return " ".join(filter(None, [f"**{self.key} · {SAID[self.right]}.**", self.why, self.look]))

    def _repr_html_(self) -> str:
        look = f" <em>{escape(self.look)}</em>" if self.look else ""
        return f"<p><strong>{escape(self.key)} · {SAID[self.right]}.</strong> {escape(self.why)}{look}</p>"


def right(why: str) -> Verdict:
    """The answer is right; `why` says what it shows."""
    return Verdict(True, why)


def wrong(why: str, look: str = "") -> Verdict:
    """The answer is not right yet: `why`, and what to look at."""
    return Verdict(False, why, look)


@dataclass(frozen=True)
class Hint:
    """One hint of an exercise; `more` says how to ask for the next one."""

    key: str
    text: str
    more: str = ""

    def __repr__(self) -> str:
        return " ".join(filter(None, [f"{self.key}: {self.text}", self.more]))

    def _repr_html_(self) -> str:
        return f"<p><strong>{escape(self.key)} · hint.</strong> {escape(self.text)} {escape(self.more)}</p>"
