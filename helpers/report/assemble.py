"""The verb `report`: gather what a page about one model and one set of faces needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import nn

import helpers
from helpers import attribution
from helpers.bias import explanations
from helpers.bias.gaps import NAMED
from helpers.data import card, recipe
from helpers.data.card import QUESTIONS
from helpers.data.sampling import spread
from helpers.files import check
from helpers.models import predict
from helpers.names import choose
from helpers.plots import figure_of, use

from . import fixes, model_card
from .comparison import audit_of, rejudge
from .html import Heading, Page, Picture, Points, Section, Table, interval, pieces, sentence, text, write
from .looks import looks, maps_by, row_labels
from .stated import HOW, answer, statements
from .wording import gaps_table, groups_table, names, spans, summarised, words

__all__ = ["known", "maps_by", "report", "row_labels", "spread"]

BENEFIT, HARM = "balanced_accuracy", "equalized_odds"
METHODS = ("integrated_gradients", "smoothgrad", "occlusion", "grad_cam")
SMALL_CELL = 30  # below this a rate's 95 % interval is wider than about 0.3
LISTED = 12  # rows of a table of the data card that the page repeats
ROWS = ("row", "first", "path", "identity")  # columns of tables that list single pictures
CELLS = 8  # small cells that are named one by one
USES = ("intended_use", "intended_users", "out_of_scope")


def report(
    model: nn.Module,
    faces,
    path: str | Path = "report.html",
    *,
    results: Mapping | None = None,
    attributions: Sequence[str] = METHODS,
    examples: int = 4,
    title: str | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    device=None,
    stated: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write one HTML page on `model`: its use, its data, its bias, where it looks, and what mitigation changed.

    The page holds its figures and styles itself, runs no script and loads nothing, so it can be mailed, printed and
    archived. It is written whole or not at all. Beside it, `report.card.md` is the model's card (`helpers.report.write_card`
    writes it alone), and `report.data.json` says which faces the model was judged and trained on, where `load_faces` made them;
    `helpers.data.recall` loads them again.

    Parameters
    ----------
    model : nn.Module from images (N, 3, H, W) in [0, 1] to logits (N, K), or (N, 1) for two classes
    faces : FaceDataset on which the model is judged; neither the model nor a method was fitted on it
    path : where the page goes; a page that is there already is replaced
    results : dict of name -> result of `helpers.debias` (or nn.Module), for the before/after table; None
        leaves it out
    attributions : names of attribution methods, one column of the panel each; empty leaves the panel out
    examples : int, faces in the panel, taken from the groups and classes in turn
    title : heading of the page; None: from the names of target and protected attribute
    confidence, n_boot, seed : of the intervals; the seed also goes to methods that draw noise
    device : where the model runs; None: chosen by `helpers.models.predict`
    stated : what only a person can say of the model, by the keys of `helpers.report.STATED`: name, developers, version, licence,
        citation, intended_use, intended_users, out_of_scope, factors, motivation, training_data, ethics, caveats. What is not
        said is called missing, on the page and in the card
    about : what only a person can say of the faces, by the keys of `helpers.data.card`

    Returns
    -------
    Path of the page

    Raises
    ------
    ValueError : a path that cannot be written, an unknown method or key of `stated` (with the nearest name), a model that does
        not fit the target; all before the long work.

    Examples
    --------
    >>> results = helpers.debias(model, validation.loader())  # doctest: +SKIP
    >>> helpers.report(model, test, "report.html", results=results)  # doctest: +SKIP
    """
    path = check(path)
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise ValueError(f"examples: expected a whole number of at least 1, got {examples!r}")
    if results is not None and not isinstance(results, Mapping):
        raise ValueError(f"results: expected a dict of method name -> result, got {type(results).__name__}")
    methods, said = known(attributions), statements(stated)
    about = {choose(key, QUESTIONS, "about"): told for key, told in (about or {}).items()}

    options = {"confidence": confidence, "n_boot": n_boot, "seed": seed}
    found = predict(model, faces, device=device)
    judged = audit_of(found, faces, **options)
    rows = (getattr(model, "info", None) or {}).get("rows") or {}
    rows = {**{part: rows[part] for part in recipe.PARTS if part in rows}, "test": getattr(faces, "recipe", None)}
    looked = fixed = None
    with plt.rc_context():  # the page looks the same whatever the caller has set for figures, which stays set
        use()
        described = card(faces, about=about, confidence=confidence, seed=seed)
        sections = [use_of(said), data(faces, described), bias(judged), *explained(faces, found.y_pred, options)]
        if methods:
            looked = looks(model, faces, found.y_pred, methods, examples, options)
            sections.append(looked.section)
        if results:
            fixed = fixes.mitigation(rejudge(results, faces, device=device, **options), faces, confidence)
        sections.append(fixed.section if fixed else fixes.none())
    sections += [limits(judged, described, said), made(model, judged, rows)]
    page = Page(
        title=title or f"{words(faces.target)} by {sentence(names(faces.protected))}: a bias report",
        summary=summary(judged, faces),
        sections=tuple(sections),
        footer=f"Written by Candor {helpers.__version__}. The page loads nothing and runs no script.",
        points=tuple(points(judged, faces, described.people, looked, fixed, said)),
    )
    told = model_card.text(model, faces, judged, described, said, (fixed.said,) if fixed else (), rows)
    written = write(page, path)
    model_card.keep(told, path.with_suffix(".card.md"))
    recipe.write(path.with_suffix(".data.json"), rows)
    return written


