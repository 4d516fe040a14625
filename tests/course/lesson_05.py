import numpy as np
from scipy.integrate import trapezoid

from helpers import course
from tests.course.tries import Tries

given = course.case("05-1")
relevance, mask = given["map"], given["mask"]
positive = relevance * (relevance > 0)


def pointing(maps, masks):
    return [bool(mask[np.unravel_index(np.argmax(each), each.shape)]) for each, mask in zip(maps, masks, strict=True)]


def flattened_once(maps, masks):
    place = np.unravel_index(maps.argmax(), maps.shape)[1:]
    return [mask[place] for mask in masks]


def deletion(score, image, relevance, order=None, skip=0, dx=None):
    picture, scores = image.copy(), [score(image[None])[0]]
    for pixel in (-relevance).ravel().argsort() if order is None else order:
        picture.reshape(-1)[pixel] = 0
        scores.append(score(picture[None])[0])
    return trapezoid(scores[skip:], dx=1 / image.size if dx is None else dx)


def insertion(score, image, relevance):
    picture = np.zeros_like(image)
    scores = [score(picture[None])[0]]
    for pixel in (-relevance).ravel().argsort():
        picture.reshape(-1)[pixel] = image.ravel()[pixel]
        scores.append(score(picture[None])[0])
    return trapezoid(scores, dx=1 / image.size)


def mean_of_scores(score, image, relevance):
    picture, scores = image.copy(), [score(image[None])[0]]
    for pixel in (-relevance).ravel().argsort():
        picture.reshape(-1)[pixel] = 0
        scores.append(score(picture[None])[0])
    return np.mean(scores)


TRIES = {
    "05-1": Tries(
        [positive[mask].sum() / positive.sum()],
        [
            (mask.mean(), "what chance gives"),
            (abs(relevance[mask]).sum() / abs(relevance).sum(), "against the class as well"),
            (relevance[mask].sum() / relevance.sum(), "cancel"),
            (positive[mask].mean() / positive.mean(), "sums are asked for"),
            (positive[mask].sum() / positive[~mask].sum(), "inside over outside"),
            (100 * positive[mask].sum() / positive.sum(), "per cent"),
        ],
    ),
    "05-2": Tries(
        [["B", "D"], {"D", "B"}, ("D", "B")],
        [("B", "sizes as well as signs"), (["D"], "nearly the same"), (["A", "B", "D"], "do change"), (["F"], "is none")],
    ),
    "05-3": Tries(
        [pointing, lambda maps, masks: np.array(pointing(maps, masks), int)],
        [
            (lambda maps, masks: np.mean(pointing(maps, masks)), "one value a map"),
            (lambda maps, masks: pointing(abs(maps), masks), "largest absolute value"),
            (lambda maps, masks: pointing(-maps, masks), "least relevant"),
            (flattened_once, "needs an axis"),
            (lambda maps, masks: masks[maps.argmax()], "IndexError"),
        ],
    ),
    "05-4": Tries(
        [deletion],
        [
            (lambda score, image, relevance: deletion(score, image, -relevance), "least relevant pixels first"),
            (insertion, "same pictures in reverse"),
            (lambda *each: deletion(*each, dx=1), "Divide the area"),
            (mean_of_scores, "plain mean"),
            (lambda *each: deletion(*each, skip=1), "whole picture is missing"),
            (lambda *each: None, "one number expected"),
        ],
    ),
}
