"""What a search over decisions is after: balanced accuracy and a gap, read from counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from helpers.bias import NAMED, STATISTICS
from helpers.debiasing.curves import rate, spread
from helpers.debiasing.method import Batch
from helpers.debiasing.result import metric_name

ObjectiveFunction = Callable[[float, float], float]
LEAST_SHARE = 0.02  # of the images, to be predicted of either class: below that a prediction is as good as constant


def statistics_of(metric: str) -> tuple[str, ...]:
    """The statistics whose spread over groups a gap is: ("true_positive_rate", "false_positive_rate") for "EO_GAP".

    Raises
    ------
    ValueError : no gap has that name; accepted are those of `helpers.audit`, and every statistic followed by "_gap".
    """
    name = metric_name(metric, [*NAMED, *(f"{statistic}_gap" for statistic in STATISTICS)], "metric")
    return NAMED.get(name, (name.removesuffix("_gap"),))


def measured(cells: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Gap and balanced accuracy of S candidate predictions.

    Parameters
    ----------
    cells : int (G, 4, S), images of each group by (label, prediction): (0, 0), (0, 1), (1, 0), (1, 1)
    metric : name of the gap, see `statistics_of`

    Returns
    -------
    gap, balanced_accuracy : float64 (S,) each. A group whose rate is undefined is left out of the gap.
    """
    groups, _, candidates = cells.shape
    flat = np.moveaxis(cells, 0, 1).reshape(4, groups * candidates)
    spreads = [spread(rate(name, flat).reshape(groups, candidates).T) for name in statistics_of(metric)]
    return np.maximum.reduce(spreads), rate("balanced_accuracy", cells.sum(0))


def useful(cells: np.ndarray) -> np.ndarray:
    """Which of S candidates, counts (G, 4, S), predict both classes often enough to be more than a constant, bool (S,).

    Often enough is `LEAST_SHARE` of all images, or half the share that the rarer class has if that is less.
    """
    total = cells.sum(0)
    n = total.sum(0)
    positive = total[1] + total[3]
    rarer = np.minimum(total[0] + total[1], total[2] + total[3])
    least = np.maximum(1, np.minimum(LEAST_SHARE * n, rarer / 2))
    return (positive >= least) & (n - positive >= least)


def youden_and_gap(fairness: float, accuracy: float) -> float:
    """(2 A - 1) (1 - D)^3 of the balanced accuracy A and the gap D: 0 for a constant prediction, 1 at best."""
    return (2 * accuracy - 1) * (1 - fairness) ** 3


def best(cells: np.ndarray, metric: str, objective_function: ObjectiveFunction | None) -> int:
    """Number of the candidate of the largest objective, the first of several, among those that are `useful`.

    Parameters
    ----------
    cells : int (G, 4, S)
    metric : name of the gap
    objective_function : called `(gap, balanced accuracy) -> number` for each candidate; None for `youden_and_gap`

    Raises
    ------
    ValueError : `objective_function` cannot be called or gives no number; no candidate is useful.
    """
    if objective_function is not None and not callable(objective_function):
        raise ValueError(
            f"objective_function: got {objective_function!r}; a function (fairness, accuracy) -> number is accepted"
        )
    objective = objective_function or youden_and_gap
    rows = np.flatnonzero(useful(cells))
    if len(rows) == 0:
        raise ValueError("logits: no candidate tells images apart, every one predicts a single class")
    gap, accuracy = measured(cells[..., rows], metric)
    values = [objective(float(one), float(other)) for one, other in zip(gap, accuracy, strict=True)]
    try:
        values = np.array([float(value) for value in values])
    except (TypeError, ValueError) as error:
        raise ValueError(f"objective_function: it gave {values[0]!r}; a number is needed") from error
    if np.isnan(values).all():
        raise ValueError("objective_function: it is NaN for every candidate")
    return int(rows[np.nanargmax(values)])


def check_binary(batch: Batch) -> None:
    """ValueError unless the batch has two classes and images of both."""
    if batch.classes > 2:
        raise ValueError(f"target: {batch.classes} classes; thresholds are defined for two")
    if len(np.unique(batch.y)) < 2:
        raise ValueError("target: one class only in the images to fit on; thresholds need both")
