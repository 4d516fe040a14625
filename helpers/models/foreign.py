"""Models that somebody else trained, as models of ours: ONNX, Keras, exported or saved PyTorch, any function of an array.

`load` gives an `nn.Module` of images (N, 3, H, W), RGB in [0, 1], to scores (N, classes), so that `predict`, `audit`, `attribute`
and `evaluate` take it. What the model's own code does to an image is stated, never guessed (`Preprocessing`).
"""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers.models.keras_network import KerasNetwork, limits, load_keras, pick
from helpers.models.preprocessing import Preprocessing, shown
from helpers.names import choose

__all__ = ["Foreign", "Preprocessing", "load"]

WEIGHTS = (".pth", ".pt", ".safetensors")
ALONE = (".onnx", ".keras", ".h5", ".hdf5", ".pt2")  # files that hold the network as well as its weights
PICKLES = (".pkl", ".pickle", ".joblib", ".sav", ".dill")
SUM = 1e-3  # how far probabilities may be from adding up to one, as they are in half precision


class Foreign(nn.Module):
    """A network with its preprocessing: images float (N, 3, H, W), RGB in [0, 1], to scores (N, K) that softmax understands.

    Attributes
    ----------
    network : nn.Module, what runs; a PyTorch model's own layers are inside it
    preprocessing : Preprocessing, size and layout filled in
    outputs : "logits" or "probabilities", what the network itself gives
    classes : tuple of str, or None
    members : for each class the numbers of the network's outputs that mean it; None: one output a class
    opaque : bool, whether PyTorch sees no layers inside (all but an nn.Module)
    keras : the Keras model, or None
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, outputs: str, output, classes, members=None):
        super().__init__()
        self.network, self.preprocessing, self.outputs, self.output = network, preprocessing, outputs, output
        self.classes, self.members = classes, members
        self.at_once = (getattr(network, "shape", None) or (None,))[0]  # a batch size that is fixed in the file
        self.judged = False  # whether the outputs have been found to be what they are said to be
        self.register_buffer("place", torch.zeros(()), persistent=False)  # where to, and in which precision

    @property
    def opaque(self) -> bool:
        return getattr(self.network, "opaque", False)

    @property
    def keras(self) -> Any:
        return self.network.model if isinstance(self.network, KerasNetwork) else None

    def forward(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor) or images.dim() != 4 or images.shape[1] != 3:
            came = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"images: {came} came; accepted is a float tensor (N, 3, H, W), RGB in [0, 1]")
        batch = self.preprocessing(images)
        if self.at_once is None:
            raw = self.run(batch)
        else:
            raw = torch.cat([self.run(filled(part, self.at_once))[: len(part)] for part in batch.split(self.at_once)])
        return self.scores(raw, len(images)).to(images)

    def run(self, batch: Tensor) -> Tensor:
        """The network's own output, (N, K), of images as it takes them."""
        raw = self.network(batch)
        if not self.opaque:
            raw = pick(raw, self.output)
        if isinstance(raw, Tensor) and raw.dim() == 1 and len(raw) == len(batch):
            raw = raw[:, None]
        if not isinstance(raw, Tensor) or raw.dim() < 2 or len(raw) != len(batch) or raw[0].numel() != raw.shape[1]:
            came = f"shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else type(raw).__name__
            raise ValueError(f"source: the model gave an output of {came} for {len(batch)} images; accepted are scores (N, classes)")
        return raw.flatten(1)

    def scores(self, raw: Tensor, count: int) -> Tensor:
        """Logits of what the network gave: log p of probabilities, log p − log(1 − p) of a single one; classes put together."""
        columns = raw.shape[1]
        if self.members is not None:
            most = max(number for numbers in self.members for number in numbers)
            if most >= columns:
                raise ValueError(f"classes: output {most} was named, but the model has {columns} outputs, 0 to {columns - 1}")
        elif self.classes is not None and columns != len(self.classes) and not (columns == 1 and len(self.classes) == 2):
            raise ValueError(
                f"classes: {len(self.classes)} names ({', '.join(self.classes)}), but the model has {columns} outputs; accepted: one "
                "name an output, or two for a single output"
            )
        single = self.logits(raw.to(torch.promote_types(raw.dtype, torch.float32)), count)
        if self.members is None:
            return single
        # log Σ exp z: softmax of these is the sum of the outputs' probabilities
        return torch.stack([single[:, list(numbers)].logsumexp(1) for numbers in self.members], 1)

    def logits(self, raw: Tensor, count: int) -> Tensor:
        """One logit an output; ValueError if they are not what they are said to be."""
        columns = raw.shape[1]
        if self.outputs == "logits":
            if not self.judged and count > 1:
                self.refuse_probabilities(raw.detach())
                self.judged = True
            return raw
        low, high = raw.detach().min().item(), raw.detach().max().item()
        total = raw.detach().sum(1)
        if not (low >= -SUM and high <= 1 + SUM):  # written so that NaN fails too
            raise ValueError(
                f"outputs: 'probabilities', but the model gives values from {low:.3g} to {high:.3g}; accepted: outputs='logits', "
                "or a model that gives probabilities"
            )
        if columns > 1 and not (total - 1).abs().max().item() <= SUM:
            raise ValueError(
                f"outputs: 'probabilities', but they add up to {total.min().item():.3g} to {total.max().item():.3g}, not to 1; a model "
                "of one probability a label, several of which may hold, is accepted with output= of one label at a time"
            )
        least, most = limits(columns)
        kept = raw.clamp(least, most)
        return kept.log() if columns > 1 else kept.log() - torch.log1p(-kept)

    def refuse_probabilities(self, raw: Tensor) -> None:
        """ValueError if what is said to be logits adds up to one in every row, as nothing but probabilities does."""
        ends = getattr(self.network, "ends_with", None)
        sums = raw.shape[1] > 1 and raw.min() >= 0 and ((raw.sum(1) - 1).abs() < 1e-4).all()
        if sums or ends:
            reason = f"the network ends with a {ends}" if ends else "in every row the model's outputs add up to 1"
            raise ValueError(f"outputs: 'logits', but {reason}; accepted: outputs='probabilities'")

    def extra_repr(self) -> str:
        return f"{self.preprocessing}, outputs={self.outputs!r}, classes={self.classes}"


