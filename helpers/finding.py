"""Does a map find the cause? Scores of maps against parts of the picture, one of which, or several, are known to be the cause.

Most use |R|: a part that speaks against the decision matters to it. `found` and `auc` leave out a margin around the causes: the
eyes lie within the frame of the glasses, and a map as fine as the network can be spreads over them. No score changes if a map is
multiplied by a positive number. A map that says nothing, the same everywhere or not finite, is scored as what it is: it finds
nothing, its area under the curve is 1/2, it puts as much on a part as the part is large.

References
----------
Arras, Osman & Samek 2022 (relevance mass and rank accuracy); Zhang et al., "Top-down neural attention by excitation backprop",
2018 (pointing game).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_gradient_magnitude, maximum_filter
from scipy.stats import rankdata
from torch import Tensor

from helpers.attribution.metric import METRICS, Case

MARGIN = 3  # pixels: a ResNet's first filters, 7 wide, that see a cause see as far around it, and no gradient tells these apart
SMALLEST = 0.003  # of the picture (12 pixels of 64 x 64): the mean over fewer is too noisy to be a rival
MASKED = ("relevance_mass", "relevance_rank", "pointing_game")


def scores(
    maps: np.ndarray, parts: Mapping[str, np.ndarray], causes: Sequence[str], seed: int = 0, margin: int = MARGIN
) -> dict[str, np.ndarray]:
    """How well each map points at the cause, float64 (N,) by name.

    Parameters
    ----------
    maps : float (N, H, W), signed relevance
    parts : dict of name to bool (N, H, W), a pixel in one part at most
    causes : names of the parts that are the cause, in every picture
    seed : of the order of pixels that are equally relevant
    margin : pixels around the causes that are neither cause nor rival, in `found` and `auc`

    Returns
    -------
    dict of

    `found` : 1 if each cause has more |R| a pixel than every other part has beyond the margin (in 0.3 % of the picture or more)
    `auc` : probability that a pixel of the cause has more |R| than a pixel beyond the margin, ties counted as half
    `lift` : share of |R| in the cause, over the cause's share of the picture: 1 is chance, whatever the size
    `relevance_mass`, `relevance_rank`, `pointing_game` : of signed R in the cause, as in `helpers.attribution.metrics()`; NaN
        where undefined
    `silent` : 1 if the map says nothing

    Raises
    ------
    ValueError : maps of another shape than the parts, causes that are no parts, a picture without its cause.
    """
    maps = np.asarray(maps, dtype=np.float64)
    shape = next(iter(parts.values())).shape
    if maps.shape != shape:
        raise ValueError(f"maps: shape {maps.shape}; expected {shape}, that of the parts")
    if not causes or not set(causes) <= set(parts):
        raise ValueError(f"causes: {list(causes)!r}; expected some of {', '.join(parts)}")
    if empty := [name for name in causes if not parts[name].any((1, 2)).all()]:
        raise ValueError(f"parts: {empty[0]!r} is a cause, but empty in picture {int((~parts[empty[0]].any((1, 2))).argmax())}")
    size, silent = relevance(maps)
    cause = np.logical_or.reduce([parts[name] for name in causes])
    beyond = ~maximum_filter(cause, size=(1, 2 * margin + 1, 2 * margin + 1), mode="constant")
    least = np.min([density(size, parts[name]) for name in causes], axis=0)
    rival = densest(size, [parts[name] & beyond for name in parts if name not in causes])
    pixels, inside = size.reshape(len(size), -1), cause.reshape(len(size), -1)
    total = pixels.sum(1)
    share = np.divide((pixels * inside).sum(1), total, out=inside.mean(1), where=total > 0)
    signed = np.where(silent[:, None, None], np.nan, maps)
    case = Case(None, torch.zeros(len(maps), 1, *shape[1:]), torch.zeros(len(maps), dtype=torch.int64), signed, cause, 1, seed)
    return {
        "found": ((least > rival) & ~silent).astype(np.float64),
        "auc": areas(pixels, inside, beyond.reshape(len(size), -1)),
        "lift": share / inside.mean(1),
        **{name: METRICS[name].function(case)[0] for name in MASKED},
        "silent": silent.astype(np.float64),
    }


def leaning(maps: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """To which of two parts the map leans: |R| a pixel of the first over the sum of both's, in [0, 1]; 1/2 if neither has any.

    The difference between two networks on one picture says whether the map moved with the cause: 1 for a map of the cause alone,
    0 for whatever does not depend on the network, an edge detector say, however well it hits the mouth.
    """
    size, _ = relevance(np.asarray(maps, dtype=np.float64))
    one, two = density(size, first), density(size, second)
    return np.divide(one, one + two, out=np.full(len(size), 0.5), where=one + two > 0)


def relevance(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|R| of each map, at most 1, and which maps say nothing, whose |R| is 1 everywhere: float64 (N, H, W), bool (N,)."""
    flat = maps.reshape(len(maps), -1)
    size = np.abs(np.where(np.isfinite(maps), maps, 0))
    silent = ~np.isfinite(flat).all(1) | (size.reshape(len(maps), -1).max(1) == size.reshape(len(maps), -1).min(1))
    top = size.max((1, 2), keepdims=True)
    return np.where(silent[:, None, None], 1.0, size / np.where(top > 0, top, 1)), silent


def density(size: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of `size` in the mask, (N,); 0 where the mask is empty."""
    return (size * mask).sum((1, 2)) / np.maximum(mask.sum((1, 2)), 1)


def densest(size: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """The largest density of the masks that are large enough to be a rival, (N,); −1 if there is none."""
    large = [np.where(mask.mean((1, 2)) >= SMALLEST, density(size, mask), -1.0) for mask in masks]
    return np.max(large, axis=0) if large else np.full(len(size), -1.0)


def areas(pixels: np.ndarray, inside: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each row of pixels (N, P), inside against beyond (bool); NaN where nothing is beyond."""
    found = np.full(len(pixels), np.nan)
    for row, (values, hit, miss) in enumerate(zip(pixels, inside, beyond, strict=True)):
        count, others = hit.sum(), miss.sum()
        if others:
            ranks = rankdata(np.concatenate([values[hit], values[miss]]))
            found[row] = (ranks[:count].sum() - count * (count + 1) / 2) / (count * others)
    return found


def edges(images: Tensor) -> np.ndarray:
    """What changes in the picture, whatever the model: the gradient's length, of Gaussians one pixel wide, float64 (N, H, W)."""
    grey = images.detach().cpu().double().mean(1).numpy()
    return np.stack([gaussian_gradient_magnitude(picture, 1.0) for picture in grey])


def centre(images: Tensor) -> np.ndarray:
    """A bump in the middle of the picture, its standard deviation a quarter of the side: float64 (N, H, W)."""
    height, width = images.shape[2:]
    y, x = np.mgrid[:height, :width]
    bump = np.exp(-(((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2) / (2 * 0.25**2))
    return np.broadcast_to(bump, (len(images), height, width)).copy()
