"""The report on the course's default problem."""

from __future__ import annotations

from pathlib import Path

import helpers
from helpers.problem import load_problem

from .assemble import report

MITIGATION = ("LEACE", "PCLARC", "GT", "DFR")


def default_report(path: str | Path = "report.html", profile: str = "quick", seed: int = 0) -> Path:
    """Write the report on the illustrated faces and their plainly trained classifier, before and after mitigation.

    Returns
    -------
    Path of the page
    """
    problem = load_problem(profile=profile, seed=seed)
    results = helpers.debias(problem.model, problem.validation, methods=list(MITIGATION), seed=seed)
    return report(problem.model, problem.test, path, results=results, seed=seed)
