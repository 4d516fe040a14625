"""Exercises that check themselves: `check("03-2", answer)` says right or not yet, and why.

>>> from helpers import course
>>> course.check("03-2", ...)
03-2: not answered yet. course.hint("03-2") helps.
"""

from __future__ import annotations

import inspect
import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from helpers.course import (  # noqa: F401  each import registers its lesson's exercises
    lesson_01,
    lesson_02,
    lesson_03,
    lesson_04,
    lesson_05,
    lesson_06,
    lesson_07,
    lesson_08,
    lesson_09,
    lesson_10,
    lesson_11,
)
from helpers.course.answers import Unreadable, shown
from helpers.course.exercise import EXERCISES, Exercise, exercise
from helpers.course.verdict import Hint, Verdict, right, wrong

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EXERCISES", "Exercise", "Hint", "Verdict", "case", "check", "exercise", "exercises", "hint", "right", "wrong"]


def check(key: str, answer: Any = ..., **given: Any) -> Verdict:
    """Is the answer to an exercise right?

    Parameters
    ----------
    key : lesson and number, such as "03-2"
    answer : what the exercise asks for: a number, a name, a list, an array, or a function (its name without brackets). `...`
        is no answer.
    **given : what the answer was computed from, where the exercise says so, such as `audit=result`

    Returns
    -------
    Verdict; whatever is handed over, nothing is raised.
    """
    if answer is ...:
        return Verdict(None, f'course.hint("{key}") helps.', key=key) if _known(key) else _unknown(key)
    if not _known(key):
        return _unknown(key)
    found = EXERCISES[key]
    try:
        inputs = (answer,) if found.case is None else (answer, found.case())
        try:
            inspect.signature(found.judge).bind(*inputs, **given)
        except TypeError:
            needed = [name for name in inspect.signature(found.judge).parameters if name not in ("answer", "case")]
            call = ", ".join([f'check("{key}", answer', *(f"{name}=…" for name in needed)])
            return wrong(f"The check is called as {call}).").of(key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a mistaken answer would have been computed from
            return found.judge(*inputs, **given).of(key)
    except Unreadable as told:
        return wrong(str(told)).of(key)
    except Exception as error:  # an answer that nobody thought of must not end the notebook
        return wrong(f"The check cannot read {shown(answer)} ({type(error).__name__}).", f'course.hint("{key}") helps.').of(key)


def hint(key: str, number: int = 1) -> Hint:
    """A hint to an exercise; the later ones (`number` 2 and on) tell more.

    Raises
    ------
    ValueError : no such exercise or hint.
    """
    texts = _exercise(key).hints
    if number not in range(1, len(texts) + 1):
        raise ValueError(f"number: {number!r} given; exercise {key} has hints 1 to {len(texts)}")
    more = f'Another one: course.hint("{key}", {number + 1}).' if number < len(texts) else ""
    return Hint(key, texts[number - 1], more)


def case(key: str) -> Any:
    """The data of an exercise, made anew and the same each time; the exercise says what they are.

    Raises
    ------
    ValueError : no such exercise, or one without data of its own.
    """
    found = _exercise(key)
    if found.case is None:
        raise ValueError(f"key: exercise {key} has no data of its own; its text says what it is about")
    return found.case()


def exercises() -> pd.DataFrame:
    """All exercises, one row each: key, lesson, title, level, minutes, number of hints, whether it brings data."""
    import pandas as pd

    rows = [
        (each.key, each.lesson, each.title, each.level, each.minutes, len(each.hints), each.case is not None)
        for each in sorted(EXERCISES.values(), key=lambda each: each.key)
    ]
    return pd.DataFrame(rows, columns=["key", "lesson", "title", "level", "minutes", "hints", "data"])


def _known(key: Any) -> bool:
    return isinstance(key, str) and key in EXERCISES


def _exercise(key: str) -> Exercise:
    if not _known(key):
        raise ValueError(f"key: {_unknown(key).why}")
    return EXERCISES[key]


def _unknown(key: Any) -> Verdict:
    near = get_close_matches(shown(key).strip("'"), EXERCISES, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "; course.exercises() lists them."
    return Verdict(None, f"There is no exercise {shown(key)}{meant}", key=shown(key).strip("'"))
