"""A data card: what a set of faces holds, what is wrong with it as far as can be measured, and what only its owner knows."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import markdown
from helpers.data.duplicates import Leaks, duplicates, leaks
from helpers.data.fetch import OFFERS
from helpers.data.labels import cross, find_column, level_names, missing
from helpers.data.pictures import UNITS, by_group, mean_image, pictures
from helpers.data.suspicious import Suspicious, suspicious
from helpers.files import whole
from helpers.names import choose, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from helpers.data.base import FaceDataset

SHOWN = 10  # rows of a long list that are printed; the tables hold them all
SMALL = 30  # pictures in a cell; a rate from fewer has a 95 % interval wider than about 0.3
ABSENT = "(missing)"
QUESTIONS_HEADING = "Questions that only the owner can answer"
#: What a table cannot say, as a question to the owner (after Gebru et al. 2021).
QUESTIONS = {
    "purpose": "For what purpose, by whom and with whose money was the set made?",
    "collection": "Where do the pictures come from, when were they taken, and how were they chosen?",
    "consent": "Do the people shown know of it, did they agree, and can they withdraw?",
    "annotation": "Who annotated what, with which instructions, and how often did annotators disagree?",
    "preparation": "What was done to the pictures before they came here: detection, cropping, alignment, filtering?",
    "uses": "What has it been used for, what is it fit for, and for what should nobody use it?",
    "licence": "Under which terms may the set be used, and for what not?",
    "maintenance": "Who keeps it, who answers questions, and how are errors corrected?",
}
KNOWN = {
    "orl": {
        "collection": "400 photographs of 40 people taken between 1992 and 1994 at AT&T Laboratories Cambridge.",
        "preparation": "The central 92×92 of 92×112 pixels are kept.",
        "annotation": "Glasses, facial hair and woman were annotated for this workbench by looking at the pictures.",
        "licence": "Courtesy of AT&T Laboratories Cambridge, to be credited.",
    },
    "illustrated": {
        "collection": "Drawn by a program (DiceBear's styles) from seeds; nobody is shown.",
        "consent": "Nobody is shown.",
        "annotation": "The attributes are the instructions for drawing.",
        "licence": "By drawing style; data/README.md lists them.",
    },
}


@dataclass(frozen=True, repr=False)
class DataCard:
    """What looking at the data first has shown.

    Attributes
    ----------
    name, split : of the data set;  target, protected : the columns under study, each as one name
    n, people : numbers of pictures and, if there is a column `identity`, of people
    about : what is known of the data set beside the table, by the keys of `QUESTIONS`
    counts : DataFrame, pictures by group (rows) and class (columns); labels that are missing have a row or column of their own
    test_counts : the same of the test split, or None
    groups : DataFrame `group, pictures[, people]`
    missing : DataFrame `column, missing, share`, every column of the table
    sizes : DataFrame `width, height, n` of the files in pixels, the most frequent first; empty if they are not known
    stored : (H, W) of the pictures as they are read, or None
    pictures : DataFrame `measure, group, value, low, high, n, people`
    duplicates : DataFrame of pairs, as `helpers.data.duplicates`; None if not looked for
    leaks : Leaks, or None without a test split
    suspicious : Suspicious, or None if not asked for or not possible
    mean_faces : dict of group to float (H, W, 3) in [0, 1]
    notes : sentences on what could not be looked at, and why
    """

    name: str
    split: str
    target: str
    protected: str
    n: int
    people: int | None
    about: Mapping[str, str]
    counts: pd.DataFrame
    groups: pd.DataFrame
    missing: pd.DataFrame
    test_counts: pd.DataFrame | None = None
    sizes: pd.DataFrame = field(default_factory=lambda: _counted(None))
    stored: tuple[int, int] | None = None
    pictures: pd.DataFrame | None = None
    duplicates: pd.DataFrame | None = None
    leaks: Leaks | None = None
    suspicious: Suspicious | None = None
    mean_faces: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    confidence: float = 0.95

    def __repr__(self) -> str:
        looked = "" if self.pictures is None else f", {self.duplicates['second'].nunique():,} copies"
        return f"DataCard({self.name!r}, {self.split}: {self.n:,} pictures{looked}, {len(self.questions)} questions open)"

    @property
    def questions(self) -> tuple[str, ...]:
        """What only the owner of the data can answer, and has not."""
        return tuple(question for key, question in QUESTIONS.items() if key not in self.about)

    def sections(self) -> list[tuple[str, list]]:
        """Headings with what stands below them: sentences, and tables as (caption, DataFrame of texts)."""
        return [
            ("What it is", self._what()),
            ("Composition", self._composition()),
            ("Collection and annotation", self._known("collection", "consent", "annotation", "preparation")),
            ("Groups", self._groups()),
            ("Pictures", self._pictures()),
            ("Known problems", self._problems()),
            ("Uses, licence and upkeep", self._known("uses", "licence", "maintenance")),
            (QUESTIONS_HEADING, list(self.questions) or ["None is open."]),
        ]

    def to_markdown(self) -> str:
        """The card as Markdown. What comes from the data is escaped."""
        lines = [f"# Data card: {markdown.escaped(self.name)}"]
        for heading, parts in self.sections():
            lines += ["", f"## {heading}", ""]
            for part in parts:
                if not isinstance(part, str):
                    lines += [f"*{markdown.escaped(part[0])}*", "", *markdown.table(part[1]), ""]
                elif heading == QUESTIONS_HEADING:
                    lines.append(f"- {markdown.escaped(part)}")
                else:
                    lines += [markdown.escaped(part), ""]
        return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"

    def to_html(self, figure: bool = True) -> str:
        """The card as HTML to put into a page, with its figure. What comes from the data is escaped."""
        parts = [f"<h1>Data card: {html.escape(self.name)}</h1>"]
        if figure and self.pictures is not None:
            import matplotlib.pyplot as plt

            from helpers.plots.show import img

            drawing = self.plot()
            parts.append(img(drawing))
            plt.close(drawing)
        for heading, content in self.sections():
            parts.append(f"<h2>{html.escape(heading)}</h2>")
            for part in content:
                if isinstance(part, str):
                    parts.append(f"<p>{html.escape(part)}</p>")
                else:
                    caption, table = part
                    body = table.to_html(index=False, escape=True, border=0)
                    parts.append(body.replace(">", f"><caption>{html.escape(caption)}</caption>", 1))
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_dict(self) -> dict[str, Any]:
        """All tables and texts as what JSON can hold; NaN becomes None."""
        lists = {"groups", "missing", "sizes", "pictures", "duplicates"}
        about = {name: getattr(self, name) for name in ("name", "split", "target", "protected", "n", "people", "stored")}
        tables = {name: _records(getattr(self, name)) for name in sorted(lists)}
        counts = {"counts": _nested(self.counts), "test_counts": None if self.test_counts is None else _nested(self.test_counts)}
        leaked = self.leaks and {name: _records(getattr(self.leaks, name)) for name in ("identities", "pictures")}
        doubted = self.suspicious and {
            "accuracy": self.suspicious.accuracy,
            "by_group": _records(self.suspicious.by_group),
            "by_cell": _records(self.suspicious.by_cell),
            "marked": _records(self.suspicious.table[self.suspicious.table["marked"]]),
            "note": self.suspicious.note,
        }
        return {
            **about, "about": dict(self.about), **counts, **tables, "leaks": leaked, "suspicious": doubted,
            "notes": list(self.notes), "questions": list(self.questions),
        }  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write the card to a .md, .html or .json file, whole or not at all.

        Raises
        ------
        ValueError : another ending, or a path that cannot be written.
        """
        path = Path(path)
        kind = choose(path.suffix, (".md", ".html", ".json"), "path (its ending)")
        if kind == ".md":
            content = self.to_markdown()
        elif kind == ".json":
            content = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        else:
            title = f"Data card: {html.escape(self.name)}"
            content = f'<!DOCTYPE html>\n<html lang="en-GB"><head><meta charset="utf-8"><title>{title}</title>{STYLE}</head>'
            content += f"<body>\n{self.to_html()}\n</body></html>\n"
        with whole(path) as part:
            part.write_text(content, encoding="utf-8")
        return path

    def plot(self) -> Figure:
        """Mean faces, counts by cell, brightness and sharpness by group with intervals, and sizes, in one figure.

        Raises
        ------
        ValueError : a card of a table alone, which has no pictures.
        """
        from helpers.plots.pictures import card

        return card(self)

    def _what(self) -> list:
        of_people = "" if self.people is None else f" of {self.people:,} people"
        said = [
            f"{self.n:,} pictures{of_people} from “{self.name}”, split “{self.split}”. Target: {self.target}; groups by "
            f"{self.protected}. Both are annotations of pictures, not what a person is."
        ]
        return said + self._known("purpose")

    def _known(self, *keys: str) -> list:
        return [f"{key.capitalize()}: {self.about.get(key, 'unknown.')}" for key in keys]

    def _composition(self) -> list:
        parts: list = [(f"Pictures by {self.protected} (rows) and {self.target} (columns)", _with_totals(self.counts))]
        if self.test_counts is not None:
            parts.append(("The same in the test split", _with_totals(self.test_counts)))
        cells = [(int(n), f"“{g}” and “{c}”") for g, row in self.counts.iterrows() for c, n in row.items()]
        small = [f"{cell} ({n})" for n, cell in sorted(cells) if n < SMALL]
        if small:
            more = f" and {len(small) - SHOWN} more" if len(small) > SHOWN else ""
            parts.append(f"Fewer than {SMALL} pictures in {'; '.join(small[:SHOWN])}{more}.")
        holes = self.missing[self.missing["missing"] > 0]
        if len(holes):
            shown = holes.assign(share=[f"{value:.1%}" for value in holes["share"]])
            parts.append(("Missing values", _texts(shown)))
        else:
            parts.append("No value is missing in any column of the table.")
        return parts

    def _groups(self) -> list:
        return [(f"Pictures{'' if self.people is None else ' and people'} by {self.protected}", _texts(self.groups))]

    def _pictures(self) -> list:
        if self.pictures is None:
            return ["The pictures were not looked at."]
        height, width = self.stored
        parts: list = [f"They are read as {width}×{height} pixels."]
        if len(self.sizes):
            sides = self.sizes.loc[self.sizes.index.repeat(self.sizes["n"])]
            parts.append(
                f"Sizes of the files, {len(self.sizes):,} different: "
                + " and ".join(
                    f"{side}s from {sides[side].min()} to {sides[side].max()} pixels (median {sides[side].median():.0f})"
                    if sides[side].nunique() > 1 else f"{side} {sides[side].iloc[0]} pixels"
                    for side in ("width", "height")
                )
                + "."
            )
        else:
            parts.append("The sizes of the files are unknown.")
        table = self.pictures.assign(cell=[
            number(row.value) + ("" if np.isnan(row.low) else f" [{number(row.low)}, {number(row.high)}]")
            for row in self.pictures.itertuples()
        ])  # fmt: skip
        wide = table.pivot(index="measure", columns="group", values="cell")
        wide = wide.reindex(index=table["measure"].unique(), columns=table["group"].unique())
        wide.index = [f"{name}: {UNITS.get(name, name)}" for name in wide.index]
        caption = f"Means by group with {self.confidence:.0%} intervals that count people"
        parts.append((caption, _texts(wide.reset_index(names="measure"))))
        parts.append("Where groups differ here, a gap between them may be one of light or focus (helpers.bias.explanations).")
        return parts

    def _problems(self) -> list:
        parts: list = list(self.notes)
        if self.duplicates is not None:
            parts.append(f"Pictures that are there more than once: {self.duplicates['second'].nunique():,}.")
            if len(self.duplicates):
                parts.append(("Copies by row number" + _first(self.duplicates), _texts(self.duplicates.head(SHOWN))))
        if self.leaks is not None:
            parts.append(f"Between this split and the test split: {self.leaks}.")
            for caption, table in (("People in both", self.leaks.identities), ("Pictures in both", self.leaks.pictures)):
                if table is not None and len(table):
                    parts.append((caption + _first(table), _texts(table.head(SHOWN))))
        else:
            parts.append("No test split was given, so leaks between splits were not looked for.")
        if self.suspicious is not None:
            parts.append(f"Suspicious labels: {self.suspicious}. {self.suspicious.note}")
            marked = self.suspicious.table[self.suspicious.table["marked"]].drop(columns="marked")
            if len(marked):
                parts.append(("Marked labels" + _first(marked), _texts(marked.head(SHOWN))))
                by = self.suspicious.by_cell
                cells = [f"{r.value:.1%} [{r.low:.1%}, {r.high:.1%}]" for r in by.itertuples()]
                shares = pd.DataFrame({"group, class": by["group"], "marked": cells, "pictures": by["n"]})
                parts.append(("Share of marked labels by group and class", shares))
        return parts


