"""Exercises of lesson 7: choosing without peeking, levelling down, scrambled pairs, an eraser for three groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.course.answers import array, name, number
from helpers.course.exercise import exercise
from helpers.course.functions import called
from helpers.course.verdict import Verdict, right, wrong


def candidates() -> pd.DataFrame:
    """Balanced accuracy and equalized-odds gap of a model and four fixes (made up), on held-out and on test faces."""
    return pd.DataFrame(
        {
            "held-out accuracy": [0.78, 0.80, 0.83, 0.50, 0.81],
            "held-out gap": [0.34, 0.15, 0.12, 0.00, 0.16],
            "test accuracy": [0.78, 0.80, 0.81, 0.50, 0.83],
            "test gap": [0.33, 0.13, 0.16, 0.00, 0.08],
        },
        index=pd.Index(["as it was", "A", "B", "C", "D"], name="model"),
    )


@exercise(
    "07-1",
    "Choose without peeking",
    level="change",
    minutes=5,
    hints=(
        "The ideal corner is accuracy 1 and gap 0: np.hypot(1 - accuracy, gap).",
        "Two of the four columns have no say in the choice.",
    ),
    case=candidates,
)
def choose(answer: Any, case: pd.DataFrame) -> Verdict:
    """The model nearest to the ideal corner on the held-out faces."""
    distance = {on: np.hypot(1 - case[f"{on} accuracy"], case[f"{on} gap"]) for on in ("held-out", "test")}
    wanted = distance["held-out"].idxmin()
    others = {each: "Another model is nearer to the ideal corner on the held-out faces." for each in case.index}
    others[case["held-out gap"].idxmin()] = (
        "Its gap is 0 because it says the same of everybody: accuracy one half. Read both numbers."
    )
    others[distance["test"].idxmin()] = (
        "It is the best on the test faces; whoever chooses by them has no faces left to judge the choice by."
    )
    others.pop(wanted)
    return name(
        answer, wanted, others,
        why=f"On the test faces it comes out worse than it looked ({distance['test'][wanted]:.2f} from the corner, not "
        f"{distance['held-out'][wanted]:.2f}): chosen ones often do. That second number is the honest one.",
    )  # fmt: skip


def three_fixes() -> pd.DataFrame:
    """Labels, groups, and what the model as it was (`old`) and three fixes say."""
    rng = np.random.default_rng(702)
    table = pd.DataFrame({"y_true": np.tile(np.repeat([1, 0], 200), 2), "group": np.repeat(["wearing", "without"], 400)})
    rates = {  # true and false positive rates, wearing and without
        "old": (0.95, 0.30, 0.60, 0.10),
        "A": (0.62, 0.12, 0.58, 0.10),
        "B": (0.90, 0.15, 0.82, 0.12),
        "C": (0.96, 0.31, 0.70, 0.10),
    }
    for fix, shares in rates.items():
        said = [rng.permutation(200) < round(200 * share) for share in shares]
        table[fix] = np.concatenate(said).astype(int)
    return table


@exercise(
    "07-2",
    "Levelling down",
    level="find out",
    minutes=12,
    hints=(
        "For every fix and group, the true positive rate before and after: case[case.y_true == 1].groupby('group')[['old', "
        "'A', 'B', 'C']].mean().",
        "The gap of one of them has nearly gone although nobody's smiles are found more often than before.",
    ),
    case=three_fixes,
)
def down(answer: Any, case: pd.DataFrame) -> Verdict:
    """The fix that closes the gap in true positive rates without any group gaining."""
    rate = case[case["y_true"] == 1].groupby("group")[["old", "A", "B", "C"]].mean()
    gap = rate.max() - rate.min()
    levels_down = [fix for fix in "ABC" if gap[fix] < gap["old"] / 2 and (rate[fix] <= rate["old"]).all()]
    (wanted,) = levels_down
    others = {}
    for fix in set("ABC") - {wanted}:
        gain = rate[fix] - rate["old"]
        if gap[fix] < gap["old"] / 2:
            others[fix] = f"Its gap closes, and the true positive rate of {gain.idxmax()!r} gains {gain.max():.2f}: that is up."
        else:
            others[fix] = f"Its gap is still {gap[fix]:.2f} of {gap['old']:.2f}; nothing has been levelled."
    change = rate[wanted] - rate["old"]
    return name(
        answer, wanted, others,
        why=f"The gap falls from {gap['old']:.2f} to {gap[wanted]:.2f}, because the better group loses {-change.min():.2f} and "
            "the worse gains nothing. By the gap alone it is the winner.",
    )  # fmt: skip


def scrambled() -> dict[str, np.ndarray]:
    """`labels` and `protected` (N,), and `pairs` (N, 2), which a library made of them for its concept vectors."""
    rng = np.random.default_rng(703)
    labels = rng.integers(0, 2, 400)
    protected = np.where(rng.random(400) < 0.9, labels, 1 - labels)
    return {"labels": labels, "protected": protected, "pairs": np.array((labels, protected)).reshape(-1, 2)}


@exercise(
    "07-3",
    "A scrambled attribute",
    level="find out",
    minutes=12,
    hints=(
        "Row k of pairs should be (labels[k], protected[k]). Look at the first few rows beside the first few labels.",
        "(pairs != np.column_stack([labels, protected])).any(axis=1).mean()",
    ),
    case=scrambled,
)
def share_scrambled(answer: Any, case: dict[str, np.ndarray]) -> Verdict:
    """The share of rows of `pairs` that are not their image's label and attribute."""
    meant = np.column_stack([case["labels"], case["protected"]])
    off = case["pairs"] != meant
    wanted = off.any(1).mean()
    return number(
        answer, wanted,
        why="reshape(-1, 2) cuts a row of all labels and a row of all attributes into neighbours: it does not pair columns. "
            "DetoxAI 0.3.8 does this, so that its erasers are fitted to scrambled labels. The shape is right, "
            "and the code runs.",
        mistakes={
            "That is the share of rows that are right.": 1 - wanted,
            "That is the number of rows, not their share.": off.any(1).sum(),
            "You have compared the attribute only; a row holds a label too.": off[:, 1].mean(),
            "You have compared the label only; a row holds an attribute too.": off[:, 0].mean(),
            "That is the share of rows in which both entries are wrong; one wrong entry spoils a row.": off.all(1).mean(),
            "That is the share of wrong entries; the share of wrong rows is asked for.": off.mean(),
        },
    )  # fmt: skip


