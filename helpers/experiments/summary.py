"""What many experiments say together: means over seeds with intervals, and ranks of methods over all problems.

References
----------
Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006: Friedman's test and, as post-hoc test,
Nemenyi's critical difference q_alpha sqrt(k (k + 1) / (6 N)), k methods on N problems.
Benavoli, Corani & Mangili, "Should we really use post-hoc tests based on mean-ranks?", JMLR 17, 2016: such a comparison of two
methods depends on the others that were ranked with them; the paired changes of `over_seeds` do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from helpers.bias.settings import share
from helpers.debiasing.result import VANILLA
from helpers.debiasing.select import HIGHER, LOWER, distance_to_ideal
from helpers.markdown import bullets, table
from helpers.names import choose

PAIR = ("balanced_accuracy", "equalized_odds")


def over_seeds(results: pd.DataFrame, metrics: Sequence[str] = PAIR, confidence: float = 0.95) -> pd.DataFrame:
    """Mean of each metric over the seeds of a data set and bias, and its paired change from the network as it was.

    Parameters
    ----------
    results : from `helpers.experiments.run`
    metrics : columns of it
    confidence : of the intervals

    Returns
    -------
    DataFrame, one row a data set, bias and method: `data, bias, method, seeds` (with numbers), `degenerate` (how many of them
    predict one class), and for each metric `<metric>, _low, _high, _change, _change_low, _change_high`. Intervals are Student's t
    over seeds, cut to [0, 1] for values; NaN below two seeds.
    """
    share(confidence, "confidence")
    rows = []
    for (data, bias), block in results.groupby(["data", "bias"], sort=False):
        before = block[block["method"] == VANILLA].set_index("seed")
        for method, part in block.groupby("method", sort=False):
            part = part.set_index("seed")
            row = {"data": data, "bias": bias, "method": method, "seeds": int(part[list(metrics)].notna().all(axis=1).sum())}
            row["degenerate"] = int(part["degenerate"].fillna(False).astype(bool).sum())
            for metric in metrics:
                row[metric], row[f"{metric}_low"], row[f"{metric}_high"] = _mean(part[metric], confidence, (0.0, 1.0))
                change = part[metric] - before[metric].reindex(part.index) if method != VANILLA else part[metric] * np.nan
                names = (f"{metric}_change", f"{metric}_change_low", f"{metric}_change_high")
                row |= dict(zip(names, _mean(change, confidence), strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def _mean(values: pd.Series, confidence: float, within: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, ...]:
    values = values.dropna().to_numpy(float)
    if not len(values):
        return (math.nan,) * 3
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return mean, max(within[0], mean - half), min(within[1], mean + half)


@dataclass(frozen=True)
class Ranking:
    """Ranks of methods over problems, 1 the best.

    Attributes
    ----------
    table : DataFrame, `method, rank` (the mean), `low, high` (rank -+ half the critical difference): two methods differ by
        Nemenyi's test where these do not overlap. The best first.
    critical_difference : of two mean ranks; NaN below two problems
    p_value : of Friedman's test that all methods are alike; NaN below two problems or three methods
    problems : how many
    by : what was ranked
    notes : what was left out and why
    """

    table: pd.DataFrame
    critical_difference: float
    p_value: float
    problems: int
    by: str
    confidence: float
    notes: tuple[str, ...]


def ranks(results: pd.DataFrame, by: str = "distance", confidence: float = 0.95) -> Ranking:
    """Rank the methods on every problem (data set, bias and seed), and the mean of the ranks with its critical difference.

    Parameters
    ----------
    results : from `helpers.experiments.run`
    by : "distance" (to the ideal point of accuracy 1 and gap 0, in `balanced_accuracy` and `equalized_odds`), or a metric
    confidence : 1 minus the level of the test

    Returns
    -------
    Ranking. A model that predicts one class is ranked last, however small its gap. A method without a value on some problem is
    left out, and a note says so.

    Raises
    ------
    ValueError : no metric of that name; fewer than two methods that were run on all problems.
    """
    share(confidence, "confidence")
    by = choose(by, ["distance", *(name for name in (*HIGHER, *LOWER) if name in results)], "by")
    names = PAIR if by == "distance" else (by,)
    loss = distance_to_ideal(results[list(names)].to_numpy(float), names)
    useless = results["degenerate"].fillna(False).astype(bool).to_numpy()
    loss = np.where(useless & ~np.isnan(loss), np.inf, loss)
    wide = results.assign(loss=loss).pivot(index=["data", "bias", "seed"], columns="method", values="loss")
    wide = wide[list(dict.fromkeys(results["method"]))]
    known = wide.notna().all()
    lacking = wide.isna().sum()
    notes = [f"{name} is left out: no value on {lacking[name]} of {len(wide)} problems" for name in wide if not known[name]]
    wide = wide.loc[:, known]
    k, n = wide.shape[1], len(wide)
    if k < 2:
        raise ValueError("results: fewer than two methods have a value on every problem, so there is nothing to rank")
    each = stats.rankdata(wide.to_numpy(), axis=1)
    mean = each.mean(0)
    p, difference = math.nan, math.nan
    if n > 1:
        q = stats.studentized_range.ppf(confidence, k, np.inf) / math.sqrt(2)
        difference = float(q * math.sqrt(k * (k + 1) / (6 * n)))
        if k > 2 and (each != each[:, :1]).any():
            p = float(stats.friedmanchisquare(*each.T).pvalue)
    else:
        notes.append("one problem: ranks have no critical difference")
    found = pd.DataFrame({"method": list(wide), "rank": mean, "low": mean - difference / 2, "high": mean + difference / 2})
    order = found.sort_values("rank", kind="stable").reset_index(drop=True)
    return Ranking(order, difference, p, n, by, confidence, tuple(notes))


def to_markdown(results: pd.DataFrame, confidence: float = 0.95) -> str:
    """A page about the results: ranks, then means over seeds of every data set and bias."""
    lines = ["# Experiments", ""]
    failed = results[results["error"].notna()]
    try:
        ranking = ranks(results, confidence=confidence)
    except ValueError as error:
        lines += [str(error), ""]
    else:
        shown = ranking.table.assign(rank=[f"{value:.2f}" for value in ranking.table["rank"]])[["method", "rank"]]
        said = [f"Mean rank over {ranking.problems} problems by distance to accuracy 1 and gap 0."]
        if not math.isnan(ranking.critical_difference):
            end = f"less than {ranking.critical_difference:.2f} are not told apart (Nemenyi, {confidence:.0%})."
            said.append(f"Two methods whose ranks differ by {end}")
        if not math.isnan(ranking.p_value):
            said.append(f"That all methods are alike has p = {ranking.p_value:.2g} (Friedman).")
        said += ranking.notes
        lines += ["## Ranks", "", *table(shown), "", *bullets(said), ""]
    summary = over_seeds(results, confidence=confidence)
    for (data, bias), block in summary.groupby(["data", "bias"], sort=False):
        shown = pd.DataFrame({"method": block["method"], "seeds": block["seeds"].astype(str)})
        for metric in PAIR:
            shown[metric] = _texts(block, metric, "{:.3f}")
            shown[f"{metric}, change"] = _texts(block, f"{metric}_change", "{:+.3f}")
        shown["predict one class"] = block["degenerate"].astype(str)
        lines += [f"## {data}, {bias}", "", *table(shown), ""]
    said = f"Means over seeds with {confidence:.0%} intervals of Student's t; changes are paired with the network as it was."
    lines += [said, ""]
    if len(failed):
        what = [f"{row.data} {row.bias} {row.seed} {row.method}: {row.error}" for row in failed.itertuples()]
        lines += ["## Methods that failed", "", *bullets(what), ""]
    return "\n".join(lines)


def _texts(block: pd.DataFrame, name: str, form: str) -> list[str]:
    cells = []
    for value, low, high in block[[name, f"{name}_low", f"{name}_high"]].to_numpy(float):
        interval = "" if low != low else f" [{form.format(low)}, {form.format(high)}]"
        cells.append("–" if value != value else form.format(value) + interval)
    return cells