def known(methods: Sequence[str], argument: str = "attributions") -> list[str]:
    """The methods' names as the registry spells them; ValueError with the nearest name for an unknown one."""
    accepted = attribution.methods()["name"].drop_duplicates().tolist()
    return [
        choose(method, accepted, argument) for method in ([methods] if isinstance(methods, str) else methods)
    ]


def summary(judged, faces) -> str:
    """The page in three sentences: how good, how unequal, for whom."""
    said = (
        f"On {len(faces):,} faces ({faces.name}, split {faces.split}) the model tells "
        f"{sentence(faces.classes)} apart with a "
        f"balanced accuracy of {interval(judged.value(BENEFIT), *judged.interval(BENEFIT))}. Between the "
        f"groups of {sentence(names(faces.protected))} its equalized-odds gap is "
    )
    if np.isnan(judged.gap(HARM)):
        said += "not defined, since fewer than two groups have faces of every class."
        rates = judged.gap("demographic_parity"), *judged.gap_interval("demographic_parity")
        return said + ("" if np.isnan(rates[0]) else f" Their gap of selection rates is {interval(*rates)}.")
    said += (
        f"{interval(judged.gap(HARM), *judged.gap_interval(HARM))}, where 0 would be equal treatment and 1 the "
        "greatest difference."
    )
    rates = judged.by_group.query("statistic == 'true_positive_rate'").dropna(subset="value")
    if len(faces.classes) == 2 and len(rates) > 1:
        best, worst = rates.loc[rates["value"].idxmax()], rates.loc[rates["value"].idxmin()]
        said += (
            f" Of the faces annotated “{faces.classes[1]}” it finds {best['value']:.0%} in the group "
            f"“{best['group']}” "
            f"and {worst['value']:.0%} in the group “{worst['group']}”."
        )
    return said


def points(judged, faces, people: int | None, looked, fixed, said: Mapping[str, str]):
    """What the numbers mean and what they do not show, one sentence or two at a time."""
    if len(judged.counts.groups) > 1:
        yield from chance(judged)
        yield detectable(judged)
    cells = judged.counts.table.sum(axis=-1).ravel()
    if few := int((cells < SMALL_CELL).sum()):
        where = f"In {few} of {len(cells)} combinations of group and class"
        yield f"{where} there are fewer than {SMALL_CELL} faces: rates of so few say little."
    if people is not None and people < len(faces):
        yield (
            f"The {len(faces):,} faces are of {people:,} people. The intervals count faces as if each were another person's, so "
            "they are narrower than what is known."
        )
    if looked:
        yield looked.said
    if fixed and fixed.said:
        yield fixed.said
    elif not fixed:
        yield "No fix was tried."
    if "intended_use" not in said:
        yield "Nobody has stated what the model is for, so the page cannot say whether it is good enough for that."


def chance(judged):
    """Whether chance in drawing the faces explains the gap, by its interval and by the test, which may differ."""
    low = judged.gap_interval(HARM)[0]
    p = summarised(judged.test(seed=judged.seed)).set_index("statistic")["p_holm"][HARM]
    if pd.isna(low) or pd.isna(p):
        return
    tested = f"permutation test, corrected for all statistics, p = {p:.3g}"
    alpha = 1 - judged.confidence
    if low > 0 and p < alpha:
        yield f"Chance in drawing the faces does not explain the gap ({tested}). The numbers do not show why the groups differ."
    elif low > 0 or p < alpha:
        yield (
            f"Whether chance explains the gap is not settled: its interval {'stays above' if low > 0 else 'reaches'} 0, and "
            f"the test {'does not reject chance' if p >= alpha else 'rejects chance'} ({tested})."
        )
    else:
        yield f"Chance in drawing the faces could make such a gap ({tested})."


