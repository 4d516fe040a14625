"""NT: one decision threshold for everybody, chosen for fairness and accuracy together."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import logit
from torch import nn

from helpers.debiasing.curves import candidates, counts
from helpers.debiasing.method import Batch, method
from helpers.debiasing.objective import ObjectiveFunction, best, check_binary
from helpers.debiasing.thresholds import score
from helpers.models.affine import Affine
from helpers.models.layers import append_after


@method("NT", needs={"logits", "binary"})
def common_threshold(
    model: nn.Module,
    batch: Batch,
    *,
    threshold_range: tuple[float, float] = (0.0, 1.0),
    threshold_steps: int | None = None,
    metric: str = "equalized_odds",
    objective_function: ObjectiveFunction | None = None,
) -> nn.Module:
    """Choose one decision threshold for everybody (naive thresholding).

    An image becomes positive where P(class 1) > t, with t = argmax f(D(t), A(t)): D the gap between groups and A the
    balanced accuracy of all images. All values of t at which a prediction changes are tried, from counts.
    No threshold is taken that leaves (nearly) all images in one class, however fair that is.

    Parameters
    ----------
    threshold_range : two numbers in [0, 1], ascending: the probabilities t to choose from
    threshold_steps : int >= 2, so many equidistant values of that range instead of all that matter
    metric : name of the gap: those of `helpers.audit`, or a statistic followed by "_gap"
    objective_function : called `(fairness, accuracy) -> number` with D and A, larger is better; None takes
        (2 A - 1) (1 - D)^3. To care for the gap alone: `lambda fairness, accuracy: -fairness`

    Returns
    -------
    A copy of `model` whose logits are shifted by the threshold (an `Affine` edit), so that the usual decision applies it.

    Raises
    ------
    ValueError : more than two classes, a class missing from the batch, an option that is not as above, or no threshold
        in the range that tells images apart.

    References
    ----------
    Stępka et al., "DetoxAI: a Python toolkit for debiasing deep learning models in computer vision", 2025.
    """
    check_binary(batch)
    scores = score(batch.logits)
    low, high = limits(threshold_range, "threshold_range", 0.0)
    grid = steps_between(low, high, threshold_steps, "threshold_steps")
    if grid is None:
        grid = candidates(scores)
        grid = grid[(grid >= logit(low)) & (grid <= logit(high))]
    else:
        grid = logit(grid)
    cells = by_group(scores, batch, grid)
    return shifted(model, batch, float(grid[best(cells, metric, objective_function)]))


def by_group(scores: np.ndarray, batch: Batch, grid: np.ndarray) -> np.ndarray:
    """Images of each group by (label, prediction) at each common threshold of the grid (S,), int64 (G, 4, S)."""
    rows = [batch.group == g for g in np.unique(batch.group)]
    return np.stack([counts(scores[r], batch.y[r], grid) for r in rows])


def shifted(model: nn.Module, batch: Batch, threshold: float) -> nn.Module:
    """A copy of `model` in which an image is positive where its score was above `threshold`.

    The edit follows the last layer where that puts out the logits (so that it can be folded), else the whole model.
    """
    half = torch.tensor([1.0]) if batch.logits.shape[1] == 1 else torch.tensor([-0.5, 0.5])
    width = len(half)
    return append_after(model, batch.head, Affine(width, torch.eye(width), -threshold * half))


def limits(values, argument: str, least: float) -> tuple[float, float]:
    """The two ends of a range of probabilities, checked: `least` <= low < high <= 1."""
    try:
        low, high = map(float, values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument}: got {values!r}; two numbers are accepted") from error
    if not least <= low < high <= 1:
        raise ValueError(f"{argument}: got {values!r}; {least:g} <= low < high <= 1 is accepted")
    return low, high


def steps_between(low: float, high: float, steps: int | None, argument: str) -> np.ndarray | None:
    """So many equidistant values, ends included; None for None."""
    if steps is None:
        return None
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 2:
        raise ValueError(f"{argument}: got {steps!r}; None or a whole number of at least 2 is accepted")
    return np.linspace(low, high, steps)
