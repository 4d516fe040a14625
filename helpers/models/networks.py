"""Networks of which PyTorch sees no layers, as modules: an ONNX file, a program of `torch.export`, a function of an array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def pick(outputs: Any, wanted: int | str | None, names: list[str] | None = None) -> Any:
    """The one output that is meant, of what a network gives: a tensor, a list of them or a dict.

    Raises
    ------
    ValueError : several outputs and none named, or a name that none has.
    """
    if not isinstance(outputs, (list, tuple, Mapping)):
        if wanted not in (None, 0, *(names or [])[:1]):
            raise ValueError(f"output: {wanted!r}, but the model has one output; leave output out")
        return outputs
    if isinstance(outputs, Mapping):
        by_name = dict(outputs)
    else:
        names = names if names and len(names) == len(outputs) else map(str, range(len(outputs)))
        by_name = dict(zip(names, outputs, strict=True))
    keys = list(by_name)
    if wanted is None and len(keys) == 1:
        return by_name[keys[0]]
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(keys):
        return by_name[keys[wanted]]
    if wanted in by_name:
        return by_name[wanted]
    came = "none was named" if wanted is None else f"{wanted!r} came"
    raise ValueError(f"output: the model has {len(keys)} outputs and {came}; accepted: {', '.join(map(repr, keys))}")


def limits(columns: int) -> tuple[float, float]:
    """Between which probabilities are kept, so that their logarithm or logit is finite in single precision."""
    return (1e-7, 1 - 1e-7) if columns == 1 else (float(np.finfo(np.float32).tiny), 1.0)


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
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"images: {self.path.name} cannot take {array.shape}: {reason}") from error
        return torch.from_numpy(np.asarray(raw)).to(batch.device)

    def __deepcopy__(self, memo: dict) -> OnnxNetwork:
        # A session cannot be copied, and need not be: running it changes nothing.
        return type(self)(self.path, self.session, self.output).train(self.training)

    def __getstate__(self):
        raise TypeError("an ONNX session cannot be pickled; load the file again where it is needed")


def last_operator(path: Path, output: str) -> str | None:
    """ "softmax" or "sigmoid" if the output comes from one, perhaps in another shape or type."""
    import onnx

    makers = {name: node for node in onnx.load(path, load_external_data=False).graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in ("Cast", "Flatten", "Identity", "Reshape", "Squeeze"):
        node = makers.get(node.input[0])
    return node.op_type.casefold() if node is not None and node.op_type in ("Softmax", "Sigmoid") else None


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
