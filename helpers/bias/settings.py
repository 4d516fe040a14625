"""Numbers that a user sets, such as levels and replicates, checked before any work begins."""

from __future__ import annotations

import numbers


def share(value: float, argument: str) -> float:
    """`value` as a float strictly between 0 and 1.

    Raises
    ------
    ValueError : it is no number, or not inside (0, 1); the message names the argument and what came.
    """
    if not (isinstance(value, numbers.Real) and 0 < value < 1):
        raise ValueError(f"{argument}: {value!r} is outside (0, 1); a number between them expected")
    return float(value)


def whole(value: int, argument: str, least: int = 1) -> int:
    """`value` as an int of at least `least`.

    Raises
    ------
    ValueError : it is no whole number (booleans are none), or too small; the message names the argument and what came.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{argument}: {value!r} given; a whole number of at least {least} expected")
    return int(value)
