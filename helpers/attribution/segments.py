"""Pieces of an image that a method hides or keeps as a whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Segments = int | Tensor | np.ndarray


def grid(height: int, width: int, count: int) -> Tensor:
    """Codes int64 (H, W) of `count` × `count` rectangles as equal in size as whole pixels allow, numbered by rows."""
    rows, columns = (torch.arange(side) * count // side for side in (height, width))
    return rows[:, None] * count + columns


def number_of_segments(segments: Segments) -> int:
    """How many segments an image has, at most: of a grid's count, or a mask (H, W) or (N, H, W)."""
    if isinstance(segments, (int, np.integer)):
        return int(segments) ** 2
    codes = torch.as_tensor(segments).flatten(-2)
    return max(len(image.unique()) for image in codes.reshape(-1, codes.shape[-1]))


def check_kind(segments: Segments) -> None:
    """ValueError for what is neither the number of a grid's rows nor a mask."""
    if isinstance(segments, bool) or not isinstance(segments, (int, np.integer, Tensor, np.ndarray)):
        raise ValueError(f"segments: {segments!r}; expected the number of a grid's rows, or an integer mask (H, W) or (N, H, W)")


def check_segments(segments: Segments, images: Tensor) -> Tensor:
    """Codes int64 (N, H, W), from 0 without gaps over all images, of a grid's count or a mask (H, W) or (N, H, W).

    Raises
    ------
    ValueError : another shape or type, a grid finer than the pixels, or an image with only one segment.
    """
    count, _, height, width = images.shape
    check_kind(segments)
    if isinstance(segments, (int, np.integer)):
        if not 2 <= segments <= min(height, width):
            raise ValueError(f"segments: a grid of {segments} × {segments}; accepted: 2 to {min(height, width)} for these images")
        segments = grid(height, width, int(segments))
    codes = torch.as_tensor(segments)
    if codes.is_floating_point() or codes.is_complex():
        raise ValueError(f"segments: {codes.dtype}; expected whole numbers, one for each segment")
    if tuple(codes.shape) not in ((height, width), (count, height, width)):
        raise ValueError(
            f"segments: shape {tuple(codes.shape)}; expected {(height, width)} for all images or {(count, height, width)}"
        )
    codes = torch.unique(codes, return_inverse=True)[1].to(images.device)
    flat = codes.reshape(-1, height * width)
    single = (flat == flat[:, :1]).all(1).nonzero()
    if len(single):
        raise ValueError(f"segments: image {single[0].item()} has only one; expected two or more, so that one can be left out")
    return codes.expand(count, height, width)


def count(segments: Segments) -> int:
    """How many segments an image has at most: of a grid by its rows, or of a mask's codes."""
    if isinstance(segments, (int, np.integer)):
        return int(segments) ** 2
    codes = torch.as_tensor(segments)
    return max(len(each.unique()) for each in (codes[None] if codes.ndim == 2 else codes))
