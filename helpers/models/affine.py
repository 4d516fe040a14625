"""Edits that are affine in the features: a full matrix, and one of low rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.models.editing import edit, on_features


def filled(value, shape: tuple[int, ...], argument: str, default: Tensor) -> Tensor:
    """`value` as a float32 tensor of its own, checked for its shape; `default` where it is None."""
    if value is None:
        return default
    value = torch.as_tensor(value, dtype=torch.float32).detach().clone().contiguous()
    if tuple(value.shape) != shape:
        raise ValueError(f"{argument}: shape {tuple(value.shape)} came, {shape} is needed")
    return value


@edit
class Affine(nn.Module):
    """x -> W x + b on the features of a layer; the identity until it is given values.

    Parameters
    ----------
    features : int, d
    weight : float (d, d), W
    bias : float (d,), b

    Its input is (N, d), (N, T, d) or a map (N, C, H, W); see `editing.on_features`.

    Raises
    ------
    ValueError : `weight` or `bias` has another shape.
    """

    enabled = True

    def __init__(self, features: int, weight=None, bias=None):
        super().__init__()
        self.features = int(features)
        self.register_buffer("weight", filled(weight, (features, features), "weight", torch.eye(features)))
        self.register_buffer("bias", filled(bias, (features,), "bias", torch.zeros(features)))

    def config(self) -> dict:
        return {"features": self.features}

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return on_features(x, self.features, lambda rows: F.linear(rows, weight, bias))


@edit
class LowRank(nn.Module):
    """x -> x - (x - mu) P Qᵀ on a layer's features, in O(d k) memory; the identity until it is given values.

    An eraser of k directions in d features (a projection on concept vectors, LEACE) has this form, and a
    d × d matrix would be out of reach on a flattened map.

    Parameters
    ----------
    features : int, d
    rank : int, k
    mean : float (d,), mu
    down : float (d, k), P
    up : float (d, k), Q

    Its input is (N, d), (N, T, d) or a map (N, C, H, W); see `editing.on_features`.

    Raises
    ------
    ValueError : `mean`, `down` or `up` has another shape.
    """

    enabled = True

    def __init__(self, features: int, rank: int, mean=None, down=None, up=None):
        super().__init__()
        self.features, self.rank = int(features), int(rank)
        self.register_buffer("mean", filled(mean, (features,), "mean", torch.zeros(features)))
        self.register_buffer("down", filled(down, (features, rank), "down", torch.zeros(features, rank)))
        self.register_buffer("up", filled(up, (features, rank), "up", torch.zeros(features, rank)))

    def config(self) -> dict:
        return {"features": self.features, "rank": self.rank}

    def forward(self, x: Tensor) -> Tensor:
        mean, down, up = (part.to(x.dtype) for part in (self.mean, self.down, self.up))
        return on_features(x, self.features, lambda rows: rows - (rows - mean) @ down @ up.T)
