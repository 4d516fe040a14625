"""Exercises of lesson 5: relevance mass, which maps forget, the pointing game and deletion by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from helpers.course.answers import names, number
from helpers.course.exercise import exercise
from helpers.course.functions import Case, function
from helpers.course.verdict import Verdict


def one_map() -> dict[str, np.ndarray]:
    """A signed map (12, 12) and the mask (12, 12) of the mouth."""
    rng = np.random.default_rng(501)
    mask = np.zeros((12, 12), bool)
    mask[8:10, 3:9] = True
    relevance = rng.normal(0, 0.6, (12, 12)) + mask * 1.5
    relevance[2:4, 2:10] -= 2.0
    return {"map": relevance, "mask": mask}


@exercise(
    "05-1",
    "Relevance mass",
    level="compute",
    minutes=5,
    hints=(
        "Only what speaks *for* the class counts: np.clip(map, 0, None).",
        "The sum inside the mask over the sum of the whole picture.",
    ),
    case=one_map,
)
def mass(answer: Any, case: dict[str, np.ndarray]) -> Verdict:
    """Positive relevance inside the mask over all positive relevance (Arras et al. 2022, eq. 4)."""
    relevance, mask = case["map"], case["mask"]
    positive = np.clip(relevance, 0, None)
    wanted = positive[mask].sum() / positive.sum()
    return number(
        answer, wanted, tolerance=2e-3,
        why=f"Chance would put {mask.mean():.2f} there, the mask's share of the picture; always report the two together.",
        mistakes={
            "That is the mask's share of the picture: what chance gives, not what the map gives.": mask.mean(),
            "You have counted relevance against the class as well; take positive values only.": np.abs(relevance[mask]).sum()
            / np.abs(relevance).sum(),
            "Positive and negative relevance cancel in your sums; take positive values only.":
                relevance[mask].sum() / relevance.sum(),
            "That is the mean inside over the mean of the picture; sums are asked for.": positive[mask].mean() / positive.mean(),
            "That is inside over outside; inside over everything is asked for.": positive[mask].sum() / positive[~mask].sum(),
        },
    )  # fmt: skip


def five_methods() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For five methods, the map of the trained model and that of one with random last layers (both 16 × 16)."""
    rng = np.random.default_rng(502)
    picture = np.abs(rng.normal(size=(16, 16)))
    made = {}
    for name, kept, turned in (("A", 0.1, 1), ("B", 0.93, 1), ("C", 0.0, 1), ("D", 0.9, -1), ("E", 0.25, 1)):
        trained = picture * rng.lognormal(0, 0.3, (16, 16)) * rng.choice([-1, 1], (16, 16))
        fresh = rng.permutation(trained.ravel()).reshape(16, 16)
        made[name] = (trained, turned * np.where(rng.random((16, 16)) < kept, trained, fresh))
    return made


@exercise(
    "05-2",
    "Whose maps outlive the answers?",
    level="find out",
    minutes=10,
    hints=(
        "For each method the rank correlation of its two maps, scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic.",
        "One of them has all its signs turned. Does such a map show what the model has learned? Compare absolute values as well.",
    ),
    case=five_methods,
)
def forgets(answer: Any, case: dict[str, tuple[np.ndarray, np.ndarray]]) -> Verdict:
    """Methods whose maps correlate by more than 0.5 in size with those of a model that answers at random."""
    from scipy.stats import spearmanr

    size = {name: spearmanr(*(np.abs(each).ravel() for each in pair)).statistic for name, pair in case.items()}
    signed = {name: spearmanr(*(each.ravel() for each in pair)).statistic for name, pair in case.items()}
    wanted = [name for name, value in size.items() if value > 0.5]
    return names(
        answer, wanted, case, what="names of methods",
        extra=dict.fromkeys(case, "Some of these do change when the model forgets: their two maps hardly correlate."),
        missing={
            name: "Look at sizes as well as signs: one method turns all its signs and still draws the same picture."
            if signed[name] < 0
            else "Some method's maps are nearly the same although every answer has become random."
            for name in wanted
        },
        why="B stays as it was; D only turns its signs, so that a correlation with signs is far below 0 and seems to pass. "
            "Neither may support a claim about what the model has learned.",
    )  # fmt: skip


