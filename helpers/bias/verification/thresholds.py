"""Thresholds for wanted false match rates: one for all, or one of each subgroup, and what each choice does to whom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.bias.columns import read_numbers
from helpers.bias.settings import share
from helpers.bias.uncertainty import mover_mean
from helpers.bias.verification.intervals import limits, sidak
from helpers.bias.verification.pairing import Pairs
from helpers.bias.verification.rates import FMR, OVERALL, error_rates, resample, thresholds_of
from helpers.names import choose

FARS = (0.3, 0.1, 0.01, 0.001, 1e-4)
RULE_OF_30 = 30  # errors for a rate to be within 30 % of the truth with 90 % confidence, if they are independent
ONE, SUBGROUP = "one threshold", "subgroup thresholds"
MEAN = "mean of subgroups"


def threshold_for(
    pairs: Pairs, fmr: float | Sequence[float], by: str = "all", *, too_few: str = "raise"
) -> pd.DataFrame:
    """The smallest thresholds at which no more than a wanted share of impostor pairs is accepted.

    With n impostor scores in descending order s_1 >= s_2 >= ... and k = floor(fmr n), it is the number just above s_(k+1) (the
    next one that a float can hold): accepting score >= threshold accepts at most k impostors. It is the most lenient choice,
    so FNMR is lowest. Ties with s_(k+1) are all rejected, so with ties the FMR reached is below the one wanted. With k >= n
    everything is accepted: -inf.

    Parameters
    ----------
    pairs : Pairs
    fmr : wanted false match rates, in (0, 1]
    by : "all": one threshold from all impostor pairs together; "subgroup": one of each subgroup (and each two subgroups)
    too_few : what to do where there are fewer than 1 / fmr impostor pairs, so that only "none accepted" can be asked for:
        "raise" ValueError, or "nan" for a row without threshold

    Returns
    -------
    DataFrame `group, fmr, threshold, achieved, n, people, smallest, enough`: `achieved` FMR on these same pairs; `smallest` FMR
    that n pairs can support, 1 / n; `enough` whether at least 30 errors are expected, n fmr >= 30: with fewer the threshold is a
    matter of chance. Pairs share people, so 30 errors tell less than 30 independent ones would.

    Raises
    ------
    ValueError : a rate outside (0, 1], an unknown `by`, or too few impostor pairs (with the smallest FMR they support).

    References
    ----------
    Doddington et al., "The NIST speaker recognition evaluation - overview, methodology, systems, results, perspective", Speech
    Communication 2000 (the rule of 30).
    """
    choose(by, ("all", "subgroup"), "by")
    choose(too_few, ("raise", "nan"), "too_few")
    rates = np.atleast_1d(read_numbers(fmr, "fmr"))
    bad = ~((rates > 0) & (rates <= 1))
    if rates.ndim != 1 or not rates.size or bad.any():
        raise ValueError(f"fmr: rates in (0, 1] expected, {fmr!r} given")
    impostor = ~pairs.same
    if by == "all":
        cells = [(OVERALL, impostor)]
    else:
        cells = [(pairs.cell_names[code], impostor & (pairs.cell == code)) for code in pairs.cells]
    rows = []
    for name, mine in cells:
        scores = np.sort(pairs.score[mine])[::-1]
        people = len(np.union1d(pairs.person1[mine], pairs.person2[mine]))
        for rate in rates:
            threshold = _order_statistic(scores, rate)
            achieved = np.mean(scores >= threshold) if not np.isnan(threshold) else np.nan
            smallest = 1 / len(scores) if len(scores) else np.nan
            rows.append((name, rate, threshold, achieved, len(scores), people, smallest,
                         bool(len(scores) * rate >= RULE_OF_30 - 1e-9)))  # fmt: skip
    table = pd.DataFrame(rows, columns=["group", "fmr", "threshold", "achieved", "n", "people", "smallest", "enough"])
    lacking = table[table["threshold"].isna()]
    if len(lacking) and too_few == "raise":
        said = "; ".join(
            f"{row.group!r} has {row.n} impostor pairs" + (f", enough for an FMR of {row.smallest:.2g}" if row.n else "")
            for row in lacking.drop_duplicates("group").itertuples()
        )
        raise ValueError(
            f"fmr: too few impostor pairs for {lacking['fmr'].min():g}: {said}. Ask for a larger FMR, bring more people, or pass "
            'too_few="nan" to leave these out'
        )
    return table


def percent_difference(
    fit: Pairs,
    report: Pairs,
    fmr: float | Sequence[float],
    *,
    too_few: str = "raise",
    confidence: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How far every subgroup's FMR is from the intended one, before and after subgroup thresholds.

        value = (FMR - intended) / intended,    log10_ratio = log10(FMR / intended)

    Thresholds are fitted on `fit` and the rates taken on `report`, whose people are others (`split_people`): on the pairs that it
    was fitted on, a threshold of a subgroup's own meets the intended rate by construction. +2 is three times the intended
    rate, -1 is no false match at all; as a percentage, times 100.

    Parameters
    ----------
    fit, report : Pairs with the same subgroups and no person in common
    fmr : intended false match rates
    too_few : as in `threshold_for`
    confidence, n_boot, seed : as in `error_rates`; the intervals hold for all subgroups together, for thresholds as fitted

    Returns
    -------
    DataFrame `group, fmr, thresholds, threshold, value, low, high, log10_ratio, n, errors, people, interval, enough`:
    `thresholds` is "one threshold" (before) or "subgroup thresholds" (after); `n` impostor pairs in `report`; `enough` as in
    `threshold_for`, for `fit`, and n fmr >= 30 in `report`. `log10_ratio` is -inf without a false match.

    Raises
    ------
    ValueError : the two share people, or have other subgroups; as `threshold_for`.

    References
    ----------
    Robinson et al., "Face Recognition: Too Bias, or Not Too Bias?", CVPR Workshops 2020, figure 2 (there on the same people).
    """
    _apart(fit, report)
    tables = []
    for rate in np.atleast_1d(read_numbers(fmr, "fmr")):
        for scheme, by in ((ONE, "all"), (SUBGROUP, "subgroup")):
            fitted = threshold_for(fit, rate, by, too_few=too_few)
            kept, known = _with_threshold(report, fitted)
            rows = error_rates(kept, known, confidence=confidence, n_boot=n_boot, seed=seed, overall=False)
            rows = rows[rows["rate"] == FMR].drop(columns="rate")
            own = fitted.set_index("group").reindex(rows["group"]) if by == "subgroup" else fitted.iloc[[0] * len(rows)]
            rows.insert(1, "fmr", rate)
            rows.insert(2, "thresholds", scheme)
            rows.insert(3, "threshold", own["threshold"].to_numpy())
            with np.errstate(divide="ignore"):
                log_ratio = np.log10(rows["value"].to_numpy() / rate)
            rows[["value", "low", "high"]] = (rows[["value", "low", "high"]] - rate) / rate
            rows.loc[rows["threshold"].isna(), ["value", "low", "high"]] = np.nan
            rows.insert(7, "log10_ratio", np.where(rows["value"].isna(), np.nan, log_ratio))
            rows["enough"] = own["enough"].eq(True).to_numpy() & (rows["n"].to_numpy() * rate >= RULE_OF_30 - 1e-9)
            tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def tar_at_far(
    pairs: Pairs,
    fars: Sequence[float] = FARS,
    *,
    report: Pairs | None = None,
    too_few: str = "nan",
    confidence: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """True accept rates at wanted false accept rates, with one threshold for all and with subgroup thresholds.

    TAR = 1 - FNMR, FAR = FMR: the names that the paper uses.

    Parameters
    ----------
    pairs : Pairs to fit thresholds on
    fars : wanted rates
    report : pairs of other people to take the rates on; None: on `pairs` itself, as in the paper, which flatters
    too_few, confidence, n_boot, seed : as in `percent_difference`

    Returns
    -------
    DataFrame `group, far, thresholds, threshold, value, low, high, n, people`: `n` genuine pairs, `people` in them; the rows
    "mean of subgroups" are the paper's, their mean with equal weights, its interval from the subgroups' by MOVER (as of
    independent ones). NaN where a threshold is missing.

    References
    ----------
    Robinson et al., CVPR Workshops 2020, table 4.
    """
    if report is not None:
        _apart(pairs, report)
    judged = pairs if report is None else report
    tables = []
    for far in np.atleast_1d(read_numbers(fars, "fars")):
        for scheme, by in ((ONE, "all"), (SUBGROUP, "subgroup")):
            fitted = threshold_for(pairs, far, by, too_few=too_few)
            tables.append(_true_accepts(judged, fitted, far, scheme, share(confidence, "confidence"), n_boot, seed))
    return pd.concat(tables, ignore_index=True)


def _true_accepts(
    pairs: Pairs, fitted: pd.DataFrame, far: float, scheme: str, confidence: float, n_boot: int, seed: int
) -> pd.DataFrame:
    kept, known = _with_threshold(pairs, fitted)
    of = dict(zip(fitted["group"], fitted["threshold"], strict=True))
    found = resample(kept, known, n_boot=n_boot, seed=seed, overall=False)
    found = {name: rates[1] for name, rates in found.items() if name in pairs.groups}
    values = np.array([replicates.value for replicates in found.values()])
    each, alone = (
        np.array([limits(replicates, level)[:2] for replicates in found.values()])
        for level in (sidak(confidence, len(found)), confidence)
    )
    rows = [
        (name, far, scheme, of.get(OVERALL, of.get(name, np.nan)), 1 - value, 1 - high, 1 - low, replicates.n, replicates.people)
        for (name, replicates), value, (low, high) in zip(found.items(), values, each, strict=True)
    ]
    low, high = mover_mean(values[:, None], (alone[:, :1], alone[:, 1:]), np.eye(len(values))[None])
    mean = np.clip(1 - np.array([values.mean(), high[0], low[0]]), 0, 1)
    total = [sum(getattr(replicates, what) for replicates in found.values()) for what in ("n", "people")]
    rows.append((MEAN, far, scheme, of.get(OVERALL, np.nan), *mean, *total))
    return pd.DataFrame(rows, columns=["group", "far", "thresholds", "threshold", "value", "low", "high", "n", "people"])


def _order_statistic(scores: np.ndarray, rate: float) -> float:
    """See `threshold_for`; scores in descending order. NaN if not even one of them may be accepted."""
    # 0.001 * 1000 is 1.0 and 0.07 * 100 is 7.000000000000001, but 0.29 * 100 is 28.999999999999996
    allowed = int(np.floor(rate * len(scores) * (1 + 1e-12) + 1e-9))
    if allowed == 0:
        return np.nan
    if allowed >= len(scores):
        return -np.inf
    return float(np.nextafter(scores[allowed], np.inf))


def _with_threshold(pairs: Pairs, fitted: pd.DataFrame) -> tuple[Pairs, pd.DataFrame]:
    """The pairs of the cells that have a threshold, and these thresholds; the other cells remain, without pairs."""
    known = fitted.dropna(subset="threshold")
    if set(fitted["group"]) == {OVERALL}:
        if known.empty:
            return pairs.select(np.zeros(len(pairs), dtype=bool)), 0.0
        return pairs, known
    codes = [pairs.cell_names.index(name) for name in known["group"]]
    kept = pairs.select(np.isin(pairs.cell, codes))
    names = {kept.cell_names[code] for code in kept.cells}
    known = known[known["group"].isin(names)]
    thresholds_of(kept, known)  # says which cell of the report has pairs and no threshold
    return kept, known


def _apart(fit: Pairs, report: Pairs) -> None:
    if fit.groups != report.groups:
        raise ValueError(f"report: subgroups {', '.join(report.groups)} given, but fit has {', '.join(fit.groups)}")
    seen = [
        {each.people[code] for code in np.union1d(each.person1, each.person2)} for each in (fit, report)
    ]
    shared = sorted(seen[0] & seen[1])
    if shared:
        raise ValueError(
            f"report: shares {len(shared)} people with the pairs that thresholds are fitted on (such as {shared[0]!r}); "
            "use split_people"
        )
