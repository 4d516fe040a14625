import functools

import numpy as np
import pandas as pd

from helpers import course, load_faces
from tests.course.tries import Tries


@functools.cache
def photographs():
    return load_faces("orl", target="glasses", protected=("woman", "facial_hair"), split="all")


empty = int((photographs().counts().to_numpy() == 0).sum())
trap = course.case("01-2")
shares = trap.groupby("glasses")["smiling"].mean()
correlation = np.corrcoef(trap["smiling"], trap["glasses"])[0, 1]


def cells(target, group):
    return pd.DataFrame({"t": target, "g": group}).groupby(["g", "t"]).size().unstack(fill_value=0)


TRIES = {
    "01-1": Tries(
        [empty],
        [(1, "woman alone"), (8 - empty, "do hold somebody"), (8, "empty or not"), (7, "too large")],
        lambda: {"faces": photographs()},
    ),
    "01-2": Tries(
        [correlation],
        [
            (shares[1] - shares[0], "half and half"),
            ((trap["smiling"] == trap["glasses"]).mean(), "shortcut is right"),
            (shares[1], "among faces with glasses"),
            (correlation**2, "square"),
            (-correlation, "wrong sign"),
        ],
    ),
    "01-3": Tries(["outdoors"], [("teeth", "both splits"), ("young", "neither"), ("beard", "rarer"), ("smiling", "One of")]),
    "01-4": Tries(
        [cells, lambda target, group: cells(target, group).to_numpy()],
        [
            (lambda target, group: cells(target, group).T, "other way round"),
            (lambda target, group: cells(target, group) / len(group), "of all images"),
            (lambda target, group: cells(target, group).div(cells(target, group).sum(axis=1), axis=0), "within the groups"),
            (lambda target, group: cells(target, group).sum(axis=1), "split them by class"),
            (lambda target, group: pd.DataFrame({"t": target, "g": group}).value_counts(), "shape"),
        ],
    ),
}
