"""Exercises of lesson 1: empty cells, the size of a trap, a shortcut in a table, counting cells by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.course.answers import name, number
from helpers.course.exercise import exercise
from helpers.course.functions import Case, function
from helpers.course.verdict import Verdict


@exercise(
    "01-1",
    "Empty cells",
    level="change",
    minutes=4,
    hints=(
        'load_faces("orl", target="glasses", protected=("woman", "facial_hair"), split="all") crosses two attributes.',
        "faces.counts() has a row a group and a column a class; how many of its entries are 0?",
    ),
)
def empty_cells(answer: Any, faces: Any) -> Verdict:
    """How many cells of group and target are empty once the photographs are crossed by two attributes."""
    table = faces.table

    def empty(columns: list[str]) -> int:
        full = pd.crosstab([table[each].astype(str) for each in columns], table["glasses"].astype(str)).stack()
        return 2 ** (len(columns) + 1) - int((full > 0).sum())

    wanted, people = empty(["woman", "facial_hair"]), table[table["woman"].astype(bool)]["identity"].nunique()
    return number(
        answer,
        wanted,
        tolerance=0.5,
        why=f"Of eight cells, {wanted} hold nobody, and what remains of women is {people} people. No audit can fill them in.",
        mistakes={
            "That is the number of empty cells with woman alone; cross it with facial_hair.": empty(["woman"]),
            "Those are the cells that do hold somebody.": 8 - wanted,
            "Those are all cells, empty or not.": 8,
        },
        look="Groups that do not occur at all have two empty cells, one a class.",
    )


def trap() -> pd.DataFrame:
    """Target and protected attribute of 500 training faces; neither is balanced."""
    rng = np.random.default_rng(102)
    glasses = (rng.random(500) < 0.3).astype(int)
    smiling = (rng.random(500) < np.where(glasses, 0.85, 0.45)).astype(int)
    return pd.DataFrame({"smiling": smiling, "glasses": glasses})


@exercise(
    "01-2",
    "The size of the trap",
    level="compute",
    minutes=5,
    hints=(
        "phi is Pearson's correlation of two columns of 0 and 1.",
        "case['smiling'].corr(case['glasses'])",
    ),
    case=trap,
)
def phi(answer: Any, case: pd.DataFrame) -> Verdict:
    """The correlation of two yes/no columns."""
    a, b = case["smiling"] - case["smiling"].mean(), case["glasses"] - case["glasses"].mean()
    share = case.groupby("glasses")["smiling"].mean()
    return number(
        answer,
        float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())),
        tolerance=2e-3,
        why="With halves of each it would be the difference of the two shares; here neither column is balanced.",
        mistakes={
            "That is the difference of the shares of smiles. It equals phi only if both columns are half and half.": share[1]
            - share[0],
            "That is how often the shortcut is right (smiling if glasses).": float((case["smiling"] == case["glasses"]).mean()),
            "That is the share of smiles among faces with glasses.": share[1],
            "That is the square of it.": float((a * b).sum() ** 2 / ((a**2).sum() * (b**2).sum())),
        },
    )


def features() -> pd.DataFrame:
    """Four yes/no columns of faces in two splits, beside whether they smile."""
    rng = np.random.default_rng(103)
    split = np.repeat(["train", "test"], [600, 400])
    train = split == "train"
    smiling = rng.integers(0, 2, 1000)

    def goes_with(share: np.ndarray | float) -> np.ndarray:
        return np.where(rng.random(1000) < share, smiling, 1 - smiling)

    return pd.DataFrame(
        {
            "split": split,
            "smiling": smiling,
            "teeth": goes_with(0.85),  # the cause, everywhere
            "outdoors": np.where(train, goes_with(0.92), rng.integers(0, 2, 1000)),
            "young": rng.integers(0, 2, 1000),
            "beard": (rng.random(1000) < np.where(train, 0.15, 0.5)).astype(int),  # rarer in training, and of no use
        }
    )


@exercise(
    "01-3",
    "The shortcut",
    level="find out",
    minutes=8,
    hints=(
        "A shortcut tells the target where the model learns, and not where it is judged.",
        "For each split, the correlation of every column with smiling: case[case.split == "
        "'train'].corr(numeric_only=True)['smiling'].",
    ),
    case=features,
)
def shortcut(answer: Any, case: pd.DataFrame) -> Verdict:
    """The column that goes with the target in training alone."""
    within = {split: rows.drop(columns="split").corr()["smiling"].drop("smiling") for split, rows in case.groupby("split")}
    fall = within["train"].abs() - within["test"].abs()
    wanted = fall.idxmax()
    others = {
        "teeth": "It goes with smiling in both splits: that is what the model should learn.",
        "young": "It goes with smiling in neither split.",
        "beard": "It is rarer in training, but goes with smiling in neither split: a difference of its own share is no shortcut.",
    }
    return name(
        answer,
        wanted,
        others,
        why=f"In training it goes with smiling ({within['train'][wanted]:.2f}), more than teeth do "
        f"({within['train']['teeth']:.2f}); among the test faces it does not ({within['test'][wanted]:.2f}). A model that "
        "learns it looks good until it is judged.",
    )


def cells(target: np.ndarray, group: np.ndarray) -> list[list[int]]:
    """Images of each group (rows, in order) and class (columns, in order)."""
    classes, groups = sorted(set(target.tolist())), sorted(set(group.tolist()))
    return [[sum(t == label and g == name for t, g in zip(target, group, strict=True)) for label in classes] for name in groups]


def columns(seed: int = 104) -> list[Case]:
    """Columns of codes and of names, with empty cells."""
    rng = np.random.default_rng(seed)
    tries = []
    for groups, classes, n in ((2, 2, 30), (3, 2, 50), (4, 3, 25)):
        group = np.r_[np.arange(groups), rng.integers(0, groups, n)]
        target = np.r_[
            np.arange(groups) % classes, np.minimum(rng.integers(0, classes, n), np.where(group[groups:] == 0, 0, classes))
        ]
        names = np.array(["a", "b", "c", "d"])
        tries.append(
            (f"{len(group)} images of {groups} groups and {classes} classes", (target, names[group] if groups > 2 else group))
        )
    return tries


@exercise(
    "01-4",
    "Write a count of cells",
    level="write",
    minutes=10,
    hints=(
        "np.unique(group) are the rows, np.unique(target) the columns; a cell is where both hold.",
        "np.array([[((group == g) & (target == t)).sum() for t in np.unique(target)] for g in np.unique(group)])",
    ),
)
def write_cells(answer: Any) -> Verdict:
    """Against an independent computation, empty cells included."""

    def table(target: np.ndarray, group: np.ndarray, **options: Any) -> np.ndarray:
        return pd.crosstab(group, target, **options).to_numpy(float)

    return function(
        answer,
        cells,
        columns(),
        why="It agrees on all cases, empty cells included. Count them before you train.",
        mistakes={
            "Groups are the rows and classes the columns; yours is the other way round.": lambda t, g: table(t, g).T,
            "Those are shares of all images; counts are asked for.": lambda t, g: table(t, g, normalize=True),
            "Those are shares within the groups; counts are asked for.": lambda t, g: table(t, g, normalize="index"),
            "Those are the images of each group; split them by class.": lambda t, g: table(t, g).sum(1),
        },
    )
