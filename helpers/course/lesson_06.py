"""Exercises of lesson 6: many questions, a region that one group lacks, sizes of regions, Holm's correction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.course.answers import array, names, number
from helpers.course.exercise import exercise
from helpers.course.functions import Case, function
from helpers.course.verdict import Verdict, right, wrong


def questions() -> dict[str, float]:
    """How many independent questions an audit asks, and the level of each."""
    return {"questions": 12, "level": 0.05}


@exercise(
    "06-1",
    "Ask often enough",
    level="compute",
    minutes=3,
    hints=(
        "How likely is it that one question finds nothing, where there is nothing? And all of them?",
        "1 minus (1 - level) to the power of the number of questions.",
    ),
    case=questions,
)
def often(answer: Any, case: dict[str, float]) -> Verdict:
    """The chance that at least one of several questions finds something where nothing is."""
    n, level = case["questions"], case["level"]
    return number(
        answer, 1 - (1 - level) ** n, tolerance=2e-3,
        why="Nearly every other such audit would have something to report, and nothing to find. That is what Holm's "
            "correction is for.",
        mistakes={
            "Adding up counts audits twice in which two questions find something; begin with the chance that none does.":
                n * level,
            "That is the chance that none finds anything.": (1 - level) ** n,
            "That is the chance that all of them find something.": level**n,
            "That is the level of one question.": level,
            "That is the chance that exactly one finds something; two are no better.": n * level * (1 - level) ** (n - 1),
        },
    )  # fmt: skip


def accessories() -> pd.DataFrame:
    """Share of the relevance on the accessories, one row a face; some faces wear none, and have no such region."""
    rng = np.random.default_rng(602)
    worn = np.r_[np.ones(14, bool), np.zeros(6, bool), np.zeros(20, bool)]
    share = np.where(worn, rng.uniform(0.05, 0.2, 40).round(3), np.nan)
    return pd.DataFrame({"group": np.repeat(["often", "never"], 20), "share": share})


@exercise(
    "06-2",
    "A region that is not there",
    level="compute",
    minutes=5,
    hints=(
        "What is the share of a region that a face does not have: 0, or no number?",
        "The mean over the faces that have the region; for a group without any, float('nan').",
    ),
    case=accessories,
)
def lacking(answer: Any, case: pd.DataFrame) -> Verdict:
    """The mean share of each group: of the faces that have the region, and NaN where none has."""
    by_group = case.groupby("group")["share"]
    wanted = by_group.mean()[["often", "never"]].to_numpy()
    if isinstance(answer, dict | pd.Series):
        answer = [dict(answer).get(each, np.inf) for each in ("often", "never")]
    found = array(answer, "two numbers").ravel()
    if found.shape != (2,):
        return wrong(f"Two numbers expected, for 'often' and 'never'; {found.size} came.")
    zeros = case.fillna({"share": 0}).groupby("group")["share"].mean()[["often", "never"]].to_numpy()
    if np.allclose(found, wanted, atol=1e-3, equal_nan=True):
        return right(
            "Nobody of the second group has the region, so nothing can be said of it: not that the model ignores it, not that "
            "it looks there."
        )
    if np.allclose(found, zeros, atol=1e-3):
        return wrong("You have counted a region that is not there as one without relevance, for both groups.", "NaN is no 0.")
    if np.allclose(found[0], wanted[0], atol=1e-3) and found[1] == 0:
        return wrong(
            "The first is right. But a mean of no faces is not 0: that would say that the model does not look there.",
            "float('nan')",
        )
    if np.allclose(found[0], zeros[0], atol=1e-3):
        return wrong("The mean of the first group is over the faces that have the region, not over all.")
    if np.allclose(found[::-1], wanted, atol=1e-3, equal_nan=True):
        return wrong("The right two numbers, in the other order: first 'often', then 'never'.")
    return wrong("The mean of the faces that have the region is asked for, first of 'often', then of 'never'.")


def regions() -> pd.DataFrame:
    """Two groups' mean share of the pixels and of the relevance, by region (share of the whole picture)."""
    density = {"brows": (2.0, 2.0), "eyes": (2.2, 2.2), "mouth": (3.0, 1.8), "nose": (1.5, 1.5), "hair": (0.9, 0.5)}
    pixels = {"brows": (0.02, 0.01), "eyes": (0.03, 0.03), "mouth": (0.04, 0.04), "nose": (0.02, 0.02), "hair": (0.10, 0.18)}
    table = pd.DataFrame({
        f"{what}, {group}": {name: pixels[name][k] * (density[name][k] if what == "relevance" else 1) for name in pixels}
        for what in ("pixels", "relevance") for k, group in enumerate(("without", "wearing"))
    }).rename_axis("region")  # fmt: skip
    return table


