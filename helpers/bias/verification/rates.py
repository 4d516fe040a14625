"""False match and false non-match rates of subgroups, curves over all thresholds, and signal detection."""

from __future__ import annotations

import numbers
from collections.abc import Mapping

import numpy as np
import pandas as pd

from helpers.bias.scores import area
from helpers.bias.settings import share, whole
from helpers.bias.verification.intervals import Replicates, limits, over_people, over_twos, sidak, symmetric, weighted_rows
from helpers.bias.verification.pairing import Pairs
from helpers.names import choose

FMR, FNMR = "FMR", "FNMR"
OVERALL = "all pairs"
Threshold = float | Mapping[str, float] | pd.Series | pd.DataFrame


def error_rates(
    pairs: Pairs,
    threshold: Threshold,
    *,
    confidence: float = 0.95,
    simultaneous: bool = True,
    overall: bool = True,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """FMR and FNMR of every subgroup at a threshold, with intervals for other people.

    A pair is accepted as one person if score >= threshold. FMR is the share of impostor pairs that are accepted, FNMR the share
    of genuine pairs that are not.

    Parameters
    ----------
    pairs : Pairs
    threshold : one for all, or one of each subgroup: a mapping or Series from its name, or the table of `threshold_for`
    confidence : level of the intervals
    simultaneous : the intervals of one rate hold for all subgroups together (Šidák's level for each, which is exact where
        subgroups share no person); False: each by itself
    overall : add rows for all pairs together, whose intervals are for themselves alone
    n_boot, seed : replicates of the bootstrap, and the seed of its draws

    Returns
    -------
    DataFrame `group, rate, value, low, high, n, errors, people, interval`: `rate` "FMR" or "FNMR"; `n` pairs, `errors` among them
    that are wrong, `people` in them; `interval` says how the limits were found: "bootstrap" of people, "few people with errors"
    or "independent units" (see `helpers.bias.verification.intervals`). A group without such pairs has a NaN value and n = 0.
    With pairs across subgroups there are rows such as "a × b" too, where they have pairs.

    Raises
    ------
    ValueError : a subgroup has no threshold, a name of `threshold` is unknown, levels or numbers of replicates out of range.

    References
    ----------
    ISO/IEC 19795-1:2021 (FMR and FNMR); Conti & Clémençon, arXiv 2211.07245, 2022.
    """
    share(confidence, "confidence")
    found = resample(pairs, threshold, n_boot=n_boot, seed=seed, overall=overall)
    rows = []
    for k, rate in enumerate((FMR, FNMR)):
        several = sum(rates[k].n > 0 for name, rates in found.items() if name != OVERALL) if simultaneous else 1
        for name, rates in found.items():
            each = rates[k]
            if not each.n and name not in (*pairs.groups, OVERALL):
                continue
            low, high, how = limits(each, confidence if name == OVERALL else sidak(confidence, several))
            rows.append((name, rate, each.value, low, high, each.n, each.errors, each.people, how))
    return pd.DataFrame(rows, columns=["group", "rate", "value", "low", "high", "n", "errors", "people", "interval"])


def resample(
    pairs: Pairs, threshold: Threshold, *, n_boot: int = 2000, seed: int = 0, overall: bool = True
) -> dict[str, tuple[Replicates, Replicates]]:
    """The bootstrap behind `error_rates`: of each cell (and all pairs) FMR and FNMR with their replicates."""
    whole(n_boot, "n_boot", least=100)
    accepted = pairs.score >= thresholds_of(pairs, threshold)[pairs.cell]
    rng = np.random.default_rng(seed)
    found = {}
    everything = np.ones(len(pairs), dtype=bool)
    for name, mine in [*((pairs.cell_names[code], pairs.cell == code) for code in pairs.cells), (OVERALL, everything)]:
        if name == OVERALL and not overall:
            continue
        impostor, genuine = mine & ~pairs.same, mine & pairs.same
        owner = pairs.person1[genuine]
        people = len(pairs.people)
        found[name] = (
            over_twos(pairs.person1[impostor], pairs.person2[impostor], accepted[impostor], n_boot, rng),
            over_people(
                np.bincount(owner, ~accepted[genuine], people), np.bincount(owner, minlength=people), n_boot, rng
            ),
        )
    return found


def thresholds_of(pairs: Pairs, threshold: Threshold) -> np.ndarray:
    """The threshold of every cell, float64 in the order of `pairs.cell_names`; NaN for cells without pairs."""
    names = [pairs.cell_names[code] for code in pairs.cells]
    values = np.full(len(pairs.cell_names), np.nan)
    if isinstance(threshold, pd.DataFrame):
        several = {"fmr", "threshold", "group"} - set(threshold.columns)
        if several or threshold["fmr"].nunique() > 1:
            raise ValueError("threshold: a table as of `threshold_for` for one FMR expected; select the rows of one `fmr`")
        threshold = dict(zip(threshold["group"], threshold["threshold"], strict=True))
        if set(threshold) == {OVERALL}:
            threshold = float(threshold[OVERALL])
    if isinstance(threshold, Mapping | pd.Series):
        given = {choose(name, names, "threshold"): float(value) for name, value in dict(threshold).items()}
        for code, name in zip(pairs.cells, names, strict=True):
            values[code] = given.get(name, np.nan)
        lacking = [name for name in names if np.isnan(values[pairs.cell_names.index(name)])]
        used = {pairs.cell_names[code] for code in np.unique(pairs.cell)}
        if used & set(lacking):
            raise ValueError(f"threshold: none for {', '.join(name for name in lacking if name in used)}")
        return values
    if not isinstance(threshold, numbers.Real) or np.isnan(threshold):
        raise ValueError(
            f"threshold: {threshold!r} given; a number on the scale of the scores, or one of each subgroup by its name, expected"
        )
    values[list(pairs.cells)] = threshold
    return values


def curves(pairs: Pairs, points: int | None = 400) -> pd.DataFrame:
    """DET and ROC curves of every subgroup: FMR, FNMR and TAR = 1 - FNMR at thresholds from strict to lenient.

    Parameters
    ----------
    pairs : Pairs
    points : about how many thresholds of each kind are kept for a curve, denser where errors are rare; None: every score, at
        which one of the rates steps. The rates at each threshold are exact either way.

    Returns
    -------
    DataFrame `group, threshold, fmr, fnmr, tar, n_impostor, n_genuine`; subgroups that lack one kind of pairs are left out
    """
    if points is not None:
        whole(points, "points", least=2)
    tables = []
    for code in pairs.cells:
        name = pairs.cell_names[code]
        impostor, genuine = pairs.scores(name, False), pairs.scores(name, True)
        if not len(impostor) or not len(genuine):
            continue
        threshold = np.unique(np.concatenate([_spread(impostor, points), _spread(genuine, points)]))
        threshold = np.append(threshold, np.nextafter(max(impostor[-1], genuine[-1]), np.inf))[::-1]
        fmr, fnmr = rates_at(impostor, genuine, threshold)
        tables.append(
            pd.DataFrame({"group": name, "threshold": threshold, "fmr": fmr, "fnmr": fnmr, "tar": 1 - fnmr,
                          "n_impostor": len(impostor), "n_genuine": len(genuine)})
        )  # fmt: skip
    if not tables:
        raise ValueError("pairs: no subgroup has both genuine and impostor pairs, so there is no curve")
    return pd.concat(tables, ignore_index=True)


def rates_at(impostor: np.ndarray, genuine: np.ndarray, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FMR and FNMR at each threshold, from ascending scores."""
    fmr = 1 - np.searchsorted(impostor, threshold, side="left") / len(impostor)
    return fmr, np.searchsorted(genuine, threshold, side="left") / len(genuine)


def signal_detection(
    pairs: Pairs, *, confidence: float = 0.95, simultaneous: bool = True, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How well the scores of every subgroup tell genuine pairs from impostors, whatever the threshold.

        d' = (mean genuine - mean impostor) / sqrt((variance genuine + variance impostor) / 2)

    Parameters
    ----------
    pairs : Pairs
    confidence, simultaneous, seed : as in `error_rates`
    n_boot : replicates of the bootstrap of people, of which the recentred percentiles are the limits

    Returns
    -------
    DataFrame `group, value, low, high, n, people, genuine_mean, genuine_sd, impostor_mean, impostor_sd, auc, eer,
    eer_threshold`: `value` is d'; `n` pairs; `auc` P(genuine > impostor) + half the ties; `eer` the mean of FMR and FNMR at the
    score where they differ least. NaN where a subgroup lacks one kind of pairs, and limits also with fewer than 3 people.

    References
    ----------
    Green & Swets, "Signal Detection Theory and Psychophysics", 1966; Daugman, "Biometric decision landscapes", 2000 (d').
    """
    level = share(confidence, "confidence")
    whole(n_boot, "n_boot", least=100)
    each = sidak(level, len(pairs.cells)) if simultaneous else level
    rng = np.random.default_rng(seed)
    rows = []
    for code in pairs.cells:
        name = pairs.cell_names[code]
        mine = pairs.select(pairs.cell == code)
        value, low, high, people = _decidability(mine, each, n_boot, rng)
        row = {"group": name, "value": value, "low": low, "high": high, "n": len(mine), "people": people}
        impostor, genuine = mine.score[~mine.same], mine.score[mine.same]
        for kind, scores in (("genuine", genuine), ("impostor", impostor)):
            row[f"{kind}_mean"] = scores.mean() if len(scores) else np.nan
            row[f"{kind}_sd"] = scores.std() if len(scores) else np.nan
        row["auc"] = area(mine.score, mine.same)
        row["eer"], row["eer_threshold"] = _equal_errors(np.sort(impostor), np.sort(genuine))
        rows.append(row)
    return pd.DataFrame(rows)


def _decidability(
    mine: Pairs, confidence: float, n_boot: int, rng: np.random.Generator
) -> tuple[float, float, float, int]:
    """d' of one cell with its limits, from the sums of 1, score and score^2 over the pairs of each two persons."""
    met, both = np.unique(np.concatenate([mine.person1, mine.person2]), return_inverse=True)
    first, second = both[: len(mine)], both[len(mine) :]
    genuine, people = mine.same, len(met)
    if not genuine.any() or genuine.all():
        return np.nan, np.nan, np.nan, people
    powers = [np.ones(len(mine)), mine.score, mine.score**2]
    own = [np.bincount(first[genuine], power[genuine], people) for power in powers]
    twos = [symmetric(first[~genuine], second[~genuine], power[~genuine], people) for power in powers]

    def measure(genuine_sums: list[np.ndarray], impostor_sums: list[np.ndarray]) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            means, variances = [], []
            for count, total, squares in (genuine_sums, impostor_sums):
                means.append(total / count)
                variances.append(squares / count - (total / count) ** 2)
            return (means[0] - means[1]) / np.sqrt((variances[0] + variances[1]) / 2)

    # Sums over the whole symmetric matrices count every impostor pair twice, which cancels in means and variances.
    value = float(measure([each.sum() for each in own], [each.sum() for each in twos]))
    if people < 3:
        return value, np.nan, np.nan, people
    weight = rng.multinomial(people, np.full(people, 1 / people), size=n_boot).astype(np.float64)
    replicates = measure([weight @ each for each in own], [(weight * weighted_rows(each, weight)).sum(1) for each in twos])
    replicates = replicates[np.isfinite(replicates)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail]) - replicates.mean() + value
    return value, float(low), float(high), people


def _equal_errors(impostor: np.ndarray, genuine: np.ndarray) -> tuple[float, float]:
    if not len(impostor) or not len(genuine):
        return np.nan, np.nan
    threshold = np.unique(np.concatenate([impostor, genuine]))
    fmr, fnmr = rates_at(impostor, genuine, threshold)
    best = np.argmin(np.abs(fmr - fnmr))
    return float(fmr[best] + fnmr[best]) / 2, float(threshold[best])


def _spread(scores: np.ndarray, points: int | None) -> np.ndarray:
    """Some of the ascending scores: ranks in geometric steps from both ends."""
    if points is None or len(scores) <= points:
        return scores
    ranks = np.unique(np.geomspace(1, len(scores), points // 2).astype(int)) - 1
    return scores[np.unique(np.concatenate([ranks, len(scores) - 1 - ranks]))]
