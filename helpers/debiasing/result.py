"""What comes back from `debias`: one result a method, and the table of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from torch import nn

from helpers.bias import Audit, Comparison, compare
from helpers.names import choose

VANILLA = "Vanilla"

ALIASES = {"eo_gap": "equalized_odds", "eoo_gap": "equal_opportunity", "dp_gap": "demographic_parity"}  # DetoxAI's
FRAME = (
    "method",
    "balanced_accuracy",
    "balanced_accuracy_low",
    "balanced_accuracy_high",
    "equalized_odds",
    "equalized_odds_low",
    "equalized_odds_high",
    "seconds",
    "needs_group",
    "degenerate",
    "error",
)
CHANGES = tuple(f"{name}_change{end}" for name in ("balanced_accuracy", "equalized_odds") for end in ("", "_low", "_high"))


def metric_name(name: str, accepted, argument: str = "name") -> str:
    """The accepted name that `name` means, in any case, with spaces or hyphens, or as DetoxAI writes it."""
    plain = str(name).strip().casefold().replace(" ", "_").replace("-", "_")
    return choose(ALIASES.get(plain, plain), accepted, argument)


@dataclass(frozen=True, eq=False)
class Answers:
    """What the model as it was and a corrected one predict for the same images.

    Attributes
    ----------
    y : int64 (N,), targets
    before, after : int64 (N,), predicted classes of the model as it was and of the corrected one
    group : int64 (N,)
    classes : names of the classes.  groups : names of the groups, None if nobody knows them
    confidence : of the intervals
    of : what the model as it was is called
    """

    y: np.ndarray
    before: np.ndarray
    after: np.ndarray
    group: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    confidence: float = 0.95
    of: str = VANILLA

    def compare(self, method: str) -> Comparison:
        """The two, by `helpers.bias.compare`, the second under the name `method`."""
        names = (self.of, method if method != self.of else f"{method}, corrected")
        return compare(
            self.y, self.before, self.after, self.group, groups=self.groups, classes=self.classes,
            confidence=self.confidence, names=names,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class CorrectionResult:
    """A corrected model and how it does, or the reason why there is none.

    Attributes
    ----------
    method : str, key of the method, or "Vanilla" for the model as it was
    model : nn.Module in evaluation mode, or None if the method failed
    metrics : dict name -> float, on the test data, or on the held-out part of `dataloader` if there is none; NaN
        where a statistic is undefined. Gaps have their names (`equalized_odds`), those of single statistics end in
        `_gap`.
    pareto_metrics : tuple of str, the metrics by which methods are compared
    validation : dict name -> float, the same metrics on the held-out part of `dataloader`, by which is chosen
    audit : Audit of the same data as `metrics`, with intervals; None if the method failed
    answers : Answers of the model as it was and of this one to the same data; None for the model as it was, or if the
        method failed
    edits : pairs (layer name, module): what was put after which layer, or which layer has new weights
    seconds : float, time of the method alone; the pass over the data that all methods share is not in it
    needs_group : bool, whether the model is called `model(images, group=codes)`
    degenerate : bool, whether it predicts one class only: perfectly "fair" and useless
    error : str or None, why the method failed
    note : str, what a reader should know: what the method says about its fit (`Batch.note`), a tie in the choice
    """

    method: str
    model: nn.Module | None = field(default=None, repr=False)
    metrics: dict[str, float] = field(default_factory=dict, repr=False)
    pareto_metrics: tuple[str, ...] = ()
    validation: dict[str, float] = field(default_factory=dict, repr=False)
    audit: Audit | None = field(default=None, repr=False)
    answers: Answers | None = field(default=None, repr=False)
    edits: tuple[tuple[str, nn.Module], ...] = field(default=(), repr=False)
    seconds: float = 0.0
    needs_group: bool = False
    degenerate: bool = False
    error: str | None = None
    note: str = ""

    def get_model(self) -> nn.Module:
        """The corrected model.

        Raises
        ------
        RuntimeError : the method failed; the message says why.
        """
        if self.model is None:
            raise RuntimeError(f"{self.method} gave no model: {self.error}")
        return self.model

    def get_method(self) -> str:
        """The key of the method."""
        return self.method

    def get_metric(self, name: str) -> float:
        """One metric, by its name in any spelling: `equalized_odds`, `Balanced_accuracy`, `balanced accuracy`.

        Raises
        ------
        ValueError : no such metric (the nearest is named).
        RuntimeError : the method failed; the message says why.
        """
        if self.error is not None:
            raise RuntimeError(f"{self.method} has no metrics: {self.error}")
        return self.metrics[metric_name(name, self.metrics)]

    @cached_property
    def comparison(self) -> Comparison | None:
        """Every statistic and gap beside the model as it was, on the same data as `metrics`; None as for `answers`.

        `.by_group` has for each group the change with its paired interval and the verdict "levels up", "levels down" or
        "within noise", `.gaps` whether a gap closes and who pays, `.overall` the change over all images.
        """
        return None if self.answers is None else self.answers.compare(self.method)

    def get_change(self, name: str) -> tuple[float, float, float]:
        """(change, low, high) of a metric against the model as it was, over the same images, by its name as in `get_metric`.

        Raises
        ------
        ValueError : no such metric (the nearest is named), or one of scores, which are not compared.
        RuntimeError : the method failed, or this is the model as it was.
        """
        if self.comparison is None:
            raise RuntimeError(f"{self.method} has no changes: {self.error or 'nothing was changed'}")
        table = changes_of(self.comparison)
        return tuple(map(float, table.loc[metric_name(name, table.index), ["change", "low", "high"]]))

    def get_all_metrics(self) -> dict[str, dict[str, float]]:
        """`{"pareto": {…}, "all": {…}}`: the metrics that methods are compared by, and all of them.

        Both are empty if the method failed.
        """
        return {
            "pareto": {name: self.metrics[name] for name in self.pareto_metrics if name in self.metrics},
            "all": dict(self.metrics),
        }

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.method}: failed, {self.error}"
        values = ", ".join(f"{name} {self.metrics[name]:.3f}" for name in self.pareto_metrics)
        return f"{self.method}: {values}" + (" (predicts one class)" if self.degenerate else "")


class Results(dict[str, CorrectionResult]):
    """`CorrectionResult`s by method, in order; looked up in any case, printed as a table."""

    def __missing__(self, key: str) -> CorrectionResult:
        try:
            return self[choose(key, self, "method")]
        except ValueError as error:
            raise KeyError(str(error)) from None

    def to_frame(self) -> pd.DataFrame:
        """See `helpers.debiasing.to_frame`."""
        return to_frame(self)

    def __repr__(self) -> str:
        return readable(self).to_string(index=False) if self else "no results"

    def _repr_html_(self) -> str:
        return readable(self).to_html(index=False) if self else "<p>no results</p>"


def joined(remarks: Iterable[str]) -> str:
    """Remarks as one, without the empty ones."""
    return "; ".join(filter(None, remarks))


def to_frame(results: Mapping[str, CorrectionResult] | CorrectionResult) -> pd.DataFrame:
    """One row a method: balanced accuracy and equalized-odds gap with their intervals, price and warnings.

    Parameters
    ----------
    results : what `debias` returned

    Returns
    -------
    DataFrame with the columns method, balanced_accuracy, balanced_accuracy_low, balanced_accuracy_high,
    equalized_odds, equalized_odds_low, equalized_odds_high, seconds, needs_group, degenerate, error, and the changes
    against the model as it was, paired over the images: balanced_accuracy_change, balanced_accuracy_change_low,
    balanced_accuracy_change_high, equalized_odds_change, equalized_odds_change_low, equalized_odds_change_high.
    Numbers of a failed method are NaN, and so are changes of the model as it was; `error` is "" for the others.
    """
    results = [results] if isinstance(results, CorrectionResult) else list(results.values())
    return pd.DataFrame([row(result) for result in results], columns=[*FRAME, *CHANGES])


def row(result: CorrectionResult) -> dict[str, object]:
    """The cells of one method in `to_frame`."""
    cells = {"method": result.method, "seconds": result.seconds, "needs_group": result.needs_group}
    cells |= {"degenerate": result.degenerate, "error": result.error or ""}
    if result.audit is None:
        return cells
    audit = result.audit
    for name, value, (low, high) in (
        ("balanced_accuracy", audit.value("balanced_accuracy"), audit.interval("balanced_accuracy")),
        ("equalized_odds", audit.gap("equalized_odds"), audit.gap_interval("equalized_odds")),
    ):
        cells |= {name: value, f"{name}_low": low, f"{name}_high": high}
        if result.answers is not None:
            cells |= zip((f"{name}_change{end}" for end in ("", "_low", "_high")), result.get_change(name), strict=True)
    return cells


def changes_of(comparison: Comparison) -> pd.DataFrame:
    """The changes of a comparison by the names that metrics have, for all classes together."""
    overall, gaps = one_value(comparison.overall), one_value(comparison.gaps)
    gaps.index = [f"{gap}_gap" if gap in overall.index else gap for gap in gaps.index]
    return pd.concat([overall, gaps])


def one_value(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of statistics that stand for all classes together, by statistic."""
    if "class" in table:
        rows = [table[table["class"] == label] for label in ("all", "macro")]
        table = pd.concat(rows).drop_duplicates("statistic").sort_index()
    return table.set_index("statistic")


def readable(results: Mapping[str, CorrectionResult]) -> pd.DataFrame:
    """`to_frame` rounded and with intervals written out, for people."""
    frame = to_frame(results)
    shown = frame[["method"]].copy()
    for form, ends in (("{:.3f} [{:.3f}, {:.3f}]", ""), ("{:+.3f} [{:+.3f}, {:+.3f}]", "_change")):
        for name in (f"balanced_accuracy{ends}", f"equalized_odds{ends}"):
            cells = frame[[name, f"{name}_low", f"{name}_high"]].astype(float)
            if not ends or cells[name].notna().any():  # the model as it was, alone, has no change to show
                shown[name.replace("_", " ")] = [form.format(*cell) if cell[0] == cell[0] else "–" for cell in cells.to_numpy()]
    shown["seconds"] = frame["seconds"].map("{:.2f}".format)
    shown["remarks"] = [
        joined([error, "needs the group" * needs, "predicts one class" * one, results[key].note])
        for key, error, needs, one in zip(
            results, frame["error"], frame["needs_group"], frame["degenerate"], strict=True
        )
    ]
    return shown
