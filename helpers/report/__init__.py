"""The report: `helpers.report(model, faces, path="report.html")` writes one self-contained HTML page.

The package and the verb have one name: the module can be called, and its parts are imported as usual.
"""

from __future__ import annotations

import sys
from types import ModuleType

from .assemble import report
from .comparison import rejudge
from .default import default_report
from .html import Page, Picture, Section, Table, render, write

__all__ = [
    "Page", "Picture", "Section", "Table",
    "default_report", "rejudge", "render", "report", "write",
]  # fmt: skip


class _Verb(ModuleType):
    """A module that is called like the function it is named after."""

    __wrapped__ = staticmethod(report)  # `inspect.signature(helpers.report)` and `help` show the function's

    def __call__(self, *args, **kwargs):
        return report(*args, **kwargs)


sys.modules[__name__].__class__ = _Verb