def pointing(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """1 where the most relevant pixel of a map lies in its mask, else 0."""
    return np.array([float(mask.ravel()[each.argmax()]) for each, mask in zip(maps, masks, strict=True)])


def maps_and_masks(seed: int = 503) -> list[Case]:
    """Signed maps with masks, large negative values among them."""
    rng = np.random.default_rng(seed)
    cases = []
    for n, height, width in ((6, 8, 8), (5, 6, 9), (1, 7, 7), (9, 5, 5)):
        masks = rng.random((n, height, width)) < 0.4
        maps = rng.normal(size=(n, height, width)) * rng.lognormal(0, 1, (n, height, width))
        maps[0, 0, 0] = -50.0
        masks[0, 0, 0] = True
        maps[0, -1, -1], masks[0, -1, -1] = 40.0, False
        cases.append((f"{n} maps of {height} × {width}", (maps, masks)))
    return cases


@exercise(
    "05-3",
    "Write the pointing game",
    level="write",
    minutes=10,
    hints=(
        "Flatten each map, maps.reshape(len(maps), -1), and take its argmax along axis 1.",
        "Look the place up in the flattened masks: masks.reshape(len(masks), -1)[np.arange(len(masks)), place]. One value a map.",
    ),
)
def write_pointing(answer: Any) -> Verdict:
    """Against an independent computation, one value a map."""

    def at(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return masks.reshape(len(masks), -1)[np.arange(len(maps)), maps.reshape(len(maps), -1).argmax(1)].astype(float)

    return function(
        answer, pointing, maps_and_masks(),
        why="It agrees on all cases. It looks at one pixel only, so that it does not punish a map for being coarse.",
        mistakes={
            "That is the mean over the maps; give one value a map, so that it can have an interval.":
                lambda a, b: at(a, b).mean(),
            "You have taken the largest absolute value; relevance against the class does not point.":
                lambda a, b: at(np.abs(a), b),
            "You have taken the least relevant pixel.": lambda a, b: at(-a, b),
            "One place for all maps: argmax needs an axis.": lambda a, b: b.reshape(len(b), -1)[:, a.argmax() % a[0].size],
        },
    )  # fmt: skip


def deletion(score: Any, image: np.ndarray, relevance: np.ndarray) -> float:
    """Area under the score while pixels turn black one by one, the most relevant first (trapezoids, shares from 0 to 1)."""
    order = np.argsort(-relevance.ravel(), kind="stable")
    pictures = np.repeat(image.ravel()[None], len(order) + 1, axis=0)
    for step, pixel in enumerate(order, 1):
        pictures[step:, pixel] = 0
    scores = score(pictures.reshape(-1, *image.shape))
    return float(((scores[1:] + scores[:-1]) / 2).mean())


def small_pictures(seed: int = 504) -> list[Case]:
    """Small pictures, scores that are not linear, and maps without ties."""
    rng = np.random.default_rng(seed)
    cases = []
    for height, width in ((4, 4), (3, 5), (5, 2)):
        weights = rng.normal(size=(height, width))
        score = lambda images, w=weights: 1 / (1 + np.exp(-3 * (w * images).sum((1, 2)) + images.mean((1, 2))))
        image = 0.2 + 0.8 * rng.random((height, width))
        cases.append(
            (f"a picture of {height} × {width}", (score, image, rng.permutation(height * width).reshape(height, width) - 5.0))
        )
    return cases


@exercise(
    "05-4",
    "Write deletion",
    level="write",
    minutes=20,
    hints=(
        "np.argsort(-map.ravel()) is the order. Score the whole picture, then after each pixel that turns 0, "
        "to the black picture.",
        "H·W + 1 scores make H·W trapezoids: np.trapezoid(scores, dx=1 / (H * W)).",
    ),
)
def write_deletion(answer: Any) -> Verdict:
    """Against an independent computation, one pixel a step."""

    def path(score: Any, image: np.ndarray, relevance: np.ndarray) -> np.ndarray:
        rank = (-relevance).ravel().argsort(kind="stable").argsort().reshape(image.shape)
        return score(np.array([image * (rank >= k) for k in range(image.size + 1)]))

    return function(
        answer, deletion, small_pictures(),
        why="It agrees on all cases: to black, one pixel a step. Another value for removed pixels is another score; name it.",
        mistakes={
            "You remove the least relevant pixels first (or put the most relevant in first, which makes the "
            "same pictures in reverse).": lambda s, i, m: np.trapezoid(path(s, i, -m), dx=1 / i.size),
            "Divide the area by the number of pixels, so that the shares run from 0 to 1.":
                lambda s, i, m: np.trapezoid(path(s, i, m)),
            "That is the plain mean of all scores; the first and the last count half in an area.":
                lambda s, i, m: path(s, i, m).mean(),
            "The score of the whole picture is missing: nothing is removed at the first point.": lambda s, i, m: np.trapezoid(
                path(s, i, m)[1:], dx=1 / i.size
            ),
        },
    )  # fmt: skip
