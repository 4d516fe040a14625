"""The family of Grad-CAM: which channels of a layer speak for a class, and where in the picture they are active.

With A_k the map of channel k at the layer, G_k = ∂f/∂A_k and Σ over channels, each member is one line below. The layer may put
out maps or a vision transformer's tokens (`feature_layer`). Maps are enlarged bilinearly to the image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .feature_layer import changed, feature_layer, look, watch
from .method import Work, method
from .passes import each, pairs, scores
from .score import Score


def by_gradient(name: str, definition: str) -> Callable:
    """Register a function of activations and gradients, (n, k, h, w) both, to a map (n, h, w)."""

    def register(combine: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        @method(
            name,
            backend="torch",
            needs_gradient=True,
            deterministic=True,
            passes="1 forward + 1 backward to the layer",
            cost=lambda options, size: (1, 1),
            per_channel=False,
            definition=definition,
        )
        def run(
            model: Score,
            images: Tensor,
            target: Tensor,
            work: Work,
            *,
            layer: str | nn.Module | None = None,
            relu: bool = True,
        ) -> Tensor:
            place = feature_layer(model, layer, images, target, work)
            work.tell(forward=each(1, images), backward=each(1, images))
            return enlarged(combine(*look(model, place, images, target)), images, relu)

        return combine

    return register


def enlarged(maps: Tensor, images: Tensor, relu: bool) -> Tensor:
    """Maps (n, h, w) at the size of the images (n, C, H, W), negative values cut off first if `relu`."""
    maps = maps.relu() if relu else maps
    return interpolate(maps[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


@by_gradient(
    "grad_cam",
    "ReLU of Σ mean(G_k) A_k at `layer`, by default the last feature map (Selvaraju et al. 2017, eq. 1 and 2); coarse in small "
    "images: of 64 pixels a ResNet's last map has 2 × 2",
)
def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1)


@by_gradient(
    "grad_cam_plus_plus",
    "ReLU of Σ w_k A_k, w_k = Σ_ij α ReLU(G_k), α = G_k² / (2 G_k² + G_k³ Σ_ab A_k) (Chattopadhay et al. 2018, eq. 5 and 19, for "
    "exp(f), without its factor exp(f), which is the same for all pixels of an image)",
)
def grad_cam_plus_plus(activation: Tensor, gradient: Tensor) -> Tensor:
    square = gradient.square()
    bottom = 2 * square + square * gradient * activation.sum((2, 3), keepdim=True)
    share = torch.where(bottom != 0, square / torch.where(bottom != 0, bottom, 1), 0)
    weight = (share * gradient.relu()).sum((2, 3), keepdim=True)
    return (weight * activation).sum(1)


@by_gradient(
    "hires_cam",
    "ReLU of Σ G_k A_k, point by point (Draelos & Carin 2020, eq. 4); Grad-CAM's map wherever a mean over positions and a linear "
    "layer follow",
)
def hires_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    return (gradient * activation).sum(1)


@by_gradient("layer_cam", "ReLU of Σ ReLU(G_k) A_k, point by point (Jiang et al. 2021, eq. 5 to 7); of use at early layers too")
def layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.relu() * activation).sum(1)


@by_gradient(
    "xgrad_cam", "ReLU of Σ w_k A_k, w_k = Σ_ij A_k G_k / Σ_ij A_k (Fu et al. 2020, eq. 8); w_k = 0 for a channel that sums to 0"
)
def xgrad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    total = activation.sum((2, 3), keepdim=True)
    weight = (gradient * activation).sum((2, 3), keepdim=True) / torch.where(total != 0, total, torch.inf)
    return (weight * activation).sum(1)


@by_gradient(
    "eigen_grad_cam",
    "ReLU of the first principal component of G_k A_k over channels (Eigen-CAM of the products, as in pytorch-grad-cam, there of "
    "centred ones), signed like HiResCAM's map",
)
def eigen_grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    product = gradient * activation
    return first_component(product, like=product.sum(1))


def first_component(maps: Tensor, like: Tensor) -> Tensor:
    """Of maps (n, k, h, w) the projection on the first right singular vector over channels, with the sign of maps (n, h, w)."""
    left, value, _ = torch.linalg.svd(maps.flatten(2).transpose(1, 2), full_matrices=False)
    component = (left[:, :, 0] * value[:, :1]).reshape(like.shape)
    sign = (component * like).sum((1, 2), keepdim=True).sign()
    return component * torch.where(sign == 0, 1, sign)


@method(
    "eigen_cam",
    backend="torch",
    needs_gradient=False,
    deterministic=True,
    passes="1 forward",
    cost=lambda options, size: (1, 0),
    per_channel=False,
    definition="ReLU of the first principal component of the A_k over channels, not centred, with the sign by which it adds up "
    "to a positive number (Muhammad & Yeasin 2020, eq. 1 to 3); the same for every class",
)
def eigen_cam(
    model: Score, images: Tensor, target: Tensor, work: Work, *, layer: str | nn.Module | None = None, relu: bool = True
) -> Tensor:
    place = feature_layer(model, layer, images, target, work)
    work.tell(forward=each(1, images), backward=each(0, images))
    maps = watch(model, place, images)
    return enlarged(first_component(maps, like=torch.ones_like(maps[:, 0])), images, relu)


@method(
    "score_cam",
    backend="torch",
    needs_gradient=False,
    deterministic=True,
    passes="1 + channels of the layer forward",
    cost=lambda options, size: (1 + options["channels"], 0),
    per_channel=False,
    definition="ReLU of Σ w_k A_k, w the softmax over k of f(x H_k), H_k the enlarged A_k scaled to [0, 1] (Wang et al. 2020, "
    "algorithm 1; the score of the black image drops out of the softmax)",
)
def score_cam(
    model: Score, images: Tensor, target: Tensor, work: Work, *, layer: str | nn.Module | None = None, relu: bool = True
) -> Tensor:
    place = feature_layer(model, layer, images, target, work)
    maps = watch(model, place, images)
    n, channels = maps.shape[:2]
    work.tell(forward=each(1 + channels, images), backward=each(0, images))
    effect = maps.new_empty(n, channels)
    for which, channel in pairs(n, channels, work.batch_size, images.device):
        shown = interpolate(maps[which, channel][:, None], size=images.shape[2:], mode="bilinear", align_corners=False)
        low, high = shown.amin((2, 3), keepdim=True), shown.amax((2, 3), keepdim=True)
        shown = (shown - low) / torch.where(high > low, high - low, 1)
        effect[which, channel] = scores(model, images[which] * shown.to(images.dtype), target[which]).to(effect)
    weight = effect.softmax(1)
    return enlarged((weight[:, :, None, None] * maps).sum(1), images, relu)


@method(
    "ablation_cam",
    backend="torch",
    needs_gradient=False,
    deterministic=True,
    passes="2 + channels of the layer forward",
    cost=lambda options, size: (2 + options["channels"], 0),
    per_channel=False,
    definition="ReLU of Σ w_k A_k, w_k the drop of f when channel k is set to zero (Ramaswamy & Desai 2020, eq. 3 and 5, without "
    "the division by f, which would turn the map round where f is negative)",
)
def ablation_cam(
    model: Score, images: Tensor, target: Tensor, work: Work, *, layer: str | nn.Module | None = None, relu: bool = True
) -> Tensor:
    place = feature_layer(model, layer, images, target, work)
    module = model.model.get_submodule(place.name)
    maps = watch(model, place, images)
    n, channels = maps.shape[:2]
    work.tell(forward=each(2 + channels, images), backward=each(0, images))
    before, after = scores(model, images, target).to(maps), maps.new_empty(n, channels)
    for which, channel in pairs(n, channels, work.batch_size, images.device):

        def without(output: Tensor, channel: Tensor = channel) -> Tensor:
            output = output.clone()
            place.maps(output)[torch.arange(len(channel), device=channel.device), channel] = 0
            return output

        with changed(module, without):
            after[which, channel] = scores(model, images[which], target[which]).to(after)
    weight = before[:, None] - after
    return enlarged((weight[:, :, None, None] * maps).sum(1), images, relu)
