"""Captum's methods that attribute to the feature map of a layer, upsampled to the image."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from helpers.models import layers

from .captum import last_feature_layer
from .method import Work, method
from .score import Score

PASSES = "steps × (1 forward + 1 backward)"


def over_layer(
    explainer: type, model: Score, images: Tensor, layer: str | nn.Module | None, *args: Any, **options: Any
) -> Tensor:
    """Maps (n, H, W): an explainer's values at the layer, summed over its channels and upsampled bilinearly.

    Raises
    ------
    ValueError : the layer's output is not a feature map (N, C, H, W), or no such layer.
    """
    name = last_feature_layer(model.model, images[:1]) if layer is None else layers.find(model.model, layer, images[:1])
    maps = explainer(model, model.model.get_submodule(name)).attribute(images.requires_grad_(), *args, **options)
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        came = f"{maps.ndim} dimensions" if isinstance(maps, Tensor) else f"{len(maps)} parts"
        raise ValueError(f"layer: the output of {name!r} has {came}; expected a feature map (N, C, H, W)")
    return interpolate(maps.sum(1, keepdim=True), size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


@method(
    "layer_gradient_x_activation",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    cost=lambda options, size: (1, 1),
    per_channel=False,
    definition="Σ_k A_k ∂f/∂A_k at `layer` (default: the last feature map), upsampled bilinearly; Grad-CAM averages the "
    "gradients first",
)
def layer_gradient_x_activation(
    model: Score, images: Tensor, target: Tensor, work: Work, *, layer: str | nn.Module | None = None
) -> Tensor:
    from captum.attr import LayerGradientXActivation

    return over_layer(LayerGradientXActivation, model, images, layer, target)


@method(
    "layer_conductance",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes=PASSES,
    cost=lambda options, size: (options["steps"], options["steps"]),
    per_channel=False,
    definition="share of integrated gradients that flows through each place of `layer` (Dhamdhere et al. 2019); before "
    "upsampling it adds up to f(x) − f(b), where all paths lead through the layer",
)
def layer_conductance(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    layer: str | nn.Module | None = None,
    steps: int = 50,
    baseline: Tensor | str | float = "black",
) -> Tensor:
    from captum.attr import LayerConductance

    # the layer's changes from step to step add up only if the first is at the baseline and the last at the image
    path = {"n_steps": steps, "method": "riemann_trapezoid", "internal_batch_size": max(work.batch_size, 2 * len(images))}
    return over_layer(LayerConductance, model, images, layer, baseline, target, **path)


@method(
    "internal_influence",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes=PASSES,
    cost=lambda options, size: (options["steps"], options["steps"]),
    per_channel=False,
    definition="mean of ∂f/∂A at `layer` over the way from the baseline to x, summed over channels (Leino et al. 2018)",
)
def internal_influence(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    layer: str | nn.Module | None = None,
    steps: int = 50,
    baseline: Tensor | str | float = "black",
) -> Tensor:
    from captum.attr import InternalInfluence

    path = {"n_steps": steps, "internal_batch_size": max(work.batch_size, len(images))}
    return over_layer(InternalInfluence, model, images, layer, baseline, target, **path)
