"""Exercises of lesson 10: how many people a claim takes, who is missed, which class is number 1, a rate over people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.course.answers import number
from helpers.course.exercise import exercise
from helpers.course.functions import Case, function
from helpers.course.verdict import Verdict


def claim() -> dict[str, float]:
    """Errors seen, the rate that they should be shown to stay below, and the one-sided confidence."""
    return {"errors": 1, "below": 0.10, "confidence": 0.95}


@exercise(
    "10-1",
    "How many people a claim takes",
    level="compute",
    minutes=6,
    hints=(
        "The exact upper limit with k errors among n people is scipy.stats.beta.ppf(confidence, k + 1, n - k).",
        "The smallest n for which that limit is below 0.10: try them in order.",
    ),
    case=claim,
)
def people_needed(answer: Any, case: dict[str, float]) -> Verdict:
    """The smallest number of people with one error for an upper limit below the rate (Clopper-Pearson)."""
    from scipy.stats import beta

    k, below = int(case["errors"]), case["below"]

    def smallest(level: float, errors: int) -> int:
        return next(n for n in range(errors + 1, 1000) if beta.ppf(level, errors + 1, n - errors) < below)

    wanted = smallest(case["confidence"], k)
    return number(
        answer,
        wanted,
        tolerance=0.5,
        why=f"{wanted} women, and this data set has four. What four people can show is told before a single photograph is taken.",
        mistakes={
            "There the observed share is below 0.10; its upper limit is what has to be.": int(k / below) + 1,
            "That would do without any error; there is one.": smallest(case["confidence"], 0),
            "That is for a two-sided interval; the claim 'below' has one side.": smallest((1 + case["confidence"]) / 2, k),
            "One fewer would not do yet, true; but with that number the limit is not below either: one more.": wanted - 1,
        },
    )


def published() -> pd.DataFrame:
    """600 photographs by group: whether the detector `found` a face and, where it did, whether the answer was `right`."""
    rng = np.random.default_rng(1002)
    rows = []
    for group, (n, found, right) in {"A": (300, 0.99, 0.94), "B": (200, 0.97, 0.93), "C": (100, 0.70, 0.97)}.items():
        seen = rng.permutation(n) < round(found * n)
        answer = np.full(n, np.nan)
        answer[seen] = rng.permutation(seen.sum()) < round(right * seen.sum())
        rows.append(pd.DataFrame({"group": group, "found": seen, "right": answer}))
    return pd.concat(rows, ignore_index=True)


@exercise(
    "10-2",
    "Missed, and so counted nowhere",
    level="find out",
    minutes=8,
    hints=(
        "The mean of a column leaves missing values out. Who is missing here, and from which group?",
        "Of all photographs of the group: right ones, over all of them, found or not.",
    ),
    case=published,
)
def missed(answer: Any, case: pd.DataFrame) -> Verdict:
    """Right answers over all photographs, of the group that has the best accuracy by the table."""
    among_found = case.groupby("group")["right"].mean()
    best = among_found.idxmax()
    mine = case[case["group"] == best]
    wanted = float((mine["right"] == 1).sum() / len(mine))
    of_all = (case["right"] == 1).groupby(case["group"]).mean()
    return number(
        answer,
        wanted,
        tolerance=2e-3,
        why=f"The group with the best accuracy, {among_found[best]:.2f}, is the one that is served worst: {wanted:.2f}. "
        "Whoever is not found is called nothing, and is missing from every statistic of the classifier.",
        mistakes={
            "That is the table's number: of the faces that were found.": among_found[best],
            "That is the share of found faces; not all of them were called right.": mine["found"].mean(),
            "That is over all groups; take the one that the table calls best.": of_all.mul(case["group"].value_counts()).sum()
            / len(case),
        },
    )


def three_words() -> dict[str, Any]:
    """`classes`, in the order of the model's outputs, and a table of its answers, `y_pred` (codes), by `group`."""
    rng = np.random.default_rng(1003)
    group = np.repeat(["A", "B"], 250)
    y_pred = np.where(group == "A", rng.choice(3, 500, p=[0.55, 0.40, 0.05]), rng.choice(3, 500, p=[0.35, 0.42, 0.23]))
    return {"classes": ("woman", "man", "not sure"), "table": pd.DataFrame({"group": group, "y_pred": y_pred})}


