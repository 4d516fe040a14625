"""From our images, RGB in [0, 1], to what a model was trained on: size, channels, scale, normalisation, order of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from helpers.names import choose

LAYOUTS = ("NCHW", "NHWC")
# Rows: what the model takes; columns: red, green, blue. Grey is the luma of ITU-R BT.601, as in Pillow and OpenCV.
MIXING = {
    "RGB": np.eye(3),
    "BGR": np.eye(3)[::-1],
    "grey": np.array([[0.299, 0.587, 0.114]]),
}


@dataclass(frozen=True)
class Preprocessing:
    """What a model's own code does to an image before the network sees it: (scale × image − mean) / std.

    Attributes
    ----------
    size : (H, W) in pixels, or one side of a square, to which images are resized (bilinearly, with antialiasing);
        None takes them as they come, or at the size that the model's file declares
    mean, std : a number, or one for each channel in the order in which the model takes them
    scale : 1 for images in [0, 1], 255 where the model takes the numbers 0 to 255; mean and std are on that scale
    layout : "NCHW" (channels first) or "NHWC" (channels last); None: as the model's file declares, else "NCHW"
    channels : "RGB", "BGR" or "grey" (one channel, 0.299 R + 0.587 G + 0.114 B)

    Raises
    ------
    ValueError : a value is none of these (it is named, and what is accepted).

    Examples
    --------
    >>> Preprocessing(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # torchvision  # doctest: +SKIP
    >>> Preprocessing(size=64, mean=0.5, std=0.5, channels="grey")  # grey in [-1, 1]  # doctest: +SKIP
    """

    size: int | tuple[int, int] | None = None
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    scale: float = 1.0
    layout: str | None = None
    channels: str = "RGB"

    def __post_init__(self):
        take = lambda name, value: object.__setattr__(self, name, value)  # the way to fill in a frozen dataclass
        take("channels", choose(self.channels, MIXING, "channels"))
        if self.layout is not None:
            take("layout", choose(self.layout, LAYOUTS, "layout"))
        take("size", check_size(self.size))
        for name in ("mean", "std"):
            take(name, check_numbers(getattr(self, name), len(MIXING[self.channels]), name))
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std: {self.std}; accepted are numbers above 0")
        if not is_number(self.scale) or self.scale <= 0:
            raise ValueError(f"scale: {self.scale!r}; accepted is a number above 0: 1 for images in [0, 1], 255 for 0 to 255")

    def fitted(self, shape: Sequence[int | None] | None) -> Preprocessing:
        """The same with size and layout filled in from the input that a model's file declares.

        Parameters
        ----------
        shape : the four dimensions, None where one is free; None if nothing is declared

        Raises
        ------
        ValueError : what is stated and what is declared contradict each other.
        """
        if shape is None:
            return replace(self, layout=self.layout or "NCHW")
        shape = tuple(shape)
        if len(shape) != 4:
            raise ValueError(f"source: the model's input has shape {shown(shape)}; accepted are images, with four dimensions")
        first, last = shape[1] in (1, 3), shape[3] in (1, 3)
        declared = None if first == last else "NCHW" if first else "NHWC"
        if self.layout and declared and self.layout != declared:
            raise ValueError(f"layout: {self.layout!r}, but the model's input {shown(shape)} is {declared}")
        layout = self.layout or declared or "NCHW"
        channels, *size = (shape[1], *shape[2:]) if layout == "NCHW" else (shape[3], *shape[1:3])
        if channels is not None and channels != len(MIXING[self.channels]):
            fit = {1: "channels='grey'", 3: "channels='RGB' or 'BGR'"}.get(channels, "a model of 1 or 3 channels")
            raise ValueError(
                f"channels: {self.channels!r}, but the model's input {shown(shape)} has {channels} channels; accepted: {fit}"
            )
        if self.size and any(side not in (None, own) for side, own in zip(size, self.size, strict=True)):
            raise ValueError(f"size: {self.size}, but the model's input {shown(shape)} is fixed; leave size out")
        return replace(self, layout=layout, size=self.size or (None if None in size else tuple(size)))

    def __call__(self, images: Tensor) -> Tensor:
        """Images float (N, 3, H, W), RGB in [0, 1], as the model takes them."""
        if self.size and tuple(images.shape[2:]) != self.size:
            images = interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)
        if self.channels != "RGB":
            images = torch.einsum("kc,nchw->nkhw", torch.from_numpy(MIXING[self.channels].copy()).to(images), images)
        mean, std = (torch.tensor(values).to(images).view(-1, 1, 1) for values in (self.mean, self.std))
        images = (images * self.scale - mean) / std
        return images.permute(0, 2, 3, 1) if self.layout == "NHWC" else images


def resizing(before: int, after: int) -> np.ndarray:
    """The resampling of one side as a matrix, float32 (after, before): the response to one bright row after the other."""
    rows = torch.eye(before)[None, None]
    return interpolate(rows, (after, before), mode="bilinear", antialias=True, align_corners=False)[0, 0].numpy()


def is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(value)


def check_size(size) -> tuple[int, int] | None:
    """(H, W) of a size, or None; ValueError for anything else."""
    if size is None:
        return None
    sides = (size, size) if is_number(size) else tuple(size) if isinstance(size, Sequence) else ()
    if len(sides) != 2 or not all(is_number(side) and side == int(side) and side > 0 for side in sides):
        raise ValueError(f"size: {size!r}; accepted is (H, W) in pixels, one number for a square, or None")
    return int(sides[0]), int(sides[1])


def check_numbers(value, count: int, name: str) -> tuple[float, ...]:
    """One number, or one for each channel; ValueError for anything else."""
    values = (value,) if is_number(value) else tuple(value) if isinstance(value, Sequence | np.ndarray) else ()
    if len(values) not in (1, count) or not all(is_number(each) for each in values):
        many = f", or {count}, one for each channel" if count > 1 else ""
        raise ValueError(f"{name}: {value!r}; accepted is a number{many}")
    return tuple(map(float, values))


def shown(shape: Sequence[int | None]) -> str:
    """A shape with its free dimensions: (N, 3, ?, ?)."""
    return "(" + ", ".join("N" if i == 0 and d is None else "?" if d is None else str(d) for i, d in enumerate(shape)) + ")"