def use_of(said: Mapping[str, str]) -> Section:
    """What the model is for, and what not, as far as somebody has said it."""
    items = tuple(f"{words(key)}: {answer(said, key)}" for key in (*USES, "licence", "developers"))
    gone = {*USES, "licence", "developers"} - set(said)
    return Section("Intended use", (Points(items), *([f"What is not stated is for a person to say: {HOW}"] if gone else [])))


def data(faces, described) -> Section:
    """The data card: how many faces each group and class holds, what they are like, and what is too little or wrong."""
    counts = faces.counts()
    shown = counts.copy()
    shown["all"] = counts.sum(axis=1)
    shown.loc["all"] = shown.sum()
    shown.insert(0, "group", [str(name) for name in shown.index])
    people = "" if described.people is None else f" of {described.people:,} people"
    parts: list = [
        f"{len(faces):,} faces{people} from “{faces.name}”, split “{faces.split}”. The model predicts "
        f"{words(faces.target).lower()}; the groups are those of {sentence(names(faces.protected))}. "
        "Classes and groups are annotations, not identities.",
        *pieces(shown, f"Faces by group (rows) and annotated {words(faces.target).lower()} (columns)"),
    ]
    if getattr(faces, "chosen", None) is not None:
        wanted = ["the rest" if np.isnan(share) else f"{share:.3f}" for share in faces.chosen["wanted"]]
        chosen = faces.chosen.assign(wanted=wanted)
        parts.append(Table.of(chosen, "A variant: wanted shares of the images, how many there were, and what was achieved"))
    cells = [
        (int(n), f"“{group}”, “{label}”") for group, row in counts.iterrows() for label, n in row.items()
    ]
    small = [f"{cell} ({n})" for n, cell in sorted(cells) if n < SMALL_CELL]
    if small:
        more = [f"{len(small) - CELLS} more"] if len(small) > CELLS else []
        parts.append(
            f"Fewer than {SMALL_CELL} faces in: {sentence([*small[:CELLS], *more])}. Rates from so few faces say little, "
            "and a rate from none is not defined."
        )
    if faces.skipped:
        parts.append(f"{len(faces.skipped):,} images could not be read and were left out.")
    drawing = described.plot()
    parts += [
        Heading("What are the pictures like?"),
        Picture.of(drawing, "Mean faces, counts, sizes, and the light and focus of each group's pictures, with intervals that "
                            "count people."),
    ]  # fmt: skip
    plt.close(drawing)
    for heading, content in described.sections():
        if heading in ("Pictures", "Known problems"):
            parts += [Heading(heading)] if heading == "Known problems" else []
            for part in content:
                if isinstance(part, str):
                    parts += [] if part.startswith("No test split was given") else [part]  # the page's limits say so of its faces
                elif len(part[1]) <= LISTED and not part[1].columns.isin(ROWS).any():
                    parts += pieces(part[1], part[0])
    parts.append("Single pictures that are marked or repeated are listed by helpers.data.card.")
    known = tuple(f"{words(key)}: {told}" for key, told in described.about.items())
    parts += [Heading("Where they come from"), *([Points(known)] if known else [])]
    if described.questions:
        parts.append(f"Not known from the data, and for its owner to say (about=… or --about): {' '.join(described.questions)}")
    return Section("The data", tuple(parts))


def explained(faces, predicted: np.ndarray, options: dict) -> list[Section]:
    """Every gap between pictures that are equally bright, sharp and so on; no section where there is no gap."""
    try:
        found = explanations(faces, predicted, **options)
    except ValueError:  # one group alone, or no face of a class in all groups but one
        return []
    if found.gaps.empty:
        return []
    parts: list = []
    for statistic, rows in found.gaps.groupby("statistic", sort=False):
        drawing = found.plot(statistic)
        said = f"The gap in {words(statistic).lower()} as it is, and among pictures alike in a measure."
        parts.append(Picture.of(drawing, said))
        plt.close(figure_of(drawing))
        table = pd.DataFrame({
            "at equal": list(rows["measure"]),
            "gap": spans(rows, "equal"),
            "as it is minus that": spans(rows, "change"),
            "compared": [f"{share:.0%}" for share in rows["covered"]],
            "verdict": list(rows["verdict"]),
        })  # fmt: skip
        first = rows.iloc[0]
        gap = interval(*first[["gap", "gap_low", "gap_high"]])
        caption = f"{words(statistic)}, “{first['highest']}” minus “{first['lowest']}”: {gap}"
        parts.append(Table.of(table, caption))
    return [Section("Could the pictures explain it?", (*parts, found.note))]


