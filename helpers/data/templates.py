"""Where the parts of a face lie on an aligned photograph, roughly: boxes and ellipses around its eyes and mouth.

Photographs come without masks. Where faces are aligned, that is scaled and shifted so that eyes and mouth are at the same place
in all, one template does for all of them. It is approximate: a brow that is raised, an open mouth, long hair or a turned head
leaves its region, so that shares of neighbouring regions mix. Rely on regions far apart (eyes and mouth, face and background)
rather than on neighbours (brows and eyes, hair and skin). Masks by a segmentation model, where they are at hand, are better.
Look at the template over the mean face before use (`helpers.plots.attribution_groups.outlines`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helpers.data.masks import REGIONS
from helpers.names import choose

Point = tuple[float, float]

ALIGNED: dict[str, tuple[Point, Point, Point]] = {
    "orl": ((0.33, 0.42), (0.69, 0.42), (0.51, 0.80)),
    "celeba": ((0.39, 0.51), (0.61, 0.51), (0.50, 0.70)),
    "close": ((0.30, 0.40), (0.70, 0.40), (0.50, 0.76)),
}
"""Left eye, right eye and middle of the mouth as seen in the picture, (x, y) in shares of its width and height."""


def template(
    size: int | tuple[int, int],
    aligned: str | Sequence[Point] = "close",
) -> dict[str, np.ndarray]:
    """Masks of face regions for photographs that are aligned alike.

    Parameters
    ----------
    size : side of the images in pixels, or (H, W)
    aligned : a key of `ALIGNED` ("orl" as `load_faces("orl")` crops it, "celeba" for CelebA's aligned images, "close" for a crop
        around the face), or where the picture's left eye, right eye and middle of the mouth are: three (x, y) in [0, 1]

    Returns
    -------
    dict name -> bool (H, W) with the names `brows, eyes, mouth, nose, hair, skin, background`; each pixel is in exactly one.
    On very small images the small ones may have none

    Raises
    ------
    ValueError : an unknown alignment (with the nearest name), points outside the picture, or eyes and mouth in another order.

    Notes
    -----
    With d the distance of the eyes and h that from their line to the mouth: eyes are boxes of 0.62 d by 0.38 d, brows of 0.68 d
    by 0.2 d above them, the nose is a box from the eyes to 0.68 h of 0.56 d width, the mouth an ellipse of 1.0 d by 0.56 d; the
    face is an ellipse of 2.3 d by 3.4 h, and hair what is within 0.45 d of it and above 0.9 h, and the uppermost eighth of the
    face. Proportions were chosen by eye on mean faces, not measured.
    """
    height, width = _sides(size)
    points = ALIGNED[choose(aligned, ALIGNED, "aligned")] if isinstance(aligned, str) else aligned
    left, right, mouth = _checked(points)
    x, y = np.meshgrid((np.arange(width) + 0.5), (np.arange(height) + 0.5))
    scale = np.array([width, height])
    left, right, mouth = (np.array(point) * scale for point in (left, right, mouth))
    d = float(np.hypot(*(right - left)))
    middle = (left + right) / 2
    down = mouth - middle
    h = float(np.hypot(*down))
    down, across = down / h, (right - left) / d
    # Coordinates along the line of the eyes and from it to the mouth, so that a tilted face has a tilted template.
    u = (x - middle[0]) * across[0] + (y - middle[1]) * across[1]
    v = (x - middle[0]) * down[0] + (y - middle[1]) * down[1]

    side = np.abs(np.abs(u) - d / 2)
    face = (u / (1.15 * d)) ** 2 + ((v - 0.28 * h) / (1.7 * h)) ** 2 <= 1
    around = (u / (1.6 * d)) ** 2 + ((v - 0.28 * h) / (1.7 * h + 0.45 * d)) ** 2 <= 1
    crown = v < -0.98 * h
    found = {
        "brows": (side <= 0.34 * d) & (np.abs(v + 0.3 * d) <= 0.1 * d),
        "eyes": (side <= 0.31 * d) & (v >= -0.2 * d) & (v <= 0.18 * d),
        "mouth": (u / (0.5 * d)) ** 2 + ((v - h) / (0.28 * d)) ** 2 <= 1,
        "nose": (np.abs(u) <= 0.28 * d) & (v >= 0) & (v <= 0.68 * h),
        "hair": (around & ~face & (v < 0.9 * h)) | (face & crown),
        "background": ~around & ~face,
    }
    found["background"] |= ~face & ~found["hair"]
    free, masks = np.ones((height, width), dtype=bool), {}
    for name in ("brows", "eyes", "mouth", "nose", "hair", "background"):
        masks[name] = found[name] & free
        free &= ~masks[name]
    masks["skin"] = free
    return {name: masks[name] for name in REGIONS if name in masks}


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else size
    whole = isinstance(sides, tuple) and len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)
    if not whole or isinstance(size, bool):
        raise ValueError(f"size: {size!r} given; expected a whole number of pixels, or (H, W)")
    return sides


def _checked(points: Sequence[Point]) -> np.ndarray:
    try:
        found = np.asarray(points, dtype=float)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (3, 2) or not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"aligned: {points!r} given; expected left eye, right eye and mouth as three (x, y) in [0, 1]")
    if not (found[0, 0] < found[1, 0] and found[2, 1] > found[:2, 1].max()):
        raise ValueError(f"aligned: {points!r} given; the first eye has to be left of the second, and the mouth below both")
    return found
