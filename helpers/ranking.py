"""From scores of pictures to ranks of methods, with intervals of both.

Intervals resample people, and where there are several trainings, networks too: crossed, since each picture is explained on each
network (Owen 2007). Of a method that found all causes, or none, `found` has Wilson's interval for as many people, since no sample
of them could show a miss. The interval of a rank is the range of the rank over these samples. All methods have the same samples.

References
----------
Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from helpers.attribution.evaluate import interval

VALUES = ("found", "auc", "lift", "relevance_mass", "relevance_rank", "pointing_game", "silent")  # of `helpers.finding.scores`


def ranked(
    per_image: pd.DataFrame, problems: list[str], passes: Mapping[str, float], confidence: float, n_boot: int, seed: int
) -> pd.DataFrame:
    """The table of a leaderboard from its scores; see `Leaderboard`."""
    names = list(dict.fromkeys(per_image["method"]))
    kind = per_image.drop_duplicates("method").set_index("method")["kind"]
    wide = per_image.pivot(index=["problem", "seed", "image"], columns="method", values=[*VALUES, "leaning"])
    units = wide.loc[problems[0]].index.to_frame(index=False)  # (seed, image), the same for each problem and method
    cube = {name: np.stack([wide.loc[problem, name][names].to_numpy() for problem in problems]) for name in VALUES}
    pair = [problem for problem in problems if per_image.loc[per_image["problem"] == problem, "leaning"].notna().any()]
    moved = np.full((1, len(units), len(names)), np.nan)
    if len(pair) == 2:
        first, second = (wide.loc[problem, "leaning"][names].to_numpy() for problem in pair)
        moved = (first - second)[None]
    people = per_image.drop_duplicates("image").set_index("image")["person"]
    person = pd.factorize(people.loc[units["image"]])[0]
    weights = resampled(units, person, n_boot, seed)
    equal = np.ones((1, len(units)))

    def mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(problems, units, methods), (draws, units) -> (draws, methods): by problem, then over the problems."""
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            each = (weight @ np.where(known, values, 0)) / (weight @ known.astype(float))
        return each.mean(0)

    table = pd.DataFrame({"method": names, "kind": kind.loc[names].to_numpy()})
    tail = [(1 - confidence) / 2, (1 + confidence) / 2]
    draws = {"found": mean(cube["found"], weights), "auc": mean(cube["auc"], weights), "discrimination": mean(moved, weights)}
    for name, values in (("found", cube["found"]), ("auc", cube["auc"]), ("discrimination", moved)):
        table[name] = mean(values, equal)[0]
        table[f"{name}_low"], table[f"{name}_high"] = np.quantile(draws[name], tail, axis=0)
    for at, problem in enumerate(problems):
        table[f"found_{problem}"] = mean(cube["found"][at : at + 1], equal)[0]
    for name in VALUES[2:]:
        table[name] = mean(cube[name], equal)[0]
    table["passes"] = [passes.get(name, np.nan) for name in names]
    for name in ("cpu_seconds", "seconds"):
        table[name] = per_image.groupby("method")[name].mean().reindex(names).to_numpy() if name in per_image else np.nan
    real = (table["kind"] == "method").to_numpy()
    for at in np.flatnonzero(real & table["found"].isin((0, 1)).to_numpy()):
        known = np.full(person.max() + 1, table.loc[at, "found"])
        table.loc[at, ["found_low", "found_high"]] = interval(known, confidence, seed, n_boot)
    ranks = places(draws["found"][:, real], draws["auc"][:, real])
    table.loc[real, "rank"] = places(table["found"].to_numpy()[None, real], table["auc"].to_numpy()[None, real])[0]
    table.loc[real, "rank_low"], table.loc[real, "rank_high"] = np.quantile(ranks, tail, axis=0, method="nearest")
    order = table.assign(real=~real, place=np.where(real, table["rank"], -table["found"])).sort_values(
        ["real", "place"], kind="stable"
    )
    front = ["rank", "rank_low", "rank_high", "method", "kind", "found", "found_low", "found_high"]
    front += [f"found_{problem}" for problem in problems]
    return order[[*front, *(name for name in table if name not in front)]].reset_index(drop=True)


def resampled(units: pd.DataFrame, person: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """How often each (seed, picture) is in each bootstrap sample: (n_boot, units), the people's count times the network's."""
    rng = np.random.default_rng(seed)
    people, network = person.max() + 1, pd.factorize(units["seed"])[0]
    networks = network.max() + 1
    count = rng.multinomial(people, np.full(people, 1 / people), n_boot)[:, person].astype(float)
    if networks > 1:
        count *= rng.multinomial(networks, np.full(networks, 1 / networks), n_boot)[:, network]
    return count


def places(found: np.ndarray, auc: np.ndarray) -> np.ndarray:
    """Rank of each method, 1 the best, of (draws, methods): by found, ties by auc; alike in both, they share the better rank."""
    key = found.round(8) + 1e-6 * auc.round(4)  # two values of found differ by far more than the second term
    return rankdata(-key, axis=1, method="min")
