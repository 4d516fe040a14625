"""Networks whose cause is known by construction, and checked: what a map of them has to point at.

Faces are drawn in which mouth (smiling or not) and glasses (worn or not) are independent of each other and of all else. A network
learns one of three labels: whether the mouth smiles, whether glasses are worn, and which of the four combinations holds. Of the
third *both* causes are needed in every picture: to redraw either makes it another combination. (Of "smiling with glasses, or
not" that is true of one cell in four, as a sober face without glasses keeps its label whichever is redrawn. Of an exclusive or it
is always true, but a network of this size only learned that by heart.)

That the label depends on a part does not make the network depend on it. So each picture is redrawn with one attribute changed and
nothing else, and is kept only if the network's decision changes for every attribute of its cause and for no other attribute, nor
for another background. What is kept is true of this network and this picture, not only of how they were meant.

Where the cause lies is known too: the mask of an attribute holds every pixel whose 8-bit colour changes as it is redrawn, glasses
worn or not (in a face without glasses, the evidence that there are none lies where they would be). Pixels outside are the same
in both pictures, so that nothing there can have changed the decision. Three limits: a mask is an outer bound, of which a network
may use a part; blur widens it; and what a *score* leans on without changing a decision (a beard that makes "smiling" a little
likelier, say) is not ruled out for the rest of the picture.

Truth was planted before: Yang & Kim 2019 paste objects into scenes and compare models trained on either, Arras et al. 2022 ask
questions of rendered scenes whose answer lies on known objects, Zhou et al. 2022 change photographs so that a feature must be
used and measure how much attribution it gets. Here the cause is a part of the face itself, independent of the others, and each
picture is checked on each network by an intervention on every drawn attribute.

References
----------
Yang & Kim, "Benchmarking attribution methods with relative feature importance", 2019, arXiv 1907.09701.
Arras, Osman & Samek, "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural network explanations",
Information Fusion 2022.
Zhou, Booth, Ribeiro & Shah, "Do feature attribution methods correctly attribute features?", AAAI 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from tqdm.auto import tqdm

import helpers
from helpers.bias.settings import whole
from helpers.data.masks import other_values
from helpers.data.rendering import draw_nuisance, render
from helpers.data.sampling import spread
from helpers.data.styles import ATTRIBUTES, GUIDES
from helpers.models import predict
from helpers.names import choose
from helpers.problem import trained

PART_OF = {"smiling": "mouth", "glasses": "glasses"}
LABELS = {"mouth": ("smiling",), "glasses": ("glasses",), "both": ("smiling", "glasses")}  # problem -> attributes of its cause
STYLES = ("avataaars", "micah")  # which draw all attributes, the mouth and the glasses as parts of their own
NUISANCE = 0.5
IMAGES, EPOCHS, BATCH = 3000, 5, 64
SPARE = 4  # pictures looked at for each that is wanted, since not all pass the check of every network
LEAST = 0.5  # of the pictures looked at: a network that fails the check for more is not what it was built to be


@dataclass(frozen=True)
class KnownCauses:
    """Pictures, networks, and the parts of the pictures that make the networks decide as they do.

    Attributes
    ----------
    images : float32 (N, 3, H, W) in [0, 1]
    parts : dict of name to bool (N, H, W): the causes, and their rivals (other parts of the picture). A pixel is in one part at
        most; a part that is not in a picture is empty there
    causes : dict of problem to the parts that are its cause
    networks : dict of (problem, seed) to a module in eval mode, images -> logits; for each seed all problems
    targets : dict of (problem, seed) to int64 (N,), the decision that is to be explained
    people : (N,), whose picture it is; people, and not pictures, are taken as independent
    cells : (N,), strings that say what is in the picture
    checks : DataFrame, one row a problem and seed: how the network did in the check of `known_causes`; may be empty
    """

    images: Tensor
    parts: Mapping[str, np.ndarray]
    causes: Mapping[str, Sequence[str]]
    networks: Mapping[tuple[str, int], nn.Module]
    targets: Mapping[tuple[str, int], Tensor]
    people: np.ndarray
    cells: np.ndarray
    checks: pd.DataFrame


def known_causes(
    images: int = 24,
    seeds: Sequence[int] = (0,),
    *,
    problems: Sequence[str] = tuple(LABELS),
    image_size: int = 64,
    seed: int = 0,
    faces: int = IMAGES,
    epochs: int = EPOCHS,
    progress: bool = True,
) -> KnownCauses:
    """Draw the faces, train the networks (or take them from the cache) and keep pictures whose cause is as it was built.

    Parameters
    ----------
    images : how many pictures, a multiple of four: as many of each cell (smiling or not, glasses or not). The same for all
        networks, so that each has passed the check of every one of them
    seeds : of the trainings, one network of each problem for each
    problems : some of "mouth", "glasses", "both"
    image_size : pixels
    seed : of the faces and of which are chosen
    faces, epochs : how many the networks learn from, and how often; a fifth as many of other people, to test them on
    progress : show bars

    Returns
    -------
    KnownCauses, with `checks`: `problem, seed, balanced_accuracy` (of `test` faces), `checked` pictures, the share
    that `agree`, and the share of decisions that change when each attribute is redrawn (`smiling`, …, `background`).

    Raises
    ------
    ValueError : settings out of range; a network that fails the check for more than half of the pictures; too few that pass.
    """
    if whole(images, "images", 4) % 4:
        raise ValueError(f"images: {images} given; a multiple of 4 expected, as many for each of the four cells")
    problems = [choose(name, LABELS, "problems") for name in problems]
    seeds = [whole(each, "seeds", 0) for each in seeds]
    if not problems or not seeds:
        raise ValueError("problems, seeds: at least one of each expected")
    options = {"target": "smiling", "protected": "glasses", "styles": STYLES, "nuisance": NUISANCE, "image_size": image_size}
    options |= {"seed": seed, "correlation": 0.0, "progress": progress}
    train = helpers.load_faces("illustrated", split="train", n=faces, **options)
    test = helpers.load_faces("illustrated", split="test", n=max(faces // 5, 8 * images), **options)
    networks = {}
    for problem in problems:
        labelled = with_label(train, problem)
        for each in seeds:
            settings = {"epochs": epochs, "batch_size": BATCH, "seed": each, "progress": progress}
            networks[problem, each] = trained(labelled, f"cause-{problem}", **settings).eval()
    rows = spread(test, SPARE * images, seed)
    looked = [redrawn(test, row, seed) for row in tqdm(rows, "redrawing", unit="face", disable=not progress)]
    found, checks, good = {}, [], np.ones(len(rows), dtype=bool)
    for (problem, each), network in networks.items():
        labelled = with_label(test, problem)
        table = check(network, LABELS[problem], test[rows][0], labelled.targets[rows], looked)
        answers = predict(network, labelled)
        row = {"problem": problem, "seed": each, "test": len(test)}
        row["balanced_accuracy"] = balanced_accuracy_score(answers.y_true, answers.y_pred)
        checks.append(row | summarised(table))
        if row["balanced_accuracy"] < 1 - LEAST / 2 or table["agrees"].mean() < LEAST:
            raise ValueError(refusal(problem, each, checks[-1]))
        good &= table["agrees"].to_numpy()
        found[problem, each] = answers.y_pred
    chosen = equal_cells(test, np.array(rows)[good], images)
    return KnownCauses(
        test[chosen][0],
        parts(test, chosen),
        {problem: [PART_OF[name] for name in LABELS[problem]] for problem in problems},
        networks,
        {key: torch.from_numpy(answers[chosen]) for key, answers in found.items()},
        test.table["identity"].to_numpy()[chosen],
        np.array([f"{test.classes[test.targets[row]]}, {test.groups[test.group[row]]}" for row in chosen]),
        pd.DataFrame(checks),
    )


def with_label(faces, problem: str):
    """The same faces, to be told apart by the attributes of the problem's cause: its one, or all combinations of several."""
    other, names = faces.subset(slice(None)), LABELS[problem]
    label = other.table[names[0]].astype(bool)
    if len(names) > 1:
        said = [np.where(other.table[name].astype(bool), name, f"not {name}") for name in names]
        label = [", ".join(each) for each in zip(*said, strict=True)]
    other.table[f"label: {problem}"] = label
    return other.relabel(target=f"label: {problem}")


