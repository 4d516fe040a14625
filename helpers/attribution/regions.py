"""Does the model look elsewhere for some groups? Relevance by face region, compared between groups.

The relevance of a pixel is the positive part of the map, r = max(R, 0) (or its size |R|, or the negative part). A region's
share is the relevance inside it over that of the whole picture; its density is that share over the region's share of the pixels,
so that a map without preference has 1, whatever the region's size.

A region without a pixel, such as the accessories of somebody who wears none, has no share and no density (NaN) rather than 0:
whether a model looks at glasses cannot be seen where there are none. Nor has a map without relevance. `n` counts what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from helpers.bias.by_people import Draws, Members, differences, estimates, read_members
from helpers.names import choose

from .group_result import GroupResult, judged, notes_on, untrusted

RELEVANCE = {
    "positive": lambda maps: np.maximum(maps, 0),
    "absolute": np.abs,
    "negative": lambda maps: np.maximum(-maps, 0),
}
BLOCK = 1 << 23  # pixels weighed at a time
MEASURES = ("share", "density")
CORRECT = ("correct", "wrong")


def regions(
    maps: Any,
    masks: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    group: Any,
    *,
    relevance: str = "positive",
    measure: str = "share",
    correct: Any = None,
    identity: Any = None,
    groups: Sequence[str] | None = None,
    randomised: Any = None,
    threshold: float = 0.5,
    confidence: float = 0.95,
    n_boot: int = 2000,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> GroupResult:
    """Relevance of each face region in each group, and where groups differ.

    Parameters
    ----------
    maps : float (N, H, W), signed, as `attribute` returns them; or several methods' by name
    masks : name of a region -> bool (N, H, W), or (H, W) for all images alike, such as `helpers.data.templates.template` gives
        for aligned photographs; or N dicts of (H, W), `[faces.regions(i) for i in rows]`. Regions may overlap
    group : (N,), or a DataFrame whose columns are crossed.  groups : names that integer codes stand for
    relevance : "positive", "absolute" or "negative"
    measure : which of "share" and "density" the differences are of; `by_group` has both
    correct : bool (N,), whether the prediction was right: `by_group` is split by it too, `outcomes` compares both within groups
    identity : (N,), who is shown; needed where one person has several images, which are no independent evidence
    randomised : method -> correlation of its maps with those of the model with random weights; see `group_result.untrusted`
    threshold : above which such a correlation bars a method from supporting a claim
    confidence, n_boot, n_permutations, seed : of the intervals, tests and verdicts

    Returns
    -------
    GroupResult. `by_group`: `[method,] group, predictions, region, measure, value, low, high, n, people`, `predictions` being
    "all", "correct" or "wrong". `differences`: `[method,] group, other, region, difference, low, high, p, p_holm, n, n_other,
    verdict, reason`, Holm's correction over all rows (regions × pairs × methods). `outcomes`: likewise `[method,] group, region`,
    correct minus wrong. `helpers.bias.by_people` says how intervals and tests are made.

    Raises
    ------
    ValueError : maps, masks, groups, identities or `correct` that do not fit each other, no mask, an unknown option.

    Examples
    --------
    >>> maps = np.zeros((20, 4, 4)); maps[:10, 0] = 1; maps[10:] = 1
    >>> found = regions(maps, {"top": np.arange(16).reshape(4, 4) < 4}, ["a"] * 10 + ["b"] * 10)
    >>> found.differences[["difference", "verdict"]].to_numpy().tolist()
    [[0.75, 'differs']]
    """
    kind = choose(relevance, RELEVANCE, "relevance")
    measure = choose(measure, MEASURES, "measure")
    draws = Draws(confidence, n_boot, n_permutations, seed)
    named = read_maps(maps, "maps")
    covered = read_masks(masks, next(iter(named.values())).shape)
    count = len(next(iter(named.values())))
    members = read_members(group, groups, identity, count)
    right = None if correct is None else read_correct(correct, count)
    doubted = untrusted(randomised, threshold, list(named))

    shares = np.concatenate([region_shares(each, covered, kind) for each in named.values()], axis=1)
    density = shares / np.tile(areas(covered, count), len(named))
    columns = pd.DataFrame([(name, region) for name in named for region in covered], columns=["method", "region"])
    by_group, measured = [], {"share": shares, "density": density}
    for predictions, rows in _parts(right, count):
        for which, values in measured.items():
            found = labelled(estimates(values[rows], members[rows], draws), columns)
            found["low"], found["high"] = found["low"].clip(lower=0), found["high"].clip(upper=1 if which == "share" else np.inf)
            by_group.append(found.assign(predictions=predictions, measure=which))
    table = pd.concat(by_group, ignore_index=True)
    keys = ["method", "group", "predictions", "region", "measure"]
    table = table[[*keys, "value", "low", "high", "n", "people"]]
    gaps = judged(labelled(differences(measured[measure], members, draws), columns), doubted, confidence)
    outcomes = None
    if right is not None:
        outcomes = judged(labelled(by_outcome(measured[measure], members, right, draws), columns), doubted, confidence)
    notes = [
        *notes_on(gaps, n_permutations, confidence, randomised is not None),
        *_missing(named, shares, covered),
    ]
    return unnamed(
        GroupResult(
            table, gaps, outcomes, pd.DataFrame(measured[measure], columns=pd.MultiIndex.from_frame(columns)),
            f"{measure} of {kind} relevance by region", confidence, doubted, tuple(notes),
        )
    )  # fmt: skip


def region_shares(maps: np.ndarray, masks: Mapping[str, np.ndarray], relevance: str = "positive") -> np.ndarray:
    """Share of each image's relevance in each region.

    Parameters
    ----------
    maps : float (N, H, W)
    masks : name -> bool (N, H, W), or (H, W) for all images
    relevance : a key of `RELEVANCE`

    Returns
    -------
    float64 (N, regions) in [0, 1]; NaN for a map that is not finite or has no such relevance, and for a region without a pixel.
    """
    alike = all(mask.ndim == 2 for mask in masks.values())
    shared = np.stack([mask.ravel() for mask in masks.values()], axis=1).astype(float) if alike else None
    shares = np.empty((len(maps), len(masks)))
    step = max(1, BLOCK // maps[0].size)
    for start in range(0, len(maps), step):  # many images at a time, but not all: maps may fill the memory as they are
        rows = slice(start, start + step)
        weight = RELEVANCE[relevance](np.asarray(maps[rows], dtype=np.float64)).reshape(-1, maps[0].size)
        total = weight.sum(1, keepdims=True)
        weight[~np.isfinite(total[:, 0])] = 0.0
        if alike:
            inside = weight @ shared
        else:
            each = [(mask if mask.ndim == 2 else mask[rows]).reshape(-1, maps[0].size) for mask in masks.values()]
            inside = np.stack([np.einsum("np,np->n", weight, np.broadcast_to(one, weight.shape)) for one in each], axis=1)
        shares[rows] = inside / np.where(np.isfinite(total) & (total > 0), total, np.nan)
    return np.where(areas(masks, len(maps)) > 0, shares, np.nan)


def areas(masks: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Share of the pixels in each region, (count, regions); NaN for a region without a pixel."""
    found = np.stack([np.broadcast_to(mask.mean((-2, -1)), count) for mask in masks.values()], axis=1)
    return np.where(found > 0, found, np.nan)


