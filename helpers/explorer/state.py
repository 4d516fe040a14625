"""What one visitor looks at and what was computed for it; no widgets, so that all of it can be tested alone."""

from __future__ import annotations

import contextlib
import copy
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import helpers
from helpers.bias.thresholds import threshold_sweep
from helpers.data.sampling import spread
from helpers.debiasing.result import VANILLA, Answers, CorrectionResult, Results
from helpers.models.prediction import hard, score
from helpers.models.resume import fingerprint
from helpers.names import choose

from . import kept
from .choice import Choice, Opened, columns, open_choice, protected_of

THRESHOLDS = np.linspace(0, 1, 101)
GAPS = ("demographic_parity", "equal_opportunity", "equalized_odds", "accuracy_parity", "predictive_parity")
RATES = ("selection_rate", "true_positive_rate", "false_positive_rate", "accuracy", "balanced_accuracy")
MOST_METHODS, MOST_FACES = 4, 8
STEPS = 20  # of the deletion curve
METRICS = ("deletion", "pointing_game", "relevance_mass")
GREY = 0.5


@dataclass(frozen=True, eq=False)
class Changed:
    """One face before and after a change, and the model's answer to both.

    Attributes
    ----------
    images : float32 (2, 3, H, W).  probabilities : float (2,), of the class `asked`
    asked : name of the class that the model gives the face as it was
    decisions : the class given before and after
    """

    images: Tensor
    probabilities: np.ndarray
    asked: str
    decisions: tuple[str, str]

    @property
    def flipped(self) -> bool:
        return self.decisions[0] != self.decisions[1]