STYLE = """<style>
body { max-width: 62rem; margin: 0 auto; padding: 2rem 1rem; font: 1rem/1.5 system-ui, sans-serif }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #d0d7de; text-align: right }
th:first-child, td:first-child, caption { text-align: left }
</style>"""


def card(
    train: FaceDataset,
    test: FaceDataset | None = None,
    *,
    about: Mapping[str, str] | None = None,
    features: np.ndarray | None = None,
    labels: bool = True,
    confidence: float = 0.95,
    seed: int = 0,
) -> DataCard:
    """Look at a data set before any model does.

    Parameters
    ----------
    train : FaceDataset that the card describes
    test : the split on which a model will be judged; None: leaks are not looked for
    about : what you know beside the table, by the keys of `QUESTIONS` (purpose, collection, consent, annotation, preparation,
        uses, licence, maintenance); what is not said is called unknown and asked for
    features : (N, D) for `suspicious`; None: edges and colours
    labels : also look for suspicious labels
    confidence : level of the intervals
    seed : of the folds of `suspicious`

    Raises
    ------
    ValueError : an unknown key of `about` (with the nearest one).

    References
    ----------
    Gebru et al., "Datasheets for Datasets", Communications of the ACM 2021.
    """
    said = _about(train.name, about)
    measures = pictures(train)
    group = np.array(train.groups, dtype=object)[train.group]
    identity = train.table["identity"] if "identity" in train.table else None
    people = None if identity is None else int(identity.nunique())
    groups = pd.DataFrame({"group": train.groups, "pictures": np.bincount(train.group, minlength=len(train.groups))})
    if identity is not None:
        groups["people"] = [int(identity[train.group == code].nunique()) for code in range(len(train.groups))]
    notes = [f"{len(train.skipped):,} files were left out when the set was read."] if train.skipped else []
    doubted = None
    if labels:
        try:
            doubted = suspicious(train, features, seed=seed)
        except ValueError as error:
            notes.append(f"Labels could not be judged: {error}.")
    order = [name for name in train.groups if name in set(group)]
    table = by_group(measures, group, identity, confidence)
    table = table.sort_values("group", key=lambda column: column.map(order.index), kind="stable")
    table = table.sort_values("measure", key=lambda column: column.map(list(measures).index), kind="stable", ignore_index=True)
    return DataCard(
        name=train.name,
        split=train.split,
        target=train.target,
        protected=_joined(train.protected),
        n=len(train),
        people=people,
        about=said,
        counts=train.counts(),
        test_counts=None if test is None else test.counts(),
        groups=groups,
        missing=_missing(train.table),
        sizes=_counted(measures),
        stored=train.images.shape[1:3],
        pictures=table,
        duplicates=duplicates(train),
        leaks=None if test is None else leaks(train, test),
        suspicious=doubted,
        mean_faces={
            train.groups[code]: mean_image(train.images, np.flatnonzero(train.group == code)) for code in np.unique(train.group)
        },
        notes=tuple(notes),
        confidence=confidence,
    )


