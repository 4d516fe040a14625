import functools

import numpy as np
import pandas as pd

from helpers import course
from helpers.bias import verification as v
from tests.course.tries import Tries


@functools.cache
def pairs():
    rng = np.random.default_rng(5)
    person, group = np.repeat(np.arange(80), 4), np.repeat(np.arange(80) % 2, 4)
    embeddings = rng.normal(size=(80, 12))[person] + rng.normal(size=(320, 12))
    return v.split_people(v.pairs(embeddings, person, group, groups=("a", "b")), seed=0)


def threshold(rate, half=0):
    return v.threshold_for(pairs()[half], rate, too_few="nan")


dependent = course.case("11-3")
p = dependent["accepted"].mean()


@functools.cache
def bootstrap():
    """Standard error over people by resampling them."""
    by_person = dependent.groupby("person")["accepted"].mean().to_numpy()
    draws = np.random.default_rng(0).integers(0, 60, (4000, 60))
    return by_person[draws].mean(1).std()


def fmr(scores, same, group, threshold, over="impostors", reached=np.greater_equal):
    rates = {}
    for name, frame in pd.DataFrame({"s": reached(scores, threshold), "same": same, "g": group}).groupby("g"):
        impostors = frame[~frame["same"]]
        rates[name] = {
            "impostors": impostors["s"].mean(),
            "all": impostors["s"].sum() / len(frame),
            "accepted": (~frame[frame["s"]]["same"]).mean(),
            "genuine": (~frame[frame["same"]]["s"]).mean(),
            "everybody": impostors["s"].sum() / (~same).sum(),
        }[over]
    return rates


TRIES = {
    "11-1": Tries(
        [threshold(0.001)["threshold"].item(), threshold(0.001)],
        [
            (threshold(0.01)["threshold"].item(), "one in a hundred"),
            (threshold(0.001, 1)["threshold"].item(), "who report"),
            (0.001, "too small"),
        ],
        lambda: {"fit": pairs()[0], "report": pairs()[1]},
    ),
    "11-2": Tries(
        [6 + 27 + 8],
        [
            (2 + 5 + 3, "taken for others"),
            (190 + 41, "no errors"),
            (200, "along the row"),
            (51, "both directions"),
            (41 / 231, "a rate"),
            (40, "too small"),
        ],
    ),
    "11-3": Tries(
        [
            bootstrap() / (p * (1 - p) / 6000) ** 0.5,
            dependent.groupby("person")["accepted"].mean().sem() / (p * (1 - p) / 6000) ** 0.5,
        ],
        [
            (1.0, "whole people"),
            (10.0, "copies of one another"),
            ((p * (1 - p) / 6000) ** 0.5 / bootstrap(), "other way round"),
            (bootstrap() ** 2 / (p * (1 - p) / 6000), "square"),
        ],
    ),
    "11-4": Tries(
        [fmr, lambda *each: list(fmr(*each).values()), lambda *each: pd.Series(fmr(*each))],
        [
            (lambda *each: fmr(*each, reached=np.greater), ">="),
            (lambda *each: pd.Series(fmr(*each)).fillna(0), "NaN, not 0"),
            (lambda *each: fmr(*each, over="genuine"), "false non-match"),
            (lambda *each: fmr(*each, over="accepted"), "accepted pairs that are wrong"),
            (lambda *each: fmr(*each, over="all"), "all pairs of the group"),
            (lambda *each: fmr(*each, over="everybody"), "everybody's"),
            (lambda scores, same, group, threshold: ((scores >= threshold) & ~same).sum() / (~same).sum(), "one rate for all"),
            (0.1, "A function expected"),
        ],
    ),
}
