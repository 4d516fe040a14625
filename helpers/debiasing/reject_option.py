"""ROC: near the decision boundary, decide for the disadvantaged groups and against the advantaged ones."""

from __future__ import annotations

import numpy as np
from scipy.special import logit
from torch import nn

from helpers.debiasing.common_threshold import limits, steps_between
from helpers.debiasing.curves import candidates, counts, rate
from helpers.debiasing.method import Batch, method
from helpers.debiasing.objective import ObjectiveFunction, best, check_binary
from helpers.debiasing.thresholds import score
from helpers.models.group_thresholds import GroupThresholds
from helpers.models.layers import append_after


@method("ROC", needs={"logits", "binary"})
def reject_option(
    model: nn.Module,
    batch: Batch,
    *,
    theta_range: tuple[float, float] = (0.5, 1.0),
    theta_steps: int | None = None,
    metric: str = "equalized_odds",
    objective_function: ObjectiveFunction | None = None,
) -> nn.Module:
    """Give disadvantaged groups the favourable label where the model is unsure, the others the unfavourable one.

    With p = P(class 1), the critical region is max(p, 1 - p) < theta (Section III-A). On the scale of the score
    s = log(p / (1 - p)) that is |s| < b = log(theta / (1 - theta)), so a disadvantaged group is positive where
    s > -b and an advantaged one where s > b: the rule is applied as such a threshold for each group.

    Theta, and who is disadvantaged, maximise f(D, A) of the gap D and the balanced accuracy A. Groups are ordered by
    the mean of their true and false positive rates, so that a group is not called disadvantaged for having fewer
    positives; with G groups the first 1, 2, … G - 1 of that order are tried as the disadvantaged ones. With two
    groups that is the one which the model favours less.

    Parameters
    ----------
    theta_range : two numbers in [0.5, 1], ascending
    theta_steps : int >= 2, so many equidistant values of that range instead of all at which a prediction changes
    metric : name of the gap: those of `helpers.audit`, or a statistic followed by "_gap"
    objective_function : called `(fairness, accuracy) -> number` with D and A, larger is better; None takes
        (2 A - 1) (1 - D)^3

    Returns
    -------
    A copy of `model` followed by `GroupThresholds`, called `model(images, group=codes)`.

    Raises
    ------
    ValueError : more than two classes, a class missing from the batch, an option that is not as above, or no theta
        in the range with which images are told apart.

    References
    ----------
    Kamiran, Karim & Zhang, "Decision theory for discrimination-aware classification", ICDM 2012.
    """
    check_binary(batch)
    scores = score(batch.logits)
    low, high = limits(theta_range, "theta_range", 0.5)
    theta = steps_between(low, high, theta_steps, "theta_steps")
    if theta is None:
        band = candidates(np.abs(scores))
        band = np.unique(np.append(band[(band >= logit(low)) & (band <= logit(high))], logit(low)))
    else:
        band = logit(theta)
    band = np.minimum(band, np.abs(scores).max() + 1)  # theta = 1 stands for all images, with a finite threshold
    present, gain, loss = [], [], []
    for code in np.unique(batch.group):
        rows = batch.group == code
        present.append(code)
        gain.append(counts(scores[rows], batch.y[rows], -band))
        loss.append(counts(scores[rows], batch.y[rows], band))
    own = np.stack([counts(scores[batch.group == g], batch.y[batch.group == g], np.zeros(1))[:, 0] for g in present], 1)
    order = np.argsort(np.nanmean([rate(f"{sign}_positive_rate", own) for sign in ("true", "false")], axis=0), kind="stable")
    ranks = np.argsort(order)
    splits = range(1, max(len(present), 2))
    cells = np.concatenate(
        [np.stack([gain[g] if ranks[g] < split else loss[g] for g in range(len(present))]) for split in splits], axis=-1
    )
    split, step = divmod(best(cells, metric, objective_function), len(band))
    thresholds = np.zeros(batch.groups)
    thresholds[present] = np.where(ranks < splits[split], -band[step], band[step])
    return append_after(model, "", GroupThresholds(batch.logits.shape[1], thresholds))
