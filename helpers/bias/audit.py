"""`audit`: group statistics and their gaps, with intervals, from labels and predictions or from a table of counts."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.bias import uncertainty
from helpers.bias.counts import Counts, count
from helpers.bias.estimates import Estimate, estimate
from helpers.bias.gaps import NAMED, Gap, gap, largest
from helpers.bias.inputs import read_groups, read_labels, read_positive, same_length
from helpers.bias.scores import read_scores, score_estimates
from helpers.bias.statistics import STATISTICS
from helpers.names import choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALL = 50  # values on fewer images are flagged: below it an interval is too wide for most conclusions
OF_SCORES = ("mean_score", "roc_auc")
NUMBERS = ("difference", "difference_low", "difference_high", "ratio", "ratio_low", "ratio_high")


@dataclass(frozen=True)
class Audit:
    """Values, intervals and gaps of one set of predictions.

    Attributes
    ----------
    by_group : DataFrame, one row a group and statistic: `group, statistic[, class], value, low, high, n, small`.
        `n` counts the images in the denominator (of a mean: of the part that has fewest); `small` says n < 50.
    gaps : DataFrame, one row a statistic and named gap: `statistic[, class], difference, difference_low,
        difference_high, ratio, ratio_low, ratio_high, worst, best`.
    overall : DataFrame, all rows together: `statistic[, class], value, low, high, n`.
    counts : the table behind all of it.
    confidence : level of the intervals.  n_boot : replicates where an interval needs them.
    positive : name of the positive class; None with three classes or more.
    empty : groups that no image belongs to (crossed attributes, unused categories).
    notes : sentences on what is undefined, small or left out.
    method : how the intervals were made.

    The column `class` is there with three classes or more only: a class's name (against the rest), `macro` (the plain
    mean over classes) or `all`.
    """

    by_group: pd.DataFrame
    gaps: pd.DataFrame
    overall: pd.DataFrame
    counts: Counts
    confidence: float
    n_boot: int
    positive: str | None
    empty: tuple[str, ...]
    notes: tuple[str, ...]
    method: str

    def value(self, statistic: str, group: str | None = None, label: str | None = None) -> float:
        """Value of a statistic for a group (None: all rows together).

        `label` names the class with three classes or more; by default it is `all`, else `macro`.

        Raises
        ------
        ValueError : unknown statistic, group or class.
        """
        return float(self._row(statistic, group, label)["value"])

    def interval(self, statistic: str, group: str | None = None, label: str | None = None) -> tuple[float, float]:
        """(low, high) of `value`."""
        row = self._row(statistic, group, label)
        return float(row["low"]), float(row["high"])

    def width(self, statistic: str, group: str | None = None, label: str | None = None) -> float:
        """Width of `interval`: how much the sample leaves open."""
        low, high = self.interval(statistic, group, label)
        return high - low

    def gap(self, name: str, label: str | None = None) -> float:
        """Difference between the highest and the lowest group, of a statistic or a named gap."""
        return float(_pick(self.gaps, name, label)["difference"])

    def gap_interval(self, name: str, label: str | None = None) -> tuple[float, float]:
        """(low, high) of `gap`."""
        row = _pick(self.gaps, name, label)
        return float(row["difference_low"]), float(row["difference_high"])

    def to_markdown(self) -> str:
        """Both tables (statistics by group; gaps) and the notes as Markdown."""
        parts = [_markdown(self._wide()), _markdown(self._gap_table())]
        notes = "\n".join(f"- {note}" for note in (*self.notes, self.method))
        return "\n\n".join([*parts, notes]) + "\n"

    def to_html(self) -> str:
        """Both tables and the notes as an HTML fragment; names are escaped."""
        tables = [
            table.to_html(index=False, border=0, classes="audit", na_rep="undefined")
            for table in (self._wide(), self._gap_table())
        ]
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in (*self.notes, self.method))
        return "\n".join(['<div class="audit">', *tables, f'<ul class="notes">{notes}</ul>', "</div>"])

    _repr_html_ = to_html

    def plot(self, statistic: str | None = None, label: str | None = None) -> Axes:
        """Points and intervals of every gap, or of one statistic by group. Returns the Axes."""
        from helpers.plots import bias  # here, so that an audit does not load matplotlib

        if statistic is None:
            return bias.gaps(self.gaps, label=label, confidence=self.confidence)
        label = self._label(self.by_group, statistic, label)
        return bias.by_group(
            self.by_group, statistic, overall=self.overall, label=label, confidence=self.confidence
        )

    def _row(self, statistic: str, group: str | None, label: str | None) -> pd.Series:
        if group is None:
            return _pick(self.overall, statistic, label)
        group = choose(str(group), self.counts.groups, "group")
        return _pick(self.by_group[self.by_group["group"] == group], statistic, label)

    @staticmethod
    def _label(table: pd.DataFrame, statistic: str, label: str | None) -> str | None:
        return _pick(table, statistic, label).get("class")

    def _wide(self) -> pd.DataFrame:
        """Statistics down, groups across, cells as `value [low, high]`; group sizes in the heading."""
        keys = ["statistic", "class"] if "class" in self.overall else ["statistic"]
        table = self.overall[keys].copy()
        table["all rows" if "class" not in keys else "all groups"] = _cells(self.overall)
        for group, n in zip(self.counts.groups, self.counts.n, strict=True):
            rows = self.by_group[self.by_group["group"] == group]
            table[f"{group} (n = {n})"] = _cells(rows)
        return table

    def _gap_table(self) -> pd.DataFrame:
        keys = ["statistic", "class"] if "class" in self.gaps else ["statistic"]
        table = self.gaps[keys].rename(columns={"statistic": "gap"})
        for kind in ("difference", "ratio"):
            columns = {kind: "value", f"{kind}_low": "low", f"{kind}_high": "high"}
            table[kind] = _cells(self.gaps.rename(columns=columns))
        return table.assign(worst=self.gaps["worst"], best=self.gaps["best"])


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

    One group alone has values and no gap (NaN).

    Examples
    --------
    >>> result = audit([1, 1, 0, 0] * 50, [1, 0, 0, 0] * 50, ["a", "a", "a", "b"] * 50)
    >>> result.value("true_positive_rate", "a"), result.gap("demographic_parity")
    (0.5, 0.3333333333333333)
    """
    true, pred, values, names = read_labels(y_true, y_pred, classes)
    code = read_positive(positive, values, names)
    wanted = _wanted(statistics, with_scores=y_score is not None)
    codes, levels = read_groups(group, groups)
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
    return _assemble(counts, wanted, code, extra, confidence, n_boot, seed)


