"""Exercises of lesson 8: another statistic, what parity asks of a perfect model, gaps that cancel, a statistic by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.course.answers import Unreadable, name, number, shown
from helpers.course.exercise import exercise
from helpers.course.functions import called
from helpers.course.verdict import Verdict, right, wrong


def batch() -> dict[str, Any]:
    """`logit` (40, 1), one-hot groups `sens` (40, 3) and `label` (40, 1), float tensors."""
    import torch

    rng = np.random.default_rng(801)
    group = rng.permutation(np.repeat([0, 1, 2], [20, 12, 8]))
    label = rng.integers(0, 2, 40)
    logit = rng.normal(size=40) + label + 0.8 * (group == 1)
    made = {"logit": logit[:, None], "sens": np.eye(3)[group], "label": label[:, None]}
    return {key: torch.tensor(value, dtype=torch.float32) for key, value in made.items()}


@exercise(
    "08-1",
    "Another statistic",
    level="change",
    minutes=5,
    hints=(
        "losses.NormLoss(FalsePositiveRate()) is the loss. What does a false positive rate need that a positive rate does not?",
        "loss(logit, sens, label).item()",
    ),
    case=batch,
)
def other_statistic(answer: Any, case: dict[str, Any]) -> Verdict:
    """NormLoss of the false positive rate on the batch."""
    from helpers import losses
    from helpers.bias.statistics import FalsePositiveRate, PositiveRate, TruePositiveRate

    logit, sens, label = case["logit"], case["sens"], case["label"]
    fpr = losses.NormLoss(FalsePositiveRate())
    return number(
        answer, fpr(logit, sens, label).item(),
        why="The statistic has changed and the loss has not: neither knows the other. With labels it asks about the faces "
            "that do not smile only.",
        mistakes={
            "That is the loss of the positive rate; it does not look at labels.":
                losses.NormLoss(PositiveRate())(logit, sens).item(),
            "That is the loss of the true positive rate.": losses.NormLoss(TruePositiveRate())(logit, sens, label).item(),
            "You have made probabilities of the logits first; the loss does that itself (or pass pred_as_logit=False).": fpr(
                logit.sigmoid(), sens, label
            ).item(),
            "You have made decisions of the logits first; a loss that is trained with looks at probabilities.": fpr(
                (logit > 0).float(), sens, label, pred_as_logit=False
            ).item(),
        },
    )  # fmt: skip


def smiles() -> pd.DataFrame:
    """Labels of the faces of three groups that smile unequally often."""
    rng = np.random.default_rng(802)
    group = np.repeat(["A", "B", "C"], [300, 200, 100])
    share = pd.Series(group).map({"A": 0.72, "B": 0.45, "C": 0.30}).to_numpy()
    return pd.DataFrame({"group": group, "y_true": (rng.random(600) < share).astype(int)})


@exercise(
    "08-2",
    "What parity asks of a perfect model",
    level="compute",
    minutes=5,
    hints=("A model without errors: its predictions are the labels.", "The largest positive rate of a group minus the smallest."),
    case=smiles,
)
def perfect(answer: Any, case: pd.DataFrame) -> Verdict:
    """The demographic-parity gap of a model without a single error."""
    rate = case.groupby("group")["y_true"].mean()
    wanted = rate.max() - rate.min()
    return number(
        answer, wanted,
        why="Nobody was treated wrongly, and the gap is there: it is the labels'. Only errors could close it; whether they "
            "should is no question of statistics (do the labels measure what they say?).",
        mistakes={
            "That would be its equalized-odds gap. Demographic parity does not ask who is right.": 0.0,
            "That compares the first two groups only; take the largest and the smallest of all three.":
                abs(rate["A"] - rate["B"]),
            "That compares two of the groups only; take the largest and the smallest of all three.": abs(rate["B"] - rate["C"]),
            "That compares a group with all faces; the gap is between the groups.": rate.max() - case["y_true"].mean(),
            "That is the ratio of the rates; the gap is their difference.": rate.min() / rate.max(),
        },
    )  # fmt: skip


def four_models() -> pd.DataFrame:
    """Labels and groups of 800 faces, and the decisions of four models A to D."""
    table = pd.DataFrame({"y_true": np.tile(np.repeat([1, 0], 200), 2), "group": np.repeat(["wearing", "without"], 400)})
    rates = {  # true and false positive rates, wearing and without
        "A": (0.80, 0.20, 0.80, 0.20),
        "B": (0.90, 0.10, 0.60, 0.40),
        "C": (0.90, 0.40, 0.60, 0.10),
        "D": (0.80, 0.40, 0.80, 0.10),
    }
    rng = np.random.default_rng(803)
    for model, shares in rates.items():
        table[model] = np.concatenate([rng.permutation(200) < round(200 * share) for share in shares]).astype(int)
    return table


@exercise(
    "08-3",
    "Two gaps that cancel",
    level="find out",
    minutes=12,
    hints=(
        "case.groupby(['group', 'y_true'])[['A', 'B', 'C', 'D']].mean() has the true and the false positive rates.",
        "A loss that adds the two rates of a group before it compares groups sees 0 where one gap is as large as "
        "the other is small.",
    ),
    case=four_models,
)
def cancel(answer: Any, case: pd.DataFrame) -> Verdict:
    """The model that is unfair by equalized odds and has a sum of gaps of zero."""
    rate = case.groupby(["group", "y_true"])[["A", "B", "C", "D"]].mean()
    gap = rate.xs("wearing") - rate.xs("without")
    blind = gap.sum().abs() < 0.02
    odds = gap.abs().max()
    (wanted,) = gap.columns[blind & (odds > 0.1)]
    others = {}
    for model in gap.columns.drop(wanted):
        signed = f"its gaps are {gap.loc[1, model]:+.2f} in true and {gap.loc[0, model]:+.2f} in false positive rate"
        others[model] = f"It is fair: {signed}." if blind[model] else f"The loss sees it: {signed}."
    return name(
        answer, wanted, others,
        why=f"{gap.loc[1, wanted]:+.2f} in true and {gap.loc[0, wanted]:+.2f} in false positive rate sum to "
            f"{abs(gap[wanted].sum()):.2f}: the loss is content, and the equalized-odds gap is {odds[wanted]:.2f}. The loss of "
            "that name in FairTorch 0.1.2 adds the two before it compares.",
    )  # fmt: skip


@exercise(
    "08-4",
    "Write a statistic",
    level="write",
    minutes=20,
    hints=(
        "The error of a face with label y and prediction p is 2y(1 - p) + (1 - y)p. Sort by p: an intercept and a slope.",
        "num_intercept 2 * label, num_slope 1 - 3 * label, denom_intercept 1.0, denom_slope 0.0, each a method (self, label).",
    ),
)
def write_statistic(answer: Any) -> Verdict:
    """An error rate in which a missed smile counts twice, as a linear-fractional statistic."""
    import torch

    from helpers.bias.statistics import LinearFractionalStatistic

    if isinstance(answer, type):
        answer = called(answer, "a call without arguments", ())
    if not isinstance(answer, LinearFractionalStatistic):
        raise Unreadable(f"A subclass of LinearFractionalStatistic, or an instance of it, expected; {shown(answer)} came.")
    rng = np.random.default_rng(804)
    wanted, found, plain, turned, halved = [], [], [], [], []
    for groups in (2, 3, 4):
        group = np.r_[np.arange(groups), rng.integers(0, groups, 30)]
        p, y = rng.random(len(group)), rng.integers(0, 2, len(group))
        inputs = [torch.tensor(each, dtype=torch.float64) for each in (p[:, None], np.eye(groups)[group], y[:, None])]
        words = f"{len(group)} faces of {groups} groups"
        values = called(answer, words, inputs)
        try:
            values = np.asarray(values.detach()).ravel()
        except Exception:
            raise Unreadable(f"On {words} it returns {shown(values)}; one value a group expected.") from None
        if values.shape != (groups,):
            return wrong(f"On {words} it returns {len(values)} values; one a group expected.")
        found.extend(values)
        for code in range(groups):
            mine = group == code
            missed, invented = (y * (1 - p))[mine], ((1 - y) * p)[mine]
            wanted.append(np.mean([2 * a + b for a, b in zip(missed, invented, strict=True)]))
            plain.append((missed + invented).mean())
            turned.append((missed + 2 * invented).mean())
            halved.append((2 * missed + invented).sum() / (1 + y[mine]).sum())
    if np.allclose(found, wanted, atol=1e-6):
        return right(
            "It agrees with a computation face by face; every loss of the library can train with it now, "
            "and every audit report it."
        )
    if np.allclose(found, plain, atol=1e-6):
        return wrong("That is the plain error rate; a missed smile should count twice.")
    if np.allclose(found, turned, atol=1e-6):
        return wrong("An invented smile counts twice in yours; a missed one should.")
    if np.allclose(found, halved, atol=1e-6):
        return wrong("You divide by the sum of the weights; the mean over faces is asked for, so the denominator is 1 a face.")
    return wrong(
        "Its values are not the mean of 2y(1 - p) + (1 - y)p over the faces of each group.", "Sort by p: intercept and slope."
    )
