"""Is a gap smaller between pictures that are equally bright, equally sharp, equally turned? Possible explanations, not causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from helpers.bias import uncertainty
from helpers.bias.inputs import read_labels, read_people, same_length
from helpers.bias.settings import share, whole
from helpers.names import choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from helpers.data.base import FaceDataset

SMALLER, LARGER, NOISE = "smaller", "larger", "within noise"
STRATA = 10
NOTE = (
    "A gap that shrinks among equally bright pictures may be explained by brightness, or by something that goes with it; one "
    "that does not shrink is not explained by it. Neither shows a cause: for that, change the pictures and nothing else. Each "
    "measure is judged on its own, and among many one moves a gap by chance."
)
#: The rows that count, and those of them that count as 1.
RATES = {
    "accuracy": (lambda y, p: np.ones(len(y), bool), lambda y, p: y == p),
    "error_rate": (lambda y, p: np.ones(len(y), bool), lambda y, p: y != p),
    "selection_rate": (lambda y, p: np.ones(len(y), bool), lambda y, p: p == 1),
    "true_positive_rate": (lambda y, p: y == 1, lambda y, p: p == 1),
    "false_positive_rate": (lambda y, p: y == 0, lambda y, p: p == 1),
    "true_negative_rate": (lambda y, p: y == 0, lambda y, p: p == 0),
    "false_negative_rate": (lambda y, p: y == 1, lambda y, p: p == 0),
    "positive_predictive_value": (lambda y, p: p == 1, lambda y, p: y == 1),
}
OF_MANY = ("accuracy", "error_rate")  # the others need two classes


@dataclass(frozen=True)
class Explanations:
    """Gaps beside what the groups' pictures are like.

    Attributes
    ----------
    gaps : DataFrame, one row a statistic and measure: `statistic, measure, lowest, highest` (the two groups), `gap, gap_low,
        gap_high` (highest minus lowest), `covered` (share of their pictures in strata where both groups are), `equal, equal_low,
        equal_high` (the gap at equal measure), `change, change_low, change_high` (the gap of the covered pictures minus that
        at equal measure), `verdict` ("smaller", "larger" or "within noise")
    means : DataFrame `measure, group, value, low, high, n, people` of every group, as `helpers.data.pictures.by_group`
    confidence : level of all intervals
    note : how to read it
    """

    gaps: pd.DataFrame
    means: pd.DataFrame
    confidence: float
    note: str = NOTE

    def plot(self, statistic: str | None = None) -> Axes:
        """The gap at equal brightness, sharpness, …, each with its interval, beside the gap as it is."""
        from helpers.plots.pictures import explained

        return explained(self.gaps, statistic, confidence=self.confidence)

    def _repr_html_(self) -> str:
        return self.gaps.round(3).to_html(index=False) + f"<p>{NOTE}</p>"


def explanations(
    faces: FaceDataset,
    y_pred: Any,
    *,
    measures: pd.DataFrame | None = None,
    statistics: Sequence[str] | str | None = None,
    strata: int = STRATA,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> Explanations:
    """Hold each gap against the gap between pictures that are alike in one measure.

    For a statistic the two groups with its lowest and its highest value are taken. Their pictures are cut into `strata` by the
    quantiles of the measure, both groups together. With r_gs the rate of group g in stratum s and w_s the share of the two
    groups' pictures there, the gap at equal measure is sum_s w_s (r_1s - r_0s) over the strata that hold both (direct
    standardisation). Five strata remove about nine tenths of what a measure contributes (Cochran 1968), ten more.

    Parameters
    ----------
    faces : FaceDataset, on which the model was not trained
    y_pred : (N,) predictions, as codes or names of the classes
    measures : DataFrame (N,) of numbers; None: `helpers.data.pictures(faces)`, with pose and file size where they are known
    statistics : names of `RATES`; None: true and false positive rate, or accuracy with three classes or more
    strata : how many, at least 2
    confidence, n_boot, seed : of the intervals: percentiles of a bootstrap over people, or over pictures in each group where no
        `identity` is known or every picture is another person's. That the two groups were picked as extremes is not part of
        these intervals; `audit` has the gap's own.

    Raises
    ------
    ValueError : predictions or measures of another length, an unknown statistic, fewer than two groups with a value.

    References
    ----------
    Cochran, "The Effectiveness of Adjustment by Subclassification in Removing Bias in Observational Studies", Biometrics 1968.
    """
    from helpers.data.pictures import by_group, pictures  # here, so that statistics alone load no pictures

    confidence, strata, n_boot = share(confidence, "confidence"), whole(strata, "strata", least=2), whole(n_boot, "n_boot")
    true, pred, _, names = read_labels(faces.targets, y_pred, faces.classes)
    accepted = list(RATES) if len(names) == 2 else list(OF_MANY)
    if statistics is None:
        statistics = ("true_positive_rate", "false_positive_rate") if len(names) == 2 else ("accuracy",)
    statistics = [choose(name, accepted, "statistics") for name in ([statistics] if isinstance(statistics, str) else statistics)]
    measures = pictures(faces) if measures is None else pd.DataFrame(measures).reset_index(drop=True)
    same_length(len(true), measures=len(measures))
    group = np.array(faces.groups, dtype=object)[faces.group]
    people = np.arange(len(true))
    if "identity" in faces.table:
        people, _ = read_people(faces.table["identity"])
    rows = []
    for statistic in statistics:
        counts, hit = (each(true, pred) for each in RATES[statistic])
        low, high = _extremes(faces, counts, hit, statistic)
        pair = np.flatnonzero(counts & np.isin(faces.group, (low, high)))
        for name in measures:
            values = measures[name].to_numpy(dtype=np.float64)
            there = pair[np.isfinite(values[pair])]
            upper = faces.group[there] == high
            if upper.all() or not upper.any():
                continue  # one of the two groups has no value of this measure
            found = _standardised(values[there], upper, hit[there], people[there], strata, confidence, n_boot, seed)
            about = {"statistic": statistic, "measure": name, "lowest": faces.groups[low], "highest": faces.groups[high]}
            rows.append(about | found)
    return Explanations(pd.DataFrame(rows), by_group(measures, group, people, confidence), confidence)


def _extremes(faces, counts: np.ndarray, hit: np.ndarray, statistic: str) -> tuple[int, int]:
    """Codes of the groups with the lowest and the highest rate."""
    n = np.bincount(faces.group[counts], minlength=len(faces.groups))
    hits = np.bincount(faces.group[counts & hit], minlength=len(faces.groups))
    if (n > 0).sum() < 2:
        raise ValueError(f"statistics: fewer than two groups have a value of {statistic}, so there is no gap")
    rate = np.where(n > 0, hits / np.maximum(n, 1), np.nan)
    low = int(np.nanargmin(rate))
    rate[low] = np.nan  # if all rates are equal the two groups differ all the same
    return low, int(np.nanargmax(rate))


def _standardised(values, upper, hit, people, strata: int, confidence: float, n_boot: int, seed: int) -> dict:
    """The gap, the gap at equal values, and their difference, each with an interval; `upper` and `hit` are bool (n,)."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, strata + 1)[1:-1]))
    stratum = np.searchsorted(edges, values, side="right")
    cells = len(edges) + 1
    cell = (upper.astype(np.int64) * cells + stratum) * 2 + hit
    table = np.bincount(cell, minlength=4 * cells)
    again = _redrawn(table, cell, people, n_boot, seed)
    estimates = _gaps(np.concatenate([table[None], again]).reshape(-1, 2, cells, 2))
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    found = {}
    for name, each in zip(("gap", "equal", "change"), estimates[:3], strict=True):
        known = each[1:][np.isfinite(each[1:])]
        low, high = np.quantile(known, ends) if len(known) else (np.nan, np.nan)
        found |= {name: each[0], f"{name}_low": low, f"{name}_high": high}
    verdict = SMALLER if found["change_low"] > 0 else LARGER if found["change_high"] < 0 else NOISE
    order = ("gap", "gap_low", "gap_high", "covered", "equal", "equal_low", "equal_high", "change", "change_low", "change_high")
    found["covered"] = estimates[3][0]
    return {name: found[name] for name in order} | {"verdict": verdict}


