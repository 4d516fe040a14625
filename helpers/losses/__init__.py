"""Fairness losses: differentiable penalties on the differences between groups.

Two calls, those of the libraries they come from: `loss(logit, sens, *label)` (fairret) and `loss(x, logit, sensitive[, y])`
(FairTorch). `helpers.train(..., fairness=loss, strength=...)` takes both.
"""

from helpers.losses.base import FairnessLoss
from helpers.losses.constraint import ConstraintLoss, DemographicParityLoss, EqualiedOddsLoss, EqualizedOddsLoss
from helpers.losses.lagrangian import AugmentedLagrangianLoss
from helpers.losses.moving import MovingStatistic
from helpers.losses.projection import (
    JensenShannonProjectionLoss,
    KLProjectionLoss,
    ProjectionLoss,
    SquaredEuclideanProjectionLoss,
    TotalVariationProjectionLoss,
)
from helpers.losses.unbiased import UnbiasedSquareLoss
from helpers.losses.violation import LSELoss, NormLoss, ViolationLoss

__all__ = [
    "AugmentedLagrangianLoss",
    "ConstraintLoss",
    "DemographicParityLoss",
    "EqualiedOddsLoss",
    "EqualizedOddsLoss",
    "FairnessLoss",
    "JensenShannonProjectionLoss",
    "KLProjectionLoss",
    "LSELoss",
    "MovingStatistic",
    "NormLoss",
    "ProjectionLoss",
    "SquaredEuclideanProjectionLoss",
    "TotalVariationProjectionLoss",
    "UnbiasedSquareLoss",
    "ViolationLoss",
]