def audit_counts(
    counts: Counts,
    *,
    positive: Any = 1,
    statistics: str | Sequence[str] | Mapping[str, Callable] = "all",
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> Audit:
    """`audit` from a table that has been counted already (streamed, merged, or sent by other processes).

    Parameters
    ----------
    counts : Counts with at least two classes and one image
    positive : code or name of the positive class of a binary table
    statistics, confidence, n_boot, seed : as in `audit`; statistics of scores need the rows

    Raises
    ------
    ValueError : nothing was counted, fewer than two classes, unknown `positive` or statistic.
    """
    if len(counts.classes) < 2:
        raise ValueError(f"counts: at least two classes expected, {len(counts.classes)} given")
    if not counts.table.sum():
        raise ValueError("counts: empty; an audit needs at least one row")
    code = read_positive(positive, tuple(range(len(counts.classes))), counts.classes)
    wanted = _wanted(statistics, with_scores=False)
    return _assemble(counts, wanted, code, [], confidence, n_boot, seed)


def _assemble(
    counts: Counts,
    wanted: dict[str, Callable | None],
    positive: int | None,
    extra: Iterable[Estimate],
    confidence: float,
    n_boot: int,
    seed: int,
) -> Audit:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence!r} is outside (0, 1)")
    if not n_boot >= 1:
        raise ValueError(f"n_boot: {n_boot!r} is not a positive number of replicates")
    empty = tuple(name for name, n in zip(counts.groups, counts.n, strict=True) if n == 0)
    counts = counts.existing()
    own = {name: statistic for name, statistic in wanted.items() if statistic is not None}
    estimates = [*estimate(counts, own, positive, n_boot, seed), *(each for each in extra if each.statistic in wanted)]
    by_group, overall = _frames(estimates, counts.groups, confidence)
    gaps = _gaps(estimates, counts, [name for name in wanted if name in NAMED], confidence, positive is None)
    if positive is not None:
        by_group, overall, gaps = (table.drop(columns="class") for table in (by_group, overall, gaps))
    return Audit(
        by_group=by_group,
        gaps=gaps,
        overall=overall,
        counts=counts,
        confidence=confidence,
        n_boot=n_boot,
        positive=None if positive is None else counts.classes[positive],
        empty=empty,
        notes=tuple(_notes(by_group, gaps, counts, empty)),
        method=(
            f"{confidence:.0%} intervals. Rates: Wilson's score interval; means of rates: MOVER; statistics without a "
            f"closed form: {n_boot} multinomial bootstrap replicates of the table. Gaps: MOVER over all pairs of "
            "groups, the lower limit widened for having picked the extreme pair."
        ),
    )


