"""Exercises of lesson 4: another class, rank agreement, a map that does not add up, occlusion by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from helpers.course.answers import array, names, number
from helpers.course.exercise import exercise
from helpers.course.functions import Case, function
from helpers.course.verdict import Verdict, right, wrong


@exercise(
    "04-1",
    "The other class",
    level="change",
    minutes=3,
    hints=("The third argument of attribute is the class that is explained.", "With two classes the other one is 1 - said."),
)
def other_class(answer: Any, model: Any, images: Any) -> Verdict:
    """Maps of the class that was not predicted, by gradient × input."""
    import torch

    from helpers import attribute

    found, shape = array(answer, "maps"), (len(images), *images.shape[2:])
    if found.shape != shape:
        return wrong(f"Maps of shape {shape} expected, one an image; {found.shape} came.")
    with torch.inference_mode():
        said, runner_up = model(images).topk(2, dim=1).indices.T
    wanted, usual = (attribute(model, images, each, "gradient_input").numpy() for each in (runner_up, said))

    def like(maps: np.ndarray) -> bool:
        return np.allclose(found, maps, rtol=1e-3, atol=1e-4 * np.abs(maps).max())

    if like(wanted):
        turned = float((np.sign(wanted) == -np.sign(usual)).mean())
        return right(
            f"{turned:.0%} of the pixels have the other sign than in the maps of the predicted class: what speaks for one "
            "class speaks against the other."
        )
    if like(usual):
        return wrong("These are the maps of the class that was predicted.", "Which class is the other one, for each image?")
    if like(-usual):
        return wrong("You have turned the signs of the predicted class's maps: nearly the same here, but not the same question.")
    if like(attribute(model, images, runner_up, "saliency").numpy()):
        return wrong("The right class, by the method saliency; gradient_input is asked for.")
    return wrong(
        "These are maps of other images, by another method, or of one class for all.", "attribute(model, images, which, method)"
    )


def two_maps() -> dict[str, np.ndarray]:
    """Two maps (16, 16) of one picture: where one is large the other mostly is, on another scale and with other signs."""
    rng = np.random.default_rng(402)
    base = rng.gamma(0.6, size=(16, 16))
    first = base * rng.choice([-1, 1], (16, 16))
    second = (base * rng.lognormal(0, 0.9, (16, 16))) ** 3 * rng.choice([-1, 1], (16, 16), p=[0.3, 0.7])
    return {"first": first, "second": second}


@exercise(
    "04-2",
    "Do two maps agree?",
    level="compute",
    minutes=6,
    hints=(
        "Agreement about *where*: take absolute values first. Agreement about *order*: ranks, not values.",
        "scipy.stats.spearmanr(first, second) of the two flattened maps of absolute values, .statistic.",
    ),
    case=two_maps,
)
def agreement(answer: Any, case: dict[str, np.ndarray]) -> Verdict:
    """Spearman's rank correlation of the sizes of relevance."""
    from scipy.stats import pearsonr, spearmanr

    one, two = (each.ravel() for each in case.values())
    wanted = spearmanr(abs(one), abs(two)).statistic
    signed = spearmanr(one, two).statistic
    return number(
        answer, wanted, tolerance=0.005,
        why=f"They agree well about where, {wanted:.2f}, and hardly about which way: {signed:.2f} with signs. Say which of the "
            "two you report.",
        mistakes={
            "That is the rank correlation with signs; the question is where, not which way.": signed,
            "That is Pearson's correlation: a few large values decide it. Compare ranks.": pearsonr(abs(one), abs(two)).statistic,
            "That is Pearson's correlation with signs.": pearsonr(one, two).statistic,
        },
    )  # fmt: skip


def three_faces() -> dict[str, np.ndarray]:
    """Five maps by integrated gradients: `maps` (5, 8, 8), with `score` and `score_of_baseline` (5,) of their faces."""
    rng = np.random.default_rng(403)
    images, weights = rng.random((5, 8, 8)), rng.normal(size=(8, 8))
    baseline = np.array([0.0, 0, 0, 1, 0])[:, None, None]  # one map was made with white, and nobody wrote it down

    def score(pictures: np.ndarray) -> np.ndarray:
        return (weights * pictures**2).sum((-2, -1)) + 0.5

    maps = weights * (images**2 - baseline**2)
    maps[1] = maps[1] * 0.8  # too few steps
    return {"maps": maps, "score": score(images), "score_of_baseline": np.full(5, score(np.zeros((8, 8))))}


