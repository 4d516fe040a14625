"""The number that is explained: a class score, from a model that is left exactly as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from helpers.models.running import device_of, usable_device

from .memory import Peak, bytes_each, check_memory, fitting, with_less

OVERSHOOT = 1e-3  # resampled images may leave [0, 1] by a hair
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Score(nn.Module):
    """`model` with one output a class, so that a target always names a column.

    A model with one logit z gets the columns (−z, z): target 1 explains z, target 0 explains −z. As probabilities
    (`activation="softmax"`) its columns are (1 − σ(z), σ(z)), and those of other models softmax(logits).
    """

    def __init__(self, model: nn.Module, activation: str | None = None):
        super().__init__()
        self.model = model
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        output = self.model(images.to(dtype_of(self.model)))  # noise and Xplique come in float32 whatever the model
        if not isinstance(output, Tensor) or output.ndim not in (1, 2) or len(output) != len(images):
            came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"model: its output is {came} for {len(images)} images; accepted: logits (N, classes)")
        output = output.reshape(len(images), -1)
        if output.shape[1] > 1:
            return output.softmax(1) if self.activation == "softmax" else output
        if self.activation == "softmax":
            return torch.cat([(-output).sigmoid(), output.sigmoid()], dim=1)
        return torch.cat([-output, output], dim=1)


@contextmanager
def borrowed(model: nn.Module, device: str | torch.device | None = None) -> Iterator[torch.device]:
    """Inside the block the model is in evaluation mode, frozen, `channels_last` and on `device`; then all is put back.

    Training flags, `requires_grad`, hooks, the place of every parameter and buffer: restored even after an error.
    Frozen, because a gradient with respect to the image needs none with respect to the weights.
    """
    modules, parameters = list(model.modules()), list(model.parameters())
    buffers = [(module, key, value) for module in modules for key, value in module._buffers.items()]
    training = [module.training for module in modules]
    trainable = [parameter.requires_grad for parameter in parameters]
    data = [parameter.data for parameter in parameters]
    hooks = [{name: set(getattr(module, name)) for name in HOOKS} for module in modules]
    place = device_of(model) if device is None else usable_device(device)
    try:
        model.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
            layout = torch.channels_last if parameter.ndim == 4 else torch.preserve_format
            parameter.data = parameter.data.to(place, memory_format=layout)
        for module, key, value in buffers:
            module._buffers[key] = None if value is None else value.to(place)
        yield place
    finally:
        for module, flag, kept in zip(modules, training, hooks, strict=True):
            module.training = flag
            for name, before in kept.items():
                for stray in set(getattr(module, name)) - before:
                    del getattr(module, name)[stray]
        for module, key, value in buffers:
            module._buffers[key] = value
        for parameter, flag, value in zip(parameters, trainable, data, strict=True):
            parameter.data = value
            parameter.requires_grad_(flag)


def check_model(model: nn.Module) -> None:
    """Refuse what is not a module, and modules that decide with the group as well as the image."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if getattr(model, "needs_group", False):
        raise ValueError(
            "model: it decides by image and group (needs_group), but only an image can be explained; "
            "pass the classifier inside it"
        )


def check_images(images: Tensor | np.ndarray) -> Tensor:
    """Images as a detached float tensor (N, C, H, W); ValueError for another rank, type or range."""
    if isinstance(images, np.ndarray) and min(images.strides, default=0) < 0:  # a flipped view, which PyTorch does not take
        images = images.copy()
    try:
        images = torch.as_tensor(images).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"images: {type(images).__name__} given; expected a tensor or an array (N, C, H, W)") from error
    shape = tuple(images.shape)
    if images.ndim != 4:
        hint = "; for one image pass images[None]" if images.ndim == 3 else ""
        raise ValueError(f"images: shape {shape}; expected (N, C, H, W){hint}")
    if not images.numel():
        raise ValueError(f"images: shape {shape} holds no image")
    if not images.is_floating_point():
        raise ValueError(f"images: {images.dtype}; expected floats in [0, 1] (divide 8-bit images by 255)")
    low, high = images.min().item(), images.max().item()
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):  # written so that NaN fails too
        raise ValueError(
            f"images: values from {low:.3g} to {high:.3g}; expected floats in [0, 1] without NaN "
            "(normalisation belongs into the model's first layer)"
        )
    return images


