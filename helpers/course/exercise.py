"""The registry of exercises: a lesson's file registers each by its key, tables and tests iterate over them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from helpers.course.verdict import Verdict

LEVELS = ("change", "compute", "find out", "write")
EXERCISES: dict[str, Exercise] = {}


@dataclass(frozen=True)
class Exercise:
    """A question that can be checked.

    `judge(answer, **given)`, or `judge(answer, case, **given)` where there is a `case`, gives the verdict; `case()` makes the
    data of the question, the same each time.
    """

    key: str
    title: str
    level: str
    minutes: int
    hints: tuple[str, ...]
    judge: Callable[..., Verdict]
    case: Callable[[], Any] | None = None

    @property
    def lesson(self) -> str:
        return self.key[:2]


def exercise(
    key: str, title: str, *, level: str, minutes: int, hints: tuple[str, ...], case: Callable[[], Any] | None = None
) -> Callable[[Callable[..., Verdict]], Callable[..., Verdict]]:
    """Register the function below as the judge of an exercise.

    Parameters
    ----------
    key : lesson and number, such as "03-2"
    title : a few words
    level : "change" an argument, "compute" a value, "find out" what is wrong, or "write" a function
    minutes : that a student needs, about
    hints : one sentence or two each, the first the least telling
    case : makes the data of the question by a seed of its own

    Raises
    ------
    ValueError : a key of another form or one that is taken, an unknown level, no hint.
    """
    if not re.fullmatch(r"\d\d-[1-9]", key):
        raise ValueError(f"key: {key!r} given; two digits of the lesson, a hyphen and a number expected, such as '03-2'")
    if key in EXERCISES:
        raise ValueError(f"key: {key!r} is {EXERCISES[key].title!r} already")
    if level not in LEVELS:
        raise ValueError(f"level: {level!r} given; accepted: {', '.join(LEVELS)}")
    if not hints or isinstance(hints, str):
        raise ValueError(f"hints: {hints!r} given; a tuple of at least one sentence expected")

    def register(judge: Callable[..., Verdict]) -> Callable[..., Verdict]:
        EXERCISES[key] = Exercise(key, title, level, minutes, tuple(hints), judge, case)
        return judge

    return register