def filled(batch: Tensor, count: int) -> Tensor:
    """A batch of `count` images: those given, and the last again and again."""
    return batch if len(batch) == count else torch.cat([batch, batch[-1:].expand(count - len(batch), *batch.shape[1:])])


class OnnxNetwork(nn.Module):
    """An ONNX file, run by onnxruntime on the CPU with as many threads as PyTorch has; copies share the session."""

    opaque = True

    def __init__(self, path: Path, session: Any, output: int | str | None = None):
        super().__init__()
        self.path, self.session = path, session
        inputs, self.names = session.get_inputs(), [each.name for each in session.get_outputs()]
        if len(inputs) != 1:
            group = any(each.name == "group" for each in inputs)
            hint = "; it decides by image and group, but only images can be given to it" if group else ""
            names = ", ".join(each.name for each in inputs)
            raise ValueError(f"source: {path} has {len(inputs)} inputs ({names}); accepted are models of one{hint}")
        self.input = inputs[0].name
        self.output = pick({name: name for name in self.names}, output)
        self.shape = tuple(side if isinstance(side, int) else None for side in inputs[0].shape)
        kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8"}
        if inputs[0].type not in kinds:
            raise ValueError(f"source: the input of {path} is a {inputs[0].type}; accepted: {', '.join(kinds)}")
        self.dtype = np.dtype(kinds[inputs[0].type])
        self.ends_with = last_operator(path, self.output)

    def forward(self, batch: Tensor) -> Tensor:
        array = batch.detach().to("cpu", torch.float32).contiguous().numpy()
        array = np.rint(array).clip(0, 255).astype(np.uint8) if self.dtype == np.uint8 else array.astype(self.dtype)
        try:
            [raw] = self.session.run([self.output], {self.input: array})
        except Exception as error:  # onnxruntime's own classes, which derive from nothing more precise
            raise ValueError(f"images: {self.path.name} cannot take {array.shape}: {' '.join(str(error).split())[:300]}") from error
        return torch.from_numpy(np.asarray(raw)).to(batch.device)

    def __deepcopy__(self, memo: dict) -> OnnxNetwork:
        # A session cannot be copied, and need not be: running it changes nothing.
        return type(self)(self.path, self.session, self.output).train(self.training)

    def __getstate__(self):
        raise TypeError("an ONNX session cannot be pickled; load the file again where it is needed")


