"""Exercises of lesson 9: useless models, the front, how a choice flatters, a paired comparison by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.course.answers import names, number
from helpers.course.exercise import exercise
from helpers.course.functions import Case, function
from helpers.course.verdict import Verdict


def decisions() -> pd.DataFrame:
    """Labels and groups of 400 test faces, and the decisions of five fixes."""
    rng = np.random.default_rng(901)
    y, group = np.tile([0, 1], 200), np.repeat(["wearing", "without"], 200)
    good = np.where(rng.random(400) < 0.85, y, 1 - y)
    return pd.DataFrame({
        "y_true": y, "group": group, "P": good, "Q": np.ones(400, int), "R": (group == "wearing").astype(int),
        "S": np.where(rng.random(400) < 0.7, y, 1 - y), "T": np.zeros(400, int),
    })  # fmt: skip


@exercise(
    "09-1",
    "Fair and useless",
    level="change",
    minutes=3,
    hints=(
        "How many different answers does each model give? case[['P', 'Q', 'R', 'S', 'T']].nunique()",
        "One answer for everybody.",
    ),
    case=decisions,
)
def useless(answer: Any, case: pd.DataFrame) -> Verdict:
    """The models that predict one class."""
    models = [each for each in case if each not in ("y_true", "group")]
    wanted = [each for each in models if case[each].nunique() == 1]
    return names(
        answer, wanted, models, what="names of models",
        extra={"R": "R is at chance, but says two different things: yes to one group and no to the other. Its gap is as large "
            "as can be."},
        missing=dict.fromkeys(models, "There is another one; always no is as useless as always yes."),
        why="Their gap is exactly 0 and their balanced accuracy one half. Published methods end there when "
            "their defaults do not suit.",
    )  # fmt: skip


def results() -> pd.DataFrame:
    """Balanced accuracy, equalized-odds gap and whether one class is all it predicts, of a model and seven fixes (made up)."""
    rows = {
        "as it was": (0.78, 0.34, False),
        "A": (0.80, 0.14, False),
        "B": (0.82, 0.16, False),
        "C": (0.81, 0.25, False),
        "D": (0.77, 0.21, False),
        "E": (0.83, 0.09, False),
        "F": (0.80, 0.04, False),
        "G": (0.50, 0.00, True),
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["accuracy", "gap", "one class"]).rename_axis("model")


@exercise(
    "09-2",
    "The front",
    level="compute",
    minutes=6,
    hints=(
        "A fix is on the front unless another one is at least as good in both numbers and better in one.",
        "Leave out what predicts one class. Then go down the table sorted by accuracy: who has a smaller gap than all above?",
    ),
    case=results,
)
def front(answer: Any, case: pd.DataFrame) -> Verdict:
    """The fixes that no other fix beats in both numbers; those of one class do not take part."""
    live = case[~case["one class"]]

    def beaten_by(row: pd.Series) -> list[str]:
        as_good = (live["accuracy"] >= row["accuracy"]) & (live["gap"] <= row["gap"])
        return list(live.index[as_good & ((live["accuracy"] > row["accuracy"]) | (live["gap"] < row["gap"]))])

    beaten = {each: beaten_by(row) for each, row in live.iterrows()}
    extra = {each: f"{each} is not on it: {by[0]} is at least as good in both numbers." for each, by in beaten.items() if by}
    extra |= dict.fromkeys(
        case.index[case["one class"]], "A model that predicts one class has a gap of 0 and no use; leave it out."
    )
    return names(
        answer, [each for each, by in beaten.items() if not by], case.index, what="models", extra=extra,
        missing=dict.fromkeys(case.index, "Another one is beaten by none: less accurate than the first, and more equal."),
        why="Between these a choice is left that no table makes; all others are out, whatever one values.",
    )  # fmt: skip


def lottery() -> pd.DataFrame:
    """Balanced accuracy of 20 equally good fixes on 150 held-out faces and on 150 fresh ones."""
    rng = np.random.default_rng(903)
    found = rng.binomial(150, 0.8, (20, 2)) / 150
    return pd.DataFrame(found, columns=["held-out", "fresh"], index=[f"fix {k}" for k in range(20)]).round(4)


@exercise(
    "09-3",
    "How a choice flatters",
    level="find out",
    minutes=8,
    hints=(
        "Which fix would you choose by the held-out faces, and what would you write of it?",
        "Its held-out accuracy minus the accuracy of the same fix on fresh faces.",
    ),
    case=lottery,
)
def flattery(answer: Any, case: pd.DataFrame) -> Verdict:
    """By how much the chosen fix's own score exceeds its score on fresh faces."""
    held, fresh = case["held-out"], case["fresh"]
    best = held.idxmax()
    return number(
        answer, held[best] - fresh[best],
        why="All twenty are equally good, so the winner won by luck, and luck does not come along to fresh faces. Report the "
            "second number.",
        mistakes={
            "You have compared two winners; ask how the fix chosen by the held-out faces does on fresh ones.":
                held.max() - fresh.max(),
            "That is the winner's distance from the mean of the held-out column; take the same fix on fresh faces.": held.max()
            - held.mean(),
            "You have chosen by the fresh faces.": fresh.max() - held[fresh.idxmax()],
            "That is the difference of the two columns' means: without a choice nothing flatters.": held.mean() - fresh.mean(),
            "That is its accuracy on fresh faces; by how much does its own score exceed that?": fresh[best],
        },
    )  # fmt: skip


