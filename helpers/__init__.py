"""Candor: is a face classifier biased, where does it look, can the picture be trusted, what makes it fairer?

The eight verbs below are the whole public entrance; each is loaded when it is first used, so that
`import helpers` takes milliseconds and neither PyTorch nor TensorFlow is imported before it is needed.

>>> import helpers
>>> faces = helpers.load_faces("illustrated", target="smiling", protected="glasses", split="train")
>>> model = helpers.train(faces)
>>> test = helpers.load_faces("illustrated", target="smiling", protected="glasses", split="test")
>>> helpers.report(model, test, path="report.html")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.attribution import attribute, evaluate
    from helpers.bias import audit
    from helpers.data import load_faces
    from helpers.debiasing import debias
    from helpers.examination import examine
    from helpers.models import train
    from helpers.report import report

__version__ = "0.1.0"
__all__ = ["attribute", "audit", "debias", "evaluate", "examine", "load_faces", "report", "train"]

_MODULE_OF = {
    "attribute": "helpers.attribution",
    "audit": "helpers.bias",
    "debias": "helpers.debiasing",
    "evaluate": "helpers.attribution",
    "examine": "helpers.examination",
    "load_faces": "helpers.data",
    "train": "helpers.models",
}


def __getattr__(name: str):
    if (
        name == "report"
    ):  # the package `helpers.report` is itself callable, so that verb and package share the name
        return import_module("helpers.report")
    if name == "course":  # helpers.course.check(…), without an import of its own
        return import_module("helpers.course")
    if name not in _MODULE_OF:
        raise AttributeError(
            f"module 'helpers' has no attribute {name!r}; its verbs are {', '.join(__all__)}"
        )
    verb = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = verb
    return verb


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
