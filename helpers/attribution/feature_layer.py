"""Which layer a class activation map is made of, and how what it puts out becomes maps: convolutions and tokens alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from helpers.models import layers

from .method import Work
from .passes import precise
from .score import Score

EXTRA_TOKENS = 8  # a class token, perhaps a distillation token or a few registers, before those of the patches


@dataclass(frozen=True)
class FeatureLayer:
    """A layer by name, and the grid (h, w) of the patches if it puts out tokens (N, T, d); None for maps (N, k, h, w)."""

    name: str
    grid: tuple[int, int] | None = None
    channels_last: bool = False

    def maps(self, output: Tensor) -> Tensor:
        """A view (N, k, h, w) of an output of the layer: tokens without a patch, as the class token, are left out."""
        if self.grid:
            patches = output[:, output.shape[1] - math.prod(self.grid) :]
            return patches.transpose(1, 2).unflatten(2, self.grid)
        return output.permute(0, 3, 1, 2) if self.channels_last else output


def feature_layer(model: Score, layer: str | nn.Module | None, images: Tensor, target: Tensor, work: Work) -> FeatureLayer:
    """The layer to explain, once a call: the one given, or the last that has a map on which the score depends.

    Parameters
    ----------
    layer : a name, a module, a role of `helpers.models.layers.find`, or None. None takes the last feature map of more than one
        position (of a layer and the block around it, the block: `layer4` of a torchvision ResNet), and in a vision transformer
        the last normalisation whose patches the score depends on: where only the class token feeds the classifier, that is the
        one before the last attention.

    Raises
    ------
    ValueError : no such layer, or its output is neither a map (N, k, h, w) nor tokens (N, T, d) that tile the image.
    """
    return work.once("feature layer", lambda: find(model, layer, images[:1], target[:1], work.kept.get("shapes")))


@contextmanager
def shapes(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Inside the block, the dict yielded fills with what each layer puts out, in the order they run: tensors without values."""
    outputs: dict[str, Any] = {}
    empty = lambda part: part.detach().to("meta") if isinstance(part, Tensor) else part

    def keep(name: str, output: Any) -> None:
        outputs[name] = tree_map(empty, output)

    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: keep(name, output))
        for name, module in model.named_modules()
        if name and not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def find(
    model: Score, layer: str | nn.Module | None, example: Tensor, target: Tensor, outputs: dict[str, Any] | None = None
) -> FeatureLayer:
    """The layer, by what all of them put out for one image: `outputs`, of a pass that was made anyway, or of a new one."""
    inner = model.model
    if outputs is None:
        with shapes(inner) as outputs, torch.no_grad():
            inner(example)
    order = list(outputs)  # as the layers ran
    convolutions = [name for name in order if isinstance(inner.get_submodule(name), nn.Conv2d)]
    convolved = [outputs[name] for name in convolutions]
    if layer is not None:
        name = layers.find(inner, layer, example)
        if name and name not in outputs:
            raise ValueError(f"layer: {name!r} does not run on these images; layers that do: {', '.join(order)}")
        return described(name, outputs.get(name), convolved, example)
    tokens = [name for name in order if is_tokens(outputs[name], convolved, example)]
    norms = [name for name in tokens if type(inner.get_submodule(name)).__name__.endswith("Norm")]
    for name in (*reversed(norms), *reversed(tokens)):
        found = described(name, outputs[name], convolved, example)
        _, slope = look(model, found, example, target)
        if slope.any():
            return found
    for name in reversed(order[order.index(convolutions[0]) :] if convolutions else []):
        output = outputs[name]
        if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            return described(name, output, convolved, example)
    raise ValueError("layer: the model has no convolutional feature map and no tokens for Grad-CAM; name a layer that has one")


def is_tokens(output: Any, convolved: list[Tensor], example: Tensor) -> bool:
    """Whether an output is a sequence of patches, as wide as the convolution that made the patches (if one did)."""
    if not isinstance(output, Tensor) or output.ndim != 3 or len(output) != 1:
        return False
    width = {maps.shape[1] for maps in convolved}
    return (not width or output.shape[2] in width) and grid_of(output.shape[1], convolved, example) is not None


def grid_of(tokens: int, convolved: list[Tensor], example: Tensor) -> tuple[int, int] | None:
    """Rows and columns of the patches among `tokens`: those of a convolution, else of square patches that tile the image."""
    for maps in reversed(convolved):
        height, width = maps.shape[2:]
        if 0 <= tokens - height * width <= EXTRA_TOKENS and height * width > 1:
            return height, width
    height, width = example.shape[2:]
    for patches in (tokens - 1, tokens):
        side = math.isqrt(height * width // patches) if patches > 1 else 0
        if side and side * side * patches == height * width and height % side == width % side == 0:
            return height // side, width // side
    return None


def described(name: str, output: Any, convolved: list[Tensor], example: Tensor) -> FeatureLayer:
    """How the output (1, …) of a layer becomes maps."""
    if isinstance(output, Tensor) and output.ndim == 4:
        return FeatureLayer(name, channels_last=is_channels_last(output, example))
    if isinstance(output, Tensor) and output.ndim == 3:
        grid = grid_of(output.shape[1], convolved, example)
        if grid is not None:
            return FeatureLayer(name, grid)
        reason = f"{tuple(output.shape[1:])} for each image, and {output.shape[1]} tokens do not tile it"
    elif isinstance(output, Tensor):
        reason = f"an output with {output.ndim} dimensions"
    else:
        reason = "no tensor" if name else "the logits"
    raise ValueError(f"layer: {name!r} gives {reason}; expected a map (N, C, H, W) or tokens (N, T, d), one a patch")


def is_channels_last(output: Tensor, example: Tensor) -> bool:
    """Whether an output (1, h, w, k) has its channels last, as in a Swin transformer: then h : w is the image's ratio."""
    ratio = example.shape[2] / example.shape[3]
    _, first, second, third = output.shape
    return math.isclose(first / second, ratio) and not math.isclose(second / third, ratio, rel_tol=0.5)


@contextmanager
def changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block the module puts out `change(output)`."""
    hook = module.register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        hook.remove()


def look(model: Score, layer: FeatureLayer, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of a layer and the slope of the target's score along them, both (n, k, h, w), in one pass.

    The graph begins at the layer, so the way back ends there. Of a layer that runs several times the last run counts.
    """
    latest: list[Tensor] = []

    def cut(output: Tensor) -> Tensor:
        latest[:] = [output.detach().requires_grad_()]
        return latest[0].clone()  # a copy: an in-place ReLU after the layer may rewrite what the model gets, not what is kept

    with torch.enable_grad(), changed(model.model.get_submodule(layer.name), cut):
        total = model(images).gather(1, target[:, None]).sum()
    slope = torch.autograd.grad(total, latest[0], allow_unused=True)[0] if total.requires_grad else None
    if slope is None:
        raise ValueError(f"layer: the score does not depend on {layer.name!r}, or has no gradient there; name another layer")
    return precise(layer.maps(latest[0].detach())), precise(layer.maps(slope))


def watch(model: Score, layer: FeatureLayer, images: Tensor) -> Tensor:
    """The maps (n, k, h, w) of a layer, in one forward pass."""
    latest: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        latest[:] = [output.detach().clone()]
        return output

    with torch.no_grad(), changed(model.model.get_submodule(layer.name), keep):
        model(images)
    return precise(layer.maps(latest[0]))