class State:
    """What is open, and its tables, maps and mitigated models, each computed once.

    Parameters
    ----------
    root : the folder that paths of data and models lie in
    """

    def __init__(self, root: str | Path = "."):
        self.root = Path(root)
        self.opened: Opened | None = None
        # Maps are made with hooks and gradients switched on: two threads must not do that to one model at a time.
        self._alone = threading.RLock()
        self._clear()

    def _clear(self) -> None:
        self._maps: dict[tuple[str, str, int], np.ndarray] = {}
        self._scores: dict[tuple[str, bool, int], dict[str, float]] = {}
        self._masks: dict[tuple[str, int], np.ndarray | None] = {}
        self._sweep: pd.DataFrame | None = None
        self.fixes = Results()

    # What is open

    def open(self, choice: Choice) -> Opened:
        """Open something else; what was open stays open if that fails."""
        opened = open_choice(choice, self.root)
        self.opened = opened
        self._clear()
        return opened

    def relabel(self, protected: str) -> None:
        """Compare the groups of another column: the same model and faces, so that nothing is predicted again."""
        self.opened = self.now.relabel(choose(protected, self.columns, "protected"))
        self._sweep, self.fixes = None, Results()

    @property
    def now(self) -> Opened:
        if self.opened is None:
            raise ValueError("data: nothing is open yet; choose data and a model, then press Open")
        return self.opened

    @property
    def faces(self):
        """The faces that the model is judged on."""
        return self.now.test

    @property
    def columns(self) -> list[str]:
        """Columns that could be the protected attribute."""
        return columns(self.now.test)

    @property
    def binary(self) -> bool:
        return len(self.faces.classes) == 2

    @property
    def predicted(self) -> np.ndarray:
        """Class given to each face, int64 (N,)."""
        return hard(self.now.logits)

    # Audit

    def audit(self, threshold: float = 0.5):
        """`helpers.audit` of the decisions at a threshold on P(class 1); with three classes or more of the likeliest class."""
        scores = score(self.now.logits)
        decided = (scores >= threshold).astype(np.int64) if self.binary else self.predicted
        faces = self.faces
        return helpers.audit(faces.targets, decided, faces.group, y_score=scores, groups=faces.groups, classes=faces.classes)

    @property
    def sweep(self) -> pd.DataFrame:
        """Rates by group and gaps at the thresholds 0, 0.01, …, 1, with intervals."""
        if self._sweep is None:
            opened, swept = self.now, self._swept(THRESHOLDS)
            if self.opened is not opened:  # others are compared by now
                return swept
            self._sweep = swept
        return self._sweep

    def at(self, threshold: float) -> pd.DataFrame:
        """The rows of `sweep` nearest to a threshold: a look-up once `sweep` is there, and before that for this one alone."""
        nearest = THRESHOLDS[np.abs(THRESHOLDS - threshold).argmin()]
        table = self._sweep
        return self._swept([nearest]) if table is None else table[table["threshold"] == nearest]

    def _swept(self, thresholds: Sequence[float]) -> pd.DataFrame:
        faces, scores = self.faces, score(self.now.logits)
        if not self.binary:
            raise ValueError(f"threshold: {faces.target} has {len(faces.classes)} classes, and a threshold needs two")
        return threshold_sweep(
            faces.targets, scores, faces.group, thresholds=thresholds, statistics=[*RATES, *GAPS],
            groups=faces.groups, classes=faces.classes,
        )  # fmt: skip

    # Look

    def rows(self, kind: str = "all", page: int = 0, count: int = MOST_FACES) -> list[int]:
        """Row numbers of a page of faces: of "all", of those that are "wrong" or "right", or of one group's name.

        Groups and classes take turns. Pages beyond the last begin again.
        """
        faces = self.faces
        wrong = self.predicted != faces.targets
        kinds = {"all": np.ones(len(faces), bool), "wrong": wrong, "right": ~wrong}
        kinds |= {name: faces.group == code for code, name in enumerate(faces.groups)}
        wanted = np.flatnonzero(kinds[choose(kind, kinds, "faces")])
        if not len(wanted):
            return []
        order = wanted[spread(faces.subset(wanted), len(wanted))]
        pages = -(-len(order) // count)
        return order[(page % pages) * count :][:count].tolist()

    def image(self, row: int) -> Tensor:
        """One face, float32 (3, H, W)."""
        return self.faces[int(row)][0]

    def label(self, row: int) -> str:
        """A face in words: number, class, group and what the model says."""
        faces, row = self.faces, int(row)
        truth, said = faces.classes[faces.targets[row]], faces.classes[self.predicted[row]]
        verdict = "the model agrees" if truth == said else f"the model says {said}"
        return f"face {row}: {truth}, {faces.groups[faces.group[row]]}; {verdict}"

    def maps(self, rows: Sequence[int], method: str, model: str = VANILLA) -> np.ndarray:
        """Maps float32 (n, H, W) for the class that the model as it was gives each face; those known already are not made again.

        Parameters
        ----------
        rows : of the faces.  method : a name of `helpers.attribution.methods()`
        model : a name of `fixes`, or "Vanilla"
        """
        lacking = [row for row in dict.fromkeys(map(int, rows)) if (model, method, row) not in self._maps]
        if lacking:
            images = torch.stack([self.image(row) for row in lacking])
            with self._alone:
                found = helpers.attribute(self.model(model), images, self.predicted[lacking], method=method).numpy()
            self._maps |= {(model, method, row): one for row, one in zip(lacking, found, strict=True)}
        return np.stack([self._maps[model, method, int(row)] for row in rows])

    def masks(self, rows: Sequence[int], attribute: str | None = None) -> np.ndarray | None:
        """Where an attribute (the target) lies in each face, bool (n, H, W), or None where nobody knows."""
        attribute = attribute or self.faces.target
        if not hasattr(self.faces, "mask"):
            return None
        for row in map(int, rows):
            if (attribute, row) not in self._masks:
                try:
                    self._masks[attribute, row] = self.faces.mask(row, attribute)
                except ValueError:  # no such attribute in a drawing, or not in this style
                    self._masks[attribute, row] = None
        found = [self._masks[attribute, int(row)] for row in rows]
        return None if any(mask is None or not mask.any() for mask in found) else np.stack(found)

    def scores(self, rows: Sequence[int], methods: Sequence[str]) -> pd.DataFrame:
        """Means over the faces of deletion, and where the target's pixels are known of pointing game and relevance mass.

        Returns
        -------
        DataFrame, one row a method, one column a score; maps must have been asked for before or are made.
        """
        rows, masks = list(map(int, rows)), self.masks(rows)
        known, wanted = masks is not None, list(METRICS if masks is not None else METRICS[:1])
        for method in methods:
            lacking = [place for place, row in enumerate(rows) if (method, known, row) not in self._scores]
            if not lacking:
                continue
            these = [rows[place] for place in lacking]
            images, maps = torch.stack([self.image(row) for row in these]), self.maps(these, method)
            with self._alone:
                table = helpers.evaluate(
                    self.now.model, images, maps, self.predicted[these], metrics=wanted,
                    masks=masks[lacking] if known else None, steps=STEPS,
                )  # fmt: skip
            for place, part in table.groupby("image"):
                self._scores[method, known, these[place]] = dict(zip(part["metric"], part["value"], strict=True))
        found = {method: pd.DataFrame([self._scores[method, known, row] for row in rows]).mean() for method in methods}
        return pd.DataFrame(found).T.reindex(columns=wanted)

    # What if

    @property
    def drawn(self) -> bool:
        """Whether the faces can be redrawn."""
        return hasattr(self.faces, "counterfactual")

    def drawable(self, row: int) -> dict[str, tuple[tuple, object]]:
        """For each attribute that face can be redrawn with, its values and the present one."""
        if not self.drawn:
            return {}
        from helpers.data.styles import ATTRIBUTES, GUIDES

        person, attributes, _ = self.faces.face(int(row))
        cannot = GUIDES[person.style].cannot
        return {name: (values, attributes[name]) for name, values in ATTRIBUTES.items() if name not in cannot}

    def redrawn(self, row: int, values: Mapping[str, object]) -> Changed:
        """A drawn face with some attributes changed, everything else as it was.

        Raises
        ------
        ValueError : photographs, an attribute that the face's style does not draw, an unknown value.
        """
        if not self.drawn:
            raise ValueError(f"data: {self.faces.name} has photographs, which cannot be redrawn; cover a part of one instead")
        from helpers.data.rendering import render

        able = self.drawable(row)
        for name, value in values.items():
            accepted = able[choose(name, able, "attribute")][0]
            if value not in accepted:
                raise ValueError(f"{name}: {value!r} is no value of it; accepted: {', '.join(map(str, accepted))}")
        person, attributes, nuisance = self.faces.face(int(row))
        picture = render(person, {**attributes, **values}, nuisance, self.faces.image_size)
        return self.changed(row, torch.from_numpy(picture).permute(2, 0, 1).float() / 255)

    def covered(self, row: int, top: int, left: int, height: int, width: int) -> Changed:
        """A face with a grey rectangle over a part of it, in pixels from the upper left corner."""
        image = self.image(row).clone()
        image[:, top : top + height, left : left + width] = GREY
        return self.changed(row, image)

    def changed(self, row: int, image: Tensor, model: str = VANILLA) -> Changed:
        """A face beside another picture in its place."""
        images = torch.stack([self.image(row), image])
        logits = self.answers(images, model, int(row))
        asked, after = (int(code) for code in hard(logits))
        given = score(logits)
        probabilities = np.where(asked == 1, given, 1 - given) if given.ndim == 1 else given[:, asked]
        names = self.faces.classes
        return Changed(images, probabilities, names[asked], (names[asked], names[after]))

    def answers(self, images: Tensor, model: str, row: int) -> np.ndarray:
        """Logits (n, K) of pictures of one face."""
        network = self.model(model)
        with self._alone, torch.inference_mode():
            if getattr(network, "needs_group", False):
                group = torch.full((len(images),), int(self.faces.group[row]))
                return network(images, group=group).float().numpy()
            return network(images).float().numpy()

    def maps_of(self, changed: Changed, method: str) -> np.ndarray:
        """Maps (2, H, W) before and after, of the class asked about."""
        asked = self.faces.classes.index(changed.asked)
        with self._alone:
            return helpers.attribute(self.now.model, changed.images, asked, method=method).numpy()

    # Fix

    def model(self, name: str = VANILLA) -> nn.Module:
        """The model as it was, or a mitigated one."""
        return self.now.model if name == VANILLA else self.fixes[name].get_model()

    @property
    def place(self) -> Path:
        """Where mitigated models of what is open are kept: other faces, labels or groups are another place."""
        fit, test = self.now.fit, self.now.test
        about = fingerprint(np.asarray(fit.images), fit.targets, fit.group, test.targets, test.group)
        return kept.folder(self.now.key) / about

    def before(self) -> CorrectionResult:
        """The model as it was, as a result to compare others with."""
        return CorrectionResult(
            VANILLA, self.now.model, audit=self.audit(), degenerate=len(np.unique(self.predicted)) == 1
        )

    def kept_fixes(self) -> list[str]:
        """Methods whose models are on disk already, perhaps of an earlier visit."""
        return kept.names(self.place)

    def recall(self, methods: Sequence[str]) -> None:
        """Take methods from disk into `fixes`."""
        for method in methods:
            model, predicted, seconds, note = kept.read(self.place, method)
            self._add(CorrectionResult(method, model.eval(), seconds=seconds, note=note), predicted)

    def fix(self, methods: Sequence[str], told: Callable[[CorrectionResult], None] = lambda result: None) -> Results:
        """Run methods that are not at hand, fitted on `fit` and judged on `faces`; each is kept as soon as it is there.

        Parameters
        ----------
        methods : keys of `helpers.debiasing.METHODS`.  told : called with each result as it comes

        Returns
        -------
        Results, the model as it was first; also in `fixes`
        """
        opened, at_hand = self.now, self.kept_fixes()
        self.recall([method for method in methods if method in at_hand and method not in self.fixes])
        place, missing = self.place, [method for method in methods if method not in self.fixes]
        if missing:

            def each(result: CorrectionResult) -> None:
                if result.method == VANILLA:
                    return
                current = self.opened is opened  # else groups or data have changed meanwhile, and it is kept for a later visit
                if result.model is not None:
                    with contextlib.suppress(ValueError):  # a model without weights of its own is there for this visit only
                        kept.keep(place, result)
                    if current:
                        self._add(result, result.answers.after)
                elif current:
                    self.fixes[result.method] = result
                told(result)

            with self._alone:
                model = copy.deepcopy(self.now.model)
            helpers.debias(model, self.now.fit, missing, test_dataloader=self.now.test, each=each)
        return self.fixes

    def _add(self, result: CorrectionResult, predicted: np.ndarray) -> None:
        """A result with its audit and its answers beside those of the model as it was, from what it predicts on `faces`."""
        if VANILLA not in list(self.fixes):
            self.fixes[VANILLA] = self.before()
        faces = self.faces
        names = {"groups": faces.groups, "classes": faces.classes}
        self.fixes[result.method] = CorrectionResult(
            result.method, result.model, seconds=result.seconds, note=result.note,
            audit=helpers.audit(faces.targets, predicted, faces.group, **names),
            answers=Answers(faces.targets, self.predicted, predicted, faces.group, faces.classes, faces.groups),
            needs_group=bool(getattr(result.model, "needs_group", False)),
            degenerate=len(np.unique(predicted)) == 1,
        )  # fmt: skip

    # Report

    def report(self, folder: str | Path, attributions: Sequence[str] = ("saliency", "grad_cam")) -> Path:
        """Write the page that `helpers.report` makes of what is open, with the mitigated models at hand."""
        results = {name: result for name, result in self.fixes.items() if result.model is not None}
        return helpers.report(
            self.now.model, self.faces, Path(folder) / "report.html", results=results or None, attributions=attributions
        )

    def table(self, folder: str | Path, threshold: float = 0.5) -> Path:
        """Write the audit by group as CSV."""
        path = Path(folder) / "audit.csv"
        self.audit(threshold).by_group.to_csv(path, index=False)
        return path

    def save(self, folder: str | Path, name: str = VANILLA) -> Path:
        """Write a model and its description, zipped: models.load reads what is inside."""
        from helpers import models

        where = Path(folder) / f"model-{name}"
        models.save(self.model(name), where / "model.safetensors", protected=protected_of(self.faces))
        path = Path(shutil.make_archive(str(where), "zip", where))
        shutil.rmtree(where)
        return path

