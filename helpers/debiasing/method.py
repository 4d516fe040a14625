"""The contract of a debiasing method, and the table in which every method is found."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from helpers.crew import Crew, crew_of
from helpers.debiasing.loading import Rows
from helpers.models import layers
from helpers.models.data_in import batches
from helpers.models.prediction import predict
from helpers.models.running import call, device_of

NEEDS = frozenset({"features", "weights", "logits", "binary"})
INSIDE = frozenset({"features", "weights"})  # of a network that PyTorch sees into
OTHER_IMAGES = "layer: a further pass for {!r} gave other images; give a dataloader without random augmentation"
LEAST_CELL = 50  # images of a group x class cell: of fewer, hundreds of weights are not learned anew without loss
CHUNK = 1 << 24  # values of a captured layer that are looked at in one go: 64 MB in float32


def closed_form(batch: Batch, **options) -> float:
    """The cost of a method that never runs the network: none."""
    return 0.0


@dataclass(frozen=True)
class Method:
    """One entry of `METHODS`: the key, the function, what it needs, its defaults as its signature states them, and what it
    costs."""

    key: str
    function: Callable[..., nn.Module]
    needs: frozenset[str]
    defaults: dict[str, object]
    passes: Callable[..., float] = closed_form

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


METHODS: dict[str, Method] = {}


def method(
    key: str, *, needs: set[str], passes: Callable[..., float] = closed_form
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register `function(model, batch, *, option=default, …) -> nn.Module` under `key`.

    The function fits on `batch` and returns a new model; the one it was given stays as it is.
    Its options are keyword-only, with their defaults in the signature and nowhere else.
    What a reader of the result should know about the fit goes to `batch.note`, not into a warning.

    Parameters
    ----------
    key : str, the name users write, upper case by custom
    needs : subset of {"features", "weights", "logits", "binary"}; "features" (of a layer) and "weights" (to train) refuse models
        that PyTorch cannot see into, such as an ONNX file; "binary" refuses targets of more than two classes
    passes : function (batch, **options) -> float, what the method costs in forward passes over the batch, by which `debias`
        tells the time before a long run; without it the method is taken to cost next to nothing

    Raises
    ------
    ValueError : the key is taken, or `needs` holds an unknown word.
    """
    if key in METHODS:
        raise ValueError(f"key: {key!r} is already registered by {METHODS[key].function.__module__}")
    if unknown := set(needs) - NEEDS:
        raise ValueError(f"needs: unknown {sorted(unknown)}; accepted: {sorted(NEEDS)}")

    def register(function):
        options = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        METHODS[key] = Method(key, function, frozenset(needs), {option.name: option.default for option in options}, passes)
        return function

    return register


