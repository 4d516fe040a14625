"""What can be measured on pictures before any model sees them: brightness, contrast, sharpness, symmetry, clipping, size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from helpers.data.decode import FORMATS
from helpers.data.threads import in_order

if TYPE_CHECKING:
    from helpers.data.base import FaceDataset

LUMA = (0.299, 0.587, 0.114)  # Rec. 601, of gamma-encoded sRGB: nearer to what looks bright than linear light is
SIDE = 64  # pixels: sharpness is measured at this side, so that data sets of other sizes compare
HEADERS = 256  # files a task, of which the headers are read
BLOCK = 1 << 19  # pixels in one block of images: what a pass makes of it stays in the cache
UNITS = {
    "brightness": "mean luma (0: black, 1: white)",
    "contrast": "standard deviation of luma (0 to 0.5)",
    "sharpness": f"variance of the Laplacian at {SIDE} px (luma 0 to 255)",
    "asymmetry": "difference from the mirror image (0: none, 1: most)",
    "clipped": "share of pixels black or white",
    "width": "width of the file, px",
    "height": "height of the file, px",
    "yaw": "yaw, degrees",
    "roll": "roll, degrees",
}
MEASURED = ("brightness", "contrast", "sharpness", "asymmetry", "clipped")
POSE = ("yaw", "roll")
SHARES = ("brightness", "asymmetry", "clipped", "marked")
LIMITS = {"contrast": (0, 0.5), "sharpness": (0, np.inf)} | dict.fromkeys(SHARES, (0, 1))


def pictures(faces: FaceDataset | np.ndarray) -> pd.DataFrame:
    """Measures of every picture, one row an image.

    Parameters
    ----------
    faces : FaceDataset, or uint8 (N, H, W, 3), in memory or memory-mapped; read block by block

    Returns
    -------
    DataFrame of N rows, float64, with Y the luma 0.299 R + 0.587 G + 0.114 B of the stored (gamma-encoded) values

    `brightness` : mean of Y / 255
    `contrast` : standard deviation of Y / 255
    `sharpness` : variance of the Laplacian (four neighbours) of Y, after the picture was brought to 64×64 pixels by area. It
        falls with blur and with enlargement, and rises with contrast and with noise.
    `asymmetry` : (1 - r) / 2, with r the correlation of Y with its mirror image. It needs no landmarks and says little: a
        turned head raises it, and so does light from the side, a parting, a face off the centre or the background. NaN for a
        picture of one grey.
    `clipped` : share of pixels whose Y is at most 1 or at least 254: details there are lost
    `width`, `height` : of the files in pixels before anything was cut, where `faces.folder` has them; else they are not there
    `yaw`, `roll` : as in the table, where it has such columns (degrees)

    References
    ----------
    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000 (variance of the Laplacian).
    """
    images = getattr(faces, "images", faces)
    found = pd.DataFrame({name: values for name, values in zip(MEASURED, _measured(images), strict=True)})
    table, folder = getattr(faces, "table", None), getattr(faces, "folder", None)
    if table is None:
        return found
    if folder is not None and "path" in table:
        size = sizes([os.path.join(folder, path) for path in table["path"]])
        if np.isfinite(size).any():
            found["width"], found["height"] = size.T
    for name in POSE:
        if name in table and pd.api.types.is_numeric_dtype(table[name]):
            found[name] = table[name].to_numpy(dtype=np.float64)
    return found


def _measured(images: np.ndarray) -> np.ndarray:
    """float64 (measures, N)."""
    # One array for all: a small one kept from each block would lie between its large ones, which then cannot be given back.
    found, start = np.empty((len(MEASURED), len(images))), 0
    for luma in lumas(images):
        block = measure(luma)
        for row, name in zip(found, MEASURED, strict=True):
            row[start : start + len(luma)] = block[name]
        start += len(luma)
    return found


def lumas(images: np.ndarray) -> Iterator[Tensor]:
    """Luma of the images block by block: float32 (n, 1, H, W), 0 to 255."""
    count, height, width = images.shape[:3]
    step = max(1, BLOCK // (height * width))
    weights = torch.tensor(LUMA)
    for start in range(0, count, step):
        # A copy, since a map may be read-only, which torch does not know.
        block = torch.from_numpy(np.array(images[start : start + step]))
        yield (block.float() @ weights)[:, None]


def measure(luma: Tensor) -> dict[str, np.ndarray]:
    """The measures of `pictures` that pixels alone give, for luma (n, 1, H, W): float64 (n,) by name."""
    flat = luma.flatten(1)
    spread, mean = torch.std_mean(flat, dim=1, correction=0)
    small = luma if luma.shape[2:] == (SIDE, SIDE) else functional.interpolate(luma, (SIDE, SIDE), mode="area")
    small = small[:, 0]
    neighbours = small[:, 1:-1, 2:] + small[:, 1:-1, :-2] + small[:, 2:, 1:-1] + small[:, :-2, 1:-1]
    edges = (neighbours - 4 * small[:, 1:-1, 1:-1]).flatten(1)
    centred = luma - mean[:, None, None, None]
    together = (centred * centred.flip(3)).flatten(1).mean(1)
    # Rounding leaves a picture of one grey a spread of 1e-5, from which any correlation could come.
    flatness = spread < 1e-3
    found = {
        "brightness": mean / 255,
        "contrast": spread / 255,
        "sharpness": edges.var(1, correction=0),
        "asymmetry": torch.where(flatness, torch.nan, ((1 - together / spread.square()) / 2).clamp(0, 1)),
        "clipped": ((flat <= 1) | (flat >= 254)).float().mean(1),
    }
    return {name: values.double().numpy() for name, values in found.items()}


def sizes(paths: Sequence[str]) -> np.ndarray:
    """Width and height of image files in pixels, float64 (N, 2), from their headers alone; NaN where none can be read."""

    def size(path: str) -> tuple[float, float]:
        try:
            with Image.open(path, formats=FORMATS) as image:  # reads the header; pixels only when they are asked for
                return image.size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return np.nan, np.nan

    blocks = [paths[start : start + HEADERS] for start in range(0, len(paths), HEADERS)]
    found = [one for some in in_order(lambda block: [size(path) for path in block], blocks) for one in some]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def mean_image(images: np.ndarray, rows: np.ndarray, batch: int = 1024) -> np.ndarray:
    """Mean of the chosen images in [0, 1], float64 (H, W, 3), without a floating-point copy of them all."""
    total = sum(images[rows[i : i + batch]].sum(axis=0, dtype=np.int64) for i in range(0, len(rows), batch))
    return total / (255 * len(rows))


def by_group(
    measures: pd.DataFrame, group: Sequence, people: Sequence | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Mean of every measure in every group, with an interval that counts people.

    Parameters
    ----------
    measures : DataFrame (N,) of numbers, such as `pictures` gives; NaN is left out
    group : (N,) names
    people : (N,) whose picture each is; None: every picture is another person's
    confidence : level of the intervals

    Returns
    -------
    DataFrame, one row a measure and group: `measure, group, value, low, high, n, people`. The interval is Student's t on the
    cluster-robust standard error, cut where the measure itself ends; one person alone has none (NaN).
    """
    from scipy import stats  # half a second that loading faces need not take

    group = pd.Series(np.asarray(group), dtype=object)
    person = np.arange(len(group)) if people is None else pd.factorize(np.asarray(people, dtype=object))[0]
    rows = []
    for name in measures:
        for who, index in group.groupby(group, sort=False).indices.items():
            values = measures[name].to_numpy(dtype=np.float64)[index]
            there = np.isfinite(values)
            values, who_each = values[there], person[index][there]
            count = len(np.unique(who_each))
            mean, reach = (values.mean() if len(values) else np.nan), np.nan
            if count > 1:
                residual = np.bincount(np.unique(who_each, return_inverse=True)[1], values - mean)
                error = np.sqrt(count / (count - 1) * (residual**2).sum()) / len(values)
                reach = stats.t.isf((1 - confidence) / 2, count - 1) * error
            low, high = np.clip([mean - reach, mean + reach], *LIMITS.get(name, (-np.inf, np.inf)))
            rows.append((name, who, mean, low, high, len(values), count))
    return pd.DataFrame(rows, columns=["measure", "group", "value", "low", "high", "n", "people"])
