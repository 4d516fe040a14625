"""Labels that pictures of other people contradict: worth a second look, and no more than that."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from helpers.data.pictures import SIDE, by_group, lumas

if TYPE_CHECKING:
    from helpers.data.base import FaceDataset

GRID, DIRECTIONS = 8, 8
STRENGTH = 0.01  # inverse regularisation: of 0.1, 0.01 and 0.001 the one that found most planted flips on drawn faces
CAVEAT = (
    "A marked label is one that a simple model of other people's pictures contradicts. Hard pictures, people who look unlike "
    "the majority, and the rare combinations of group and class are marked as well as wrong labels; to drop what is marked would "
    "drop more of them than of others."
)


@dataclass(frozen=True, repr=False)
class Suspicious:
    """Labels ranked by how much they are contradicted.

    Attributes
    ----------
    table : DataFrame, one row an image, the most suspicious first: `row, label, suggested, confidence, margin, marked` and,
        where the table has them, `path` and `identity`. `confidence` is the probability of the label by a model fitted on
        other people's pictures, `margin` that minus the largest of another class, `suggested` that class. `marked` are those
        that confident learning counts as wrong. Rows of a class that no other person has are not judged (NaN).
    by_group, by_cell : DataFrame `measure, group, value, low, high, n, people`: share of marked labels in each group, and in each
        group and class ("group, class")
    accuracy : balanced accuracy of that model on people it has not seen; near 1 / classes the ranking says nothing
    note : what the ranking can and cannot say
    """

    table: pd.DataFrame
    by_group: pd.DataFrame
    by_cell: pd.DataFrame
    accuracy: float
    note: str = CAVEAT

    @property
    def n(self) -> int:
        """How many labels are marked."""
        return int(self.table["marked"].sum())

    def __repr__(self) -> str:
        return f"Suspicious({self})"

    def __str__(self) -> str:
        return f"{self.n:,} of {len(self.table):,} labels marked (balanced accuracy on other people: {self.accuracy:.3f})"


def suspicious(
    faces: FaceDataset, features: np.ndarray | None = None, *, folds: int = 5, seed: int = 0
) -> Suspicious:
    """Rank the labels of the target by how much they contradict a model that has not seen that person.

    The rows are cut into folds by `identity` (or singly, without one). For each fold a logistic regression on standardised
    features (C = 0.01) is fitted on the others, and gives every row the probability of each class. With t_j the mean
    probability of class j over the rows labelled j, a row labelled i is marked if some p_j >= t_j and the most probable of
    these classes is not i (confident learning, equations 1 and 2).

    Parameters
    ----------
    faces : FaceDataset
    features : (N, D), such as a network's penultimate layer, of a network not trained on these labels; None: `gist`
    folds : int, at least 2; fewer if there are fewer people
    seed : of the folds

    Raises
    ------
    ValueError : features of another length or not finite, fewer than two folds or people, or a single class.

    References
    ----------
    Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021.
    """
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or folds < 2:
        raise ValueError(f"folds: expected a whole number of at least 2, got {folds!r}")
    label = faces.targets
    if len(np.unique(label)) < 2:
        raise ValueError(f"faces: every label of {faces.target!r} is {faces.classes[label[0]]!r}, so nothing can contradict it")
    identity = faces.table["identity"].astype(str) if "identity" in faces.table else np.arange(len(faces)).astype(str)
    person = pd.factorize(identity)[0]
    if person.max() < 1:
        raise ValueError("faces: one person only; a label is judged by other people's pictures")
    if features is None:
        features = gist(faces.images)
    features = np.asarray(features)
    if features.ndim != 2 or features.dtype.kind not in "fiu" or len(features) != len(faces) or not np.isfinite(features).all():
        raise ValueError(f"features: expected finite numbers ({len(faces)}, D), one row an image, got {features.shape}")
    probability = out_of_fold(features, label, person, len(faces.classes), int(folds), seed)
    table = _rank(probability, label, faces.classes)
    for name in ("path", "identity"):
        if name in faces.table:
            table[name] = faces.table[name].to_numpy()[table["row"]]
    marked = pd.DataFrame({"marked": table.set_index("row")["marked"].sort_index().astype(float)})
    judged = np.isfinite(probability).all(axis=1)
    right = (probability.argmax(1) == label)[judged]
    accuracy = np.mean([right[label[judged] == code].mean() for code in np.unique(label[judged])]) if judged.any() else np.nan
    groups = np.array(faces.groups, dtype=object)[faces.group]
    cells = groups + ", " + np.array(faces.classes, dtype=object)[label]
    return Suspicious(table, by_group(marked, groups, person), by_group(marked, cells, person), float(accuracy))


def gist(images: np.ndarray) -> np.ndarray:
    """Edges and colours of every picture in an 8×8 grid: float32 (N, 704).

    In each cell a histogram of 8 directions of the luma's gradient at 64×64 pixels, weighted by its strength and divided by the
    root mean square of its neighbourhood of 3×3 cells (512 numbers; after Dalal & Triggs, "Histograms of Oriented Gradients for
    Human Detection", CVPR 2005), and the mean colour (192 numbers, 0 to 1).

    Parameters
    ----------
    images : uint8 (N, H, W, 3), in memory or memory-mapped; read block by block
    """
    found, start = np.empty((len(images), GRID * GRID * (DIRECTIONS + 3)), np.float32), 0
    for luma in lumas(images):
        rows = slice(start, start := start + len(luma))
        colour = torch.from_numpy(np.array(images[rows])).permute(0, 3, 1, 2).float() / 255
        colour = functional.interpolate(colour, (GRID, GRID), mode="area").flatten(1)
        found[rows] = torch.cat([_edges(luma), colour], dim=1).numpy()
    return found


def _edges(luma: torch.Tensor) -> torch.Tensor:
    small = functional.interpolate(luma, (SIDE, SIDE), mode="area") / 255
    around = functional.pad(small, (1, 1, 1, 1), mode="replicate")
    across, down = around[:, :, 1:-1, 2:] - around[:, :, 1:-1, :-2], around[:, :, 2:, 1:-1] - around[:, :, :-2, 1:-1]
    # An edge from dark to light and one from light to dark have one direction; each is shared between the nearest two bins.
    place = torch.atan2(down, across).remainder(torch.pi) / torch.pi * DIRECTIONS
    strength, lower = (across.square() + down.square()).sqrt(), place.floor()
    bins = torch.zeros(len(luma), DIRECTIONS, SIDE, SIDE)
    bins.scatter_add_(1, lower.long() % DIRECTIONS, strength * (1 + lower - place))
    bins.scatter_add_(1, (lower.long() + 1) % DIRECTIONS, strength * (place - lower))
    cells = functional.avg_pool2d(bins, SIDE // GRID)
    local = functional.avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1, count_include_pad=False).sqrt()
    return (cells / (local + 0.01)).flatten(1)


def out_of_fold(
    features: np.ndarray, label: np.ndarray, person: np.ndarray, classes: int, folds: int, seed: int
) -> np.ndarray:
    """Probability of each class by a model of other people: float64 (N, classes); NaN where no other person has the label."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probability = np.zeros((len(label), classes))
    cut = StratifiedGroupKFold(min(folds, int(person.max()) + 1), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        parts = list(cut.split(features, label, person))
    for fit, held in parts:
        known = np.unique(label[fit])
        if len(known) == 1:
            probability[held] = np.nan
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500)).fit(features[fit], label[fit])
        probability[held[:, None], known] = model.predict_proba(features[held])
        probability[held[~np.isin(label[held], known)]] = np.nan
    return probability


def _rank(probability: np.ndarray, label: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    rows = np.arange(len(label))
    own = probability[rows, label]
    others = probability.copy()
    others[rows, label] = -1
    best = np.where(np.isfinite(own), np.nan_to_num(others, nan=-1).argmax(1), label)
    judged = np.isfinite(own)
    sums = np.bincount(label[judged], own[judged], minlength=len(classes))
    sizes = np.bincount(label[judged], minlength=len(classes))
    threshold = np.divide(sums, sizes, out=np.full(len(classes), np.inf), where=sizes > 0)  # nobody is confidently of no class
    confident = np.where(np.nan_to_num(probability) >= threshold, np.nan_to_num(probability), -1)
    marked = judged & (confident.max(1) >= 0) & (confident.argmax(1) != label)
    table = pd.DataFrame({
        "row": rows,
        "label": np.array(classes, dtype=object)[label],
        "suggested": np.array(classes, dtype=object)[best],
        "confidence": own,
        "margin": own - np.where(judged, others.max(1), np.nan),
        "marked": marked,
    })  # fmt: skip
    return table.sort_values(["marked", "margin"], ascending=[False, True], kind="stable", ignore_index=True)