@exercise(
    "04-3",
    "Maps that do not add up",
    level="find out",
    minutes=8,
    hints=(
        "Completeness: the map of a face sums to its score minus the score of the baseline.",
        "case['maps'].sum((1, 2)) beside case['score'] - case['score_of_baseline'], face by face.",
    ),
    case=three_faces,
)
def complete(answer: Any, case: dict[str, np.ndarray]) -> Verdict:
    """The faces whose map breaks completeness."""
    error = case["maps"].sum((1, 2)) - (case["score"] - case["score_of_baseline"])
    wanted = np.flatnonzero(np.abs(error) > 1e-6)
    of_score = np.abs(case["maps"].sum((1, 2)) - case["score"]) > 1e-6
    values = list(np.atleast_1d(np.asarray(answer)).tolist()) if not isinstance(answer, dict | set) else list(answer)
    if set(map(str, values)) == set(map(str, np.flatnonzero(of_score))):
        return wrong("You have held the sums against the score alone; the score of the baseline has to be taken off.")
    return names(
        answer, wanted, range(len(error)), what="row numbers, from 0,",
        why="One was made with a baseline that nobody wrote down (white, not black), the other with too few steps. A sum "
            "finds both; an eye neither.",
        extra=dict.fromkeys(range(5), "Some of these add up."),
        missing=dict.fromkeys(range(5), "There is another one."),
        look="Compare sums to a hundredth or better; counting starts at 0.",
    )  # fmt: skip


def occlusion(score: Any, image: np.ndarray, patch: int) -> np.ndarray:
    """How much the score falls when a patch turns black, for each pixel of the patch."""
    result = np.zeros(image.shape)
    whole = score(image[None])[0]
    for top in range(0, image.shape[0], patch):
        for left in range(0, image.shape[1], patch):
            hidden = image.copy()
            hidden[top : top + patch, left : left + patch] = 0
            result[top : top + patch, left : left + patch] = whole - score(hidden[None])[0]
    return result


def pictures(seed: int = 404) -> list[Case]:
    """Scores that are not linear, pictures that are not square, and patches that do not fit."""
    rng = np.random.default_rng(seed)
    cases = []
    for height, width, patch in ((8, 8, 2), (8, 12, 4), (7, 9, 3), (6, 6, 1)):
        weights = rng.normal(size=(height, width))
        score = lambda images, w=weights: np.tanh((w * images).sum((1, 2)) / 4) + (images**2).mean((1, 2))
        cases.append((f"a picture of {height} × {width} with patches of {patch}", (score, rng.random((height, width)), patch)))
    return cases


@exercise(
    "04-4",
    "Write occlusion",
    level="write",
    minutes=20,
    hints=(
        "Two loops, range(0, height, patch) and range(0, width, patch); copy the image, set the patch to 0, ask the score again.",
        "Each pixel of a patch gets score of the whole minus score without it. score takes images (N, H, W) and gives (N,).",
    ),
)
def write_occlusion(answer: Any) -> Verdict:
    """Against an independent computation, over scores that are not linear."""

    def beside(score: Any, image: np.ndarray, patch: int, value: float = 0.0, keep: bool = False) -> np.ndarray:
        result = np.zeros(image.shape)
        for row, column in np.ndindex(image.shape):
            block = np.zeros(image.shape, bool)
            top, left = row // patch * patch, column // patch * patch
            block[top : top + patch, left : left + patch] = True
            changed = np.where(block ^ keep, value, image)
            result[row, column] = score(changed[None])[0] if keep else score(image[None])[0] - score(changed[None])[0]
        return result

    return function(
        answer, occlusion, pictures(),
        why="It agrees on all cases, pictures that the patches do not divide included. Thirty lines of a "
            "library are these seven.",
        mistakes={
            "The sign is turned: a patch that the score needs should get a positive value.": lambda *each: -beside(*each),
            "That is the score when only the patch is seen; hide the patch and keep the rest.":
                lambda *each: beside(*each, keep=True),
            "Hidden pixels turn white (1) in yours; they should turn black (0).": lambda *each: beside(*each, value=1.0),
            "You have divided by the size of a patch; each pixel gets the whole difference.":
                lambda s, i, p: beside(s, i, p) / p**2,
        },
    )  # fmt: skip
