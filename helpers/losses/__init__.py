"""Fairness losses: differentiable penalties on the differences between groups.

Two calls, those of the libraries they come from: `loss(logit, sens, *label)` (fairret) and `loss(x, logit, sensitive[, y])`
(FairTorch). `helpers.train(..., fairness=loss, strength=...)` takes both.
"""

from helpers.bias.statistics import (
    STATISTICS,
    FalsePositiveRate,
    LinearFractionalStatistic,
    StackedLinearFractionalStatistic,
    TruePositiveRate,
)
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
from helpers.names import choose

#: The losses of a statistic, by the names that the command line takes.
LOSSES: dict[str, type[FairnessLoss]] = {
    "norm": NormLoss,
    "lse": LSELoss,
    "kl": KLProjectionLoss,
    "jensen_shannon": JensenShannonProjectionLoss,
    "squared_euclidean": SquaredEuclideanProjectionLoss,
    "total_variation": TotalVariationProjectionLoss,
    "unbiased": UnbiasedSquareLoss,
    "lagrangian": AugmentedLagrangianLoss,
}


def named(loss: str, equalize: str = "selection_rate", **options) -> FairnessLoss:
    """A loss by its name in `LOSSES` and the statistic that is to become equal.

    Parameters
    ----------
    loss : a key of `LOSSES`
    equalize : a linear-fractional statistic as an audit calls it, such as "selection_rate" or "true_positive_rate"; or
        "equalized_odds", the true and the false positive rate together
    **options : of the loss, such as `gap` for "lagrangian"

    Raises
    ------
    ValueError : an unknown name (the nearest is named).

    Examples
    --------
    >>> named("kl", "equalized_odds").statistic
    StackedLinearFractionalStatistic(
      (statistics): ModuleList(
        (0): TruePositiveRate()
        (1): FalsePositiveRate()
      )
    )
    """
    fit = {name: each for name, each in STATISTICS.items() if isinstance(each, LinearFractionalStatistic)}
    fit["equalized_odds"] = StackedLinearFractionalStatistic(TruePositiveRate(), FalsePositiveRate())
    made = LOSSES[choose(loss, LOSSES, "loss")]
    return made(fit[choose(equalize, fit, "equalize")], **options)


__all__ = [
    "AugmentedLagrangianLoss",
    "ConstraintLoss",
    "DemographicParityLoss",
    "EqualiedOddsLoss",
    "EqualizedOddsLoss",
    "FairnessLoss",
    "JensenShannonProjectionLoss",
    "KLProjectionLoss",
    "LOSSES",
    "LSELoss",
    "MovingStatistic",
    "NormLoss",
    "ProjectionLoss",
    "SquaredEuclideanProjectionLoss",
    "TotalVariationProjectionLoss",
    "UnbiasedSquareLoss",
    "ViolationLoss",
    "named",
]