def by_outcome(values: np.ndarray, members: Members, right: np.ndarray, draws: Draws) -> pd.DataFrame:
    """Differences of values (N, K) between correct and wrong predictions within each group, as `groups.differences`."""
    tables = []
    for at in members.occurring:
        rows = np.flatnonzero(members.code == at)
        split = Members((~right[rows]).astype(np.int64), CORRECT, members[rows].person)
        tables.append(differences(values[rows], split, draws).drop(columns=["group", "other"]).assign(group=members.names[at]))
    found = pd.concat(tables, ignore_index=True)
    return found[["group", *found.columns.drop("group")]].rename(columns={"n": "n_correct", "n_other": "n_wrong"})


def labelled(table: pd.DataFrame, columns: pd.DataFrame) -> pd.DataFrame:
    """A table of `groups` with what its columns are: `method` first, the other labels where `column` stood."""
    labels = columns.iloc[table["column"].astype(int)].reset_index(drop=True)
    table = table.reset_index(drop=True)
    at = table.columns.get_loc("column")
    parts = [labels[["method"]], table.iloc[:, :at], labels.drop(columns="method"), table.iloc[:, at + 1 :]]
    return pd.concat(parts, axis=1)


def unnamed(result: GroupResult) -> GroupResult:
    """Without the column `method`, if the maps came without a name."""
    if list(result.by_group["method"].unique()) != [""]:
        return result
    without = lambda table: None if table is None else table.drop(columns="method")
    return replace(
        result,
        by_group=without(result.by_group),
        differences=without(result.differences),
        outcomes=without(result.outcomes),
        per_image=result.per_image.droplevel("method", axis=1),
        untrusted={"these maps": result.untrusted[""]} if result.untrusted else {},
    )


