"""What only a person can say of a model: asked for by name, printed where it was said, and called missing where it was not."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.names import choose

#: What no measurement can tell, as a question to whoever made the model (after Mitchell et al. 2019).
STATED = {
    "name": "What is the model called?",
    "developers": "Who made it, and who answers questions?",
    "version": "Which version is it, and of what date?",
    "licence": "Under which terms may it be used?",
    "citation": "How is it cited?",
    "intended_use": "What is it for?",
    "intended_users": "Who is meant to use it?",
    "out_of_scope": "What should nobody use it for?",
    "factors": "Which people, cameras and places may make a difference to it?",
    "motivation": "Why was it judged on these faces?",
    "training_data": "What was it trained on?",
    "ethics": "Whom could it harm, and what was done about that?",
    "caveats": "What else has a user to know?",
}
HOW = "stated={'intended_use': '…'} of helpers.report, or --state intended_use=… on the command line, states it."


def statements(stated: Mapping[str, str] | None) -> dict[str, str]:
    """The statements by their keys in `STATED`.

    Raises
    ------
    ValueError : no mapping, an unknown key (with the nearest one), or a statement that is no text or an empty one.
    """
    if stated is not None and not isinstance(stated, Mapping):
        raise ValueError(f"stated: expected a dict of name -> text, got {type(stated).__name__}; names: {', '.join(STATED)}")
    found = {}
    for key, said in (stated or {}).items():
        key = choose(key, STATED, "stated")
        if not isinstance(said, str) or not said.strip():
            raise ValueError(f"stated: {key}: expected a text, got {said!r}")
        found[key] = " ".join(said.split())
    return found


def answer(said: Mapping[str, str], key: str) -> str:
    """The statement, or the question that nobody has answered."""
    return said.get(key, f"not stated. {STATED[key]} ({key})")
