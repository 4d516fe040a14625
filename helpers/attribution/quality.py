"""Is the explanation itself equally good for every group? The scores that judge maps, split by group, with a test.

A map that is less faithful, less stable or less well placed for some people is a worse explanation to them, whatever it shows
(Dai et al. 2022, Balagopalan et al. 2022); and where its quality differs, so may what it shows, without the model differing.

References
----------
Dai, Upadhyay, Aïvodji, Bach & Lakkaraju, "Fairness via explanation quality: evaluating disparities in the quality of post hoc
explanations", AIES 2022.
Balagopalan et al., "The road to explainability is paved with bias: measuring the fairness of explanations", FAccT 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.bias.by_people import Draws, differences, estimates, read_members

from .group_result import DIFFERS, GroupResult, judged, notes_on, untrusted
from .metric import METRICS
from .regions import labelled, unnamed


def quality(
    frame: pd.DataFrame,
    group: Any,
    *,
    identity: Any = None,
    groups: Sequence[str] | None = None,
    randomised: Any = None,
    threshold: float = 0.5,
    confidence: float = 0.95,
    n_boot: int = 2000,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> GroupResult:
    """Every score of every method by group, and where groups differ.

    Parameters
    ----------
    frame : as `evaluate` returns it: `[method,] image, metric, value`, images numbered from 0
    group, identity : (N,), of the images by number
    groups, randomised, threshold, confidence, n_boot, n_permutations, seed : as `regions`

    Returns
    -------
    GroupResult. `by_group`: `[method,] group, metric, value, low, high, n, people`. `differences`: `[method,] group, other,
    metric, difference, low, high, p, p_holm, n, n_other, verdict, reason, worse`, Holm's correction over metrics × pairs ×
    methods; `worse` names the group whose maps score worse, where they differ and the metric has a better direction.

    Raises
    ------
    ValueError : a column is missing, two values for one image, method and metric, image numbers without a group.
    """
    draws = Draws(confidence, n_boot, n_permutations, seed)
    if missing := [name for name in ("image", "metric", "value") if name not in getattr(frame, "columns", ())]:
        raise ValueError(f"frame: no column {', '.join(missing)}; expected the table that evaluate returns")
    if frame.empty:
        raise ValueError("frame: no row; expected the table that evaluate returns")
    frame = frame[["image", "metric", "value"]].assign(method=frame["method"].astype(str) if "method" in frame else "")
    if frame.duplicated(["method", "metric", "image"]).any():
        raise ValueError("frame: several values for one image, method and metric; expected one (pick one backend or setting)")
    count = len(group)
    if not frame["image"].between(0, count - 1).all():
        raise ValueError(f"group: {count} rows given, but frame has images from {frame['image'].min()} to {frame['image'].max()}")
    members = read_members(group, groups, identity, count)
    columns = frame[["method", "metric"]].drop_duplicates(ignore_index=True)
    doubted = untrusted(randomised, threshold, list(columns["method"].unique()))
    wide = frame.pivot(index="image", columns=["method", "metric"], values="value").reindex(range(count))
    values = wide[list(columns.itertuples(index=False, name=None))].to_numpy(dtype=np.float64)
    rates = (np.isin(values, (0, 1)) | np.isnan(values)).all(0)
    table = labelled(estimates(values, members, draws, rates), columns)
    gaps = judged(labelled(differences(values, members, draws, rates), columns), doubted, confidence)
    better = gaps["metric"].map(lambda name: METRICS[name].better if name in METRICS else "")
    lower = np.where(gaps["difference"] < 0, gaps["group"], gaps["other"])
    higher = np.where(gaps["difference"] < 0, gaps["other"], gaps["group"])
    worse = np.where(better == "higher", lower, np.where(better == "lower", higher, ""))
    gaps["worse"] = np.where(gaps["verdict"] == DIFFERS, worse, "")
    return unnamed(
        GroupResult(
            table, gaps, None, pd.DataFrame(values, columns=pd.MultiIndex.from_frame(columns)), "quality of explanations",
            confidence, doubted, tuple(notes_on(gaps, n_permutations, confidence, randomised is not None)),
        )
    )  # fmt: skip
