"""Exercises of lesson 2: the layer before the last, when to stop, and people in both splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helpers.course.answers import Unreadable, names, number, shown
from helpers.course.exercise import exercise
from helpers.course.functions import called
from helpers.course.verdict import Verdict, right, wrong


@exercise(
    "02-1",
    "The layer before the last",
    level="change",
    minutes=3,
    hints=(
        "helpers.models.layers.find(model, role, images) finds a layer by the part that it plays.",
        'The role is "penultimate"; the answer is the name that comes back.',
    ),
)
def penultimate(answer: Any, model: Any, images: Any) -> Verdict:
    """Follow the data: which layer's output is what the last linear layer reads?"""
    from helpers.models import capture, layers

    modules = dict(model.named_modules())
    if not isinstance(answer, str) or answer not in modules:
        raise Unreadable(f"The name of a layer expected, such as {list(modules)[1]!r}; {shown(answer)} came.")
    flow = layers.flow(model, images)
    last, wanted = (layers.find(model, role, images) for role in ("last", "penultimate"))
    if answer == wanted:
        with capture(model, wanted) as seen:
            model(images)
        size = seen[wanted].flatten(1).shape[1]
        return right(f"The last layer reads its {size} numbers an image; lesson 7 edits them there.")
    if answer == last:
        return wrong("That is the last layer itself; which one feeds it?")
    if list(modules[answer].children()):
        return wrong("That is a block of several layers; name the single layer whose output the last one reads.")
    later = [each for each in flow[flow.index(answer) + 1 :] if not list(modules[each].children())] if answer in flow else []
    return wrong(f"From there data go through {len(later)} more layers; you want the one right before the last.")


def history() -> pd.DataFrame:
    """Losses of a training run that went on for too long, one row an epoch; epochs count from 1."""
    rng = np.random.default_rng(202)
    epoch = np.arange(1, 13)
    training = 0.7 * np.exp(-epoch / 4) + 0.02
    validation = 0.45 * np.exp(-epoch / 3) + 0.018 * epoch + 0.25 + rng.normal(0, 0.004, len(epoch))
    return pd.DataFrame({"epoch": epoch, "training loss": training, "validation loss": validation}).round(4)


@exercise(
    "02-2",
    "When to stop",
    level="compute",
    minutes=3,
    hints=("Which of the two columns is about faces that the model has not learned from?", "The row of its smallest value."),
    case=history,
)
def stop(answer: Any, case: pd.DataFrame) -> Verdict:
    """The epoch of the smallest validation loss."""
    best = int(case["validation loss"].idxmin())
    return number(
        answer, case["epoch"][best], tolerance=0.5,
        why="From there on the training loss still falls and the validation loss rises: the network learns its faces by heart.",
        mistakes={
            "That is the number of the row, which counts from 0; epochs count from 1.": best,
            "There the training loss is least, as it always is in the end. Faces that the model knows cannot "
            "tell when to stop.": len(case),
        },
        look="Look at the other column, or plot both.",
    )  # fmt: skip


def two_splits() -> pd.DataFrame:
    """A table of images as a training script left it: `image`, `person` and `split`."""
    rng = np.random.default_rng(203)
    person = np.repeat([f"p{k:02d}" for k in range(24)], 5)
    split = np.where(np.arange(len(person)) < 90, "train", "test").astype(object)
    moved = np.array([3, 27, 28, 61])  # the indices of one split were saved, and another one was trained on
    split[moved] = "test"
    split[rng.choice(np.arange(95, 120), 2, replace=False)] = "train"
    image = [f"{who}_{k % 5}.png" for k, who in enumerate(person)]
    order = rng.permutation(len(person))
    return pd.DataFrame({"image": image, "person": person, "split": split}).iloc[order].reset_index(drop=True)


@exercise(
    "02-3",
    "Identities in both splits",
    level="find out",
    minutes=8,
    hints=(
        "No image is in both splits. What else may be?",
        'The set of people in training; then the test rows whose person is in that set: table["person"].isin(...).',
    ),
    case=two_splits,
)
def leaked(answer: Any, case: pd.DataFrame) -> Verdict:
    """The rows of test images whose person the model has met."""
    in_train = case["person"].isin(case.loc[case["split"] == "train", "person"])
    in_test = case["person"].isin(case.loc[case["split"] == "test", "person"])
    test = case["split"] == "test"
    wanted = set(np.flatnonzero(test & in_train))
    too_many = dict.fromkeys(
        np.flatnonzero(~test & in_test), "Some of these are training images; the question is which test images cannot be trusted."
    ) | dict.fromkeys(
        np.flatnonzero(test & ~in_train), "Some of these are of people who are only in the test set; they are fine."
    )
    if np.size(answer) == 0:
        return wrong("Every image is in one split only, true. But a person has several images.")
    share = len(wanted) / test.sum()
    return names(
        answer, wanted, range(len(case)), extra=too_many, what="row numbers",
        why=f"{len(wanted)} of {test.sum()} test images ({share:.0%}) show people whom the model has met: it may pass by "
            "recognising them. A published tutorial has this fault: 571 of its 2,800 training images are "
            "among the 4,000 evaluated.",
        look="Go by the column person, and give the numbers of the rows.",
    )  # fmt: skip


@exercise(
    "02-4",
    "Write a split",
    level="write",
    minutes=15,
    hints=(
        "Shuffle people, not images: np.unique(person), then a generator of your own, np.random.default_rng(seed).",
        "Choose round(share * number of people) of them, and return np.isin(person, chosen).",
    ),
)
def split(answer: Any) -> Verdict:
    """A bool array, True for test images, that no person straddles, repeatable, and by people."""
    if not callable(answer):
        called(answer, "", ())
    rng = np.random.default_rng(204)
    differ = 0
    for k in range(8):
        people = int(rng.integers(4, 30))
        person = rng.permutation(np.repeat(np.arange(people), rng.integers(1, 9, people)))
        person = np.array([f"p{each}" for each in person]) if k % 2 else person
        share, seed = float(rng.choice([0.25, 0.5])), int(rng.integers(100))
        words = f"{len(person)} images of {people} people, share {share}, seed {seed},"
        state = np.random.get_state()[1].copy()  # noqa: NPY002, only looked at
        first, again, other = (np.asarray(called(answer, words, (person, share, at))) for at in (seed, seed, seed + 1))
        if first.shape != person.shape or first.dtype != bool:
            return wrong(f"On {words} it returns {first.dtype} of shape {first.shape}; bool of shape {person.shape} expected.")
        both = set(person[first]) & set(person[~first])
        if both:
            return wrong(f"On {words} {len(both)} people are in both splits.", "Draw people, then take all of their images.")
        if not np.array_equal(first, again):
            return wrong(f"On {words} the same seed gives another split.", "Use np.random.default_rng(seed) inside the function.")
        if not np.array_equal(state, np.random.get_state()[1]):  # noqa: NPY002
            return wrong(
                "It changes NumPy's global random state, and so the results of whoever calls it.",
                "Use np.random.default_rng(seed).",
            )
        taken, wanted = len(set(person[first])), share * people
        if abs(taken - wanted) > 1:
            return wrong(f"On {words} {taken} people are in the test split; about {wanted:.0f} expected.")
        differ += not np.array_equal(first, other)
    if differ < 4:
        return wrong("Two seeds give the same split nearly always.", "Does the function use its seed?")
    return right("No person is in both splits, the same seed gives the same split, and nobody else's random numbers change.")