@exercise(
    "10-3",
    "Which class is number 1?",
    level="find out",
    minutes=8,
    hints=(
        "Codes count from 0. Which word does the code 1 stand for?",
        "(table['y_pred'] == classes.index('woman')).groupby(table['group']).mean(), and the difference.",
    ),
    case=three_words,
)
def which_class(answer: Any, case: dict[str, Any]) -> Verdict:
    """The demographic-parity gap of being called "woman"."""
    table, classes = case["table"], case["classes"]

    def gap(code: int) -> float:
        rate = (table["y_pred"] == code).groupby(table["group"]).mean()
        return float(rate.max() - rate.min())

    wanted = gap(classes.index("woman"))
    return number(
        answer,
        wanted,
        tolerance=2e-3,
        why=f"Index 1 is 'man', whose gap is {gap(1):.2f}: a table of 'positives' that counts class index 1, whichever class "
        "that is, would have called this model fair. A published tutorial counts in this way.",
        mistakes={
            "That is the gap of class index 1, which is 'man' here.": gap(1),
            "That is the gap of 'not sure'.": gap(2),
            "That is the share of one group; the gap is a difference of two.": float(
                (table["y_pred"] == 0)[table["group"] == "A"].mean()
            ),
        },
    )


def over_people(wrong: np.ndarray, person: np.ndarray, group: np.ndarray) -> list[float]:
    """For each group in order: the mean over its people of the share of their photographs that went wrong."""
    rates = []
    for name in sorted(set(group.tolist())):
        photographs: dict[Any, list[float]] = {}
        for bad, who, of in zip(wrong.tolist(), person.tolist(), group.tolist(), strict=True):
            if of == name:
                photographs.setdefault(who, []).append(float(bad))
        shares = [sum(each) / len(each) for each in photographs.values()]
        rates.append(sum(shares) / len(shares))
    return rates


def photographs(seed: int = 1004) -> list[Case]:
    """People with unequally many photographs, in no order."""
    rng = np.random.default_rng(seed)
    tries = []
    for people, groups in ((6, 2), (15, 3), (9, 2)):
        each = rng.integers(1, 12, people)
        belongs = np.r_[np.arange(groups), rng.integers(0, groups, people - groups)]
        person = rng.permutation(np.repeat(np.arange(people), each))
        wrong = rng.random(len(person)) < rng.random(people)[person]
        tries.append(
            (f"{len(person)} photographs of {people} people", (wrong, person, np.array(["x", "y", "z"])[belongs[person]]))
        )
    return tries


@exercise(
    "10-4",
    "Write a rate over people",
    level="write",
    minutes=12,
    hints=(
        "First each person's share of wrong photographs, then the mean of these shares in every group.",
        "pandas: pd.DataFrame({...}).groupby(['group', 'person'])['wrong'].mean().groupby('group').mean()",
    ),
)
def write_over_people(answer: Any) -> Verdict:
    """Against an independent computation, with unequally many photographs a person."""

    def frame(wrong: np.ndarray, person: np.ndarray, group: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"wrong": wrong.astype(float), "person": person, "group": group})

    def by_person(*columns: np.ndarray) -> pd.Series:
        return frame(*columns).groupby(["group", "person"])["wrong"].mean()

    return function(
        answer,
        over_people,
        photographs(),
        why="It agrees on all cases. Somebody with many photographs counts as one person, as somebody with a single one does.",
        mistakes={
            "That is the mean over photographs: whoever has many of them counts many times.": lambda *each: (
                frame(*each).groupby("group")["wrong"].mean().to_numpy()
            ),
            "That is the share of people with at least one wrong photograph.": lambda *each: (
                (by_person(*each) > 0).groupby("group").mean().to_numpy()
            ),
            "Those are the people's own shares; take their mean in each group.": lambda *each: by_person(*each).to_numpy(),
            "That is one rate for all; give one a group.": lambda *each: by_person(*each).mean(),
        },
    )
