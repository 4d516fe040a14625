"""Bias assessment: group statistics, gaps and their uncertainty, from one table of counts.

`audit` (the function) takes the name of the module that holds it, and so do `calibration`, `compare`, `counterfactual`,
`explanations`, `inequality` and `rates`; import these modules' other names from `helpers.bias.<module>`. What face recognition
needs is in the module `helpers.bias.verification`, what embeddings show in `helpers.bias.embeddings`.
"""

from importlib import import_module

from helpers.bias.audit import Audit, audit, audit_counts
from helpers.bias.calibration import Calibration, calibration
from helpers.bias.compare import Comparison, compare
from helpers.bias.counterfactual import Counterfactual, counterfactual, counterfactual_pairs, flip_report
from helpers.bias.counts import Counts, count
from helpers.bias.embeddings import between, spread
from helpers.bias.explanations import Explanations, explanations
from helpers.bias.gaps import NAMED
from helpers.bias.inequality import Inequality, inequality
from helpers.bias.power import minimum_detectable_gap
from helpers.bias.rates import Rates, rates
from helpers.bias.statistics import STATISTICS, LinearFractionalStatistic
from helpers.bias.thresholds import accuracy_fairness, roc_curves, threshold_sweep

__all__ = [
    "NAMED",
    "STATISTICS",
    "Audit",
    "Calibration",
    "Comparison",
    "Counterfactual",
    "Counts",
    "Explanations",
    "GroupStatistics",
    "Inequality",
    "LinearFractionalParity",
    "LinearFractionalStatistic",
    "Rates",
    "accuracy_fairness",
    "audit",
    "audit_counts",
    "between",
    "calibration",
    "compare",
    "count",
    "counterfactual",
    "counterfactual_pairs",
    "explanations",
    "flip_report",
    "inequality",
    "minimum_detectable_gap",
    "rates",
    "roc_curves",
    "spread",
    "threshold_sweep",
    "verification",
]


def __getattr__(name: str):
    # torchmetrics takes a second to import, and an audit needs neither it nor recognition.
    if name in ("GroupStatistics", "LinearFractionalParity"):
        return getattr(import_module("helpers.bias.metric"), name)
    if name == "verification":
        return import_module("helpers.bias.verification")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