def last_operator(path: Path, output: str) -> str | None:
    """ "softmax" or "sigmoid" if the output comes straight from one."""
    import onnx

    maker = next((node.op_type for node in onnx.load(path, load_external_data=False).graph.node if output in node.output), "")
    return maker.casefold() if maker in ("Softmax", "Sigmoid") else None


class FunctionNetwork(nn.Module):
    """Any function of an array (or of a tensor, if `tensors`), such as a service or a scikit-learn model."""

    opaque = True

    def __init__(self, function: Callable, output: int | str | None, tensors: bool):
        super().__init__()
        self.function, self.output, self.tensors = function, output, tensors

    def forward(self, batch: Tensor) -> Tensor:
        taken = batch.float() if self.tensors else batch.detach().to("cpu", torch.float32).contiguous().numpy()
        try:
            raw = self.function(taken)
        except Exception as error:  # whatever somebody's function raises
            given = f"{'a tensor' if self.tensors else 'an array'} {tuple(batch.shape)}"
            raise ValueError(f"source: the function cannot take {given}: {' '.join(str(error).split())[:300]}") from error
        raw = pick(raw, self.output)
        return raw if isinstance(raw, Tensor) else torch.from_numpy(np.array(raw)).to(batch.device)

    def __deepcopy__(self, memo: dict) -> FunctionNetwork:
        return type(self)(self.function, self.output, self.tensors).train(self.training)


class Exported(nn.Module):
    """A program of `torch.export`: it has gradients but no layers, and the mode in which it was exported for ever."""

    opaque = True

    def __init__(self, program: torch.export.ExportedProgram, output: int | str | None = None):
        super().__init__()
        taken = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
        if len(taken) != 1:
            raise ValueError(f"source: the program has {len(taken)} inputs; accepted are programs of one")
        shape = taken[0].meta["val"].shape
        self.shape = tuple(side if isinstance(side, int) else None for side in shape)
        if any(is_training(node) for node in program.graph.nodes):
            raise ValueError("source: the program was exported in training mode; call model.eval() before torch.export.export")
        self.program, self.output = program.module(), output

    def forward(self, batch: Tensor) -> Tensor:
        return pick(self.program(batch), self.output)

    def train(self, mode: bool = True) -> Exported:
        self.training = mode  # its parts refuse to be asked
        return self


def is_training(node: Any) -> bool:
    """Whether a step of a program is a dropout or a batch normalisation as in training."""
    position = {"aten.dropout.default": 2, "aten.batch_norm.default": 5}.get(str(node.target))
    return position is not None and len(node.args) > position and node.args[position] is True


