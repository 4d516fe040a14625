import numpy as np

from helpers import course
from tests.course.tries import Tries

made = course.case("07-3")
off = made["pairs"] != np.stack([made["labels"], made["protected"]], axis=1)


def means(features, group):
    return np.array([features[group == code].mean(0) for code in np.unique(group)])


def erase(features, group):
    centred = means(features, group) - features.mean(0)
    q, _ = np.linalg.qr((centred - centred[0])[1:].T)
    return features - (features - features.mean(0)) @ q @ q.T


def leace(features, group):
    """The same means by the least change: a projection along them, but not an orthogonal one."""
    centre = features.mean(0)
    values, vectors = np.linalg.eigh(np.cov(features.T))
    white, coloured = (vectors * values**power @ vectors.T for power in (-0.5, 0.5))
    q, _ = np.linalg.qr((white @ (means(features, group) - centre).T)[:, 1:])
    return features - (features - centre) @ white @ q @ q.T @ coloured


def one_direction(features, group):
    found = means(features, group)
    direction = (found[1] - found[0]) / np.linalg.norm(found[1] - found[0])
    return features - np.outer(features @ direction, direction)


def shifted(features, group):
    return features - means(features, group)[group]


def whole_first_coordinates(features, group):
    return np.zeros_like(features)


def too_much(features, group):
    erased = erase(features, group)
    return erased * 0.5


TRIES = {
    "07-1": Tries(["B"], [("C", "same of everybody"), ("D", "best on the test faces"), ("A", "nearer"), ("LEACE", "One of")]),
    "07-2": Tries(["A", "a"], [("B", "gains"), ("C", "still"), (0, "One of 'A', 'B', 'C'")]),
    "07-3": Tries(
        [off.any(1).mean()],
        [
            (1 - off.any(1).mean(), "right"),
            (off.any(1).sum(), "number of rows"),
            (off[:, 1].mean(), "the attribute only"),
            (off[:, 0].mean(), "the label only"),
            (off.all(1).mean(), "both entries"),
            (off.mean(), "wrong entries"),
            (0.0, "too small"),
        ],
    ),
    "07-4": Tries(
        [erase, leace],
        [
            (one_direction, "With two groups their means agree, with 3"),
            (shifted, "shifted by their own group's mean"),
            (whole_first_coordinates, "equal, and useless"),
            (too_much, "changes more than it must"),
            (lambda features, group: features, "still differ"),
            (lambda features, group: features[0], "shape (8,)"),
            (lambda features, group: features * np.nan, "NaN"),
            (lambda features: features, "TypeError"),
        ],
    ),
}
