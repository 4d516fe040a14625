"""How far several ways of explaining the same images agree about the order of the pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from .metric import check_maps
from .sanity import spearman


def rank_agreement(
    attributions: Mapping[str, Tensor | np.ndarray],
    others: Mapping[str, Tensor | np.ndarray] | None = None,
    *,
    absolute: bool = False,
) -> pd.DataFrame:
    """Rank correlation over pixels of each two ways to explain, the mean over images.

    1: the same order of the pixels; 0: no relation; −1: the opposite order. It does not say which of the two is right.

    Parameters
    ----------
    attributions : name -> maps (N, H, W) of the same images
    others : what to compare them with, as `attributions`; None compares them with each other
    absolute : compare |maps|, for methods without a sign

    Returns
    -------
    DataFrame, a row for each of `attributions`, a column for each of `others`: float64. A pair of maps of which one is the
    same everywhere, or not finite, has no rank correlation and is left out of the mean; NaN if that are all.

    Raises
    ------
    ValueError : no maps, or maps of different shapes.
    """
    others = attributions if others is None else others
    for argument, named in (("attributions", attributions), ("others", others)):
        if not isinstance(named, Mapping):
            raise ValueError(f"{argument}: {type(named).__name__} given; expected name -> maps (N, H, W)")
    if not attributions or not others:
        raise ValueError("attributions: none given; expected a name and maps (N, H, W)")
    shape = np.shape(next(iter(attributions.values())))
    if len(shape) != 3:
        raise ValueError(f"attributions: shape {tuple(shape)}; expected (N, H, W)")
    like = np.empty((shape[0], 1, *shape[1:]))
    ready = [
        {name: check_maps(maps, like, f"attributions {name}") for name, maps in named.items()} for named in (attributions, others)
    ]
    rows = {one: [mean(first, second, absolute) for second in ready[1].values()] for one, first in ready[0].items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(others))


def mean(first: np.ndarray, second: np.ndarray, absolute: bool) -> float:
    """The mean over images with a value; NaN without any."""
    finite = np.isfinite(first).all((1, 2)) & np.isfinite(second).all((1, 2))
    first, second = first[finite], second[finite]
    values = spearman(*(np.abs(maps) if absolute else maps for maps in (first, second))) if len(first) else np.empty(0)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
