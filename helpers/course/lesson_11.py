"""Exercises of lesson 11: another promise, who is taken for whom, pairs that share people, FMR by subgroup."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.course.answers import number
from helpers.course.exercise import exercise
from helpers.course.functions import Case, function
from helpers.course.verdict import Verdict


@exercise(
    "11-1",
    "A stricter promise",
    level="change",
    minutes=3,
    hints=("v.threshold_for(fit, 0.001)", "The column threshold holds one number."),
)
def stricter(answer: Any, fit: Any, report: Any) -> Verdict:
    """The threshold at which one impostor pair in a thousand of `fit` is accepted."""
    from helpers.bias import verification as v

    def at(pairs: Any, rate: float) -> float:
        return float(v.threshold_for(pairs, rate, too_few="nan")["threshold"].iloc[0])

    if callable(getattr(answer, "get", None)) and "threshold" in answer:
        answer = answer["threshold"]
    wanted = at(fit, 0.001)
    left = int((~report.same).sum())
    return number(
        answer, wanted, tolerance=1e-6 + 1e-4 * abs(wanted),
        why=f"Of {left:,} impostor pairs of the people who report, {left / 1000:.0f} or so will be accepted: few errors, of "
            "fewer people still.",
        mistakes={
            "That is the threshold for one in a hundred.": at(fit, 0.01),
            "That is the threshold for one in ten thousand.": at(fit, 0.0001),
            "You have fitted it on the people who report; it would keep its promise to them by construction.": at(report, 0.001),
        },
    )  # fmt: skip


def confusion() -> pd.DataFrame:
    """Pictures by the subgroup they are of (rows) and the subgroup of the person they were taken for (columns)."""
    names = ["AF", "BF", "IF", "WF"]
    counts = [[181, 6, 3, 10], [2, 190, 5, 3], [4, 27, 160, 9], [13, 8, 1, 178]]
    return pd.DataFrame(counts, index=pd.Index(names, name="is of"), columns=pd.Index(names, name="taken for"))


@exercise(
    "11-2",
    "Under whose name?",
    level="compute",
    minutes=5,
    hints=(
        "A false positive *of* BF is somebody else who was taken for BF.",
        "The column of BF without its diagonal.",
    ),
    case=confusion,
)
def taken_for(answer: Any, case: pd.DataFrame) -> Verdict:
    """How many pictures of others were taken for the subgroup BF."""
    hit = case.loc["BF", "BF"]
    wanted = case["BF"].sum() - hit
    return number(
        answer, wanted, tolerance=0.5,
        why=f"And {case.loc['BF'].sum() - hit} pictures of BF were taken for others. A published tutorial counts false "
            "positives under the true subgroup's name in one table and under the predicted one's in another: two different "
            "numbers, one word.",
        mistakes={
            "Those are pictures of BF that were taken for others: misses of BF, and false positives of the others.":
                case.loc["BF"].sum() - hit,
            "That includes those of BF themselves, which are no errors.": case["BF"].sum(),
            "That includes those of BF themselves, and counts along the row.": case.loc["BF"].sum(),
            "Those are the errors in both directions; false positives are one of them.":
                case["BF"].sum() + case.loc["BF"].sum() - 2 * hit,
            "That is a rate; the number of pictures is asked for.": wanted / case["BF"].sum(),
        },
    )  # fmt: skip


def dependent() -> pd.DataFrame:
    """Sixty people, each compared with 100 strangers of their own: `person` and whether the pair was falsely `accepted`."""
    rng = np.random.default_rng(1103)
    rate = rng.beta(0.4, 6, 60)  # a few people resemble many others
    return pd.DataFrame({"person": np.repeat(np.arange(60), 100), "accepted": rng.random(6000) < np.repeat(rate, 100)})


@exercise(
    "11-3",
    "A bootstrap over dependent pairs",
    level="find out",
    minutes=15,
    hints=(
        "Draw pairs with replacement: the spread of the false match rate is sqrt(p (1 - p) / 6000). Now draw people instead.",
        "Each person's rate: case.groupby('person')['accepted'].mean(). Its standard deviation over √60 is the standard error "
        "that counts people.",
    ),
    case=dependent,
)
def ratio(answer: Any, case: pd.DataFrame) -> Verdict:
    """Standard error of the false match rate over people, over that of pairs."""
    each = case.groupby("person")["accepted"].mean()
    p, n = case["accepted"].mean(), len(case)
    of_people, of_pairs = each.std() / np.sqrt(len(each)), np.sqrt(p * (1 - p) / n)
    wanted = of_people / of_pairs
    return number(
        answer, wanted, tolerance=0.15 * wanted,
        why=f"Sixty people are sixty observations, not six thousand. An interval that counts pairs is {wanted:.1f} times too "
            f"narrow, "
            "and nothing in it says so.",
        mistakes={
            "That holds if a person's pairs were copies of one another; compute the two standard errors.": np.sqrt(n / len(each)),
            "The other way round: how many times *wider* is the one that counts people?": 1 / wanted,
            "That is the square of the ratio (of variances); intervals go by standard errors.": wanted**2,
            "Pairs of one person go together: resample whole people, with all of their pairs.": 1.0,
        },
        look="A bootstrap of some thousand draws, or the two formulas in the hints.",
    )  # fmt: skip


def fmr(scores: np.ndarray, same: np.ndarray, group: np.ndarray, threshold: float) -> list[float]:
    """For each group in order: the share of impostor pairs that reach the threshold, NaN without impostors."""
    values = []
    for name in sorted(set(group.tolist())):
        impostors = [s for s, genuine, of in zip(scores, same, group, strict=True) if of == name and not genuine]
        values.append(sum(s >= threshold for s in impostors) / len(impostors) if impostors else np.nan)
    return values


def scored_pairs(seed: int = 1104) -> list[Case]:
    """Pairs with ties at the threshold, several groups, one without impostors."""
    rng = np.random.default_rng(seed)
    cases = []
    for groups, n in ((2, 60), (3, 120), (4, 90)):
        group = np.array(list("abcd"))[np.r_[np.arange(groups), np.arange(groups), rng.integers(0, groups, n - 2 * groups)]]
        same = np.r_[np.ones(groups, bool), np.zeros(groups, bool), rng.random(n - 2 * groups) < 0.4]
        scores = np.round(rng.normal(0.3 + 0.4 * same, 0.25), 1)
        cases.append((f"{n} pairs of {groups} groups", (scores, same, group, 0.5)))
    alone = np.array(["a"] * 8 + ["b"] * 4)
    cases.append(
        (
            "12 pairs, a group of which has no impostors,",
            (np.linspace(0, 1, 12), np.r_[np.tile([True, False], 4), [True] * 4], alone, 0.4),
        )
    )
    return cases


@exercise(
    "11-4",
    "Write the false match rate by subgroup",
    level="write",
    minutes=15,
    hints=(
        "For each name in np.unique(group): the scores of its pairs that are not the same person; the share "
        "with score >= threshold.",
        "A group without such pairs has no rate: float('nan'). Give the rates in the order of np.unique.",
    ),
)
def write_fmr(answer: Any) -> Verdict:
    """Against an independent computation, ties and a group without impostors included."""
    handed = answer
    if callable(answer):

        def handed(*inputs: Any) -> Any:
            result = answer(*inputs)
            if isinstance(result, dict | pd.Series):
                result = dict(result)
                return np.array([result.get(name, np.inf) for name in sorted(set(inputs[2].tolist()))], dtype=float)
            return result

    def by(s: np.ndarray, same: np.ndarray, g: np.ndarray, t: float, kind: str) -> np.ndarray:
        reached = s > t if kind == "strict" else s >= t
        made = []
        for each in np.unique(g):
            mine = g == each
            over = {"fnmr": ~reached[mine & same], "discovery": ~same[mine & reached], "all pairs": (reached & ~same)[mine]}
            over["everybody's"] = (reached & mine)[~same]
            made.append(_mean(over.get(kind, reached[mine & ~same])))
        return np.nan_to_num(made) if kind == "zero" else np.array(made)

    return function(
        handed, fmr, scored_pairs(),
        why="It agrees on all cases, ties at the threshold and a group without impostor pairs included.",
        mistakes={
            "A pair whose score equals the threshold is accepted: >=, not >.": lambda *each: by(*each, "strict"),
            "A group without impostor pairs has no false match rate: NaN, not 0.": lambda *each: by(*each, "zero"),
            "That is the false non-match rate: genuine pairs that are rejected.": lambda *each: by(*each, "fnmr"),
            "That is the share of the accepted pairs that are wrong; divide by the impostor pairs.":
                lambda *each: by(*each, "discovery"),
            "You have divided by all pairs of the group; divide by its impostor pairs.": lambda *each: by(*each, "all pairs"),
            "You have divided by everybody's impostor pairs; divide by the group's own.": lambda *each: by(*each, "everybody's"),
            "That is one rate for all; give one a group.": lambda s, same, g, t: np.mean((s >= t)[~same]),
        },
    )  # fmt: skip


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
