"""Where each attribute and each part of a drawn face lies, found by drawing the face with and without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from helpers.data.rendering import Nuisance, rasterise, render
from helpers.data.styles import ATTRIBUTES, GUIDES, Person, svg_options

REGIONS = ("accessories", "brows", "eyes", "mouth", "nose", "facial_hair", "hair", "head_covering", "clothing", "skin",
           "background")
"""Face regions, each pixel in exactly one; where two overlap, the one named first has it."""


def other_values(attribute: str, value: Any) -> list:
    """The values that `attribute` could have instead of `value`, in the order of `ATTRIBUTES`."""
    return [other for other in ATTRIBUTES[attribute] if other != value]


def attribute_mask(person: Person, attributes: Mapping[str, Any], nuisance: Nuisance, size: int, attribute: str) -> np.ndarray:
    """Pixels of the picture that change when only `attribute` does: bool (size, size).

    Every value that the attribute could have is drawn, under the same nuisances, noise included; a pixel belongs to
    the mask if its 8-bit colour differs in any of them. Blur spreads the mask just as it spreads the evidence.
    """
    picture = render(person, attributes, nuisance, size)
    mask = np.zeros((size, size), dtype=bool)
    for value in other_values(attribute, attributes[attribute]):
        mask |= (render(person, {**attributes, attribute: value}, nuisance, size) != picture).any(-1)
    return mask


def region_masks(person: Person, attributes: Mapping[str, Any], nuisance: Nuisance, size: int) -> dict[str, np.ndarray]:
    """A bool (size, size) mask for every name in `REGIONS`; together they cover each pixel once.

    A part is where the sharp drawing changes when that part is left out; skin is what remains of the face. Open Peeps
    draws eyes, brows, nose and mouth as one piece, which is cut at three fifths of its height into `eyes` and `mouth`.
    """
    guide, options = GUIDES[person.style], svg_options(person, attributes)
    sharp = replace(nuisance, blur=0.0, noise=0.0)
    drawing = rasterise(options, person.style, sharp, size)

    def part(removal: Mapping[str, Any]) -> np.ndarray:
        return (np.abs(rasterise({**options, **removal}, person.style, sharp, size) - drawing) > 2 / 255).any(-1)

    found = {name: part(removal) for name, removal in guide.regions.items()}
    if "face" in found:
        face = found.pop("face")
        rows = np.flatnonzero(face.any(1))
        cut = int(rows[0] + 0.6 * (rows[-1] - rows[0])) if rows.size else 0
        upper = np.arange(size)[:, None] < cut
        found["eyes"], found["mouth"] = face & upper, face & ~upper
    if not attributes["glasses"]:  # where glasses are one form of the eyes, the eyes' removal would show here
        found["accessories"] = np.zeros((size, size), dtype=bool)
    if attributes["head_covering"]:
        found["head_covering"] = found.pop("hair")
    found["background"] = drawing[..., 3] < 0.5
    found["skin"] = np.ones((size, size), dtype=bool)
    free, masks = np.ones((size, size), dtype=bool), {}
    for name in REGIONS[:-2] + ("background", "skin"):
        masks[name] = found.get(name, np.zeros((size, size), dtype=bool)) & free
        free &= ~masks[name]
    return {name: masks[name] for name in REGIONS}
