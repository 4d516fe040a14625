"""The verb `report`: gather what a page about one model and one set of faces needs."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
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
from helpers.data.sampling import spread
from helpers.debiasing.result import readable
from helpers.files import check
from helpers.models import predict
from helpers.names import choose
from helpers.plots import figure_of, use
from helpers.plots.attribution import panel

from .comparison import audit_of, rejudge
from .html import Page, Picture, Section, Table, interval, sentence, write

BENEFIT, HARM = "balanced_accuracy", "equalized_odds"
METHODS = ("integrated_gradients", "smoothgrad", "occlusion", "grad_cam")
SPELT = {"smoothgrad": "SmoothGrad", "grad_cam": "Grad-CAM", "gradient_input": "Gradient × input"}
SCORED = 16  # faces on which maps are scored against masks
SMALL_CELL = 30  # below this a rate's 95 % interval is wider than about 0.3


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
) -> Path:
    """Write one HTML page on `model`: its data, its bias, where it looks, and what mitigation changed.

    The page holds its figures and styles itself, runs no script and loads nothing, so it can be mailed and
    archived. It is written whole or not at all. Beside it, `report.data.json` says which faces the model was judged and trained
    on, where `load_faces` made them; `helpers.data.recall` loads them again.

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

    Returns
    -------
    Path of the page

    Raises
    ------
    ValueError : a path that cannot be written, an unknown method (with the nearest name), a model that does
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
    methods = known(attributions)

    options = {"confidence": confidence, "n_boot": n_boot, "seed": seed}
    found = predict(model, faces, device=device)
    judged = audit_of(found, faces, **options)
    with plt.rc_context():  # the page looks the same whatever the caller has set for figures, which stays set
        use()
        sections = [data(faces), pictured(faces, confidence, seed), bias(judged, confidence)]
        sections += explained(faces, found.y_pred, options)
        if methods:
            sections.append(looks(model, faces, found.y_pred, methods, examples, seed))
    if results:
        sections.append(mitigation(rejudge(results, faces, device=device, **options), faces))
    sections.append(reading(judged, options))
    page = Page(
        title=title or f"{words(faces.target)} by {sentence(names(faces.protected))}: a bias report",
        summary=summary(judged, faces),
        sections=tuple(sections),
        footer=f"Written by Candor {helpers.__version__}. The page loads nothing and runs no script.",
    )
    written = write(page, path)
    rows = (getattr(model, "info", None) or {}).get("rows") or {}
    learned = {part: rows[part] for part in recipe.PARTS if part in rows}
    recipe.write(path.with_suffix(".data.json"), {**learned, "test": getattr(faces, "recipe", None)})
    return written


def known(methods: Sequence[str], argument: str = "attributions") -> list[str]:
    """The methods' names as the registry spells them; ValueError with the nearest name for an unknown one."""
    accepted = attribution.methods()["name"].drop_duplicates().tolist()
    return [
        choose(method, accepted, argument) for method in ([methods] if isinstance(methods, str) else methods)
    ]


def names(protected: str | Sequence[str]) -> list[str]:
    """The protected attributes' names for a sentence."""
    return [words(name).lower() for name in ([protected] if isinstance(protected, str) else protected)]


def words(column: str) -> str:
    """A name for a heading: "facial_hair" becomes "Facial hair"; methods are spelt as in their papers."""
    if column in SPELT:
        return SPELT[column]
    spaced = str(column).replace("_", " ")
    return spaced[:1].upper() + spaced[1:]