def redrawn(faces, row: int, seed: int = 0) -> dict[str, Tensor]:
    """The picture with one thing changed: for each attribute its other values, and another background, float32 (n, 3, H, W)."""
    person, attributes, nuisance = faces.face(row)
    pictures = {}
    for name in ATTRIBUTES:
        if name not in GUIDES[person.style].cannot:
            values = other_values(name, attributes[name])
            pictures[name] = torch.stack([faces.counterfactual(row, name, value) for value in values])
    other = draw_nuisance(np.random.default_rng([seed, row]), faces.nuisance).background
    picture = render(person, attributes, replace(nuisance, background=other), faces.image_size)
    pictures["background"] = torch.from_numpy(picture).permute(2, 0, 1).float()[None] / 255
    return pictures


def check(
    network: nn.Module, cause: Sequence[str], images: Tensor, labels: np.ndarray, looked: Sequence[Mapping[str, Tensor]]
) -> pd.DataFrame:
    """Does the decision change with each attribute of the cause, and with nothing else?

    Parameters
    ----------
    network : images -> logits
    cause : attributes
    images, labels : (N, 3, H, W) and int (N,)
    looked : N dicts, as of `redrawn`

    Returns
    -------
    DataFrame, one row a picture: `right`, for each thing redrawn whether any of its pictures is decided otherwise, `agrees`.
    """
    rows = []
    with torch.inference_mode():
        for image, label, pictures in zip(images, labels, looked, strict=True):
            stack = torch.cat([image[None], *pictures.values()])
            decided = network(stack).argmax(1).numpy()
            ends = np.cumsum([1, *map(len, pictures.values())])
            flips = {name: bool((decided[a:b] != decided[0]).any())
                     for name, a, b in zip(pictures, ends[:-1], ends[1:], strict=True)}  # fmt: skip
            right = bool(decided[0] == label)
            rows.append({"right": right, **flips, "agrees": right and all(flips[name] == (name in cause) for name in flips)})
    return pd.DataFrame(rows)


