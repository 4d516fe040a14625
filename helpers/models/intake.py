"""What a classifier takes of the output of the layer before it, where a function without a module stands between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mean(output: Tensor) -> Tensor:
    """The mean over the positions of a map (N, C, H, W), or over tokens (N, T, d)."""
    return output.mean((2, 3)) if output.dim() == 4 else output.mean(1)


def first(output: Tensor) -> Tensor:
    """The first token, of (N, T, d): a transformer's class token."""
    return output[:, 0]


# An edit that treats every position alike may act before or after these: A mean(x) + c = mean(A x + c).
INTAKES = {"first": first, "mean": mean}


def take(output: Tensor, intake: str) -> Tensor:
    """Features (N, d) that a classifier takes of a layer's output; for "" the output itself, (N, d, 1, 1) as (N, d)."""
    if intake:
        return INTAKES[intake](output)
    return output.flatten(1) if is_vector(output) else output


def is_vector(output: Tensor) -> bool:
    """Whether an output is (N, d), or (N, d, 1, 1)."""
    return output.shape[1:].numel() == output.shape[1]


def spread(features: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An output (n, *shape) of which every intake is `features` (n, d): the same at all positions, of which one is stored."""
    if len(shape) == 3:
        return features[:, :, None, None].expand(-1, *shape)
    return features[:, None].expand(-1, *shape)


@torch.no_grad()
def intake_of(output: Tensor, taken: Tensor | None, holder: nn.Module, logits: Tensor) -> str:
    """Which of `INTAKES` stands between a layer and the classifier; "" for none of them.

    Parameters
    ----------
    output : float tensor, of the layer before the classifier
    taken : float tensor, the classifier's input; None if no module is the classifier, but a function of weights that
        `holder` has, as in `F.linear(x, self.weight, self.bias)`
    holder : nn.Module
    logits : float tensor (N, K)
    """
    if is_vector(output) or output.dim() not in (3, 4):
        return ""
    for name, function in INTAKES.items():
        features = function(output)
        if taken is not None:
            tolerance = 1e-5 * taken.abs().max().item()
            if features.shape == taken.shape and torch.allclose(features, taken, rtol=1e-4, atol=tolerance):
                return name
        elif is_linear(holder, features, logits):
            return name
    return ""


@torch.no_grad()
def is_linear(holder: nn.Module, features: Tensor, logits: Tensor) -> bool:
    """Whether x -> W x + b, with the `weight` and `bias` that a module holds, gives the logits (N, K) of features (N, d)."""
    weight, bias = weights_of(holder)
    if weight is None or features.dim() != 2 or features.shape[1] != weight.shape[1]:
        return False
    kind = {"device": features.device, "dtype": features.dtype}
    found = F.linear(features, weight.to(**kind), None if bias is None else bias.to(**kind))
    tolerance = 1e-3 * max(1.0, logits.abs().max().item())
    return found.shape == logits.shape and torch.allclose(found, logits.to(**kind), rtol=1e-3, atol=tolerance)


def weights_of(holder: nn.Module) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    """The parameters `weight` (K, d) and `bias` (K,) of a Linear, or of a module with the like; None for what it lacks."""
    own = dict(holder.named_parameters(recurse=False))
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None or weight.dim() != 2:
        return None, None
    return weight, bias
