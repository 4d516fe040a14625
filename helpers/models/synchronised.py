"""Batch normalisation over the images of all processes, so that training on several is training on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from helpers.crew import total


class Synchronised(nn.Module):
    """A batch normalisation whose means and variances in training are those of the whole batch.

    It holds the layer itself, with its parameters and running statistics. Unlike `torch.nn.SyncBatchNorm` it works on any device,
    and for processes that have different numbers of images, or none.
    """

    def __init__(self, layer: _BatchNorm):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        if not (self.training and layer.training) and layer.track_running_stats:
            return layer(x)
        dims = [0, *range(2, x.dim())]
        each = x.numel() // max(1, len(x) * x.shape[1])  # positions an image
        sums = torch.cat([x.sum(dims), x.new_full((1,), float(len(x) * each))])
        sums = total(sums)
        n, shape = sums[-1].detach(), [1, -1, *[1] * (x.dim() - 2)]
        mean = sums[:-1] / n
        centred = x - mean.view(shape)
        variance = total(centred.square().sum(dims)) / n
        if layer.track_running_stats:
            with torch.no_grad():
                layer.num_batches_tracked.add_(1)
                share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
                layer.running_mean.lerp_(mean.to(layer.running_mean), share)
                layer.running_var.lerp_((variance * n / (n - 1)).to(layer.running_var), share)
        out = centred * torch.rsqrt(variance + layer.eps).view(shape)
        return out if layer.weight is None else torch.addcmul(layer.bias.view(shape), out, layer.weight.view(shape))


@contextmanager
def synchronised(model: nn.Module, size: int) -> Iterator[nn.Module]:
    """Inside the block the batch normalisations of a model are `Synchronised`, if `size` processes share it; then as before."""
    places = [] if size == 1 else [
        (parent, name, layer)
        for parent in list(model.modules()) for name, layer in parent.named_children() if isinstance(layer, _BatchNorm)
    ]  # fmt: skip
    for parent, name, layer in places:
        setattr(parent, name, Synchronised(layer))
    try:
        yield model
    finally:
        for parent, name, layer in places:
            setattr(parent, name, layer)
