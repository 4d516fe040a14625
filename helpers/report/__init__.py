"""The report: `helpers.report(model, faces, path="report.html")` writes one self-contained HTML page, and the model's card.

The package and the verb have one name: the module can be called, and its parts are imported as usual.
"""

from __future__ import annotations

import sys
from types import ModuleType

from .assemble import report
from .comparison import rejudge
from .default import default_report
from .html import Heading, Page, Picture, Points, Section, Table, render, write
from .model_card import model_card as write_card
from .stated import STATED

__all__ = [
    "STATED", "Heading", "Page", "Picture", "Points", "Section", "Table",
    "default_report", "rejudge", "render", "report", "write", "write_card",
]  # fmt: skip


class _Verb(ModuleType):
    """A module that is called like the function it is named after."""

    __wrapped__ = staticmethod(report)  # `inspect.signature(helpers.report)` and `help` show the function's

    def __call__(self, *args, **kwargs):
        return report(*args, **kwargs)


sys.modules[__name__].__class__ = _Verb
