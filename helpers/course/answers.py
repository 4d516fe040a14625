"""Reading what a student answered, and holding it against what is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from helpers.course.verdict import Verdict, right, wrong


class Unreadable(Exception):
    """The answer is of another kind than the question asks for; the message is a sentence for the student."""


def shown(value: Any, width: int = 60) -> str:
    """A value as a few words, whatever it is."""
    try:
        text = f"{value:.4g}" if isinstance(value, float | np.floating) else " ".join(repr(value).split())
    except Exception:  # a student's own class may fail to show itself
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= width else text[: width - 1] + "…"


def array(answer: Any, what: str = "numbers") -> np.ndarray:
    """The answer as an array of floats.

    Raises
    ------
    Unreadable : it holds something else.
    """
    if callable(getattr(answer, "detach", None)):
        answer = answer.detach().cpu().numpy()
    try:
        found = np.asarray(answer)
        # a single True is no number; a list of them, or of mixed numbers, may be
        if found.dtype.kind not in "fiu" and not (found.dtype.kind in "bO" and found.ndim):
            raise TypeError
        return found.astype(float)
    except Exception:
        raise Unreadable(f"{what.capitalize()} expected; {shown(answer)} came.") from None


def read_number(answer: Any) -> float:
    """The answer as one finite number."""
    found = array(answer, "one number")
    if found.size != 1:
        raise Unreadable(f"One number expected; {found.size} came.")
    if not np.isfinite(found.item()):
        raise Unreadable(f"A finite number expected; {found.item()} came.")
    return float(found.item())


def number(
    answer: Any, wanted: float, *, why: str, mistakes: Mapping[str, float] | None = None, tolerance: float = 1e-3, look: str = ""
) -> Verdict:
    """Is the answer the wanted number, to within `tolerance`? If not, is it what a typical mistake gives?

    `mistakes` maps a sentence to the number that leads to it. A number in per cent or of the other sign is told as such.
    """
    value = read_number(answer)
    if abs(value - wanted) <= tolerance:
        return right(why)
    for sentence, found in {**(mistakes or {}), "That has the right size and the wrong sign.": -wanted}.items():
        if abs(value - found) <= max(tolerance, 1e-9) and abs(found - wanted) > tolerance:
            return wrong(sentence, look)
    if abs(value - 100 * wanted) <= 100 * tolerance and abs(wanted) <= 1:
        return wrong("That is the right number in per cent; give it as a share, between 0 and 1.", look)
    if abs(value - wanted) <= 6 * tolerance < 0.1:
        return wrong("Nearly. Give more digits, if you have rounded.", look)
    return wrong(f"{shown(value)} is too {'large' if value > wanted else 'small'}.", look)


def name(answer: Any, wanted: str, others: Mapping[str, str], *, why: str) -> Verdict:
    """Is the answer the wanted name? `others` maps every other name to the sentence that it leads to."""
    accepted = {each.casefold(): each for each in (wanted, *others)}
    if not isinstance(answer, str) or answer.strip().casefold() not in accepted:
        raise Unreadable(f"One of {', '.join(map(repr, sorted(accepted.values())))} expected; {shown(answer)} came.")
    found = accepted[answer.strip().casefold()]
    return right(why) if found == wanted else wrong(others[found])


def names(
    answer: Any, wanted: Iterable[Any], accepted: Iterable[Any], *, why: str, extra: Mapping[Any, str] | None = None,
    missing: Mapping[Any, str] | None = None, what: str = "names", look: str = "",
) -> Verdict:  # fmt: skip
    """Are these the wanted names (or row numbers), in any order?

    `extra` and `missing` map one that is too many, or left out, to its sentence; a list too much or too short is told by number.
    """
    accepted, wanted = set(accepted), set(wanted)
    if isinstance(answer, str) and len(accepted) and all(isinstance(each, str) for each in accepted):
        answer = [answer]
    try:
        values = np.asarray(answer).ravel().tolist() if not isinstance(answer, set | frozenset | dict) else list(answer)
        given = set(values)
    except Exception:
        raise Unreadable(f"A list of {what} expected; {shown(answer)} came.") from None
    unknown = [each for each in given if isinstance(each, bool) or each not in accepted]
    if unknown:
        raise Unreadable(f"A list of {what} expected; {shown(unknown[0])} is none.")
    if given == wanted:
        return right(why)
    for each in sorted(given - wanted, key=str):
        if each in (extra or {}):
            return wrong(extra[each], look)
    for each in sorted(wanted - given, key=str):
        if each in (missing or {}):
            return wrong(missing[each], look)
    counts = [(len(given - wanted), f" of your {len(given)}", "too many"), (len(wanted - given), "", "missing")]
    told = [f"{n}{part} {'is' if n == 1 else 'are'} {what}" for n, part, what in counts if n]
    return wrong(f"{' and '.join(told)}.", look)
