import numpy as np

from helpers import course
from tests.course.tries import Tries

lottery = course.case("09-3")
held, fresh = lottery["held-out"].to_numpy(), lottery["fresh"].to_numpy()


def paired(y, old, new, spread=None):
    difference = (new == y).astype(int) - (old == y).astype(int)
    half = 1.96 * (np.std(difference, ddof=1) / len(y) ** 0.5 if spread is None else spread(old == y, new == y))
    return difference.mean(), difference.mean() - half, difference.mean() + half


def one_error(y, old, new):
    change, low, high = paired(y, old, new)
    return change, change - (change - low) / 1.96, change + (high - change) / 1.96


TRIES = {
    "09-1": Tries(
        [["Q", "T"], {"T", "Q"}],
        [(["Q"], "always no"), (["Q", "R", "T"], "yes to one group"), (["P", "Q", "T"], "1 of your 3 is too many")],
    ),
    "09-2": Tries(
        [["E", "F"]],
        [
            (["E", "F", "G"], "no use"),
            (["E"], "Another one"),
            (["A", "E", "F"], "A is not on it"),
            (["B", "E", "F"], "E is at least as good"),
            (["H"], "is none"),
        ],
    ),
    "09-3": Tries(
        [held.max() - fresh[held.argmax()]],
        [
            (held.max() - fresh.max(), "two winners"),
            (held.max() - held.mean(), "same fix"),
            (fresh.max() - held[fresh.argmax()], "chosen by the fresh faces"),
            (held.mean() - fresh.mean(), "without a choice"),
            (fresh[held.argmax()], "accuracy on fresh faces"),
        ],
    ),
    "09-4": Tries(
        [paired],
        [
            (lambda *each: paired(*each, lambda a, b: (a.var() / len(a) + b.var() / len(b)) ** 0.5), "different samples"),
            (lambda *each: paired(*each, lambda a, b: np.std(b * 1 - a * 1, ddof=1)), "Divide"),
            (lambda y, old, new: paired(y, new, old), "sign is turned"),
            (one_error, "1.96"),
            (lambda *each: paired(*each)[0], "shape"),
            (lambda y, old, new: {}, "numbers of shape (3,)"),
        ],
    ),
}
