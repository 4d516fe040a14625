import functools

import numpy as np
import pandas as pd

from helpers import course
from helpers.bias import audit
from tests.course.tries import Tries

rng = np.random.default_rng(0)
rows = {"y_true": rng.integers(0, 2, 400), "y_pred": rng.integers(0, 2, 400), "group": rng.integers(0, 2, 400)}
rows["y_pred"] = np.where((rows["group"] == 1) & (rng.random(400) < 0.4), 1, rows["y_pred"])


@functools.cache
def width(confidence):
    low, high = audit(**rows, confidence=confidence).gap_interval("equalized_odds")
    return high - low


birds = course.case("03-3")
accuracy = birds.groupby("group")["right"].mean()
counts = birds.groupby("group")["training images"].first()


def gap(y_true, y_pred, group):
    return audit(y_true, y_pred, group).gap("equalized_odds")


def rate(y_true, y_pred, group, label):
    with np.errstate(all="ignore"):
        frame = pd.DataFrame({"y": y_true, "p": y_pred, "g": group}).query("y == @label")
    return frame.groupby("g")["p"].mean()


def width_of(y_true, y_pred, group, label):
    return np.ptp(rate(y_true, y_pred, group, label))


def empty_is_zero(y_true, y_pred, group):
    every = np.unique(group)
    return max(np.ptp(rate(y_true, y_pred, group, label).reindex(every).fillna(0)) for label in (0, 1))


def added_up(y_true, y_pred, group):
    every = np.unique(group)
    return np.ptp(sum(rate(y_true, y_pred, group, label).reindex(every).fillna(0) for label in (0, 1)))


TRIES = {
    "03-1": Tries(
        [width(0.8), np.float32(width(0.8))],
        [
            (width(0.95), "at 95 %"),
            (width(0.8) / 2, "half of the width"),
            (width(0.2), "how often the interval holds"),
            (audit(**rows).gap("equalized_odds"), "the gap itself"),
            (audit(**rows, confidence=0.8).gap_interval("equalized_odds"), "One number expected; 2"),
            ("0.2", "One number expected"),
        ],
        lambda: {"audit": audit(**rows)},
    ),
    "03-2": Tries(
        [["negative_predictive_value", "false_omission_rate"]],
        [
            (["negative_predictive_value"], "1 is missing"),
            ("false_omission_rate", "1 is missing"),
            (["negative_predictive_value", "false_omission_rate", "true_positive_rate"], "gap of exactly 0"),
            (["negative_predictive_value", "false_omission_rate", "accuracy"], "how many smile"),
            (["npv"], "list of names of statistics"),
            ([], "2 are missing"),
        ],
    ),
    "03-3": Tries(
        [(accuracy * counts).sum() / counts.sum()],
        [
            (birds["right"].mean(), "plain average"),
            (accuracy.min(), "worst group"),
            (np.average(accuracy, weights=1 / counts), "favours the rare"),
            (100 * np.average(accuracy, weights=counts), "per cent"),
            (1.2, "too large"),
            (round((accuracy * counts).sum() / counts.sum(), 3) - 0.004, "more digits"),
        ],
    ),
    "03-4": Tries(["subgroup", "Subgroup "], [("hair", "goes with the group"), ("age", "every group"), ("gender", "One of")]),
    "03-5": Tries(
        [gap],
        [
            (lambda *each: width_of(*each, 1), "equal opportunity"),
            (lambda *each: width_of(*each, 0), "false positive rate alone"),
            (lambda *each: width_of(*each, 0) + width_of(*each, 1), "the sum"),
            (lambda *each: (width_of(*each, 0) + width_of(*each, 1)) / 2, "the mean"),
            (empty_is_zero, "counted it as 0"),
            (added_up, "cancel"),
            (lambda y_true, y_pred, group: np.ptp(pd.Series(y_pred).groupby(group).mean()), "demographic parity"),
            (lambda *each: 0.25, "an independent computation"),
            (lambda *each: "large", "one number expected"),
            (lambda *each: [0.1, 0.2], "numbers of shape (2,); one number expected"),
            (lambda *each: 1 / 0, "ZeroDivisionError"),
            (0.3, "A function expected"),
        ],
    ),
}
