"""Mitigating bias: methods that correct a trained classifier, and the verb that compares them.

A method is a file that registers itself in `METHODS`; the imports below are that registration.
"""

from helpers.debiasing import (  # noqa: F401  each import registers its method
    aclarc,
    common_threshold,
    dfr,
    fairret,
    fairtorch,
    finetune,
    gdro,
    inlp,
    jtt,
    leace,
    pclarc,
    reject_option,
    rrclarc,
    savani_aft,
    savani_lwo,
    savani_rp,
    thresholds,
    zhangm,
)
from helpers.debiasing.debias import debias
from helpers.debiasing.fold import fold
from helpers.debiasing.method import METHODS, Batch, Method, method
from helpers.debiasing.result import CorrectionResult, Results, to_frame
from helpers.debiasing.thresholds import GroupThresholds

__all__ = [
    "METHODS",
    "Batch",
    "CorrectionResult",
    "GroupThresholds",
    "Method",
    "Results",
    "debias",
    "fold",
    "method",
    "to_frame",
]
