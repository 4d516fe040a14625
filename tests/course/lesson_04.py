import functools

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

from helpers import attribute, course, models
from tests.course.tries import Tries


@functools.cache
def network():
    return {"model": models.build("resnet18", classes=("no", "yes"), seed=0).eval(), "images": torch.rand(3, 3, 32, 32)}


def maps(target, method="gradient_input"):
    given = network()
    with torch.inference_mode():
        said = given["model"](given["images"]).argmax(1)
    return attribute(given["model"], given["images"], {"said": said, "other": 1 - said}[target], method)


one, two = (each.ravel() for each in course.case("04-2").values())
faces = course.case("04-3")
error = abs(faces["maps"].sum((1, 2)) - faces["score"] + faces["score_of_baseline"])


def occlusion(score, image, patch):
    result = np.zeros_like(image)
    for i in range(0, len(image), patch):
        for j in range(0, image.shape[1], patch):
            seen = np.ones_like(image)
            seen[i : i + patch, j : j + patch] = 0
            result += (1 - seen) * (score(image[None]) - score((seen * image)[None]))
    return result


def whitened(score, image, patch):
    return occlusion(lambda pictures: score(np.where(pictures == 0, 1.0, pictures)), image, patch)


def kept(score, image, patch):
    result = np.zeros_like(image)
    for i in range(0, len(image), patch):
        for j in range(0, image.shape[1], patch):
            seen = np.zeros_like(image)
            seen[i : i + patch, j : j + patch] = 1
            result += seen * score((seen * image)[None])
    return result


def in_place(score, image, patch):
    whole = score(image[None])[0]
    result = np.zeros_like(image)
    for i in range(0, len(image), patch):
        for j in range(0, image.shape[1], patch):
            image[i : i + patch, j : j + patch] = 0
            result[i : i + patch, j : j + patch] = whole - score(image[None])[0]
    return result


TRIES = {
    "04-1": Tries(
        [maps("other"), maps("other").numpy()],
        [
            (maps("said"), "the class that was predicted"),
            (-maps("said"), "turned the signs"),
            (maps("other", "saliency"), "by the method saliency"),
            (maps("other")[:1], "shape (3, 32, 32)"),
            (maps("other") * 3, "another method"),
            ("maps", "Maps expected"),
        ],
        network,
    ),
    "04-2": Tries(
        [spearmanr(abs(one), abs(two)).statistic],
        [
            (spearmanr(one, two).statistic, "with signs"),
            (pearsonr(abs(one), abs(two)).statistic, "Pearson"),
            (pearsonr(one, two).statistic, "Pearson"),
            (0.2, "too small"),
        ],
    ),
    "04-3": Tries(
        [list(np.flatnonzero(error > 1e-3)), np.flatnonzero(error > 1e-3)],
        [
            ([int(error.argmax())], "another one"),
            ([0, 1, 2, 3, 4], "score of the baseline has"),
            ([0, 1, 3], "Some of these add up"),
            (list(np.flatnonzero(error > 1e-3) + 1), "add up"),
            ([1, 2, 9], "is none"),
        ],
    ),
    "04-4": Tries(
        [occlusion],
        [
            (lambda *each: -occlusion(*each), "sign is turned"),
            (whitened, "white"),
            (kept, "only the patch is seen"),
            (lambda score, image, patch: occlusion(score, image, patch) / patch**2, "size of a patch"),
            (in_place, "an independent computation"),
            (lambda score, image, patch: occlusion(score, image, patch).ravel(), "shape"),
        ],
    ),
}