@dataclass(frozen=True)
class Batch:
    """What a method fits on: labels, groups, logits and the features it asks for, in one order of rows.

    Attributes
    ----------
    y, group : int64 (n,), codes of the target class and of the group
    logits : float32 (n, K), of the model that is to be edited; K = 1 for a single-logit binary model
    layer, last : str, names of the penultimate layer and of the classifier, by order of execution
    head : str, the layer whose output are the logits: `last`, or "" (the whole model) where something follows it
    intake : str, what the classifier takes of the penultimate layer's output, "" for all of it; see `models.layers.features`
    seed : int, for whatever the method draws
    example : float tensor (m, 3, H, W), a few images, by which layers are found and short cuts checked
    notes : list of str, what the method had to say, shared by all parts of this batch; see `note`
    seconds : float, what the pass over all rows took
    opaque : bool, whether PyTorch sees no layers in the model; then there are logits, and no features
    crew : the processes that share passes and steps; None: the model's device alone
    """

    y: np.ndarray
    group: np.ndarray
    logits: Tensor
    layer: str
    last: str
    seed: int = 0
    cells: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), int))  # rows of each group x class
    source: Callable[[str], tuple[str, Tensor]] = field(repr=False, default=None)
    rows: np.ndarray | None = field(repr=False, default=None)
    data: Rows | None = field(repr=False, default=None)
    again: Callable[[nn.Module, Rows], Batch] = field(repr=False, default=None)
    head: str = ""
    intake: str = ""
    example: Tensor | None = field(repr=False, default=None)
    stream: Callable[[str], tuple[str, Iterator[Tensor]]] = field(repr=False, default=None)
    notes: list[str] = field(repr=False, default_factory=list)
    seconds: float = 0.0
    opaque: bool = False
    crew: Crew | None = None

    def note(self, sentence: str) -> None:
        """Leave a sentence about the fit, such as a bound that could not be kept, for the `note` of the result.

        `debias` gives every method a list of its own, also on other threads, which Python's warnings cannot do. It is kept if
        the method fails later on. The same sentence, from several layers, is kept once.
        """
        if sentence not in self.notes:
            self.notes.append(sentence)

    def note_few(self, what: str) -> None:
        """Leave a note that something was trained on a group x class cell of fewer than `LEAST_CELL` images, if it was."""
        if self.smallest_cell < LEAST_CELL:
            few = f"{what} trained on as few as {self.smallest_cell} images of a group and class"
            self.note(f"{few}: compare with the old model on many more before use")

    def loader(self, *, seed: int | None = None, batch_size: int | None = None) -> DataLoader:
        """Batches of (image, target, group) of these rows, in a new order at every pass; see `Rows.part`."""
        rows = np.arange(len(self.data)) if self.rows is None else self.rows
        seed = self.seed if seed is None else seed
        return self.data.part(rows, seed=seed, batch_size=batch_size)

    def of(self, model: nn.Module) -> Batch:
        """The same rows, and no others, as another model sees them: its logits and features."""
        return replace(self.again(model, self.own), cells=self.cells, notes=self.notes)

    @property
    def own(self) -> Rows:
        """The data of these rows alone, in their order."""
        return self.data if self.rows is None else self.data.only(self.rows)

    def features(self, layer: str = "penultimate") -> tuple[str, Tensor]:
        """Name of the layer and its output, float32 (n, d) or (n, C, H, W), captured once and shared by all methods."""
        name, features = self.source(layer)
        return name, features if self.rows is None else features[torch.from_numpy(self.rows)]

    def parts(self, layer: str = "penultimate") -> tuple[str, Iterator[tuple[np.ndarray, Tensor]]]:
        """Name of the layer and its output in parts: row numbers int64 (m,), each row once, and float32 (m, d) or (m, C, H, W).

        What has been captured already is cut into parts; anything else is computed as it is asked for, so that the maps of
        all images are never in memory together.
        """
        name, chunks = self.stream(layer)
        return name, self._own(chunks)

    def _own(self, chunks: Iterator[Tensor]) -> Iterator[tuple[np.ndarray, Tensor]]:
        number = np.full(len(self.data), -1)
        number[np.arange(len(self)) if self.rows is None else self.rows] = np.arange(len(self))
        start = 0
        for chunk in chunks:
            own = number[start : start + len(chunk)]
            start += len(chunk)
            if (own >= 0).any():
                yield own[own >= 0], chunk[torch.from_numpy(own >= 0)]

    def take(self, rows: np.ndarray) -> Batch:
        """The same batch restricted to `rows`, an int64 array of row numbers."""
        kept = rows if self.rows is None else self.rows[rows]
        return replace(
            self, y=self.y[rows], group=self.group[rows], logits=self.logits[torch.from_numpy(rows)], rows=kept
        )

    def __len__(self) -> int:
        return len(self.y)

    @property
    def groups(self) -> int:
        """Number of groups: rows of `cells`, so that a part of the data knows the groups of the whole."""
        return len(self.cells)

    @property
    def smallest_cell(self) -> int:
        """Number of rows of the rarest group x class cell that occurs."""
        return int(np.unique(self.group * self.classes + self.y, return_counts=True)[1].min())

    @property
    def classes(self) -> int:
        """Number of classes, from the width of the logits (one logit stands for two classes)."""
        return max(2, self.logits.shape[1])