def bias(judged) -> Section:
    """The plot of the gaps, the gaps, the rates by group, and what the audit notes."""
    level = f"{judged.confidence:.0%}"
    drawing = judged.plot()
    picture = Picture.of(
        drawing, f"Gaps between the groups with {level} intervals. A gap whose interval stays away from 0 "
                 "is not explained by chance "
                 "in drawing the faces."
    )  # fmt: skip
    plt.close(figure_of(drawing))
    return Section(
        "Is it biased?",
        (
            picture,
            Table.of(
                gaps_table(judged, [*NAMED, BENEFIT]),  # those of single rates can be read off the next table
                f"Largest difference and smallest ratio between two groups, with {level} intervals; p: how often chance alone "
                "makes such a gap (permutation test, corrected for all statistics)",
            ),
            detectable(judged),
            *pieces(groups_table(judged), f"Statistics by group, with {level} intervals"),
            *crossed(judged),
            *([Points(judged.notes)] if judged.notes else []),
        ),
    )


def crossed(judged) -> list:
    """The gaps between combinations of attributes beside those of each attribute alone; nothing for one attribute."""
    if judged.levels is None:
        return []
    table = summarised(judged.intersections)
    table = table[table["statistic"].isin(NAMED)]
    alone = {f"by {words(name).lower()}": [text(value) for value in table[name]] for name in judged.margins}
    shown = pd.DataFrame({
        "gap in": [words(name) for name in table["statistic"]],
        f"all crossed [{judged.confidence:.0%}]": spans(table, "cells", "low", "high"),
        **alone,
    })  # fmt: skip
    return pieces(shown, "Gaps between the groups crossed, beside the same gap by each attribute alone and by fewer of them")


def detectable(judged) -> str:
    """What this many faces could have shown, in a sentence."""
    table = summarised(judged.minimum_detectable_gap())
    rates = table[table["statistic"] == "true_positive_rate"].dropna(subset="detectable")
    if rates.empty:
        return "No group's true positive rate can be compared with another's on these faces."
    least, most = rates.loc[rates["detectable"].idxmin()], rates.loc[rates["detectable"].idxmax()]
    if most["detectable"] >= 1:
        return f"For the group “{most['group']}” these faces could not have shown a gap of true positive rates of any size."
    span = f"{least['detectable']:.2f}" if len(rates) == 2 else f"{least['detectable']:.2f} to {most['detectable']:.2f}"
    return (
        f"A true positive rate that differs from another group's by less than {span} would be missed by an audit of this many "
        "faces more often than once in five times: no gap found does not mean that there is none."
    )


def limits(judged, described, said: Mapping[str, str]) -> Section:
    """What the page cannot show, whatever its numbers are."""
    items = [
        "The intervals cover chance in drawing these faces. They do not cover errors in the annotations, several photographs of "
        "one person counted as independent, or faces of another kind than these.",
        "A gap is the largest difference between two groups, so chance alone makes it greater than 0; "
        "the more groups and the fewer faces, the greater.",
        "Groups are those that somebody annotated. Who is in none of them, or in two, is not seen, and groups by another "
        "attribute may differ more.",
        "A difference between groups is no cause. Light, sharpness and who was photographed where go together with the groups.",
        "Equal rates are one notion of fairness. Which of them matters, and how great a gap is too great, hangs on what the "
        "model is used for.",
    ]
    if described.leaks is None:
        items.append("Whether people or pictures of the training data are among these faces was not looked for here; "
                     "helpers.data.leaks does.")  # fmt: skip
    items += [f"{words(key)}: {said[key]}" for key in ("factors", "ethics", "caveats") if key in said]
    return Section("What this page does not show", (Points(tuple(items)),))


def made(model: nn.Module, judged, rows: Mapping) -> Section:
    """Method of the intervals, the seed, the model, the recipe and the versions."""
    facts = [f"{name}: {fact}" for name, fact in model_card.facts(model)]
    told = (
        "The file .data.json beside this page says exactly which faces these are; helpers.data.recall(…, part='test') loads them."
        if rows.get("test")
        else "The faces were not loaded by helpers.load_faces, so no recipe says which ones they are."
    )
    return Section(
        "How this page was made",
        (
            f"{judged.method} Seed {judged.seed}. Attribution scores: percentiles of a bootstrap over faces.",
            told,
            "The file .card.md beside this page is the model's card.",
            Points(tuple(facts)),
            Table("Versions", ("package", "version"), tuple(model_card.versions())),
        ),
    )
