"""Names that a user typed matched against those that exist, and numbers as people write them."""

from collections.abc import Iterable
from difflib import get_close_matches


def choose(value: str, accepted: Iterable[str], argument: str) -> str:
    """Return `value` if it is one of `accepted`, in any case; else say which name is nearest.

    Raises
    ------
    ValueError : `value` is not accepted; the message names the argument, the nearest name and all accepted ones.
    """
    accepted = list(accepted)
    by_folded = {name.casefold(): name for name in accepted}
    if isinstance(value, str) and value.casefold() in by_folded:
        return value if value in accepted else by_folded[value.casefold()]
    near = get_close_matches(str(value).casefold(), by_folded, n=1, cutoff=0.5)
    hint = f" Did you mean {by_folded[near[0]]!r}?" if near else ""
    raise ValueError(f"{argument}: unknown name {value!r}.{hint} Accepted: {', '.join(map(str, accepted))}")


def number(value: float) -> str:
    """Three figures without powers of ten: 1,370, 0.451, 0.0293."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