def summary(judged, faces) -> str:
    """The page in three sentences: how good, how unequal, for whom."""
    said = (
        f"On {len(faces):,} faces ({faces.name}, split {faces.split}) the model tells "
        f"{sentence(faces.classes)} apart with a "
        f"balanced accuracy of {interval(judged.value(BENEFIT), *judged.interval(BENEFIT))}. Between the "
        f"groups of {sentence(names(faces.protected))} "
        f"its equalized-odds gap is {interval(judged.gap(HARM), *judged.gap_interval(HARM))}, where 0 would "
        "be equal treatment and 1 the greatest difference."
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


def data(faces) -> Section:
    """How many faces each group and class holds, and what is too small to judge."""
    counts = faces.counts()
    shown = counts.copy()
    shown["all"] = counts.sum(axis=1)
    shown.loc["all"] = shown.sum()
    shown.insert(0, "group", [str(name) for name in shown.index])
    parts: list = [
        f"{len(faces):,} faces from “{faces.name}”, split “{faces.split}”. The model predicts "
        f"{words(faces.target).lower()}; "
        f"the groups are those of {sentence(names(faces.protected))}. Classes and groups are annotations, "
        "not identities.",
        Table.of(shown, f"Faces by group (rows) and annotated {words(faces.target).lower()} (columns)"),
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
        parts.append(
            f"Fewer than {SMALL_CELL} faces in: {sentence(small)}. Rates from so few faces say little, "
            "and a rate from none is not defined."
        )
    if faces.skipped:
        parts.append(f"{len(faces.skipped):,} images could not be read and were left out.")
    return Section("The faces", tuple(parts))


def pictured(faces, confidence: float, seed: int) -> Section:
    """The data card's pictures, its known problems and open questions; counts stand in the section before."""
    found = card(faces, confidence=confidence, seed=seed)
    drawing = found.plot()
    picture = Picture.of(
        drawing, "Mean faces, counts, sizes, and the light and focus of each group's pictures, with intervals that count people."
    )
    plt.close(drawing)
    parts: list = [picture]
    for heading, content in found.sections():
        if heading in ("Pictures", "Known problems"):
            parts += [part if isinstance(part, str) else Table.of(part[1], part[0]) for part in content]
    if found.questions:
        parts.append(f"Not known from the data, and for its owner to say: {' '.join(found.questions)}")
    return Section("What are the pictures like?", tuple(parts))


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


def bias(judged, confidence: float) -> Section:
    """The plot of the gaps, the gaps, the rates by group, and what the audit notes."""
    level = f"{confidence:.0%}"
    drawing = judged.plot()
    picture = Picture.of(
        drawing, f"Gaps between the groups with {level} intervals. A gap whose interval stays away from 0 "
                 "is not explained by chance "
                 "in drawing the faces."
    )  # fmt: skip
    plt.close(figure_of(drawing))
    gaps = summarised(judged.gaps)
    gaps = gaps[
        gaps["statistic"].isin([*NAMED, BENEFIT])
    ]  # those of single rates can be read off the next table
    gap_table = pd.DataFrame(
        {
            "gap in": [words(name) for name in gaps["statistic"]],
            f"difference [{level}]": spans(gaps, "difference"),
            f"ratio [{level}]": spans(gaps, "ratio"),
            "worst group": [name or "–" for name in gaps["worst"]],
            "best group": [name or "–" for name in gaps["best"]],
        }
    )
    if len(judged.counts.groups) > 1:
        p = summarised(judged.test(seed=judged.seed)).set_index("statistic")["p_holm"]
        gap_table["p (Holm)"] = ["not defined" if np.isnan(p[name]) else f"{p[name]:.3g}" for name in gaps["statistic"]]
    rates = summarised(judged.by_group)
    rates = rates.assign(
        statistic=[words(name) for name in rates["statistic"]], cell=spans(rates, "value", "low", "high")
    )
    by_group = rates.pivot(index="statistic", columns="group", values="cell")
    by_group = by_group.reindex(index=rates["statistic"].unique(), columns=rates["group"].unique())
    return Section(
        "Is it biased?",
        (
            picture,
            Table.of(
                gap_table,
                f"Largest difference and smallest ratio between two groups, with {level} intervals; p: how often chance alone "
                "makes such a gap (permutation test, corrected for all statistics)",
            ),
            detectable(judged),
            Table.of(by_group.reset_index(), f"Statistics by group, with {level} intervals"),
            *judged.notes,
        ),
    )


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


def summarised(table: pd.DataFrame) -> pd.DataFrame:
    """One row a statistic (and group): with three classes or more, over all of them, or their mean."""
    if "class" not in table:
        return table
    whole = table[table["class"].isin(["all", "macro"])]
    keys = [name for name in ("group", "statistic") if name in table]
    return whole.sort_values("class", kind="stable").drop_duplicates(keys).sort_index()


def spans(table: pd.DataFrame, value: str, low: str | None = None, high: str | None = None) -> list[str]:
    """Value and interval of each row as one text."""
    low, high = low or f"{value}_low", high or f"{value}_high"
    return [interval(*row) for row in zip(table[value], table[low], table[high], strict=True)]


def looks(
    model: nn.Module, faces, predicted: np.ndarray, methods: list[str], examples: int, seed: int
) -> Section:
    """The attribution panel; a method that fails on this model is named and the others are shown."""
    truth = hasattr(faces, "masks") and isinstance(faces.protected, str)
    rows = spread(faces, max(examples, SCORED) if truth else examples, seed)
    images, _, _ = faces[rows]
    maps, failed = {}, []
    for name in methods:
        try:
            maps |= maps_by(model, images, [name], seed=seed)
        except (ValueError, RuntimeError, NotImplementedError, ImportError) as error:
            failed.append(f"{words(name)} does not work on this model: {error}")
    parts: list = [
        "For each face the relevance of its pixels for the class the model chose. Red speaks for that class, "
        "blue against it; "
        "each picture has its own scale, so strengths compare within a picture and not between pictures.",
    ]
    if maps:
        few = slice(0, examples)
        drawing = panel(
            images[few].numpy(),
            {name: values[few] for name, values in maps.items()},
            row_labels(faces, predicted, rows[few]),
            scale="map",
        )
        parts.append(
            Picture.of(drawing, f"Faces from “{faces.name}” and their attributions by {sentence(maps)}.")
        )
        plt.close(drawing)
    if maps and truth:
        parts += located(model, faces, rows, images, maps, seed)
    parts += failed
    parts.append(
        "A map is one method's account of the model, not a proof of its reasons: methods disagree, and some "
        "show edges whatever the model has learned. Score them against masks (helpers.evaluate) before relying "
        "on them."
    )
    return Section("Where does it look?", tuple(parts))


def maps_by(
    model: nn.Module, images, methods: Sequence[str], *, backend: str = "auto", seed: int = 0
) -> dict[str, np.ndarray]:
    """Maps (N, H, W) of the predicted classes by each method's name for readers."""
    return {
        words(name): helpers.attribute(model, images, method=name, backend=backend, seed=seed).numpy()
        for name in methods
    }


def row_labels(faces, predicted: np.ndarray, rows: Sequence[int]) -> list[str]:
    """Group, annotated and predicted class of the faces, for the rows of a panel."""
    return [
        f"{faces.groups[faces.group[row]]}\n{faces.classes[faces.targets[row]]}\npredicted "
        f"{faces.classes[predicted[row]]}"
        for row in rows
    ]


def located(model: nn.Module, faces, rows: list[int], images, maps: dict, seed: int) -> list:
    """Share of relevance on the pixels that show the target and the protected attribute."""
    judged = maps | {"Chance (a map of noise)": attribution.random_maps(images, seed=seed).numpy()}
    shares = pd.DataFrame(index=list(judged))
    for column in (faces.target, faces.protected):
        try:
            masks = faces.masks(rows, column)
        except ValueError:  # a style without a drawing for the attribute
            return []
        scores = helpers.evaluate(model, images, judged, metrics=["relevance_mass"], masks=masks, seed=seed)
        shares[f"on {words(column).lower()}"] = scores.groupby("method", sort=False)["value"].mean()
    shown = shares.reset_index(names="method")
    return [
        "These faces are drawn, so it is known which pixels show each attribute. A model that does its task "
        f"looks at those of {words(faces.target).lower()}; relevance on those of {words(faces.protected).lower()} tells of a "
        "shortcut.",
        Table.of(shown, f"Mean share of positive relevance by where it lies, over {len(rows)} faces"),
    ]


def mitigation(results, faces) -> Section:
    """The before/after table with the sentences that keep it from being misread."""
    return Section(
        "What makes it fairer, and at what price?",
        (
            Table.of(readable(results), f"Each method on the same {len(faces):,} faces, with intervals"),
            "Read both numbers: a model that gives every face the same answer has no gap and no use "
            "(balanced accuracy 0.5 with two "
            "classes). A method chosen because it is best in this table needs further faces to confirm it. "
            "No method makes a model fair in every sense; it makes the measured gap smaller.",
        ),
    )


def reading(judged, options: dict) -> Section:
    """How the intervals were made, limits, seed and versions."""
    found = [("python", platform.python_version()), ("candor-workbench", helpers.__version__)]
    for package in ("torch", "torchvision", "numpy", "pandas", "captum"):
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return Section(
        "How to read this page",
        (
            f"{judged.method} Seed {options['seed']}.",
            "The intervals cover chance in drawing these faces. They do not cover errors in the annotations, "
            "several photographs of one person "
            "counted as independent, or faces of another kind than these.",
            "A gap is the largest difference between two groups, so chance alone makes it greater than 0; "
            "the more groups and the fewer faces, the greater.",
            Table("Versions", ("package", "version"), tuple(found)),
        ),
    )
