import numpy as np
import pandas as pd

from helpers import course
from helpers.bias.permutation import holm as of_library
from tests.course.tries import Tries

worn = course.case("06-2").query("group == 'often'")["share"]


def holm(p):
    adjusted = of_library(dict(enumerate(p)))
    return np.array([adjusted[k] for k in range(len(p))])


def steps(p):
    rank = np.argsort(np.argsort(p))
    return np.minimum(1, (len(p) - rank) * p)


def uncapped(p):
    rank = np.argsort(np.argsort(p))
    ordered = np.sort(p) * np.arange(len(p), 0, -1)
    return np.array([ordered[: k + 1].max() for k in rank])


def benjamini_hochberg(p):
    from scipy.stats import false_discovery_control

    return false_discovery_control(p)


TRIES = {
    "06-1": Tries(
        [1 - 0.95**12, 0.46],
        [
            (12 * 0.05, "counts audits twice"),
            (0.95**12, "none finds"),
            (0.05**12, "all of them"),
            (0.05, "one question"),
            (46, "per cent"),
            (12 * 0.05 * 0.95**11, "exactly one"),
        ],
    ),
    "06-2": Tries(
        [
            [worn.mean(), np.nan],
            {"never": float("nan"), "often": worn.mean()},
            pd.Series({"often": worn.mean(), "never": np.nan}),
        ],
        [
            ([worn.fillna(0).mean(), 0], "for both groups"),
            ([worn.mean(), 0], "not 0"),
            ([worn.fillna(0).mean(), np.nan], "not over all"),
            ([np.nan, worn.mean()], "other order"),
            (worn.mean(), "Two numbers expected"),
            ([0.5, 0.5], "first of 'often'"),
        ],
    ),
    "06-3": Tries(
        [["brows"], "brows"],
        [
            (["brows", "mouth"], "per pixel differs too"),
            (["brows", "eyes"], "do not differ at all"),
            (["mouth"], "differs too"),
            ([], "half the pixels"),
            (["chin"], "is none"),
        ],
    ),
    "06-4": Tries(
        [holm, lambda p: holm(p).tolist()],
        [
            (lambda p: np.minimum(1, p * len(p)), "Bonferroni"),
            (steps, "carry the largest along"),
            (lambda p: np.sort(holm(p)), "in sorted order"),
            (uncapped, "at most 1"),
            (benjamini_hochberg, "Benjamini and Hochberg"),
            (lambda p: p, "an independent computation"),
            (lambda p: p[:1], "shape"),
        ],
    ),
}