def first_scores(score: Score, images: Tensor) -> Tensor:
    """Scores (1, classes) of the first image: the cheapest proof that model and images fit together."""
    try:
        return score(images[:1])
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"images: the model cannot take images of shape {tuple(images.shape[1:])}: {reason}"
        ) from error


def resolve_target(
    target: int | Tensor | np.ndarray | None, score: Score, images: Tensor, classes: int, batch_size: int
) -> Tensor:
    """Class codes int64 (N,) on the images' device: those given, or the predicted ones.

    Raises
    ------
    ValueError : not whole numbers, not one (or one for each image), or outside the model's classes.
    """
    if target is None:
        with torch.no_grad():
            predicted = lambda size: torch.cat([score(channels_last(part)).argmax(1) for part in images.split(size)])
            return with_less(batch_size, predicted)[0]
    try:
        codes = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"target: {target!r}; expected a class code (int) or one for each image") from error
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise ValueError(f"target: {codes.dtype}; expected a class code (int) or one for each image")
    if codes.ndim > 1 or (codes.ndim == 1 and len(codes) != len(images)):
        raise ValueError(f"target: shape {tuple(codes.shape)}; expected one class code, or ({len(images)},)")
    outside = codes.reshape(-1)[((codes < 0) | (codes >= classes)).reshape(-1)]
    if len(outside):
        raise ValueError(f"target: class {outside[0].item()} is outside the model's classes 0 to {classes - 1}")
    # a copy, because codes that come from a block of torch.inference_mode() cannot take part in autograd
    return codes.to(images.device, torch.int64).expand(len(images)).clone()


def channels_last(images: Tensor) -> Tensor:
    """The same images stored pixel by pixel, as the weights are inside `borrowed`, so that no layer has to convert."""
    return images.contiguous(memory_format=torch.channels_last)


def default_batch(images: Tensor) -> int:
    """Images per pass that keep memory bounded: 64 up to 128 × 128 pixels, fewer above, four times as many on a GPU."""
    size = 64 * 128 * 128 // (images.shape[2] * images.shape[3])
    return max(1, min(64, size)) * (4 if images.is_cuda else 1)


def check_batch_size(batch_size: int | None, images: Tensor) -> int:
    """The batch size to use; ValueError unless None or a whole number above zero."""
    if batch_size is None:
        return default_batch(images)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: {batch_size!r}; expected a whole number of at least 1, or None")
    return batch_size


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating type the model computes in (that of its first floating parameter or buffer)."""
    tensors = (tensor for source in (model.parameters(), model.buffers()) for tensor in source)
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


@dataclass(frozen=True)
class Ready:
    """Checked inputs on the device: images (N, C, H, W), target int64 (N,), images per pass."""

    images: Tensor
    target: Tensor
    batch_size: int


def prepare(
    model: nn.Module,
    images: Tensor | np.ndarray,
    target: int | Tensor | np.ndarray | None,
    batch_size: int | None,
    place: torch.device,
    memory: float | None = None,
    backward: bool = False,
    room: float = 1.0,
) -> Ready:
    """Check images, model and target against each other, with one pass over one image (all, if no target is given).

    `backward` says whether there will be passes with a gradient too, which take more memory, and `room` how much more than plain
    ones.
    """
    images = check_images(images)
    images = images.to(place, dtype_of(model), copy=images.is_inference())
    most, memory = check_batch_size(batch_size, images), check_memory(memory)
    output, each = trial(Score(model), images, backward, room)
    batch_size = most if batch_size and memory is None else fitting(most, each, images.device, memory)
    target = resolve_target(target, Score(model), images, output.shape[1], batch_size)
    return Ready(images, target, batch_size)


def trial(score: Score, images: Tensor, backward: bool, room: float = 1.0) -> tuple[Tensor, int]:
    """Scores (1, classes) of the first image, and the bytes that an image takes in a pass of `room` times the usual memory.

    With `backward` the scores have a gradient, if the model has one.
    """
    one = images[:1].clone().requires_grad_(backward)
    with Peak() as peak, torch.set_grad_enabled(backward):
        output = first_scores(score, one)
    if output.isnan().any():
        raise ValueError("model: its output for the first image has NaN; expected numbers")
    return output, int(room * bytes_each(peak, images, backward))