def table_card(
    table: pd.DataFrame,
    target: str,
    protected: str | Sequence[str],
    *,
    name: str = "table",
    about: Mapping[str, str] | None = None,
) -> DataCard:
    """The card of a table alone, where labels may be missing; its pictures are not looked at.

    Parameters
    ----------
    table : one row an image
    target, protected : columns, as in `load_faces`
    name : of the data set
    about : as in `card`

    Raises
    ------
    ValueError : an unknown column (with the nearest one), fractions for labels, an unknown key of `about`.
    """
    target = find_column(table, target, "target")
    columns = [find_column(table, each, "protected") for each in ([protected] if isinstance(protected, str) else protected)]
    said = _about(name, about)
    coded = [_coded(table[column], column) for column in columns]
    codes, groups = cross([codes for codes, _ in coded], [names for _, names in coded])
    labels, classes = _coded(table[target], target)
    cells = np.bincount(codes * len(classes) + labels, minlength=len(groups) * len(classes)).reshape(len(groups), -1)
    counts = pd.DataFrame(cells, index=pd.Index(groups, name=", ".join(columns)), columns=pd.Index(classes, name=target))
    by = pd.DataFrame({"group": groups, "pictures": cells.sum(1)})
    known = ~missing(table["identity"]) if "identity" in table else None
    if known is not None:
        by["people"] = [int(table["identity"][(codes == code) & known].nunique()) for code in range(len(groups))]
    absent = _missing(table)
    without = int(np.logical_or.reduce([missing(table[column]) for column in (target, *columns)]).sum())
    notes = [f"{without:,} of {len(table):,} rows lack the target or a group; load_faces refuses them."] if without else []
    people = None if known is None else int(table["identity"][known].nunique())
    return DataCard(
        name=name, split="all", target=target, protected=", ".join(columns), n=len(table), people=people, about=said,
        counts=counts, groups=by, missing=absent, notes=tuple(notes),
    )  # fmt: skip


