"""`audit`: group statistics and their gaps, with intervals, from labels and predictions or from a table of counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.bias import uncertainty
from helpers.bias.counts import Counts, count
from helpers.bias.crossing import read_crossed
from helpers.bias.estimates import Estimate, estimate, occupied
from helpers.bias.gaps import NAMED, Gap, gap, largest, named_parts
from helpers.bias.inputs import read_labels, read_positive, same_length
from helpers.bias.result import Audit
from helpers.bias.scores import read_scores, score_estimates
from helpers.bias.settings import share, whole
from helpers.bias.statistics import STATISTICS, Statistic
from helpers.names import choose

SMALL = 50  # values on fewer images are flagged: below it an interval is too wide for most conclusions
OF_SCORES = ("mean_score", "roc_auc")
NUMBERS = ("difference", "difference_low", "difference_high", "ratio", "ratio_low", "ratio_high")


def audit(
    y_true: Any,
    y_pred: Any,
    group: Any,
    *,
    y_score: Any = None,
    positive: Any = 1,
    statistics: str | Sequence[str] | Mapping[str, Callable] = "all",
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    small: int = SMALL,
) -> Audit:
    """Group statistics and their gaps, with intervals.

    The rows are counted once by group, label and prediction; everything but the statistics of `y_score` comes from
    that table. A value with an empty denominator is NaN with `n = 0`, its gap leaves the group out, and a note says so.

    Parameters
    ----------
    y_true, y_pred : (N,) labels and hard predictions: whole numbers, booleans, strings or categories, without missing
        values. Two classes make a binary audit; with more, every class is held against the rest, and macro averages
        (plain means over classes) are added. A class that is only ever predicted, or never, counts as a class.
    group : (N,) whole numbers, booleans, strings or categories, or a DataFrame whose columns are crossed ("female,
        glasses"); only groups that exist are reported, the others are listed in `Audit.empty`.
    y_score : probability of the positive class, (N,), or of every class, (N, C); adds the statistics `mean_score` and
        `roc_auc`
    positive : the positive class of a binary audit, by label value or by name
    statistics : "all", or names among `STATISTICS` and `NAMED` (a named gap brings its statistics), or a mapping of
        names to statistics of your own, called `statistic(pred, sens, label)` on float64 tensors
    confidence : level of all intervals, in (0, 1)
    n_boot : bootstrap replicates for statistics without a closed form (F-scores with beta other than 1, your own); the
        named statistics have one and need none
    seed : of the bootstrap
    groups, classes : names that integer codes stand for, such as `FaceDataset.groups` and `.classes`
    small : values on fewer images than this are flagged

    Returns
    -------
    Audit

    Raises
    ------
    ValueError : columns of different length, empty, missing or unknown labels, a single class that `classes` does not
        complete, an unknown `positive` or statistic, scores outside [0, 1]; the argument is named.

    Notes
    -----
    Definitions are those of scikit-learn and Fairlearn; `helpers.bias.statistics` has the formulas and
    `helpers.bias.uncertainty` the intervals. Demographic parity is the gap of the selection rate, equal opportunity that
    of the true positive rate, accuracy parity that of accuracy, predictive parity that of the positive predictive
    value, equalized odds the larger of the gaps of the true and the false positive rate (Fairlearn's `worst_case`);
    ratios take the smaller one. With three classes or more a named gap is given for every class, and for `all` as the
    largest over classes (accuracy parity: the gap of the share of right predictions).

    Images are taken as independent. Where several show one person these intervals are too narrow: `helpers.bias.rates` counts
    people.

    One group alone has values and no gap (NaN).

    Examples
    --------
    >>> result = audit([1, 1, 0, 0] * 50, [1, 0, 0, 0] * 50, ["a", "a", "a", "b"] * 50)
    >>> result.value("true_positive_rate", "a"), result.gap("demographic_parity")
    (0.5, 0.3333333333333333)
    """
    true, pred, values, names = read_labels(y_true, y_pred, classes)
    code = read_positive(positive, values, names)
    wanted = wanted_statistics(statistics, with_scores=y_score is not None)
    codes, levels, attributes = read_crossed(group, groups)
    same_length(len(true), group=len(codes))
    scores = None if y_score is None else read_scores(y_score, len(true), len(names))

    counts = count(true, pred, codes, levels, names)
    extra: list[Estimate] = []
    if scores is not None:
        # Only groups that exist are reported, so codes move up over the empty ones.
        present = counts.n > 0
        codes = (np.cumsum(present) - 1)[codes]
        columns = [(code, scores, "")] if code is not None else [(k, scores[:, k], names[k]) for k in range(len(names))]
        for k, column, label in columns:
            extra += score_estimates(true == k, column, codes, int(present.sum()), label)
    return assemble(counts, wanted, code, extra, confidence, n_boot, seed, small, attributes)


def audit_counts(
    counts: Counts,
    *,
    positive: Any = 1,
    statistics: str | Sequence[str] | Mapping[str, Callable] = "all",
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    small: int = SMALL,
    attributes: Mapping[str, Sequence[str]] | None = None,
) -> Audit:
    """`audit` from a table that has been counted already (streamed, merged, or sent by other processes).

    Parameters
    ----------
    counts : Counts with at least two classes and one image
    positive : code or name of the positive class of a binary table
    statistics, confidence, n_boot, seed, small : as in `audit`; statistics of scores need the rows
    attributes : levels of each crossed attribute by its name, if the groups are all their combinations in the order of
        `itertools.product`; adds the margins

    Raises
    ------
    ValueError : nothing was counted, fewer than two classes, unknown `positive` or statistic, `attributes` that do not
        multiply to the number of groups.
    """
    if len(counts.classes) < 2:
        raise ValueError(f"counts: at least two classes expected, {len(counts.classes)} given")
    if not counts.table.sum():
        raise ValueError("counts: empty; an audit needs at least one row")
    code = read_positive(positive, tuple(range(len(counts.classes))), counts.classes)
    wanted = wanted_statistics(statistics, with_scores=False)
    return assemble(counts, wanted, code, (), confidence, n_boot, seed, small, _levels(counts, attributes))


def assemble(
    counts: Counts,
    wanted: dict[str, Callable | None],
    positive: int | None,
    extra: Iterable[Estimate],
    confidence: float,
    n_boot: int,
    seed: int,
    small: int = SMALL,
    levels: pd.DataFrame | None = None,
) -> Audit:
    """The `Audit` of a table; `extra` are estimates of scores, `levels` those of crossed attributes by group."""
    share(confidence, "confidence")
    whole(n_boot, "n_boot")
    whole(small, "small", least=0)
    if levels is not None:
        levels = levels[counts.n > 0].reset_index(drop=True)
    empty = tuple(name for name, n in zip(counts.groups, counts.n, strict=True) if n == 0)
    counts = counts.existing()
    own = {name: statistic for name, statistic in wanted.items() if statistic is not None}
    estimates = [
        *estimate(occupied(counts), counts.classes, own, positive, n_boot, seed),
        *(each for each in extra if each.statistic in wanted),
    ]
    by_group, overall = _frames(estimates, counts.groups, confidence, small)
    gaps = _gaps(estimates, counts, [name for name in wanted if name in NAMED], confidence, positive is None)
    if positive is not None:
        by_group, overall, gaps = (table.drop(columns="class") for table in (by_group, overall, gaps))
    return Audit(
        by_group=by_group,
        gaps=gaps,
        overall=overall,
        counts=counts,
        levels=levels,
        statistics=wanted,
        confidence=confidence,
        n_boot=n_boot,
        seed=seed,
        small=small,
        positive=None if positive is None else counts.classes[positive],
        empty=empty,
        notes=tuple(_notes(by_group, gaps, counts, empty, small)),
        method=(
            f"{confidence:.0%} intervals. Rates: Wilson's score interval; means of rates: MOVER; statistics without a "
            f"closed form: {n_boot} multinomial bootstrap replicates of the table. Gaps: MOVER over all pairs of "
            "groups, the lower limit widened for having picked the extreme pair."
        ),
    )


def _levels(counts: Counts, attributes: Mapping[str, Sequence[str]] | None) -> pd.DataFrame | None:
    if attributes is None or len(attributes) < 2:
        return None
    levels = pd.MultiIndex.from_product(attributes.values(), names=attributes).to_frame(index=False)
    if len(levels) != len(counts.groups):
        raise ValueError(
            f"attributes: {len(levels)} combinations of {', '.join(map(str, attributes))} do not fit the "
            f"{len(counts.groups)} groups of the table"
        )
    return levels.astype(str)


def wanted_statistics(
    statistics: str | Sequence[str] | Mapping[str, Callable], *, with_scores: bool
) -> dict[str, Callable | None]:
    """Names asked for, in order; None stands for what is no statistic of the table (named gaps, scores)."""
    if isinstance(statistics, Statistic) or not isinstance(statistics, Iterable):
        raise ValueError(
            f'statistics: {type(statistics).__name__} given; "all", names, or a mapping of names to statistics such as '
            '{"f2": FScore(2)} expected'
        )
    if not isinstance(statistics, str | Mapping):
        statistics = list(statistics)
    if not len(statistics):
        raise ValueError("statistics: none asked for")
    if isinstance(statistics, Mapping):
        for name, statistic in statistics.items():
            if name in NAMED or name in OF_SCORES:
                raise ValueError(f"statistics: {name!r} has a fixed meaning; call yours something else")
            if isinstance(statistic, type) or not callable(statistic):
                raise ValueError(f"statistics: {name!r} is {statistic!r}, which cannot be called with predictions")
        return {str(name): statistic for name, statistic in statistics.items()}
    scores = OF_SCORES if with_scores else ()
    if isinstance(statistics, str):
        statistics = [*STATISTICS, *scores, *NAMED] if statistics == "all" else [statistics]
    wanted: dict[str, Callable | None] = {}
    for name in statistics:
        if name in OF_SCORES and not with_scores:
            raise ValueError(f"statistics: {name!r} needs `y_score`")
        name = choose(name, [*STATISTICS, *NAMED, *scores], "statistics")
        wanted |= {base: STATISTICS[base] for base in NAMED.get(name, ())}
        wanted[name] = STATISTICS.get(name)
    return wanted


def _frames(
    estimates: list[Estimate], groups: tuple[str, ...], confidence: float, small: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    z = uncertainty.critical(confidence)
    low, high = (np.array(limits) for limits in zip(*(each.limits(z) for each in estimates), strict=True))
    value, n = np.array([each.values for each in estimates]), np.array([each.n for each in estimates])
    keys = {
        "statistic": [each.statistic for each in estimates],
        "class": [each.label for each in estimates],
    }

    def table(columns: slice, names: Sequence[str]) -> pd.DataFrame:
        numbers = {
            name: array[:, columns].T.ravel()  # group by group, the statistics in order within each
            for name, array in (("value", value), ("low", low), ("high", high), ("n", n))
        }
        repeated = {key: np.tile(np.array(column, dtype=object), len(names)) for key, column in keys.items()}
        group = np.repeat(np.array(names, dtype=object), len(estimates))
        return pd.DataFrame({"group": group, **repeated, **numbers})

    by_group = table(slice(0, -1), groups)
    return by_group.assign(small=by_group["n"] < small), table(slice(-1, None), ["all"]).drop(columns="group")


def _gaps(
    estimates: list[Estimate], counts: Counts, named: list[str], confidence: float, several: bool
) -> pd.DataFrame:
    rows = [_gap_row(each.statistic, each.label, gap(each, counts.groups, confidence)) for each in estimates]
    of = {(each.statistic, each.label): each for each in estimates}
    for name in named:
        for label in [*counts.classes, "all"] if several else [""]:
            parts = [of[part] for part in named_parts(name, label, counts.classes)]
            found = largest(gap(part, counts.groups, confidence, len(parts)) for part in parts)
            rows.append(_gap_row(name, label, found))
    return pd.DataFrame(rows, columns=["statistic", "class", *NUMBERS, "worst", "best"])


def _gap_row(statistic: str, label: str, found: Gap) -> tuple:
    return (statistic, label, *found.difference, *found.ratio, found.worst, found.best)


def _notes(
    by_group: pd.DataFrame, gaps: pd.DataFrame, counts: Counts, empty: tuple[str, ...], fewest: int
) -> Iterable[str]:
    if empty:
        yield f"No image belongs to: {'; '.join(empty)}."
    if len(counts.groups) == 1:
        yield f"There is one group only ({counts.groups[0]}), so there are values and no gaps."
    unlabelled = counts.table.sum((0, 2)) == 0
    if unlabelled.any():
        names = [name for name, absent in zip(counts.classes, unlabelled, strict=True) if absent]
        yield f"No image is labelled {' or '.join(names)}, so what conditions on that label is undefined."
    undefined = by_group[by_group["value"].isna()]
    for group, rows in undefined.groupby("group", sort=False):
        names = ", ".join(dict.fromkeys(_full_name(row) for _, row in rows.iterrows()))
        left_out = "" if len(counts.groups) == 1 else " and left out of the gaps"
        yield f"{group}: undefined for want of images in the denominator{left_out}: {names}."
    unknown = gaps[gaps["difference"].isna()]
    if len(unknown) and len(counts.groups) > 1:
        names = ", ".join(_full_name(row) for _, row in unknown.iterrows())
        yield f"Fewer than two groups have a value, so there is no gap: {names}."
    small = by_group[by_group["small"] & by_group["value"].notna()]
    if len(small):
        least = small.loc[small["n"].idxmin()]
        rest = "rests" if len(small) == 1 else "rest"
        yield (
            f"{len(small)} of {len(by_group)} values {rest} on fewer than {fewest} images; the smallest denominator is "
            f"{least['n']} ({least['group']}, {_full_name(least)})."
        )


def _full_name(row: pd.Series) -> str:
    label = row.get("class")
    return f"{row['statistic']} ({label})" if label else str(row["statistic"])