def collect(model: nn.Module, data, example: Tensor, *, seed: int = 0, device=None) -> Batch:
    """Run `model` once over `data` and keep what the methods share.

    Parameters
    ----------
    model : nn.Module in evaluation mode
    data : Rows, or a loader or FaceDataset of (image, target, group)
    example : float tensor (n, C, H, W), a few images by which the layers are found

    Returns
    -------
    Batch of all rows, in the order in which the loader gave them. Features of another layer than the penultimate
    one cost a pass of their own.

    Raises
    ------
    ValueError : a feature or logit is not finite, or a further pass gives other images.
    """
    data = data if isinstance(data, Rows) else Rows(data)
    crew = None if device is None else crew_of(device)
    start = time.perf_counter()
    if getattr(model, "opaque", False):
        return collect_logits(model, data, example, seed, device)
    seen = layers.features(model, data.all, "penultimate", device=device, progress=True)
    seconds = time.perf_counter() - start
    names = {"penultimate": seen.layer, "last": layers.find(model, "last", example)}
    y, group = np.asarray(seen.y, np.int64), np.asarray(seen.group, np.int64)
    logits = torch.as_tensor(seen.logits).float().cpu()
    kept = {names["penultimate"]: finite(seen.features, names["penultimate"])}
    finite(logits, "the model's output")

    def named(layer):
        return names[layer] if layer in names else layers.find(model, layer, example)

    def stream(layer):
        name = named(layer)
        if name in kept:
            each = max(1, CHUNK // max(1, kept[name][0].numel()))
            return name, iter(kept[name].split(each))
        return name, outputs(model, data, name, logits, device)

    def source(layer):
        name = named(layer)
        if name not in kept:
            again = layers.features(model, data.all, name, device=device, progress=True)
            if not np.array_equal(again.y, y) or not torch.allclose(
                torch.as_tensor(again.logits).cpu(), logits, atol=1e-3
            ):
                raise ValueError(OTHER_IMAGES.format(name))
            kept[name] = finite(again.features, name)
        return name, kept[name]

    return Batch(
        y, group, logits, names["penultimate"], names["last"], seed, count_cells(y, group), source, data=data,
        again=lambda other, rows: collect(other, rows, example, seed=seed, device=device),
        head=head_of(model, names["last"], example), intake=seen.intake, stream=stream, example=example, seconds=seconds,
        crew=crew,
    )  # fmt: skip


def collect_logits(model: nn.Module, data: Rows, example: Tensor, seed: int, device=None) -> Batch:
    """The batch of a model that PyTorch cannot see into: labels, groups and logits, which is what thresholds are chosen by."""
    start = time.perf_counter()
    seen = predict(model, data.all, device=device)
    y, group = np.asarray(seen.y_true, np.int64), np.asarray(seen.group, np.int64)
    logits = finite(seen.logits, "the model's output")

    def refused(layer):
        raise ValueError(f"layer: {layer!r} was asked for, but PyTorch sees no layers in this model")

    return Batch(
        y, group, logits, "", "", seed, count_cells(y, group), refused, data=data, stream=refused, example=example,
        again=lambda other, rows: collect(other, rows, example, seed=seed, device=device), seconds=time.perf_counter() - start,
        opaque=True, crew=None if device is None else crew_of(device),
    )  # fmt: skip


@torch.inference_mode()
def head_of(model: nn.Module, last: str, example: Tensor) -> str:
    """`last` if the model puts out on `example` what that layer puts out, else ""."""
    images = example.to(device_of(model))
    with layers.capture(model, last) as seen:
        logits = call(model, images)
    return last if isinstance(seen.get(last), Tensor) and torch.equal(seen[last], logits) else ""


def outputs(model: nn.Module, data: Rows, name: str, logits: Tensor, device=None) -> Iterator[Tensor]:
    """The output of the layer `name` for the data, float32 on the CPU, one batch of the loader after the other.

    Raises
    ------
    ValueError : the data gives other images than those whose logits (n, K) are known, or a value is not finite.
    """
    start = 0
    crew = crew_of(device_of(model) if device is None else device)
    with batches(model, data.all, device=crew) as (running, loop):
        for images, _, group in tqdm(loop, name, total=len(data.all), unit="batch", leave=False):
            with torch.inference_mode(), layers.capture(running, name) as seen:
                found = call(running, images, group)
            found, values = crew.whole(found.float(), seen[name])
            found = found.cpu()
            if not torch.allclose(found, logits[start : start + len(found)], atol=1e-3):
                raise ValueError(OTHER_IMAGES.format(name))
            start += len(found)
            yield finite(values, name)


def count_cells(y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Rows of each group x class, int64 (G, C)."""
    groups, classes = int(group.max()) + 1, max(2, int(y.max()) + 1)
    return np.bincount(group * classes + y, minlength=groups * classes).reshape(groups, classes)


def finite(values, where: str) -> Tensor:
    """`values` as a float32 tensor on the CPU; ValueError if any row holds NaN or infinity."""
    values = torch.as_tensor(values).float().cpu()
    bad = int((~torch.isfinite(values.flatten(1)).all(1)).sum())
    if bad:
        raise ValueError(f"model: {bad} of {len(values)} images give NaN or infinite values at {where!r}")
    return values
