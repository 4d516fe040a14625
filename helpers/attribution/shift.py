"""Where did a fix move the model's gaze? Relevance of the same images before and after, by face region and group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.bias.by_people import Draws, Members, differences, estimates, read_members, zero_test
from helpers.names import choose

from .group_result import GroupResult, judged, notes_on, untrusted
from .regions import MEASURES, RELEVANCE, areas, labelled, read_maps, read_masks, region_shares, unnamed

ALL = "all"


def shift(
    before: Any,
    after: Any,
    masks: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    group: Any,
    *,
    relevance: str = "positive",
    measure: str = "share",
    identity: Any = None,
    groups: Sequence[str] | None = None,
    randomised: Any = None,
    threshold: float = 0.5,
    confidence: float = 0.95,
    n_boot: int = 2000,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> GroupResult:
    """The paired change of every region's relevance, in each group and in all, with intervals and tests.

    Parameters
    ----------
    before, after : float (N, H, W), maps of the same images by the same method for the model before and after; or both by name
    masks, group, relevance, measure, identity, groups, randomised, threshold, confidence, n_boot, n_permutations, seed : as
        `regions`

    Returns
    -------
    GroupResult. `by_group`: `[method,] group, region, before, after, value, low, high, p, p_holm, n, people, verdict, reason`,
    `value` being after minus before, over the images that have both, and the group "all" that of everybody. Its test gives each
    image's (each person's) change a random sign; Holm's correction is over regions × groups × methods. `differences`: whether
    the groups' changes differ, as in `regions`.

    Raises
    ------
    ValueError : as `regions`; maps before and after that differ in shape or names; a group called "all".
    """
    kind, measure = choose(relevance, RELEVANCE, "relevance"), choose(measure, MEASURES, "measure")
    draws = Draws(confidence, n_boot, n_permutations, seed)
    first, second = read_maps(before, "before"), read_maps(after, "after")
    if set(first) != set(second):
        raise ValueError(f"after: maps of {', '.join(map(repr, second))}; before has {', '.join(map(repr, first))}")
    shape = next(iter(first.values())).shape
    if next(iter(second.values())).shape != shape:
        raise ValueError(f"after: shape {next(iter(second.values())).shape}; expected {shape}, as before")
    covered = read_masks(masks, shape)
    members = read_members(group, groups, identity, shape[0])
    if ALL in members.names:
        raise ValueError(f"group: one is called {ALL!r}, which is what the rows of everybody are called; give it another name")
    doubted = untrusted(randomised, threshold, list(first))

    sides = [np.concatenate([region_shares(maps[name], covered, kind) for name in first], axis=1) for maps in (first, second)]
    if measure == "density":
        sides = [side / np.tile(areas(covered, shape[0]), len(first)) for side in sides]
    change = sides[1] - sides[0]
    columns = pd.DataFrame([(name, region) for name in first for region in covered], columns=["method", "region"])
    together = Members(np.zeros_like(members.code), (ALL,), members.person)
    each = [together, members] if len(members.occurring) > 1 else [members]
    tables = []
    for who in each:
        found = estimates(change, who, draws)
        for name, side in zip(("before", "after"), sides, strict=True):
            found[name] = _means(np.where(np.isnan(change), np.nan, side), who)
        tables.append(found.assign(p=zero_test(change, who, draws).ravel()))
    table = labelled(pd.concat(tables, ignore_index=True), columns)
    table = table[["method", "group", "region", "before", "after", "value", "low", "high", "p", "n", "people"]]
    table = judged(table, doubted, confidence)
    gaps = judged(labelled(differences(change, members, draws), columns), doubted, confidence)
    notes = notes_on(table, n_permutations, confidence, randomised is not None) + _too_few(table, confidence)
    return unnamed(
        GroupResult(
            table, gaps, None, pd.DataFrame(change, columns=pd.MultiIndex.from_frame(columns)),
            f"change of the {measure} of {kind} relevance by region", confidence, doubted, tuple(notes),
        )
    )  # fmt: skip


def _too_few(table: pd.DataFrame, confidence: float) -> list[str]:
    """Groups of so few people that no assignment of signs is rare enough for Holm's correction."""
    tested = int(table["p_holm"].notna().sum())
    most = table[table["p_holm"].notna()].groupby("group", sort=False)["people"].max()
    few = most[2.0 ** (1 - most) * tested > 1 - confidence]
    return [f"{name}: {people} people are too few for {tested} hypotheses, whatever they show" for name, people in few.items()]


def _means(values: np.ndarray, members: Members) -> np.ndarray:
    """Means of values (N, K) without NaN, group by group, as one column (groups × K,)."""
    found = []
    for at in members.occurring:
        mine = values[members.code == at]
        known = ~np.isnan(mine)
        found.append(np.where(known, mine, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan))
    return np.concatenate(found)