def read_maps(maps: Any, argument: str) -> dict[str, np.ndarray]:
    """Maps by name, [""] for maps without one; ValueError unless all are (N, H, W) of one shape."""
    named = {str(name): as_array(each) for name, each in maps.items()} if isinstance(maps, Mapping) else {"": as_array(maps)}
    if not named:
        raise ValueError(f"{argument}: an empty dict; expected at least one name with maps (N, H, W)")
    shape = next(iter(named.values())).shape
    for name, each in named.items():
        if each.ndim != 3 or not each.size or each.dtype.kind not in "fiub":
            hint = "; sum over channels first, maps.sum(1)" if each.ndim == 4 else ""
            came = f"{argument} {name}".strip() + f": {each.dtype} of shape {each.shape}"
            raise ValueError(f"{came}; expected numbers (N, H, W){hint}")
        if each.shape != shape:
            raise ValueError(f"{argument} {name}: shape {each.shape}; expected {shape}, as that of the first")
    return named


def read_masks(masks: Any, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Masks by name, bool (N, H, W) or (H, W); ValueError if they do not lie on maps of `shape`."""
    if isinstance(masks, Sequence) and not isinstance(masks, str) and all(isinstance(each, Mapping) for each in masks):
        if len(masks) != shape[0]:
            raise ValueError(f"masks: {len(masks)} dicts given for {shape[0]} maps; expected one an image")
        names = list(masks[0])
        if any(list(each) != names for each in masks):
            raise ValueError("masks: the images' dicts have different regions; expected the same for all (a mask may be empty)")
        masks = {name: np.stack([as_array(each[name]) for each in masks]) for name in names}
    if not isinstance(masks, Mapping) or not masks:
        raise ValueError(f"masks: {type(masks).__name__} given; expected region -> bool (N, H, W) or (H, W), at least one")
    found = {}
    for name, mask in masks.items():
        mask = as_array(mask)
        if mask.shape not in (shape, shape[1:]):
            raise ValueError(f"masks {name}: shape {mask.shape}; expected {shape} or {shape[1:]}, as the maps")
        if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
            raise ValueError(f"masks {name}: {mask.dtype} with values other than 0 and 1; expected booleans")
        found[str(name)] = mask.astype(bool)
    return found


def read_correct(correct: Any, count: int) -> np.ndarray:
    """Bool (N,); ValueError for anything else."""
    right = as_array(correct)
    if right.shape != (count,) or (right.dtype != bool and not np.isin(right, (0, 1)).all()):
        raise ValueError(f"correct: {right.dtype} of shape {right.shape}; expected booleans ({count},), such as y_pred == y_true")
    return right.astype(bool)


def as_array(values: Any) -> np.ndarray:
    """Tensors of any device, arrays and lists as an array."""
    if not hasattr(values, "detach"):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16


def _parts(right: np.ndarray | None, count: int) -> list[tuple[str, np.ndarray]]:
    """Which predictions, and their rows; those that do not occur are left out."""
    parts = [("all", np.arange(count))]
    if right is not None:
        parts += zip(CORRECT, (np.flatnonzero(right), np.flatnonzero(~right)), strict=True)
    return [(name, rows) for name, rows in parts if len(rows)]


def _missing(named: Mapping[str, np.ndarray], shares: np.ndarray, masks: Mapping[str, np.ndarray]) -> list[str]:
    notes = []
    for name, absent in zip(named, np.split(np.isnan(shares), len(named), axis=1), strict=True):
        if blank := int(absent.all(1).sum()):
            notes.append(f"{blank} of {len(absent)} maps{f' of {name}' if name else ''} have no relevance, and are left out")
    empty = [region for region, mask in masks.items() if not mask.any()]
    if empty:
        notes.append(f"no image has a pixel of {', '.join(empty)}")
    return notes
