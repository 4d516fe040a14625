"""Exercises of lesson 3: another confidence, what is undefined, unnamed averages, a label that is the group, a gap by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.course.answers import name, names, number
from helpers.course.exercise import exercise
from helpers.course.functions import Case, function
from helpers.course.verdict import Verdict


@exercise(
    "03-1",
    "Less confidence",
    level="change",
    minutes=3,
    hints=(
        'audit(..., confidence=0.8) is one argument more; result.gap_interval("equalized_odds") has the two ends.',
        "The width is the upper end minus the lower one.",
    ),
)
def confidence(answer: Any, audit: Any) -> Verdict:
    """The width of the 80 % interval of the equalized-odds gap, from the very counts of the audit handed over."""
    from helpers.bias.audit import audit_counts

    def width(level: float) -> float:
        low, high = audit_counts(audit.counts, confidence=level, statistics="equalized_odds").gap_interval("equalized_odds")
        return high - low

    wanted, usual = width(0.8), width(0.95)
    return number(
        answer, wanted, tolerance=2e-3,
        why=f"It is {1 - wanted / usual:.0%} narrower than at 95 %, and wrong in one audit of five instead of one of twenty.",
        mistakes={
            "That is the width at 95 %; the argument confidence has not reached the audit.": usual,
            "That is half of the width: the distance from one end to the other is asked for.": wanted / 2,
            "That is the width at 20 %: confidence is how often the interval holds the truth, not how often it fails.":
                width(0.2),
            "That is the gap itself; its interval has two ends.": audit.gap("equalized_odds"),
        },
    )  # fmt: skip


def always_yes() -> pd.DataFrame:
    """Labels and groups of 60 faces, and a model that always says yes."""
    rng = np.random.default_rng(302)
    table = pd.DataFrame({"y_true": rng.integers(0, 2, 60), "y_pred": 1, "group": np.repeat(["a", "b", "c"], 20)})
    return table


@exercise(
    "03-2",
    "Perfectly fair",
    level="compute",
    minutes=5,
    hints=(
        "audit(case.y_true, case.y_pred, case.group).gaps has a row a statistic; an undefined difference is NaN.",
        "Of the rates, leave out those with a value in every group: result.gaps[result.gaps['difference'].isna()]['statistic'].",
    ),
    case=always_yes,
)
def undefined(answer: Any, case: pd.DataFrame) -> Verdict:
    """Names of the gaps without a number for a model that says yes to everybody."""
    from helpers.bias import audit

    gaps = audit(case["y_true"], case["y_pred"], case["group"]).gaps.set_index("statistic")["difference"]
    zero = "Some of these have a gap of exactly 0, which is a number: all groups have the same rate. Undefined is something else."
    some = "Some of these have a gap, and it is not 0: how many are right depends on how many smile."
    return names(
        answer, gaps.index[gaps.isna()], gaps.index, what="names of statistics",
        extra={each: zero if value == 0 else some for each, value in gaps.dropna().items()},
        why="Nobody is called negative, so what is true of the negatives has no denominator: not 0, not 1, but no number.",
        look="Which statistics divide by the number of negative predictions?",
    )  # fmt: skip


BIRDS = {"landbird on land": 3498, "landbird on water": 184, "waterbird on land": 56, "waterbird on water": 1057}


def birds() -> pd.DataFrame:
    """Predictions on a balanced test set in four groups, and how many training images each group had (as in Waterbirds)."""
    rng = np.random.default_rng(303)
    rates = dict(zip(BIRDS, (0.99, 0.73, 0.58, 0.96), strict=True))
    parts = [
        pd.DataFrame(
            {"group": each, "right": rng.permutation(np.arange(250) < round(250 * rate)), "training images": BIRDS[each]}
        )
        for each, rate in rates.items()
    ]
    return pd.concat(parts, ignore_index=True)


@exercise(
    "03-3",
    "An average without a name",
    level="find out",
    minutes=10,
    hints=(
        "An average of four groups has four weights. The test set is balanced; which other weights does the table hold?",
        "The accuracy of each group, times its training images; sum, and divide by the sum of the training images.",
    ),
    case=birds,
)
def unnamed(answer: Any, case: pd.DataFrame) -> Verdict:
    """Accuracy with the weights of the training set."""
    by_group = case.groupby("group").agg(right=("right", "mean"), n=("training images", "first"))
    wanted = float(np.average(by_group["right"], weights=by_group["n"]))
    plain = float(case["right"].mean())
    return number(
        answer, wanted,
        why=f"The same predictions: {wanted:.3f} with the training set's weights, {plain:.3f} with the test set's, "
        f"{by_group['right'].min():.3f} for the worst group. Who does not name the weights can report any of them.",
        mistakes={
            "That is the plain average over the test set, in which all groups weigh the same.": plain,
            "That is the worst group's accuracy, which is no average.": by_group["right"].min(),
            "You have weighted by one over the training images, which favours the rare groups.": float(
                np.average(by_group["right"], weights=1 / by_group["n"])
            ),
        },
        look="Who could have claimed more than the plain average, and how?",
    )  # fmt: skip


def three_labels() -> pd.DataFrame:
    """Six hundred faces of three groups with three labels that somebody wants audited, and predictions of each."""
    rng = np.random.default_rng(304)
    group = rng.integers(0, 3, 600)
    labels = {
        "age": rng.integers(0, 2, 600),
        "subgroup": np.array([2, 0, 1])[group],
        "hair": np.where(rng.random(600) < 0.93, group == 1, rng.integers(0, 2, 600)).astype(int),
    }
    table = {"group": np.array(["A", "B", "C"])[group]}
    for each, label in labels.items():
        table[each] = label
        table[f"{each} predicted"] = np.where(rng.random(600) < 0.9, label, rng.permutation(label))
    return pd.DataFrame(table)


@exercise(
    "03-4",
    "A label that is the group",
    level="find out",
    minutes=8,
    hints=(
        "An audit compares groups among images of the same label. Count: pd.crosstab(case.group, case[label]).",
        "In the table of one label every column has a single group. Whom would you compare there?",
    ),
    case=three_labels,
)
def label_is_group(answer: Any, case: pd.DataFrame) -> Verdict:
    """The label of which each value occurs in one group only."""
    labels = [each for each in case if f"{each} predicted" in case]
    (wanted,) = [each for each in labels if (case.groupby(each)["group"].nunique() == 1).all()]
    others = {
        "age": "That label has images of every group at each of its values, so groups can be compared.",
        "hair": "That label goes with the group, strongly, but every cell has images: rates exist, if with wide intervals.",
    }
    return name(
        answer, wanted, {each: others[each] for each in labels if each != wanted},
        why="Its codes are the groups under other names: within a label there is nobody to compare with, so no true positive "
            "rate has a gap. A published tutorial on faces audits exactly such a label.",
    )  # fmt: skip


def odds_gap(y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray) -> float:
    """The larger of the gaps of the true and false positive rates; groups without a rate are left out."""
    spans = []
    for label in (0, 1):
        rates = [y_pred[(group == g) & (y_true == label)] for g in np.unique(group)]
        rates = [each.mean() for each in rates if len(each)]
        spans.append(max(rates) - min(rates) if len(rates) > 1 else np.nan)
    return float(np.nanmax(spans))


def _spans(y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray) -> np.ndarray:
    rates = np.array([[_rate(y_pred[(group == g) & (y_true == y)]) for y in (0, 1)] for g in np.unique(group)])
    return np.array([rates, np.nan_to_num(rates)])


def _rate(values: np.ndarray) -> float:
    return values.mean() if len(values) else np.nan


def _width(rates: np.ndarray) -> np.ndarray:
    return np.nanmax(rates, axis=0) - np.nanmin(rates, axis=0)


def audits(seed: int = 305) -> list[Case]:
    """Planted and random audits: two gaps that cancel, three groups, a group without positives, names for codes."""
    rng = np.random.default_rng(seed)
    cancel = np.array([1] * 10 + [0] * 10 + [1] * 10 + [0] * 10)
    said = np.array([1] * 8 + [0] * 2 + [1] * 2 + [0] * 8 + [1] * 5 + [0] * 5 + [1] * 5 + [0] * 5)
    cases = [("40 faces of two groups", (cancel, said, np.repeat([0, 1], 20)))]
    for groups in (2, 3, 4, 3, 2):
        n = int(rng.integers(40, 90))
        group = np.r_[np.arange(groups), rng.integers(0, groups, n - groups)]
        y_true, y_pred = rng.integers(0, 2, (2, n))
        y_pred = np.where(rng.random(n) < 0.3 * group / groups, 1, y_pred)
        cases.append((f"{n} faces of {groups} groups", (y_true, y_pred, group)))
    lacking = np.r_[np.zeros(12, int), np.tile([0, 1], 12)]
    said = np.r_[np.tile([0, 0, 1], 4), np.tile([0, 1, 0, 1, 1, 1], 4)]
    cases.append(("36 faces, a group of which has no positives,", (lacking, said, np.repeat(["x", "y", "z"], 12))))
    return cases


@exercise(
    "03-5",
    "Write the equalized-odds gap",
    level="write",
    minutes=15,
    hints=(
        "For each of the labels 0 and 1: the share of positive predictions in every group; the largest minus the smallest share.",
        "Return the larger of the two differences. A group without an image of that label has no rate: leave it "
        "out, do not count 0.",
    ),
)
def write_gap(answer: Any) -> Verdict:
    """Against an independent computation on planted and random audits."""
    same = lambda y_true, y_pred, group: _width(_spans(y_true, y_pred, group)[0])
    return function(
        answer, odds_gap, audits(),
        why="It agrees on all cases, with three groups and more, and with a group that has no positives.",
        mistakes={
            "That is the sum of the two gaps; equalized odds asks for the larger one.": lambda *each: same(*each).sum(),
            "That is the mean of the two gaps; equalized odds asks for the larger one.": lambda *each: same(*each).mean(),
            "That is the gap of the true positive rate alone (equal opportunity).": lambda *each: same(*each)[1],
            "That is the gap of the false positive rate alone.": lambda *each: same(*each)[0],
            "A group without positives has no true positive rate; you have counted it as 0.": lambda *each: _width(
                _spans(*each)[1]
            ).max(),
            "You have added up the rates of both labels before comparing groups: a gap in one direction and a gap in the "
            "other cancel. FairTorch 0.1.2 does just this.": lambda *each: np.ptp(np.nansum(_spans(*each)[0], axis=1)),
            "That is the gap of the positive predictions (demographic parity); split by label first.": lambda y, p, g: np.ptp(
                [p[g == each].mean() for each in np.unique(g)]
            ),
        },
    )  # fmt: skip
