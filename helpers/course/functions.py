"""Trying a function that a student wrote on planted and random inputs, against an independent computation."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from helpers.course.answers import Unreadable, array, shown
from helpers.course.verdict import Verdict, right, wrong

Case = tuple[str, tuple]  # what the inputs are, in words, and the inputs


def called(function: Any, words: str, inputs: Sequence[Any]) -> Any:
    """What the student's function returns for a copy of the inputs, its own printing and warnings kept quiet.

    Raises
    ------
    Unreadable : it is no function, or it raises.
    """
    if not callable(function):
        raise Unreadable(f"A function expected, its name without brackets; {shown(function)} came.")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return function(*copy.deepcopy(tuple(inputs)))
    except (Exception, SystemExit) as error:
        text = shown(str(error), 120).strip("'\"")
        raise Unreadable(f"On {words} it raises {type(error).__name__}: {text}") from None


def kind(shape: tuple[int, ...]) -> str:
    """A shape in words."""
    return f"numbers of shape {shape}" if shape else "one number"


def agrees(found: np.ndarray, wanted: Any, tolerance: float) -> bool:
    """The same shape and numbers; NaN where NaN is wanted."""
    wanted = np.asarray(wanted, dtype=float)
    return found.shape == wanted.shape and np.allclose(found, wanted, rtol=0, atol=tolerance, equal_nan=True)


def function(
    answer: Any, reference: Callable, cases: Sequence[Case], *, why: str, mistakes: Mapping[str, Callable] | None = None,
    tolerance: float = 1e-6, look: str = "",
) -> Verdict:  # fmt: skip
    """Does the function give what `reference` gives, on every case? If not, does it do what a typical mistake does?

    `mistakes` maps a sentence to the function that leads to it; it is told if the answers are that function's on all cases.
    """
    given = []
    for words, inputs in cases:
        result = called(answer, words, inputs)
        try:
            given.append(array(result))
        except Unreadable:
            wanted = kind(np.shape(reference(*inputs)))
            raise Unreadable(f"On {words} it returns {shown(result)}; {wanted} expected.") from None
    right_ones = [reference(*inputs) for _, inputs in cases]
    verdicts = [agrees(found, wanted, tolerance) for found, wanted in zip(given, right_ones, strict=True)]
    if all(verdicts):
        return right(why)
    for sentence, mistaken in (mistakes or {}).items():
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if all(agrees(found, mistaken(*inputs), tolerance) for found, (_, inputs) in zip(given, cases, strict=True)):
                return wrong(sentence, look)
    first = verdicts.index(False)
    wanted, found = np.asarray(right_ones[first], dtype=float), given[first]
    if wanted.shape != found.shape:
        return wrong(f"On {cases[first][0]} it returns {kind(found.shape)}; {kind(wanted.shape)} expected.", look)
    if wanted.ndim == 0:
        told = f"it gives {found.item():.4g} and an independent computation {wanted.item():.4g}"
    else:
        off = np.unravel_index(np.argmin(np.isclose(found, wanted, rtol=0, atol=tolerance, equal_nan=True)), wanted.shape)
        place = ", ".join(map(str, off))
        told = f"it gives {found[off]:.4g} at [{place}] and an independent computation {wanted[off]:.4g}"
    return wrong(f"On {cases[first][0]} {told} ({verdicts.count(True)} of {len(verdicts)} cases agree).", look)