def paired(y_true: np.ndarray, old: np.ndarray, new: np.ndarray) -> tuple[float, float, float]:
    """Change of the share of right answers, with a 95 % interval of the mean of the changes face by face."""
    change = [int(c == a) - int(b == a) for a, b, c in zip(y_true, old, new, strict=True)]
    mean = sum(change) / len(change)
    spread = (sum((each - mean) ** 2 for each in change) / (len(change) - 1)) ** 0.5
    half = 1.96 * spread / len(change) ** 0.5
    return mean, mean - half, mean + half


def two_models(seed: int = 904) -> list[Case]:
    """Two models that mostly agree, on the same faces."""
    rng = np.random.default_rng(seed)
    cases = []
    for n in (50, 200, 333):
        y = rng.integers(0, 2, n)
        old = np.where(rng.random(n) < 0.8, y, 1 - y)
        new = np.where(rng.random(n) < 0.15, y, old)
        cases.append((f"{n} faces", (y, old, new)))
    return cases


@exercise(
    "09-4",
    "Write a paired comparison",
    level="write",
    minutes=15,
    hints=(
        "For every face: is the new model right (1 or 0) minus is the old one right. The change is the mean of these numbers.",
        "The interval is mean ± 1.96 · std(ddof=1) / √n of these differences. Return change, low, high.",
    ),
)
def write_paired(answer: Any) -> Verdict:
    """Against an independent computation: change, low, high."""

    def by(y: np.ndarray, old: np.ndarray, new: np.ndarray, spread: Any) -> np.ndarray:
        a, b = (old == y).astype(float), (new == y).astype(float)
        change = b.mean() - a.mean()
        return change + np.array([0, -1.96, 1.96]) * spread(a, b) / np.sqrt(len(y))

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return np.sqrt(a.var() + b.var())

    return function(
        answer, paired, two_models(), tolerance=2e-3,
        why="It agrees. Both models answered for the same faces, and the differences face by face vary less than two samples "
            "would: two intervals that overlap may still hide a clear change.",
        mistakes={
            "That is an interval for two different samples of faces; here both models answered for the same.":
                lambda *each: by(*each, apart),
            "Divide the standard deviation by √n: the interval is that of a mean.": lambda y, o, n: by(
                y, o, n, lambda a, b: (b - a).std(ddof=1) * np.sqrt(len(a))
            ),
            "The sign is turned: new minus old.": lambda y, o, n: by(y, n, o, lambda a, b: (b - a).std(ddof=1)),
            "That is one standard error to either side; 95 % takes 1.96.": lambda y, o, n: by(
                y, o, n, lambda a, b: (b - a).std(ddof=1) / 1.96
            ),
        },
    )  # fmt: skip