def _redrawn(table: np.ndarray, cell: np.ndarray, people: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """Bootstrap tables (B, cells): of pictures within groups, or of people with all their pictures."""
    person = np.unique(people, return_inverse=True)[1]
    count = int(person.max()) + 1
    if count == len(cell):
        drawn = uncertainty.replicates(table.reshape(2, -1).T, n_boot, seed)
        return drawn.transpose(2, 1, 0).reshape(n_boot, -1)
    whose = sparse.csr_array((np.ones(len(cell)), (person, cell)), shape=(count, len(table)))
    rng = np.random.default_rng(seed)
    step = max(1, (1 << 22) // count)
    draws = [rng.multinomial(count, np.full(count, 1 / count), size=min(step, n_boot - i)) for i in range(0, n_boot, step)]
    return np.concatenate([draw @ whose for draw in draws])


def _gaps(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gap, gap at equal measure, gap of the covered pictures minus that, and share covered, of tables (B, 2, strata, 2)."""
    n, hits = tables.sum(-1), tables[..., 1]
    both = (n > 0).all(1)
    inside = n * both[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.diff(hits.sum(-1) / n.sum(-1), axis=1)[:, 0]
        covered = np.diff((hits * both[:, None]).sum(-1) / inside.sum(-1), axis=1)[:, 0]
        weight = inside.sum(1) / inside.sum((1, 2))[:, None]
        difference = np.diff(np.where(both[:, None], hits / n, 0), axis=1)[:, 0]
        equal = np.where(both.any(1), (weight * difference).sum(1), np.nan)
        share_covered = inside.sum((1, 2)) / n.sum((1, 2))
    return gap, equal, covered - equal, share_covered
