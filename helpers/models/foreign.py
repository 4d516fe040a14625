"""Models that somebody else trained, as models of ours: ONNX, Keras, exported or saved PyTorch, any function of an array.

`load` gives an `nn.Module` of images (N, 3, H, W), RGB in [0, 1], to scores (N, classes), so that `predict`, `audit`, `attribute`
and `evaluate` take it. What the model's own code does to an image is stated, never guessed (`Preprocessing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from helpers.models.keras_network import KerasNetwork, Split
from helpers.models.networks import limits, pick
from helpers.models.opening import opened
from helpers.models.preprocessing import Preprocessing, shown
from helpers.names import choose

__all__ = ["Foreign", "Preprocessing", "load"]

SUM = 1e-3  # how far probabilities may be from adding up to one, as they are in half precision


class Foreign(nn.Module):
    """A network with its preprocessing: images float (N, 3, H, W), RGB in [0, 1], to scores (N, K) that softmax understands.

    Attributes
    ----------
    network : nn.Module, what runs; a PyTorch model's own layers are inside it
    preprocessing : Preprocessing, size and layout filled in
    outputs : "logits" or "probabilities", what the network itself gives
    classes : tuple of str, or None
    column : the number of the one output that counts, or None
    members : for each class the numbers of the network's outputs that mean it; None: one output a class
    opaque : bool, whether PyTorch sees no layers inside (all but an nn.Module)
    keras : the Keras model, or None
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, outputs: str, output, column, classes, members):
        super().__init__()
        self.network, self.preprocessing, self.outputs, self.output = network, preprocessing, outputs, output
        self.column, self.classes, self.members = column, classes, members
        self.at_once = (getattr(network, "shape", None) or (None,))[0]  # a batch size that is fixed in the file
        self.judged = False  # whether the outputs have been found to be what they are said to be
        self.register_buffer("place", torch.zeros(()), persistent=False)  # where to, and in which precision

    @property
    def opaque(self) -> bool:
        return getattr(self.network, "opaque", False)

    @property
    def keras(self) -> Any:
        return self.network.model if isinstance(self.network, KerasNetwork) else None

    def split(self, layer: str | None = None) -> tuple[Foreign, str]:
        """The same Keras model with one of its layers in sight, for class activation maps, and that layer's name in PyTorch.

        Parameters
        ----------
        layer : its name in Keras; None: the last that puts out maps and that all of the way from image to score goes through

        Raises
        ------
        ValueError : this is no Keras model, or it has no such layer (those that it has are named).
        """
        if self.keras is None:
            raise ValueError("model: only a Keras model can be split at a layer")
        network = Split(self.network, layer, self.preprocessing.layout == "NHWC")
        other = Foreign(network, self.preprocessing, self.outputs, None, self.column, self.classes, self.members)
        return other.eval(), "network.maps"

    def forward(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor) or images.dim() != 4 or images.shape[1] != 3:
            came = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"images: {came} came; accepted is a float tensor (N, 3, H, W), RGB in [0, 1]")
        batch = self.preprocessing(images)
        if self.at_once is None:
            raw = self.run(batch)
        else:
            raw = torch.cat([self.run(filled(part, self.at_once))[: len(part)] for part in batch.split(self.at_once)])
        return self.scores(raw).to(images)

    def run(self, batch: Tensor) -> Tensor:
        """The network's own output, (N, K), of images as it takes them."""
        raw = self.network(batch)
        if not self.opaque:
            raw = pick(raw, self.output)
        count = batch.shape[0]  # not len, which would fix the number of images in an export
        if isinstance(raw, Tensor) and raw.dim() == 1 and raw.shape[0] == count:
            raw = raw[:, None]
        if not isinstance(raw, Tensor) or raw.dim() < 2 or raw.shape[0] != count or raw[0].numel() != raw.shape[1]:
            came = f"shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else type(raw).__name__
            raise ValueError(f"source: the model gave an output of {came} for {count} images; accepted are scores (N, K)")
        raw = raw.flatten(1)
        if self.column is None:
            return raw
        if self.column >= raw.shape[1]:
            raise ValueError(f"column: {self.column}, but the model has {raw.shape[1]} outputs, 0 to {raw.shape[1] - 1}")
        return raw[:, self.column : self.column + 1]

    def scores(self, raw: Tensor) -> Tensor:
        """Logits of what the network gave: log p of probabilities, log p − log(1 − p) of a single one; classes put together."""
        columns = raw.shape[1]
        if self.members is not None:
            most = max(number for numbers in self.members for number in numbers)
            if most >= columns:
                raise ValueError(f"classes: output {most} was named, but the model has {columns} outputs, 0 to {columns - 1}")
        elif self.classes is not None and columns != len(self.classes) and not (columns == 1 and len(self.classes) == 2):
            raise ValueError(
                f"classes: {len(self.classes)} names ({', '.join(self.classes)}), but the model has {columns} outputs; accepted: "
                "one name an output, or two for a single output"
            )
        single = self.logits(raw.to(torch.promote_types(raw.dtype, torch.float32)))
        if self.members is None:
            return single
        # log Σ exp z: softmax of these is the sum of the outputs' probabilities
        return torch.stack([single[:, list(numbers)].logsumexp(1) for numbers in self.members], 1)

    def logits(self, raw: Tensor) -> Tensor:
        """One logit an output; ValueError if they are not what they are said to be."""
        traced = torch.compiler.is_compiling()  # as in an export, whose numbers are not there to be looked at
        if self.outputs == "logits":
            if not traced and not self.judged and len(raw) > 1:
                self.refuse_probabilities(raw.detach())
                self.judged = True
            return raw
        if not traced:
            self.refuse_what_is_no_probability(raw.detach())
        columns = raw.shape[1]
        least, most = limits(columns)
        kept = raw.clamp(least, most)
        return kept.log() if columns > 1 else kept.log() - torch.log1p(-kept)

    def refuse_what_is_no_probability(self, raw: Tensor) -> None:
        """ValueError unless all values are in [0, 1] and, where there are several, add up to one."""
        low, high, total = raw.min().item(), raw.max().item(), raw.sum(1)
        if not (low >= -SUM and high <= 1 + SUM):  # written so that NaN fails too
            raise ValueError(
                f"outputs: 'probabilities', but the model gives values from {low:.3g} to {high:.3g}; accepted: outputs='logits', "
                "or a model that gives probabilities"
            )
        if raw.shape[1] > 1 and not (total - 1).abs().max().item() <= SUM:
            raise ValueError(
                f"outputs: 'probabilities', but they add up to {total.min().item():.3g} to {total.max().item():.3g}, not to 1; "
                "accepted: column= for a model of several yes-or-no questions, one of which it names"
            )

    def refuse_probabilities(self, raw: Tensor) -> None:
        """ValueError if what is said to be logits adds up to one in every row, as nothing but probabilities does."""
        if raw.shape[1] > 1 and raw.min() >= 0 and ((raw.sum(1) - 1).abs() < 1e-4).all():
            raise ValueError(
                "outputs: 'logits', but in every row the model's outputs add up to 1; accepted: outputs='probabilities'"
            )

    def extra_repr(self) -> str:
        return f"{self.preprocessing}, outputs={self.outputs!r}, classes={self.classes}"


