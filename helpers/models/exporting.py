"""A model as one ONNX file, which runs where there is no PyTorch."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from helpers.files import whole
from helpers.models.running import call

CLOSE = 1e-5  # of the largest logit (or of 1), between PyTorch and onnxruntime
ROUNDING = 4  # times the error of single precision in the model


def export(model: nn.Module, path: str | Path, example: Tensor) -> Path:
    """Write a model as ONNX, its edits included, and check that onnxruntime gives the same logits.

    The file has the input `images`, float32 (N, 3, H, W) in [0, 1] for any N, and `group`, int64 (N,), where the model needs
    it; the output is `logits`, float32 (N, K). Names of the classes are in its metadata under "classes", as a JSON list.

    Parameters
    ----------
    model : nn.Module; a copy of it in evaluation mode on the CPU is exported
    path : str or Path; ".onnx" is added if there is no ending
    example : float tensor (n, 3, H, W), n >= 2, images of the size that the model will be given

    Returns
    -------
    Path of the file. Nothing is written if the check fails.

    Raises
    ------
    ValueError : `example` is no such tensor; PyTorch does not see the model's layers, since another library runs them; the
        exported program gives other logits.

    Examples
    --------
    >>> session = onnxruntime.InferenceSession(export(model, "mitigated.onnx", images))  # doctest: +SKIP
    >>> [logits] = session.run(None, {"images": images.numpy()})  # doctest: +SKIP
    """
    if not isinstance(example, Tensor) or example.dim() != 4 or len(example) < 2:
        found = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ValueError(f"example: got {found}; a float tensor (n, 3, H, W) of two images or more is needed")
    if getattr(model, "opaque", False):
        raise ValueError("model: PyTorch sees none of its layers, so it cannot be exported; keep its own file")
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".onnx")
    model, images = copy.deepcopy(model).cpu().eval(), example.detach().float().cpu()
    inputs = {"images": images}
    if getattr(model, "needs_group", False):
        inputs["group"] = torch.arange(len(images)) % 2
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), torch.no_grad(), whole(path) as part:
        warnings.simplefilter("ignore")  # of the exporter's own parts
        torch.onnx.export(
            Called(model).eval(), tuple(inputs.values()), part, dynamo=True, external_data=False, verbose=False,
            input_names=list(inputs), output_names=["logits"], dynamic_shapes=tuple({0: batch} for _ in inputs),
        )  # fmt: skip
        describe(part, getattr(model, "classes", None))
        check(part, model, inputs)
    return path


class Called(nn.Module):
    """A model under the arguments that it takes, by name, where an edited one takes whatever its layer does."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, group: Tensor | None = None) -> Tensor:
        return call(self.model, images, group)


def describe(path: Path, classes) -> None:
    """Put the names of the classes into the file."""
    import onnx  # here, since only those who export need it

    program = onnx.load(path)
    if classes is not None:
        onnx.helper.set_model_props(program, {"classes": json.dumps(list(map(str, classes)))})
    onnx.save(program, path)


def check(path: Path, model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """ValueError unless onnxruntime gives the model's logits, for the example and for another number of images."""
    import onnxruntime

    precise = copy.deepcopy(model).double()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (slice(None), slice(0, 1)):
        given = {name: value[rows] for name, value in inputs.items()}
        expected = call(model, given["images"], given.get("group")).numpy()
        exact = call(precise, given["images"].double(), given.get("group")).numpy()
        [found] = session.run(None, {name: value.numpy() for name, value in given.items()})
        # What single precision leaves open in the model itself, which in a deep network can be more, nobody can keep.
        tolerance = max(CLOSE * max(1.0, float(np.abs(expected).max())), ROUNDING * float(np.abs(expected - exact).max()))
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=tolerance):
            raise ValueError(f"model: onnxruntime gives other logits, by up to {np.abs(found - expected).max():.3g}")