def load(
    source: Any,
    preprocessing: Preprocessing | None = None,
    *,
    outputs: str = "logits",
    output: int | str | None = None,
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
    integrated gradients work; of ONNX files and functions only methods that hide parts of the image (occlusion, RISE, …) do.

    Parameters
    ----------
    source : one of
        - a path: "model.onnx"; ".keras", ".h5", ".hdf5"; ".pth", ".pt", ".safetensors", the weights of an `architecture`; ".pt2"
          of `torch.export.save`, with `trusted=True`
        - a network in memory: nn.Module, `torch.export.ExportedProgram`, Keras model
        - a function of a float32 array (N, …) to an array (N, K), which sees images as `preprocessing` makes them
    preprocessing : Preprocessing, or instead its parts: `size=`, `mean=`, `std=`, `scale=`, `layout=`, `channels=`
    outputs : "logits", or "probabilities" p, of which the model gives log p, so that softmax gives p back; of a single one its
        logit. `attribute` then explains log p
    output : name or number of the output that is meant, of a network that has several (a dict, a tuple)
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
    classes, members = named(classes)
    network, known = opened(source, output, architecture, custom_objects, tensors, trusted)
    preprocessing = preprocessing.fitted(getattr(network, "shape", None))
    model = Foreign(network, preprocessing, outputs, output, classes or known, members).eval()
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
            f"classes: {dict(classes)} came; accepted is a dict of two classes or more to the number, or numbers, of the outputs that "
            "mean it, each output once"
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


def opened(source, output, architecture, custom_objects, tensors, trusted) -> tuple[nn.Module, tuple[str, ...] | None]:
    """The network of a source, and the names of its classes if it knows them."""
    if isinstance(source, (str, os.PathLike)):
        return from_file(Path(source).expanduser(), output, architecture, custom_objects, trusted)
    if architecture is not None:
        raise ValueError(f"architecture: only with a file of weights ({', '.join(WEIGHTS)}); source is a {type(source).__name__}")
    if isinstance(source, Foreign):
        raise ValueError("source: it is a Foreign model already")
    if isinstance(source, torch.export.ExportedProgram):
        return Exported(source, output), None
    if any(base.__module__.partition(".")[0] in ("keras", "tf_keras") for base in type(source).__mro__):
        return KerasNetwork(source, output), None
    if isinstance(source, nn.Module):
        return copy.deepcopy(source), tuple(map(str, getattr(source, "classes", None) or ())) or None
    if callable(source):
        return FunctionNetwork(source, output, tensors), None
    raise ValueError(
        f"source: {type(source).__name__} came; accepted is a path ({', '.join(ALONE + WEIGHTS)}), an nn.Module, a Keras model, an "
        "ExportedProgram or a function of an array"
    )


def from_file(path: Path, output, architecture, custom_objects, trusted) -> tuple[nn.Module, tuple[str, ...] | None]:
    kind = path.suffix.casefold()
    if kind in PICKLES:
        raise ValueError(
            f"source: {path} is a pickle, and loading one runs code of whoever wrote it; load it yourself, if you trust it, and "
            "give the function (model.predict_proba) instead of the file"
        )
    if kind not in ALONE + WEIGHTS:
        raise ValueError(f"source: {str(path)!r} ends with {kind or 'nothing'!r}; accepted: {', '.join(ALONE + WEIGHTS)}")
    if not path.is_file():
        raise FileNotFoundError(f"source: there is no file {str(path)!r}")
    if kind in WEIGHTS:
        if architecture is None:
            raise ValueError(f"architecture: {path} holds weights alone; give the nn.Module they belong to, or a function that makes it")
        return with_weights(path, architecture), None
    if architecture is not None:
        raise ValueError(f"architecture: only with a file of weights ({', '.join(WEIGHTS)}); {path} holds the network itself")
    if kind == ".onnx":
        return from_onnx(path, output)
    if kind != ".pt2":
        return KerasNetwork(load_keras(path, custom_objects), output), None
    if not trusted:
        raise ValueError(
            f"trusted: {path} can make PyTorch run code of whoever wrote it (torch.export.load uses pickle); give trusted=True if "
            "you know where it comes from"
        )
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise ValueError(f"source: {path} is damaged or no program of torch.export ({str(error)[:200]})") from error
    return Exported(program, output), None


def from_onnx(path: Path, output) -> tuple[nn.Module, tuple[str, ...] | None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"source: onnxruntime cannot read {path}: {' '.join(str(error).split())[:300]}") from error
    named = session.get_modelmeta().custom_metadata_map.get("classes")
    try:
        names = json.loads(named) if named else None
    except json.JSONDecodeError:
        names = None  # somebody else's entry of that name
    network = OnnxNetwork(path, session, output)
    return network, tuple(map(str, names)) if isinstance(names, list) else None


def with_weights(path: Path, architecture: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """A copy of the architecture with the weights of a file; ValueError if they do not belong together."""
    network = copy.deepcopy(architecture) if isinstance(architecture, nn.Module) else architecture()
    if not isinstance(network, nn.Module):
        raise ValueError(f"architecture: it gives a {type(network).__name__}; accepted is an nn.Module or a function that makes one")
    try:
        if path.suffix.casefold() == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"source: {path} holds more than weights, a whole pickled model perhaps, and loading that runs code of whoever wrote "
            "it; save model.state_dict() instead, or load it yourself and give the model"
        ) from error
    except Exception as error:
        raise ValueError(f"source: {path} is damaged or no file of weights ({' '.join(str(error).split())[:200]})") from error
    try:
        network.load_state_dict(weights_in(found, path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"source: the weights of {path} do not fit the architecture: {reason}") from error
    return network


def weights_in(found: Any, path: Path) -> dict[str, Tensor]:
    """The weights by name, of a file that may hold more (a checkpoint), or that DataParallel wrote."""
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"source: {path} holds no weights by name; accepted is what torch.save(model.state_dict(), path) writes")
    if found and all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): value for name, value in found.items()}
    return dict(found)