def _coded(column: pd.Series, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and names of a column, where what is missing is a level of its own, the last."""
    absent = missing(column)
    values, names = level_names(column, name)
    code_of = {value: code for code, value in enumerate(values)}
    codes = np.array([len(names) if gone else code_of[value] for value, gone in zip(column.tolist(), absent, strict=True)])
    return codes, (*names, ABSENT) if absent.any() else names


def _about(name: str, about: Mapping[str, str] | None) -> dict[str, str]:
    known = dict(KNOWN.get(name, {}))
    if name in OFFERS:
        known |= {"licence": f"{OFFERS[name].licence} (see {OFFERS[name].page})."}
    return known | {choose(key, QUESTIONS, "about"): str(text) for key, text in (about or {}).items()}


def _joined(protected: str | Sequence[str]) -> str:
    return protected if isinstance(protected, str) else ", ".join(protected)


def _missing(table: pd.DataFrame) -> pd.DataFrame:
    gone = [int(missing(table[column]).sum()) for column in table]
    return pd.DataFrame({"column": [str(name) for name in table], "missing": gone, "share": np.array(gone) / max(len(table), 1)})


def _counted(measures: pd.DataFrame | None) -> pd.DataFrame:
    """`width, height, n`, the most frequent first; empty where no size is known."""
    if measures is None or "width" not in measures:
        return pd.DataFrame({"width": [], "height": [], "n": []}, dtype=np.int64)
    return measures[["width", "height"]].dropna().astype(np.int64).value_counts().rename("n").reset_index()


def _with_totals(counts: pd.DataFrame) -> pd.DataFrame:
    shown = counts.copy()
    shown.columns, shown.index = [str(name) for name in counts.columns], [str(name) for name in counts.index]
    shown["all"] = shown.sum(axis=1)
    shown.loc["all"] = shown.sum()
    return _texts(shown.reset_index(names=str(counts.index.name)))


def _first(table: pd.DataFrame) -> str:
    return f", the first {SHOWN} of {len(table):,}" if len(table) > SHOWN else ""


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    def text(value) -> str:
        if isinstance(value, str):
            return value
        if value is None or pd.isna(value):
            return "–"
        return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.3f}" if isinstance(value, float) else str(value)

    return pd.DataFrame({str(name): [text(value) for value in table[name].tolist()] for name in table}, dtype=object)


def _records(table: pd.DataFrame | None) -> list[dict] | None:
    if table is None:
        return None
    rows = table.to_dict("records")
    plain = lambda value: None if pd.api.types.is_scalar(value) and pd.isna(value) else getattr(value, "item", lambda: value)()
    return [{str(key): plain(value) for key, value in row.items()} for row in rows]


def _nested(counts: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {str(group): {str(label): int(n) for label, n in row.items()} for group, row in counts.iterrows()}
