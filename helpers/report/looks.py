"""Where the model looks: the panel of maps, and the scores that say how far the maps can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import nn

import helpers
from helpers import attribution
from helpers.attribution.evaluate import bootstrapped
from helpers.data.sampling import spread
from helpers.plots.attribution import panel

from .html import Heading, Picture, Points, Section, Table, Told, sentence
from .wording import names, spans, words

SCORED = 16  # faces on which maps are scored
REDONE = 4  # faces whose maps are made again with random weights: as much work as the maps themselves, DRAWS times
DRAWS = 3  # of random weights: one draw can leave a likeness by chance
NOISE = "Chance (a map of noise)"
FORGETS = 0.5  # a likeness above which a map hardly hangs on the weights
SCORES = {
    "deletion": "deletion, lower is better",
    "insertion": "insertion, higher is better",
    "model_randomisation": "likeness to a random model's map, near 0 is better",
}
MEANING = (
    "Deletion: the score of the class, averaged while the pixels that the map calls most relevant are made black first. A "
    "map that finds what the model uses brings it down early.",
    "Insertion: the same the other way round, from a black picture. A map that finds what the model uses brings the score up "
    "early.",
    f"Likeness to a random model's map: the rank correlation with the map of the same network with random weights, mean of "
    f"{DRAWS} draws. Near 1 the map shows the picture and not what the model has learned.",
)  # fmt: skip
FIRES = (ValueError, RuntimeError, NotImplementedError, ImportError)


def looks(
    model: nn.Module, faces, predicted: np.ndarray, methods: list[str], examples: int, options: dict
) -> Told:
    """Maps of a few faces and their scores on more; a method that fails on this model is named and the others are shown."""
    seed = options["seed"]
    rows = spread(faces, max(examples, SCORED), seed)
    images, _, _ = faces[rows]
    maps, keys, failed = {}, {}, []
    for name in methods:
        try:
            maps |= maps_by(model, images, [name], seed=seed)
            keys[words(name)] = name
        except FIRES as error:
            failed.append(f"{words(name)} does not work on this model: {error}")
    parts: list = []
    said = "No attribution method asked for works on this model, so the page does not show where it looks."
    if maps:
        few = slice(0, examples)
        drawing = panel(
            images[few].numpy(),
            {name: values[few] for name, values in maps.items()},
            row_labels(faces, predicted, rows[few]),
            scale="map",
        )
        parts += [
            "For each face the relevance of its pixels for the class the model chose. Red speaks for that class, blue against "
            "it; each picture has its own scale, so strengths compare within a picture and not between pictures.",
            Picture.of(drawing, f"Faces from “{faces.name}” and their attributions by {sentence(maps)}."),
        ]
        plt.close(drawing)
        trusted, said = trust(model, images, maps, keys, options)
        parts += [Heading("Can these maps be trusted?"), *trusted]
        parts += (located(model, faces, rows, images, maps, options) if hasattr(faces, "masks") else []) or [
            "Which pixels show what is not known for these faces, so the maps cannot be scored against the truth."
        ]
    parts += failed
    parts.append(
        "A map is one method's account of the model, not a proof of its reasons: methods disagree, and some "
        "show edges whatever the model has learned. The scores above judge a map by the model, not by what people find plausible."
    )
    return Told(Section("Where does it look, and can that be trusted?", tuple(parts)), said)


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


def noise(images, seed: int) -> dict[str, np.ndarray]:
    """The chance level: maps that know nothing."""
    return {NOISE: attribution.random_maps(images, seed=seed).numpy()}


def trust(model: nn.Module, images, maps: dict, keys: dict, options: dict) -> tuple[list, str]:
    """The scores of the maps beside those of noise, what they mean, and what they come to in a sentence."""
    seed, confidence, n_boot = (options[name] for name in ("seed", "confidence", "n_boot"))
    judged = maps | noise(images, seed)
    few = {name: values[:REDONE] for name, values in maps.items()}
    curves = helpers.evaluate(model, images, judged, metrics=["deletion", "insertion"], seed=seed, steps=25)
    again = helpers.evaluate(
        model, images[:REDONE], few, metrics=["model_randomisation"], explain=keys, seed=seed, draws=DRAWS
    )
    frame = pd.concat([curves, again], ignore_index=True)
    shown = pd.DataFrame({"method": list(judged)})
    means = attribution.summary(frame, confidence, seed, n_boot)
    for metric, title in SCORES.items():
        rows = means[means["metric"] == metric].set_index("method").reindex(list(judged))
        shown[title] = spans(rows, "mean", "low", "high")
    shown.loc[shown["method"] == NOISE, SCORES["model_randomisation"]] = "–"
    value = frame.pivot(index="image", columns=["metric", "method"], values="value")
    beats = {name: better(value, name, confidence, seed, n_boot) for name in maps}
    shown["better than noise in"] = [sentence(beats.get(name, ["–"])) or "neither" for name in judged]
    likeness = means[means["metric"] == "model_randomisation"].set_index("method")["mean"]
    fixed = [name for name in maps if likeness[name] > FORGETS]
    both = [name for name in maps if len(beats[name]) == 2 and name not in fixed]
    counted = f"Means over {len(images)} faces (likeness: {min(REDONE, len(images))}) with {confidence:.0%} intervals"
    parts: list = [Table.of(shown, counted), Points(MEANING)]
    if likeness[list(maps)].isna().all():
        parts.append("The weights of this model cannot be drawn anew, so it was not checked whether the maps hang on them.")
    weak = "in both deletion and insertion, so the maps are weak evidence of where the model looks."
    if len(maps) == 1:
        name = next(iter(maps))
        said = f"The one attribution method here, {name}, " + (
            "finds pixels that matter to the model better than noise does, in deletion and in insertion."
            if both
            else f"is not better than noise {weak}"
        )
    elif both:
        finds = "finds" if len(both) == 1 else "find"
        said = f"Of {len(maps)} attribution methods {sentence(both)} {finds} pixels that matter to the model better than noise "
        said += "does, in deletion and in insertion."
    else:
        said = f"None of {len(maps)} attribution methods is better than noise {weak}"
    if fixed:
        said += f" The maps of {sentence(fixed)} would look much the same had the model learned nothing."
    return [said, *parts], said


def better(value: pd.DataFrame, name: str, confidence: float, seed: int, n_boot: int) -> list[str]:
    """In which of deletion and insertion the maps are better than noise on the same faces, beyond chance."""
    found = []
    for metric, sign in (("deletion", -1), ("insertion", 1)):
        lead = (sign * (value[metric, name] - value[metric, NOISE])).dropna().to_numpy(float)
        if bootstrapped(lead, confidence, seed, n_boot)[0] > 0:  # False for NaN
            found.append(metric)
    return found


def located(model: nn.Module, faces, rows: list[int], images, maps: dict, options: dict) -> list:
    """Share of relevance on the pixels that show the target and the protected attribute."""
    judged = maps | noise(images, options["seed"])
    shown = pd.DataFrame({"method": list(judged)})
    protected = [faces.protected] if isinstance(faces.protected, str) else faces.protected
    for column in (faces.target, *protected):
        try:
            masks = faces.masks(rows, column)
        except ValueError:  # a style without a drawing for the attribute
            return []
        scores = helpers.evaluate(
            model, images, judged, metrics=["relevance_mass"], masks=masks, seed=options["seed"]
        )
        means = attribution.summary(scores, options["confidence"], options["seed"], options["n_boot"])
        means = means.set_index("method").reindex(list(judged))
        shown[f"on {words(column).lower()}"] = spans(means, "mean", "low", "high")
    return [
        "These faces are drawn, so it is known which pixels show each attribute. A model that does its task "
        f"looks at those of {words(faces.target).lower()}; relevance on those of {sentence(names(protected))} tells of a "
        "shortcut. The map of noise has the share that falls there by chance.",
        Table.of(
            shown,
            f"Relevance mass: mean share of positive relevance by where it lies, over {len(rows)} faces with "
            f"{options['confidence']:.0%} intervals",
        ),
    ]