def _wanted(
    statistics: str | Sequence[str] | Mapping[str, Callable], *, with_scores: bool
) -> dict[str, Callable | None]:
    """Names asked for, in order; None stands for what is no statistic of the table (named gaps, scores)."""
    if isinstance(statistics, Mapping):
        for name, statistic in statistics.items():
            if name in NAMED or name in OF_SCORES:
                raise ValueError(f"statistics: {name!r} has a fixed meaning; call yours something else")
            if not callable(statistic):
                raise ValueError(f"statistics: {name!r} is {statistic!r}, which cannot be called")
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
    if not wanted:
        raise ValueError("statistics: none asked for")
    return wanted


def _frames(
    estimates: list[Estimate], groups: tuple[str, ...], confidence: float
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
    return by_group.assign(small=by_group["n"] < SMALL), table(slice(-1, None), ["all"]).drop(columns="group")


def _gaps(
    estimates: list[Estimate], counts: Counts, named: list[str], confidence: float, several: bool
) -> pd.DataFrame:
    rows = [_gap_row(each.statistic, each.label, gap(each, counts.groups, confidence)) for each in estimates]
    of = {(each.statistic, each.label): each for each in estimates}
    labels = counts.classes if several else ("",)
    for name in named:
        for label in labels:
            parts = [of[base, label] for base in NAMED[name]]
            found = largest(gap(part, counts.groups, confidence, len(parts)) for part in parts)
            rows.append(_gap_row(name, label, found))
        if several:
            whole = [of["accuracy", "all"]] if name == "accuracy_parity" else []
            parts = whole or [of[base, label] for base in NAMED[name] for label in labels]
            found = largest(gap(part, counts.groups, confidence, len(parts)) for part in parts)
            rows.append(_gap_row(name, "all", found))
    return pd.DataFrame(rows, columns=["statistic", "class", *NUMBERS, "worst", "best"])


def _gap_row(statistic: str, label: str, found: Gap) -> tuple:
    return (statistic, label, *found.difference, *found.ratio, found.worst, found.best)


def _notes(
    by_group: pd.DataFrame, gaps: pd.DataFrame, counts: Counts, empty: tuple[str, ...]
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
        yield (
            f"{len(small)} of {len(by_group)} values rest on fewer than {SMALL} images; the smallest denominator is "
            f"{least['n']} ({least['group']}, {_full_name(least)})."
        )


def _full_name(row: pd.Series) -> str:
    label = row.get("class")
    return f"{row['statistic']} ({label})" if label else str(row["statistic"])


def _pick(table: pd.DataFrame, statistic: str, label: str | None) -> pd.Series:
    """The row of a statistic and class; by default the class `all`, else `macro`."""
    statistic = choose(statistic, dict.fromkeys(table["statistic"]), "statistic")
    rows = table[table["statistic"] == statistic]
    if "class" not in rows:
        if label is not None:
            raise ValueError(f"label: {label!r} given, but this audit is binary and has one value a statistic")
        return rows.iloc[0]
    labels = list(rows["class"])
    if label is None:
        summaries = [each for each in ("all", "macro") if each in labels]
        if not summaries:
            raise ValueError(f"label: {statistic} has no summary over classes; name one of {', '.join(labels)}")
        label = summaries[0]
    return rows.iloc[labels.index(choose(str(label), labels, "label"))]


def _cells(rows: pd.DataFrame) -> list[str]:
    def cell(value: float, low: float, high: float) -> str:
        return "undefined" if np.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"

    return [cell(*row) for row in rows[["value", "low", "high"]].itertuples(index=False)]


def _markdown(table: pd.DataFrame) -> str:
    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rows = [line(table.columns), line("---" for _ in table.columns)]
    return "\n".join([*rows, *(line(row) for row in table.itertuples(index=False))])
