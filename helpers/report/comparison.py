"""The before/after comparison: every model on the same faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from helpers.bias import audit, compare
from helpers.data.labels import level_names
from helpers.debiasing import CorrectionResult, Results
from helpers.debiasing.result import Answers, joined
from helpers.models import predict


def rejudge(
    results: Mapping, faces, *, confidence: float = 0.95, n_boot: int = 1000, seed: int = 0, device=None
) -> Results:
    """The same models judged on `faces`, whatever they were judged on before.

    Parameters
    ----------
    results : dict of name -> result of `helpers.debias`, or nn.Module
    faces : FaceDataset that neither a model nor a method was fitted on
    confidence, n_boot, seed : of the intervals, as in `helpers.audit`
    device : where the models run

    Returns
    -------
    Results by name, whose `audit` and `comparison` are those of `faces`; the `note` says, from the second on, whom the
    change of the gap helps and whom it costs. What failed before stays as it was. `to_frame` makes a table of them.

    Raises
    ------
    ValueError : `results` is no dict or empty, or a model does not fit the target.
    """
    if not isinstance(results, Mapping):
        raise ValueError(f"results: expected a dict of method name -> result, got {type(results).__name__}")
    if not results:
        raise ValueError("results: expected at least one result, got an empty dict")
    judged = Results()
    first = None
    for name, result in results.items():
        if not isinstance(result, CorrectionResult):
            result = CorrectionResult(str(name), result, seconds=np.nan)
        if result.model is not None:
            found = predict(result.model, faces, device=device)
            seen = audit_of(found, faces, confidence=confidence, n_boot=n_boot, seed=seed)
            pair = first and Answers(
                found.y_true, first.y_pred, found.y_pred, found.group, faces.classes, faces.groups, confidence,
                of=next(iter(judged)),
            )  # fmt: skip
            result = replace(result, audit=seen, answers=pair, degenerate=len(np.unique(found.y_pred)) == 1)
            if first is None:
                first = found
            elif verdict := verdict_of(first, found, faces, confidence=confidence):
                result = replace(result, note=joined([result.note, verdict]))
        judged[name] = result
    return judged


def verdict_of(first, second, faces, confidence: float = 0.95) -> str:
    """What the second model does to the first one's equalized-odds gap, and to whom; "" where there is no gap."""
    found = compare(
        first.y_true, first.y_pred, second.y_pred, first.group, statistics=["equalized_odds"],
        groups=faces.groups, classes=faces.classes, confidence=confidence,
    )  # fmt: skip
    gaps = found.gaps[found.gaps["statistic"] == "equalized_odds"]
    said = gaps["verdict"].iloc[-1]  # with three classes or more the last row is that of all classes
    return f"gap {said}" if said else ""


def audit_of(predictions, faces, **options):
    """`helpers.audit` of the predictions made for `faces`, with its groups and classes, and the levels of crossed attributes."""
    found = predictions
    judged = audit(
        found.y_true, found.y_pred, found.group, groups=faces.groups, classes=faces.classes, **options
    )
    return replace(judged, levels=levels_of(faces, judged.counts.groups))


def levels_of(faces, groups: Sequence[str]) -> pd.DataFrame | None:
    """The level of each crossed attribute for every group; None for one attribute, or groups of other names."""
    if isinstance(faces.protected, str):
        return None
    names = [level_names(faces.reference[column], column)[1] for column in faces.protected]
    crossed = {", ".join(combination): combination for combination in product(*names)}
    if not set(groups) <= set(crossed):
        return None
    return pd.DataFrame([crossed[group] for group in groups], columns=list(faces.protected))
