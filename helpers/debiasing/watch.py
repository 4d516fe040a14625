"""Several models on the same faces: their logits, and their features where they were edited, in as few passes as can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from helpers.bias import audit
from helpers.debiasing.changes import changes
from helpers.debiasing.debias import PROBE, first_batch, group_names, metrics_of
from helpers.debiasing.method import Batch, collect
from helpers.debiasing.probe import LinearProbe, pooled, probe
from helpers.debiasing.replay import Probe, logits_of, make_probe, replay, replays
from helpers.debiasing.result import Answers, CorrectionResult
from helpers.models import layers
from helpers.models.data_in import batches, classes_of
from helpers.models.intake import take
from helpers.models.prediction import hard, predict, score
from helpers.models.running import call
from helpers.names import choose


@dataclass(frozen=True)
class Seen:
    """What one pass over the faces showed of a model: its logits, and features (N, d) at a layer, now and before any change."""

    layer: str
    features: np.ndarray | None  # None where the model has no such layer
    before: np.ndarray | None
    logits: np.ndarray


class Watch:
    """Looks at models on the same faces; features of the model as it was are kept, and edits replayed where that is exact."""

    def __init__(self, vanilla: nn.Module, faces: Any, seed: int):
        images, group, _ = first_batch(vanilla, faces, "faces")
        base = layers.unedited(vanilla)
        self.vanilla, self.faces, self.seed = vanilla, faces, seed
        self.opaque = bool(getattr(base, "opaque", False))  # no layers in sight
        if not self.opaque:
            self.penultimate, self.last = (layers.find(base, role, images) for role in ("penultimate", "last"))
            self.order = layers.flow(base, images)
        self.batch: Batch = collect(vanilla, faces, images[:PROBE], seed=seed)
        self.check: Probe = make_probe(vanilla, self.batch, images, group)
        self.groups = group_names(faces, self.batch.groups)
        self.classes = classes_of(faces) or tuple(map(str, range(self.batch.classes)))
        table = getattr(faces, "table", None)
        self.identity = table["identity"].to_numpy() if table is not None and "identity" in table else None
        self._before: dict[str, np.ndarray] = {}
        self._of_vanilla: dict[str, LinearProbe] = {}

    def __call__(self, model: nn.Module, layer: str | None) -> Seen:
        """Logits of a model, and its features at `layer` or at the place of its edit."""
        changed = changes(self.vanilla, model)
        if self.opaque:
            return Seen("", None, None, logits_of(model, changed, self.batch, self.check))
        place = self.place(model, changed) if layer is None else self.named(layer)
        before = self.before(place)
        if not changed:
            return Seen(place, before, before, self.batch.logits.numpy())
        if place == self.batch.layer and replays(model, changed, self.batch, self.check):
            features, device = self.batch.features(place)[1], layers.device_of(model)
            logits = replay(model, changed, self.batch, features.flatten(1), torch.from_numpy(self.batch.group))
            own = [edit for _, edit in layers.edits(model)]
            with torch.inference_mode():
                for name, edit in changed:
                    if name == place and any(edit is each for each in own):
                        features = edit(features.to(device)).cpu()
            return Seen(place, pooled(features.numpy()), before, logits.numpy())
        name = inside(model, place)
        if name is None:
            found = predict(model, self.faces)
            self.same_rows(found.y_true)
            return Seen(place, None, before, found.logits)
        features, logits = self.run(model, name, place)
        return Seen(place, features, before, logits)

    def before(self, place: str) -> np.ndarray:
        """What the model as it was puts out at a layer, (N, d)."""
        if place not in self._before:
            if place == self.batch.layer:
                self._before[place] = pooled(self.batch.features(place)[1].numpy())
            else:
                self._before[place] = self.run(self.vanilla, inside(self.vanilla, place), place)[0]
        return self._before[place]

    def run(self, model: nn.Module, name: str, place: str) -> tuple[np.ndarray, np.ndarray]:
        """One pass over the faces: features (N, d) at the layer `name`, which is `place` without edits, and logits (N, K)."""
        parts, intake = [], self.batch.intake if place == self.batch.layer else ""
        with batches(model, self.faces) as (running, loop):
            for images, target, group in tqdm(loop, "features", unit="batch", leave=False):
                with layers.capture(running, name) as seen, torch.inference_mode():
                    logits = call(running, images, group)
                # Averaged batch by batch: all maps of an early layer would not fit into memory.
                found = pooled(take(seen[name], intake).float().cpu().numpy())
                parts.append([found, logits.float().cpu().numpy(), target.cpu().numpy()])
        features, logits, y = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.same_rows(y)
        return features, logits

    def same_rows(self, y: np.ndarray) -> None:
        """ValueError if a pass gave other targets than the first."""
        if not np.array_equal(y, self.batch.y):
            raise ValueError("faces: a second pass gave other rows; give a data set, or a loader that does not shuffle")

    def named(self, layer: str) -> str:
        """A layer's name in the unedited model."""
        roles = {"penultimate": self.penultimate, "last": self.last}
        return roles.get(layer) or choose(layer, self.order, "layer")

    def place(self, model: nn.Module, changed: Sequence[tuple[str, nn.Module]]) -> str:
        """The last layer inside the model that an edit follows; the penultimate one if only weights or logits were changed."""
        own = [edit for _, edit in layers.edits(model)]
        edited = [name for name, part in changed if name not in ("", self.last) and any(part is edit for edit in own)]
        return max(edited, key=self.order.index, default=self.penultimate)

    def judge(self, result: CorrectionResult, logits: np.ndarray, confidence: float) -> CorrectionResult:
        """The result with its audit and comparison on these faces."""
        batch, pred = self.batch, hard(logits)
        seen = audit(
            batch.y, pred, batch.group, y_score=score(logits), groups=self.groups, classes=self.classes,
            confidence=confidence, seed=self.seed,
        )  # fmt: skip
        answers = None
        if result.model is not self.vanilla:
            before = hard(batch.logits.numpy())
            answers = Answers(batch.y, before, pred, batch.group, self.classes, self.groups, confidence)
        return replace(
            result, audit=seen, metrics=metrics_of(seen), answers=answers, degenerate=len(np.unique(pred)) < 2,
            needs_group=bool(getattr(result.model, "needs_group", False)),
        )  # fmt: skip

    def probe(self, seen: Seen, folds: int, confidence: float) -> tuple[str, LinearProbe, LinearProbe]:
        """The layer, the probe of the model and that of the model as it was."""
        options = {"identity": self.identity, "folds": folds, "confidence": confidence, "seed": self.seed}
        if seen.layer not in self._of_vanilla:
            self._of_vanilla[seen.layer] = probe(seen.before, self.batch.group, **options)
        before = self._of_vanilla[seen.layer]
        same = seen.features is seen.before or np.array_equal(seen.features, seen.before)
        return seen.layer, before if same else probe(seen.features, self.batch.group, **options), before


def inside(model: nn.Module, name: str) -> str | None:
    """Where the output of a layer, with the edits that follow it, is found in an edited model; `name` as without edits.

    None where the model has no such layer, because a method wraps it in another way, or gives another one.
    """
    path, part = [], model
    for step in name.split("."):
        while isinstance(part, layers.Edited):
            part = part.layer
            path.append("layer")
        part = dict(part.named_children()).get(step)
        if part is None:
            return None
        path.append(step)
    return ".".join(path)