@exercise(
    "07-4",
    "Write an eraser",
    level="write",
    minutes=25,
    hints=(
        "The means of k groups span k - 1 directions; all of them have to go, and nothing else.",
        "means minus their mean, np.linalg.svd(...), the first k - 1 right vectors V (rows); features - (features "
        "- centre) @ V.T @ V.",
    ),
)
def write_eraser(answer: Any) -> Verdict:
    """A linear map of features (N, D) after which all groups (codes, (N,)) have the same mean, and that leaves the rest alone."""
    rng = np.random.default_rng(704)
    for groups in (2, 3, 5):
        group = rng.permutation(np.r_[np.arange(groups), rng.integers(0, groups, 60)])
        centres = rng.normal(size=(groups, 8)) * 2
        features = centres[group] + rng.normal(size=(len(group), 8)) + 1
        words = f"{len(group)} faces of {groups} groups with 8 features"
        found = array(called(answer, words, (features, group)))
        if found.shape != features.shape:
            return wrong(f"On {words} its result has the shape {found.shape}; {features.shape} is expected.")
        if not np.isfinite(found).all():
            return wrong(f"On {words} its result holds NaN or infinity.")
        means = np.array([found[group == code].mean(0) for code in range(groups)])
        spread = np.ptp(means, axis=0).max()
        if spread > 1e-6 and groups > 2:
            return wrong(
                f"With two groups their means agree, with {groups} they still differ by {spread:.2g}.",
                "One direction is enough for two groups only: an eraser that is tested with two passes, and fails with three.",
            )
        if spread > 1e-6:
            return wrong(
                f"On {words} the means of the groups still differ by {spread:.2g}.", "Take their difference out of every face."
            )
        original = np.array([features[group == code].mean(0) for code in range(groups)])
        basis = np.linalg.svd(original - original.mean(0))[2]
        kept = basis[groups - 1 :]
        if np.ptp(found, axis=0).max() < 1e-9:
            return wrong("All faces have the same features afterwards: that is equal, and useless.")
        if not np.allclose((found - features) @ kept.T, ((found - features) @ kept.T).mean(0), atol=1e-6):
            return wrong(
                "It changes more than it must: what is orthogonal to the differences of the means should stay.",
                "Project out those directions and nothing else.",
            )
        with_one = np.column_stack([features, np.ones(len(features))])
        if np.abs(found - with_one @ np.linalg.lstsq(with_one, found)[0]).max() > 1e-6:  # no linear map of the features
            return wrong(
                "The means agree, but the faces were shifted by their own group's mean: that needs the group of "
                "every face to come.",
                "The same linear map for everybody: project, do not shift.",
            )
    return right(
        "With two, three and five groups the means agree, the rest is as it was, and nobody's group is needed: "
        "one linear map for all."
    )