def filled(batch: Tensor, count: int) -> Tensor:
    """A batch of `count` images: those given, and the last again and again."""
    return batch if len(batch) == count else torch.cat([batch, batch[-1:].expand(count - len(batch), *batch.shape[1:])])


def load(
    source: Any,
    preprocessing: Preprocessing | None = None,
    *,
    outputs: str = "logits",
    output: int | str | None = None,
    column: int | None = None,
    classes: Sequence[str] | Mapping[str, int | Sequence[int]] | None = None,
    architecture: nn.Module | Callable[[], nn.Module] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    tensors: bool = False,
    trusted: bool = False,
    **steps: Any,
) -> Foreign:
    """A model that somebody else trained, as one that `predict`, `audit`, `attribute` and `evaluate` take.

    Everything but the network comes from you: how images are prepared, what the outputs are, and which class is which. What
    can be checked is checked, on two images of noise, before the model is returned (where the size of its images is known, else
    when it first runs).

    Gradients reach the image through PyTorch models and, by TensorFlow, through Keras models, so that methods such as
    integrated gradients work, and class activation maps at a layer of either; of ONNX files and functions only methods that hide
    parts of the image (occlusion, RISE, …) do. A Keras model's weights stay in TensorFlow, on the device that this chooses.

    Parameters
    ----------
    source : one of
        - a path: "model.onnx"; ".keras", ".h5", ".hdf5"; ".pth", ".pt", ".safetensors", the weights of an `architecture`; ".pt2"
          of `torch.export.save`, with `trusted=True`
        - a network in memory: nn.Module, `torch.export.ExportedProgram`, Keras model
        - a function of a float32 array (N, …) to an array (N, K), which sees images as `preprocessing` makes them
    preprocessing : Preprocessing, or instead its parts: `size=`, `mean=`, `std=`, `scale=`, `layout=`, `channels=`
    outputs : "logits", or "probabilities" p, of which the model gives log p, so that softmax gives p back; of a single one its
        logit. `attribute` then explains log p, which is never above 0, so that a map that is a mean of scores, as RISE's, is
        negative all over and only its order counts
    output : name or number of the output that is meant, of a network that has several (a dict, a tuple)
    column : the number of the one output that is meant, of a network that answers several yes-or-no questions (such as the
        attributes of CelebA); the model then has a single output
    classes : the names of the outputs in their order; two for a single output. By default those that an ONNX file names. Or a
        dict of class to the number, or numbers, of the outputs that mean it, where your data has other classes or another order:
        `{"not smiling": (0, 1, 2, 4, 5, 6), "smiling": 3}`; the probability of a class is then the sum of theirs
    architecture : nn.Module, of which a copy is filled with the weights, or a function that makes one
    custom_objects : dict of name to class, of a Keras model's own layers
    tensors : give a function tensors instead of arrays, and expect a gradient if it gives one
    trusted : load a ".pt2" file, though such a file can make PyTorch run code of whoever wrote it

    Returns
    -------
    Foreign in evaluation mode, on the CPU

    Raises
    ------
    FileNotFoundError : there is no such file.
    ValueError : a file of another kind, a damaged one, one that would run code when loaded (pickles, Lambda layers), or what is
        stated contradicts what the model declares or gives: layout, size, channels, number of outputs, probabilities that are
        none, several inputs or outputs.

    Examples
    --------
    >>> model = load("gender.onnx", size=32, scale=255, mean=(123, 117, 104), std=256, outputs="probabilities")  # doctest: +SKIP
    >>> helpers.attribute(model, images, method="occlusion")  # doctest: +SKIP
    """
    outputs = choose(outputs, ("logits", "probabilities"), "outputs")
    preprocessing = prepared(preprocessing, steps)
    if column is not None and (isinstance(column, bool) or not isinstance(column, int) or column < 0):
        raise ValueError(f"column: {column!r}; accepted is the number of an output, from 0")
    if isinstance(source, Foreign):
        raise ValueError("source: it is a Foreign model already; load its file or network again")
    classes, members = named(classes)
    network, known = opened(source, output, architecture, custom_objects, tensors, trusted)
    ends = getattr(network, "ends_with", None)
    if ends and outputs == "logits":
        raise ValueError(f"outputs: 'logits', but the network ends with a {ends}; accepted: outputs='probabilities'")
    preprocessing = preprocessing.fitted(getattr(network, "shape", None))
    classes = classes or (known if column is None else None)
    model = Foreign(network, preprocessing, outputs, output, column, classes, members).eval()
    if preprocessing.size:
        images = torch.rand(2, 3, *preprocessing.size, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                model(images)
        except ValueError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            given = shown((None, *preprocessing(images).shape[1:]))
            raise ValueError(f"source: the model cannot take images {given}: {reason}") from error
    return model


def named(classes: Any) -> tuple[tuple[str, ...] | None, tuple[tuple[int, ...], ...] | None]:
    """The names of the classes, and the outputs that mean each where those are stated."""
    if classes is None:
        return None, None
    names = (classes,) if isinstance(classes, str) else tuple(map(str, classes))
    if not isinstance(classes, Mapping):
        return names, None
    members = tuple((value,) if isinstance(value, int) else tuple(value) for value in classes.values())
    numbers = [number for each in members for number in each]
    whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
    if len(names) < 2 or not all(members) or not whole or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"classes: {dict(classes)} came; accepted is a dict of two classes or more to the number, or numbers, of the outputs "
            "that mean it, each output once"
        )
    return names, members


def prepared(preprocessing: Preprocessing | None, steps: dict[str, Any]) -> Preprocessing:
    """The preprocessing, given whole or in parts."""
    names = Preprocessing.__dataclass_fields__
    if preprocessing is None:
        return Preprocessing(**{choose(name, names, "options of load"): value for name, value in steps.items()})
    if not isinstance(preprocessing, Preprocessing):
        came = type(preprocessing).__name__
        raise ValueError(f"preprocessing: {came} came; accepted is a Preprocessing, or its parts {', '.join(names)}")
    if steps:
        raise ValueError(f"preprocessing: given whole, and {', '.join(steps)} beside it; accepted is one of the two")
    return preprocessing
