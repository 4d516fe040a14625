"""What the tests try on an exercise: right answers, and typical wrong ones with words of the sentence that they should get."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Tries:
    """`wrong` holds pairs of an answer and a part of its verdict; `given` makes what the check is handed besides."""

    right: list
    wrong: list[tuple[Any, str]]
    given: Callable[[], dict] = field(default=dict)
