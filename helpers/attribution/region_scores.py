"""How much of a map lies in a region, and whether an edit of the model has moved it away: DetoxAI's seven scores, for any mask.

The intensity of a pixel is p = |R| / (2 max |R|), R the map and the maximum that of its image: the distance to the neutral
point in a heatmap that is scaled to [0, 1], as DetoxAI computes it. A map of zeros has p = 0 everywhere. RRF, HRF, MRR and DET
judge one map; ADR, DIF and RDDT compare it with the map of the same image `before` the model was changed, and are 0 where
nothing changed. Whether a high score is good depends on the region: on the mouth it is, for a model that is to see smiles; on
the glasses it is not.

DET and RDDT are decisions for each image, as DetoxAI describes them (its 0.3.8 computes a t-test over the images instead). The
pixels are neighbours and not independent, so that a decision is a description of one map and no evidence about a model: take the
share of images, whose interval `summary` gives.

References
----------
Sztukiewicz, Stępka, Wiliński & Stefanowski, "Investigating the relationship between debiasing and artifact removal using
saliency maps", 2025, arXiv 2503.00234 (RRF, ADR, DIF, RDDT). HRF, MRR and DET are DetoxAI's beyond the paper.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from .faithfulness import undefined
from .localisation import empty, without
from .metric import Case, Values, metric

HIGH = 0.05  # of an intensity that is at most 0.5
DECREASE = 1e-3
LEVEL = 0.01
DEPENDS = "depends on the region"


def intensity(maps: np.ndarray) -> np.ndarray:
    """p = |R| / (2 max |R|), float64 (N, H, W) in [0, 0.5]; the maximum is that of each image."""
    size = np.abs(maps)
    top = size.max((1, 2), keepdims=True)
    return np.divide(size, 2 * top, out=np.zeros_like(size), where=top > 0)


def no_relevance(case: Case) -> dict[int, str]:
    """Images whose map is zero everywhere."""
    return {int(i): "the map has no relevance" for i in np.flatnonzero(~case.maps.any((1, 2)))}


def no_outside(case: Case) -> dict[int, str]:
    """Images whose region leaves nothing to compare it with."""
    return {int(i): "the mask is the whole picture" for i in np.flatnonzero(case.masks.all((1, 2)))}


def not_comparable(case: Case) -> dict[int, str]:
    """Images without a finite map now or before, or without a mask."""
    earlier = {i: reason.replace("map", "map before") for i, reason in undefined(replace(case, maps=case.before)).items()}
    return earlier | empty(case)


def inside_mean(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Mean over the pixels of each mask, (N,); NaN for an empty one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (values * masks).sum((1, 2)) / masks.sum((1, 2))


@metric(
    "RRF",
    better=DEPENDS,
    needs_masks=True,
    definition="region relevance fraction: share of all intensity that lies in the region",
)
def region_relevance_fraction(case: Case) -> Values:
    """Σ_{p in region} p / Σ p. At chance it is the region's share of the picture."""
    p = intensity(case.maps)
    with np.errstate(invalid="ignore", divide="ignore"):
        return without((p * case.masks).sum((1, 2)) / p.sum((1, 2)), no_relevance(case) | empty(case))


@metric(
    "HRF",
    better=DEPENDS,
    needs_masks=True,
    definition="high-relevance fraction: share of the region's pixels whose intensity exceeds `high`",
)
def high_relevance_fraction(case: Case, *, high: float = HIGH) -> Values:
    """1 / |region| Σ_{p in region} 1[p > high]; the intensity is at most 0.5."""
    return without(inside_mean(intensity(case.maps) > high, case.masks), empty(case))


@metric(
    "MRR",
    better=DEPENDS,
    needs_masks=True,
    definition="mean relevance ratio: mean intensity in the region over that outside (1: equal)",
)
def mean_relevance_ratio(case: Case) -> Values:
    """Mean of p in the region / mean of p outside."""
    p = intensity(case.maps)
    outside = inside_mean(p, ~case.masks)
    reasons = {int(i): "no relevance outside the region" for i in np.flatnonzero(outside == 0)}
    with np.errstate(invalid="ignore", divide="ignore"):
        values = inside_mean(p, case.masks) / outside
    return without(values, reasons | no_relevance(case) | no_outside(case) | empty(case))


@metric(
    "DET",
    better=DEPENDS,
    needs_masks=True,
    definition="distribution equivalence test: 1 if pixels in the region are more intense than those outside "
    "(Mann-Whitney, one-sided, p < `level`), else 0",
)
def distribution_equivalence(case: Case, *, level: float = LEVEL) -> Values:
    """One-sided Mann-Whitney test of the intensities inside against those outside, image by image."""
    reasons = no_outside(case) | empty(case)
    p = intensity(np.where(np.isfinite(case.maps), case.maps, 0))
    values = np.zeros(len(p))
    for i in set(range(len(p))) - set(reasons):
        here = case.masks[i]
        values[i] = stats.mannwhitneyu(p[i][here], p[i][~here], alternative="greater", method="asymptotic").pvalue < level
    return without(values, reasons)


@metric(
    "ADR",
    better=DEPENDS,
    needs_masks=True,
    needs_before=True,
    definition="average difference in the region: mean intensity before minus after (positive: less is left)",
)
def average_difference(case: Case) -> Values:
    """Mean over the region of p_before - p_after."""
    return without(inside_mean(intensity(case.before) - intensity(case.maps), case.masks), not_comparable(case))


@metric(
    "DIF",
    better=DEPENDS,
    needs_masks=True,
    needs_before=True,
    definition="decreased intensity fraction: share of the region's pixels that lost more than `decrease`",
)
def decreased_intensity(case: Case, *, decrease: float = DECREASE) -> Values:
    """1 / |region| Σ_{p in region} 1[p_before - p_after > decrease]."""
    lost = intensity(case.before) - intensity(case.maps) > decrease
    return without(inside_mean(lost, case.masks), not_comparable(case))


@metric(
    "RDDT",
    better=DEPENDS,
    needs_masks=True,
    needs_before=True,
    definition="region difference distribution test: 1 if the region's pixels were more intense before "
    "(Wilcoxon signed-rank, one-sided, p < `level`), else 0",
)
def difference_distribution(case: Case, *, level: float = LEVEL) -> Values:
    """One-sided Wilcoxon signed-rank test of p_before - p_after over the region's pixels, image by image."""
    reasons = not_comparable(case)
    after, before = (intensity(np.where(np.isfinite(maps), maps, 0)) for maps in (case.maps, case.before))
    values = np.zeros(len(after))
    for i in set(range(len(after))) - set(reasons):
        lost = (before[i] - after[i])[case.masks[i]]
        if lost.any():
            values[i] = stats.wilcoxon(lost, alternative="greater", method="asymptotic").pvalue < level
    return without(values, reasons)
