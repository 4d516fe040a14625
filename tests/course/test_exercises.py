"""Every exercise tells right answers from typical wrong ones, says why, and outlives any answer. About 20 s on one thread."""

import importlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import course
from helpers.course.exercise import LEVELS

KEYS = list(course.exercises()["key"])


def tries(key):
    return importlib.import_module(f"tests.course.lesson_{key[:2]}").TRIES[key]


@pytest.mark.parametrize("key", KEYS)
def test_right_answers_are_right(key):
    found = tries(key)
    assert found.right
    for answer in found.right:
        verdict = course.check(key, answer, **found.given())
        assert verdict.right is True and verdict, verdict
        assert verdict.key == key and len(verdict.why) > 20


@pytest.mark.parametrize("key", KEYS)
def test_typical_wrong_answers_are_told_why(key):
    found = tries(key)
    assert len(found.wrong) >= 2
    for answer, words in found.wrong:
        verdict = course.check(key, answer, **found.given())
        assert verdict.right is False and not verdict
        assert words and words in f"{verdict.why} {verdict.look}", (words, verdict)
    told = {course.check(key, answer, **found.given()).why for answer, _ in found.wrong}
    assert len(told) > 1, "different mistakes get different sentences"


@pytest.mark.parametrize("key", [key for key in KEYS if course.EXERCISES[key].level == "write"])
def test_no_other_exercise_s_function_passes(key):
    for other in KEYS:
        for answer in tries(other).right:
            if other != key and callable(answer):
                assert course.check(key, answer).right is False, other


class Awkward:
    def __eq__(self, other):
        raise RuntimeError("no")

    def __repr__(self):
        raise RuntimeError("no")

    def __array__(self, *arguments, **options):
        raise RuntimeError("no")

    __hash__ = None


def endless(*arguments):
    return endless(*arguments)


def leaves(*arguments):
    raise SystemExit


STRANGE = [
    None, np.nan, -np.inf, -17.5, 10**400, 1j, "", "abc", b"x", [], [[]], [[1], [1, 2]], {}, {"a": 1}, set(), iter([1, 2]),
    range(10**6), object(), Awkward(), Awkward, [Awkward()], np.array(["x", None], dtype=object), np.datetime64("2020-01-01"),
    pd.DataFrame(), pd.Series([], dtype=float), torch.zeros(0), torch.zeros(2, 2), type, int, KeyError("x"), endless, leaves,
    lambda: 1, lambda *each: None, lambda *each: "x", lambda *each: Awkward(), lambda *each: np.zeros((3, 3, 3)),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_no_answer_ends_the_notebook(key):
    given = tries(key).given()
    for answer in STRANGE:
        verdict = course.check(key, answer, **given)
        assert verdict.right is False
        assert verdict.why.endswith((".", "?", ")")) or "raises" in verdict.why
        assert len(repr(verdict)) < 600 and verdict._repr_html_() and verdict._repr_markdown_()


@pytest.mark.parametrize("key", KEYS)
def test_an_open_exercise_says_so_and_its_hints_get_more_telling(key):
    verdict = course.check(key, ...)
    assert verdict.right is None and not verdict
    assert repr(verdict) == f'{key}: not answered yet. course.hint("{key}") helps.'
    assert repr(course.check(key)) == repr(verdict)
    hints = [course.hint(key, number) for number in range(1, len(course.EXERCISES[key].hints) + 1)]
    assert len({each.text for each in hints}) == len(hints) >= 2
    assert f'course.hint("{key}", 2)' in repr(hints[0]) and "course.hint" not in repr(hints[-1]).replace(hints[-1].text, "")


@pytest.mark.parametrize("key", [key for key in KEYS if course.EXERCISES[key].case])
def test_the_data_of_an_exercise_are_the_same_each_time_and_nobody_s_to_change(key):
    first, again = course.case(key), course.case(key)
    assert repr(first) == repr(again)
    right = tries(key).right[0]
    if isinstance(first, pd.DataFrame):
        first.iloc[:, :] = first.iloc[::-1].to_numpy()
    else:
        first.clear()
    assert course.check(key, right), "the check makes its data anew"


def test_exercises_of_a_lesson_go_from_changing_an_argument_to_writing_a_function():
    table = course.exercises()
    assert list(table["key"]) == sorted(table["key"])
    for lesson, rows in table.groupby("lesson"):
        numbers = [int(key[3:]) for key in rows["key"]]
        assert numbers == list(range(1, len(rows) + 1)) and 3 <= len(rows) <= 5, lesson
        places = [LEVELS.index(level) for level in rows["level"]]
        assert places == sorted(places) and rows["level"].iloc[-1] == "write", lesson
    assert (table["hints"] >= 2).all() and table["minutes"].between(1, 30).all()


def test_an_unknown_key_is_told_and_not_raised_by_a_check():
    assert "did you mean '03-2'" in course.check("3-2", 1).why.lower()
    assert course.check("zzz").right is None and "exercises()" in course.check("zzz", 1).why
    for key in (None, [], np.arange(3), Awkward()):
        assert "There is no exercise" in course.check(key, 1).why
    with pytest.raises(ValueError, match="There is no exercise"):
        course.hint("zzz")
    with pytest.raises(ValueError, match="has hints 1 to 2"):
        course.hint("03-2", 3)
    with pytest.raises(ValueError, match="no data of its own"):
        course.case("03-5")


def test_the_course_is_reached_from_the_package_and_the_readme_says_what_it_says():
    import helpers

    assert helpers.course is course
    readme = (Path(helpers.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (told,) = re.findall(r'^course\.check\("03-3", 0\.815\) +# (.*) …$', readme, re.M)
    assert repr(course.check("03-3", 0.815)).startswith(told)


def test_what_a_check_has_to_be_handed_is_named():
    assert 'check("03-1", answer, audit=…)' in course.check("03-1", 0.1).why
    assert 'check("11-1", answer, fit=…, report=…)' in course.check("11-1", 0.1, fit=1).why
    assert "cannot read" in course.check("03-1", 0.1, audit="no audit").why


def test_a_verdict_is_safe_to_show_and_true_only_if_right():
    verdict = course.wrong("<b> is larger", "look").of("03-1")
    assert "&lt;b&gt;" in verdict._repr_html_() and "**03-1 · not yet.** <b> is larger look" == verdict._repr_markdown_()
    assert not verdict and course.right("yes")
    with pytest.raises(AttributeError):
        verdict.right = True


def test_registering_refuses_what_would_go_unnoticed():
    for key, level, hints, words in (
        ("3-1", "write", ("x",), "two digits"),
        ("03-1", "write", ("x",), "already"),
        ("03-9", "hard", ("x",), "accepted: change"),
        ("03-9", "write", "x", "tuple"),
    ):
        with pytest.raises(ValueError, match=words):
            course.exercise(key, "t", level=level, minutes=1, hints=hints)
    assert "03-9" not in course.EXERCISES


def test_a_student_s_function_gets_copies_and_keeps_quiet(capsys):
    def noisy(p):
        print("here")
        p[:] = 0
        return p

    assert course.check("06-4", noisy).right is False
    assert capsys.readouterr().out == ""