def summarised(table: pd.DataFrame) -> dict[str, float]:
    """The means of `check`'s table; of what some pictures do not have, over the others."""
    means = table.astype(float).mean()
    return {"checked": len(table), "agree": means["agrees"], **means.drop(["right", "agrees"])}


def refusal(problem: str, seed: int, row: Mapping[str, float]) -> str:
    """Why a network is not taken for one whose cause is known."""
    flips = ", ".join(f"{name} {row[name]:.0%}" for name in (*ATTRIBUTES, "background") if name in row)
    return (
        f"networks: that for {problem!r} (seed {seed}) does not do what it was built for: balanced accuracy "
        f"{row['balanced_accuracy']:.2f}, {row['agree']:.0%} of {row['checked']} pictures pass the check; decisions that change "
        f"as one thing is redrawn: {flips}. Train it on more faces or for more epochs"
    )


def equal_cells(faces, rows: np.ndarray, images: int) -> np.ndarray:
    """The first of `rows` in each of the four cells, `images` in all; ValueError if there are not as many."""
    cell = faces.targets[rows] * len(faces.groups) + faces.group[rows]
    counts = np.bincount(cell, minlength=4)
    if counts.min() < images // 4:
        raise ValueError(f"images: {images} asked for; in equal cells {4 * counts.min()} passed the check of every network")
    return np.sort(np.concatenate([rows[cell == code][: images // 4] for code in range(4)]))


def parts(faces, rows: Sequence[int]) -> dict[str, np.ndarray]:
    """The causes by their exact masks, and what remains of each region beside them: bool (N, H, W) each.

    What remains of the mouth's and the glasses' own regions is border, neither cause nor rival, and so in no part. A pixel of
    both causes, where a frame hangs that low, counts for the mouth.
    """
    stacked: dict[str, list[np.ndarray]] = {}
    for row in rows:
        mouth, glasses = (faces.mask(int(row), name) for name in PART_OF)
        found = {"mouth": mouth, "glasses": glasses & ~mouth}
        rest = {name: mask & ~mouth & ~glasses for name, mask in faces.regions(int(row)).items()}
        for name, mask in (found | {name: mask for name, mask in rest.items() if name not in ("mouth", "accessories")}).items():
            stacked.setdefault(name, []).append(mask)
    return {name: np.stack(masks) for name, masks in stacked.items()}
