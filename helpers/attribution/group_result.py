"""What a comparison of groups found: its tables, the verdict on each difference, and which methods may not support one.

A map that hardly changes when the model's weights are drawn anew does not show the model (Adebayo et al. 2018), and so says
nothing about how the model treats groups. A method whose maps correlate that much with those of a randomised model gets the
verdict "not trusted", with the reason, whatever its p-value, and does not count among the hypotheses of Holm's correction.

References
----------
Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helpers.bias.permutation import holm
from helpers.bias.result import markdown
from helpers.bias.settings import share

DIFFERS, NOISE, UNTRUSTED, UNDEFINED = "differs", "within noise", "not trusted", "undefined"


@dataclass(frozen=True, repr=False, eq=False)
class GroupResult:
    """Means by group, and differences with tests.

    Attributes
    ----------
    by_group : DataFrame, one row a group and whatever was measured, with `value, low, high, n, people`
    differences : DataFrame, one row a pair of groups: `group, other`, …, `difference` (`group` minus `other`), `low, high, p,
        p_holm, n, n_other, verdict, reason`. The verdict is "differs", "within noise", "not trusted" or "undefined".
    outcomes : DataFrame, as `differences`, of correct minus wrong predictions within each group; None if they were not given
    per_image : DataFrame of N rows, what the means are of; NaN where an image has no value
    what : what was measured.  confidence : level of intervals and verdicts.
    untrusted : method -> reason why its maps may not support a claim on groups.  notes : sentences on what to know.
    """

    by_group: pd.DataFrame
    differences: pd.DataFrame
    outcomes: pd.DataFrame | None
    per_image: pd.DataFrame
    what: str
    confidence: float
    untrusted: Mapping[str, str]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        """Size, and the differences (of a shift: the changes) beyond noise; the tables are in the attributes."""
        groups = len({*self.by_group["group"]} - {"all"}) or 1
        changes = "verdict" in self.by_group
        table = self.by_group.assign(difference=self.by_group["value"]) if changes else self.differences
        found = table[table["verdict"] == DIFFERS]
        told = [_told(row) for _, row in found.reindex(found["difference"].abs().sort_values(ascending=False).index).iterrows()]
        shown = f": {'; '.join(told[:4])}{'; …' if len(told) > 4 else ''}" if told else ""
        doubted = f"; not trusted: {', '.join(self.untrusted)}" if self.untrusted else ""
        return (
            f"{type(self).__name__}({self.what}: {len(self.per_image):,} images, {groups} group{'s' * (groups != 1)}, "
            f"{len(found)} of {len(table)} {'changes' if changes else 'differences'} beyond noise{shown}{doubted})"
        )

    def to_markdown(self) -> str:
        """The tables and the notes as Markdown."""
        tables = [_rounded(table) for table in self._tables()]
        return "\n\n".join([*map(markdown, tables), "\n".join(f"- {note}" for note in self.notes)]) + "\n"

    def _repr_html_(self) -> str:
        tables = [_rounded(table).to_html(index=False, border=0) for table in self._tables()]
        return "\n".join([*tables, pd.DataFrame({"notes": self.notes}).to_html(index=False, border=0)])

    def _tables(self) -> list[pd.DataFrame]:
        return [table for table in (self.by_group, self.differences, self.outcomes) if table is not None and len(table)]


def untrusted(randomised: Any, threshold: float, methods: Sequence[str]) -> dict[str, str]:
    """The methods that fail the randomisation check on this model, with the reason.

    Parameters
    ----------
    randomised : method -> correlation in [-1, 1] of its maps with those of the same model with random weights (a mapping or
        Series; one number for maps without a name); None: nobody is doubted. `evaluate(…, "model_randomisation", part=0.25,
        draws=10, explain=…)` measures it. With the last quarter of the layers at random every answer is, and guided
        backpropagation, which passes with all of them at random (0.46 in lesson 6), still gives the old map (0.99)
    threshold : share; a method fails whose correlation is above it in size, or is NaN. There is no theory behind a number
    methods : names of the maps, [""] for maps without one

    Raises
    ------
    ValueError : a method without a correlation, one outside [-1, 1], a threshold outside (0, 1).
    """
    share(threshold, "threshold")
    if randomised is None:
        return {}
    if isinstance(randomised, numbers.Real):
        if list(methods) != [""]:
            raise ValueError(f"randomised: one number for {len(methods)} methods; expected method -> correlation")
        randomised = {"": randomised}
    known = dict(randomised.items()) if isinstance(randomised, Mapping | pd.Series) else None
    if known is None:
        raise ValueError(f"randomised: {type(randomised).__name__} given; expected method -> correlation, a dict or Series")
    if list(methods) == [""] and "" not in known and len(known) == 1:
        known = {"": next(iter(known.values()))}
    if lacking := [name for name in methods if name not in known]:
        raise ValueError(f"randomised: nothing for {', '.join(map(repr, lacking))}; there are {', '.join(map(repr, known))}")
    found = {}
    for name in methods:
        value = float(known[name])
        if abs(value) > 1 + 1e-9:
            raise ValueError(f"randomised {name}: {value:g}; expected a correlation between -1 and 1")
        if np.isnan(value):
            found[name] = "the randomisation check gave no number"
        elif abs(value) > threshold:
            found[name] = f"its maps correlate {value:.2f} with those of a model with random weights (limit ±{threshold:g})"
    return found


def judged(table: pd.DataFrame, doubted: Mapping[str, str], confidence: float) -> pd.DataFrame:
    """The table with `p_holm` after `p`, corrected over all rows of trusted methods, and `verdict` and `reason` at its end."""
    method = table["method"] if "method" in table else pd.Series("", index=table.index)
    doubtful = method.isin(doubted).to_numpy(dtype=bool)
    p = table["p"].to_numpy(dtype=float)
    adjusted = np.array(list(holm(dict(enumerate(np.where(doubtful, np.nan, p)))).values()), dtype=float)
    table = table.copy()
    table.insert(table.columns.get_loc("p") + 1, "p_holm", adjusted)
    verdict = np.where(adjusted <= 1 - confidence, DIFFERS, NOISE)
    table["verdict"] = np.where(doubtful, UNTRUSTED, np.where(np.isnan(p), UNDEFINED, verdict))
    reason = np.where(np.isnan(p), "fewer than two people with a value in a group", "")
    table["reason"] = np.where(doubtful, [doubted.get(name, "") for name in method], reason)
    return table


def notes_on(table: pd.DataFrame, n_permutations: int, confidence: float, checked: bool) -> list[str]:
    """What to know of the tests: whether they could have found anything, and whether the methods were checked."""
    tested = int(table["p_holm"].notna().sum())
    notes = []
    if tested and tested / (1 + n_permutations) > 1 - confidence:
        notes.append(f"{n_permutations:,} permutations are too few for {tested} hypotheses: no corrected p-value can be small")
    if not checked:
        notes.append("no randomisation check was given (randomised=): whether the maps show this model at all is open")
    return notes


def _told(row: pd.Series) -> str:
    names = [str(row[key]) for key in ("method", "region", "metric") if key in row and row[key] != ""]
    pair = f"{row['group']} − {row['other']}" if "other" in row else str(row["group"])
    return f"{' '.join(names)} {pair} {row['difference']:+.3f}"


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    kept = table.drop(columns=["reason"]) if "reason" in table and not table["reason"].any() else table
    return kept.map(lambda value: f"{value:.3g}" if isinstance(value, float) and np.isfinite(value) else value)
