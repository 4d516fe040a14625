import functools

import numpy as np
import torch

from helpers import course, models
from tests.course.tries import Tries


@functools.cache
def network():
    return {"model": models.build("resnet18", classes=("no", "yes"), seed=0).eval(), "images": torch.rand(1, 3, 64, 64)}


history = course.case("02-2")
table = course.case("02-3")
people_in = {each: set(table.loc[table["split"] == each, "person"]) for each in ("train", "test")}
both = people_in["train"] & people_in["test"]
leaked = [row for row in range(len(table)) if table["split"][row] == "test" and table["person"][row] in both]


def split(person, share, seed):
    people = np.unique(person)
    taken = np.random.default_rng(seed).choice(people, round(share * len(people)), replace=False)
    return np.isin(person, taken)


def by_image(person, share, seed):
    return np.random.default_rng(seed).random(len(person)) < share


def unseeded(person, share, seed):
    return split(person, share, None)


def first_people(person, share, seed):
    people = np.unique(person)
    return np.isin(person, people[: round(share * len(people))])


def global_state(person, share, seed):
    np.random.seed(seed)  # noqa: NPY002
    people = np.unique(person)
    return np.isin(person, np.random.permutation(people)[: round(share * len(people))])  # noqa: NPY002


TRIES = {
    "02-1": Tries(
        ["network.avgpool"],
        [
            ("network.fc", "the last layer itself"),
            ("network.layer4", "block"),
            ("network", "block"),
            ("network.conv1", "more layers"),
            ("avgpool", "name of a layer"),
        ],
        network,
    ),
    "02-2": Tries(
        [history["epoch"][history["validation loss"].argmin()], float(history["validation loss"].argmin() + 1)],
        [(history["validation loss"].argmin(), "counts from 0"), (len(history), "training loss is least"), (1, "too small")],
    ),
    "02-3": Tries(
        [leaked, np.array(leaked), set(leaked)],
        [
            ([], "has several images"),
            (leaked[1:], "1 is missing"),
            (np.flatnonzero(table["person"].isin(both)), "training images"),
            (np.flatnonzero(table["split"] == "test"), "only in the test set"),
            (sorted(both), "list of row numbers"),
            ([1000], "is none"),
        ],
    ),
    "02-4": Tries(
        [split],
        [
            (by_image, "both splits"),
            (unseeded, "same seed gives another split"),
            (first_people, "Two seeds give the same"),
            (global_state, "global random state"),
            (lambda person, share, seed: np.flatnonzero(split(person, share, seed)), "bool of shape"),
            (lambda person, share, seed: split(person, 1 - share if share < 0.5 else 0, seed), "people are in the test split"),
            (split(np.arange(4), 0.5, 0), "name without brackets"),
            (lambda person, share: None, "TypeError"),
        ],
    ),
}
