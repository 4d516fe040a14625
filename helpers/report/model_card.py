"""The model's card: the nine sections of Mitchell et al. (2019) as Markdown, with metadata that programs read.

References
----------
Mitchell et al., "Model cards for model reporting", FAT* 2019, arXiv 1810.03993.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from torch import nn

import helpers
from helpers.bias.gaps import NAMED
from helpers.data import card as data_card
from helpers.files import check, whole
from helpers.markdown import bullets, escaped, table
from helpers.models import edits, predict

from .comparison import audit_of
from .html import interval, sentence
from .stated import HOW, STATED, answer, statements
from .wording import gaps_table, groups_table, names, summarised, words

SECTIONS = (
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
)
RATES = (
    "accuracy", "balanced_accuracy", "selection_rate", "true_positive_rate", "false_positive_rate", "positive_predictive_value",
)  # fmt: skip
INDEXED = ("accuracy", "balanced_accuracy", "f1")
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # as Hugging Face and SPDX write them: mit, apache-2.0
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "captum")


def model_card(
    model: nn.Module,
    faces,
    path: str | Path = "model.card.md",
    *,
    stated: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    device=None,
) -> Path:
    """Write the model's card alone; `helpers.report` writes it beside the page.

    Parameters
    ----------
    model, faces, stated, about, confidence, n_boot, seed, device : as in `helpers.report`
    path : where the card goes (Markdown); one that is there already is replaced

    Returns
    -------
    Path of the card

    Raises
    ------
    ValueError : a path that cannot be written, an unknown key (with the nearest one), a model that does not fit the target.
    """
    path, said = check(path), statements(stated)
    judged = audit_of(predict(model, faces, device=device), faces, confidence=confidence, n_boot=n_boot, seed=seed)
    described = data_card(faces, about=about, labels=False, confidence=confidence, seed=seed)
    rows = (getattr(model, "info", None) or {}).get("rows") or {}
    return keep(text(model, faces, judged, described, said, (), rows), path)


def keep(content: str, path: Path) -> Path:
    """Write a card whole or not at all."""
    with whole(path) as part:
        part.write_text(content, encoding="utf-8")
    return path


def text(model: nn.Module, faces, judged, described, said: Mapping[str, str], remarks: Sequence[str], rows: Mapping) -> str:
    """The card as Markdown. What comes from data or people is escaped."""
    writers = (
        details(model, said), use(said), factors(faces, judged, said), metrics(judged), evaluation(faces, described, said),
        training(model, rows, said), analyses(judged, faces), ethics(described, said), caveats(judged, said, remarks),
    )  # fmt: skip
    lines = [f"# Model card: {escaped(name_of(model, faces, said))}"]
    if set(STATED) - set(said):
        lines += ["", escaped(f"What only a person can say is called “not stated” where nobody has said it. {HOW}")]
    for heading, content in zip(SECTIONS, writers, strict=True):
        lines += ["", f"## {heading}", "", *content]
    body = re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
    return f"---\n{yaml.safe_dump(metadata(model, faces, judged, said), sort_keys=False, allow_unicode=True)}---\n\n{body}"


def name_of(model: nn.Module, faces, said: Mapping[str, str]) -> str:
    """What the model is called, else what it does."""
    return said.get("name", f"{words(faces.target)} classifier")


def metadata(model: nn.Module, faces, judged, said: Mapping[str, str]) -> dict:
    """What programs read, in the form of Hugging Face's cards: only what is known, with the interval in a metric's name."""
    licence = said.get("licence")
    found: dict = {}
    if licence and LICENCE.fullmatch(licence.lower()):
        found["license"] = licence.lower()
    elif licence:
        found |= {"license": "other", "license_name": licence}
    if not getattr(model, "opaque", False):
        found["library_name"] = "pytorch"
    found["pipeline_tag"] = "image-classification"
    found["tags"] = ["image-classification", "fairness", "candor"]
    level = f"{judged.confidence:.0%} interval"
    values = [(name, words(name), judged.value(name), judged.interval(name)) for name in INDEXED]
    if len(judged.counts.groups) > 1:
        gap = f"Equalized-odds gap between groups by {', '.join(names(faces.protected))}"
        values.append(("equalized_odds", gap, judged.gap("equalized_odds"), judged.gap_interval("equalized_odds")))
    measured = [
        {
            "type": kind,
            "name": name + ("" if np.isnan(low) else f", {level} {low:.3f} to {high:.3f}"),
            "value": round(float(value), 6),
        }
        for kind, name, value, (low, high) in values
        if not np.isnan(value)
    ]
    found["metrics"] = [each["type"] for each in measured]
    found["model-index"] = [{
        "name": name_of(model, faces, said),
        "results": [{
            "task": {"type": "image-classification", "name": f"{words(faces.target)} classification of faces"},
            "dataset": {"type": str(faces.name), "name": str(faces.name), "split": str(faces.split)},
            "metrics": measured,
        }],
    }]  # fmt: skip
    return found


def facts(model: nn.Module) -> list[tuple[str, str]]:
    """What the model itself tells: kind, size, classes, edits, preparation, training; as (name, text)."""
    info = getattr(model, "info", None) or {}
    count = sum(each.numel() for each in model.parameters())
    kind = getattr(model, "architecture", None) or type(model).__name__
    if getattr(model, "opaque", False):
        kind = "a network from another library"
    weights = f"{count:,} parameters" if count else "whose weights PyTorch does not see"
    found = [("Type", f"image classifier, {kind}, {weights}")]
    size = (info.get("data") or {}).get("image_size")
    if size:
        found.append(("Input", f"RGB pictures of {size}×{size} pixels, values from 0 to 1" if isinstance(size, int) else
                      f"RGB pictures of {size[1]}×{size[0]} pixels, values from 0 to 1"))  # fmt: skip
    if getattr(model, "preprocessing", None) is not None:
        found.append(("Preparation of pictures", str(model.preprocessing)))
    if classes := getattr(model, "classes", None):
        found.append(("Classes", sentence(classes)))
    if changed := edits(model):
        found.append(("Edits", sentence([f"{type(module).__name__} after {layer}" for layer, module in changed])))
    if settings := info.get("training"):
        plain = {key: value for key, value in settings.items() if isinstance(value, str | int | float)}
        found.append(("Training", ", ".join(f"{words(key).lower()} {value}" for key, value in plain.items())))
    return found


def versions() -> list[tuple[str, str]]:
    """Packages that the numbers hang on, with their versions."""
    found = [("python", platform.python_version()), ("candor-workbench", helpers.__version__)]
    for package in PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return found


def lines(said: Mapping[str, str], *keys: str) -> list[str]:
    """Statements as a list, with the question for each that is missing."""
    return bullets([f"{words(key)}: {answer(said, key)}" for key in keys])


def details(model: nn.Module, said: Mapping[str, str]) -> list[str]:
    return [
        *bullets([f"{name}: {told}" for name, told in facts(model)]),
        *lines(said, "developers", "version", "licence", "citation"),
        "",
        escaped("Card made with " + ", ".join(f"{name} {number}" for name, number in versions()) + "."),
    ]


def use(said: Mapping[str, str]) -> list[str]:
    return lines(said, "intended_use", "intended_users", "out_of_scope")


def factors(faces, judged, said: Mapping[str, str]) -> list[str]:
    return [
        escaped(f"Groups are those annotated as {sentence(names(faces.protected))}: {sentence(judged.counts.groups)}. "
                "They are annotations of pictures, not what a person is. Results by other factors were not measured."),
        "",
        *lines(said, "factors"),
    ]  # fmt: skip


def metrics(judged) -> list[str]:
    positive = "" if judged.positive is None else f" “True” and “false positive” speak of the class “{judged.positive}”."
    return bullets([
        "Rates of right and wrong decisions for each group; the decision is the class with the highest score." + positive,
        "A gap is the difference between the highest and the lowest group. Equalized odds: the greater of the gaps of true and "
        "of false positive rates. Demographic parity: the gap of selection rates.",
        judged.method,
    ])  # fmt: skip


def evaluation(faces, described, said: Mapping[str, str]) -> list[str]:
    counts = faces.counts()
    shown = counts.astype(str).reset_index(names=sentence(names(faces.protected)))
    people = "" if described.people is None else f" of {described.people:,} people"
    return [
        escaped(f"{len(faces):,} faces{people} from “{faces.name}”, split “{faces.split}”, by group (rows) and annotated "
                f"{words(faces.target).lower()} (columns):"),
        "",
        *table(shown),
        "",
        *bullets([f"{words(key)}: {told}" for key, told in described.about.items()]),
        *lines(said, "motivation"),
        *(["", escaped(f"Not known of these faces: {' '.join(described.questions)}")] if described.questions else []),
    ]  # fmt: skip


def training(model: nn.Module, rows: Mapping, said: Mapping[str, str]) -> list[str]:
    found = (getattr(model, "info", None) or {}).get("data") or {}
    known = []
    if found:
        known.append(f"{found.get('images', 0):,} images from “{found.get('name')}”, split “{found.get('split')}”; target "
                     f"{found.get('target')}, groups by {found.get('protected')}.")  # fmt: skip
    if rows.get("train"):
        known.append("The file beside the model, and report.data.json beside a report, say exactly which rows these were.")
    if not known and "training_data" not in said:
        known.append("The model does not say what it was trained on.")
    return [*bullets(known), *(lines(said, "training_data") if "training_data" in said or not found else [])]


def analyses(judged, faces) -> list[str]:
    """Unitary results: by each attribute alone; intersectional ones: by their combinations."""
    level = f"{judged.confidence:.0%}"
    alone = judged.margins or {sentence(names(faces.protected)): judged}
    alone = {name: each for name, each in alone.items() if each.levels is None or len(each.levels.columns) < 2}
    found = ["### Unitary results", "", *overall(judged)]
    for name, each in alone.items():
        found += ["", escaped(f"By {words(name).lower()}, with {level} intervals:"), "", *by_group(each)]
    found += ["", "### Intersectional results", ""]
    if judged.levels is None:
        return [*found, "Not measured: the groups are those of one attribute. `protected=[…]` of `load_faces` crosses several."]
    return [*found, escaped(f"By {sentence(names(faces.protected))} crossed, with {level} intervals:"), "", *by_group(judged)]


def overall(judged) -> list[str]:
    rows = summarised(judged.overall)
    rows = rows[rows["statistic"].isin(RATES)]
    shown = pd.DataFrame({
        "all faces": [words(name) for name in rows["statistic"]],
        "value": [interval(*row) for row in rows[["value", "low", "high"]].itertuples(index=False)],
        "images": [f"{n:,}" for n in rows["n"]],
    })  # fmt: skip
    return table(shown)


def by_group(judged) -> list[str]:
    """A table of rates, a row a group, and one of the gaps."""
    wide = groups_table(judged, RATES).set_index("statistic").T.rename_axis("group").reset_index()
    sizes = dict(zip(judged.counts.groups, judged.counts.n, strict=True))
    wide.insert(1, "images", [f"{sizes[name]:,}" for name in wide["group"]])
    if len(judged.counts.groups) < 2:
        return [*table(wide), "", "There is one group only, so there is no gap."]
    return [*table(wide), "", *table(gaps_table(judged, NAMED))]


def ethics(described, said: Mapping[str, str]) -> list[str]:
    return [
        "Faces belong to people. Classes and groups are annotations that somebody made of pictures, not what a person is, and a "
        "model that reads them off a face repeats what its annotators thought they saw.",
        "",
        *lines(said, "ethics"),
    ]


def caveats(judged, said: Mapping[str, str], remarks: Sequence[str]) -> list[str]:
    items = [
        *judged.notes,
        *remarks,
        "The intervals cover chance in drawing these faces, not errors of annotation or faces of another kind.",
        "A gap does not say why groups differ. No gap found does not mean that there is none.",
    ]
    return [*bullets(items), *lines(said, "caveats")]