@exercise(
    "06-3",
    "Effect or artefact?",
    level="find out",
    minutes=8,
    hints=(
        "Density: the share of the relevance over the share of the pixels, for each group.",
        "An artefact of size: the shares of the relevance differ, the densities do not.",
    ),
    case=regions,
)
def artefact(answer: Any, case: pd.DataFrame) -> Verdict:
    """Regions whose relevance differs between the groups only because their size does."""
    group = ("without", "wearing")
    share = [case[f"relevance, {each}"] for each in group]
    density = [case[f"relevance, {each}"] / case[f"pixels, {each}"] for each in group]
    differ = ~np.isclose(share[0], share[1], rtol=1e-3)
    real = ~np.isclose(density[0], density[1], rtol=1e-3)
    told = {}
    for name, by_share, by_density in zip(case.index, differ, real, strict=True):
        if by_density and by_share:
            told[name] = f"The {name}: there the relevance per pixel differs too, so the size of the region is not all of it."
        elif by_density:
            told[name] = f"The {name}: the shares hardly differ there, and the densities do."
        else:
            told[name] = f"The {name}: there the shares of the relevance do not differ at all."
    return names(
        answer, case.index[differ & ~real], case.index, what="regions",
        extra=told, missing=dict.fromkeys(case.index, "There is a region with half the relevance in one group and half the "
            "pixels."),
        why="Frames cover brows: half the pixels, half the relevance, the same per pixel. At the mouth and in the hair the "
            "densities differ.",
    )  # fmt: skip


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values, in the order given."""
    order, m = np.argsort(p, kind="stable"), len(p)
    adjusted = np.empty(m)
    largest = 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (m - rank) * p[at]))
        adjusted[at] = largest
    return adjusted


def p_values(seed: int = 604) -> list[Case]:
    """P-values in no order, some near each other, some near 1."""
    rng = np.random.default_rng(seed)
    planted = [np.array([0.04, 0.01, 0.03, 0.005]), np.array([0.5, 0.6, 0.9]), np.array([0.012])]
    return [(f"{len(p)} p-values", (p,)) for p in [*planted, *(rng.beta(0.5, 2, n) for n in (5, 10, 25))]]


@exercise(
    "06-4",
    "Write Holm's correction",
    level="write",
    minutes=20,
    hints=(
        "Sort. The smallest of m is multiplied by m, the next by m - 1, …, the largest by 1.",
        "No adjusted value may be below an earlier one (np.maximum.accumulate) or above 1. Give them back in the order in "
        "which they came.",
    ),
)
def write_holm(answer: Any) -> Verdict:
    """Against an independent computation, in the order given."""

    def steps(p: np.ndarray) -> np.ndarray:
        return np.sort(p) * np.arange(len(p), 0, -1)

    def back(p: np.ndarray, values: np.ndarray) -> np.ndarray:
        return values[np.argsort(np.argsort(p, kind="stable"))]

    return function(
        answer, holm, p_values(),
        why="It agrees on all cases. It finds whatever Bonferroni's correction finds, and sometimes more, at the same price.",
        mistakes={
            "That is Bonferroni's correction: every value times m. Holm's multiplies the k-th smallest by m - k + 1.":
                lambda p: np.minimum(
                1, len(p) * p
            ),
            "An adjusted value may not be below that of a smaller p-value: carry the largest along.":
                lambda p: np.minimum(1, back(p, steps(p))),
            "The values are right, but in sorted order; give them back in the order in which they came.": lambda p: np.minimum(
                1, np.maximum.accumulate(steps(p))
            ),
            "A p-value is at most 1.": lambda p: back(p, np.maximum.accumulate(steps(p))),
            "That is the correction of Benjamini and Hochberg, which bounds the share of false findings, not "
            "the chance of any.": lambda p: (
                back(p, np.minimum.accumulate((np.sort(p) * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1].clip(max=1))
            ),
        },
    )  # fmt: skip
