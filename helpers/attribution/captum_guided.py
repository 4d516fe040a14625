"""Captum's methods that change what a ReLU passes back: guided backpropagation, deconvolution, guided Grad-CAM.

Captum puts its hooks on modules; `Unrolled` gives it one for each call, so that functional, reused and in-place ReLUs are
caught too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import Tensor, nn

from .captum import grad_cam
from .method import Work, method
from .score import Score
from .unrolled import LINEAR, Step, Unrolled, arguments, depends


def relu_step(name: str, function: Callable, args: tuple, kwargs: dict) -> Step | None:
    """ReLUs, written in any of their ways, as steps."""
    if not args or not depends(args[0]):
        return None
    floor = arguments("input min max", args, kwargs, min=None, max=None)
    clamped = name in ("clamp", "clip", "clamp_min") and floor["max"] is None
    if name == "relu" or (clamped and isinstance(floor["min"], (int, float)) and floor["min"] == 0):
        return Step(args[0], nn.ReLU)
    return None


def with_relus(model: Score, images: Tensor, name: str) -> Unrolled:
    """The model with a module for each ReLU.

    Raises
    ------
    ValueError : no ReLU runs, so that the method would be the plain gradient; or one that PyTorch does not show.
    """
    steps = Unrolled(model, images[:1], relu_step)
    if steps.unseen:
        raise ValueError(
            f"model: a part of it runs where PyTorch does not show it (TorchScript, autograd.Function), so {name} could miss "
            "a ReLU; use method='integrated_gradients'"
        )
    if not len(steps.steps):
        others = ", ".join(sorted(steps.native - LINEAR)) or "none"
        raise ValueError(
            f"model: {name} changes the gradient of ReLUs, and none runs in this model (nonlinear functions: {others}); "
            "use method='saliency' or 'integrated_gradients'"
        )
    return steps


@method(
    "guided_backprop",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    cost=lambda options, size: (1, 1),
    definition="∂f/∂x in which each ReLU passes back what is positive there and had a positive input (Springenberg et al. 2015)",
)
def guided_backprop(model: Score, images: Tensor, target: Tensor, work: Work) -> Tensor:
    from captum.attr import GuidedBackprop

    return rule_of_relus(GuidedBackprop, model, images, target, "guided_backprop")


@method(
    "deconvolution",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    cost=lambda options, size: (1, 1),
    definition="∂f/∂x in which each ReLU passes back what is positive there, whatever its input was (Zeiler & Fergus 2014)",
)
def deconvolution(model: Score, images: Tensor, target: Tensor, work: Work) -> Tensor:
    from captum.attr import Deconvolution

    return rule_of_relus(Deconvolution, model, images, target, "deconvolution")


def rule_of_relus(explainer: type, model: Score, images: Tensor, target: Tensor, name: str) -> Tensor:
    steps = with_relus(model, images, name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
        return explainer(steps).attribute(images.detach().requires_grad_(), target)


@method(
    "guided_grad_cam",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="2 forward + 2 backward",
    cost=lambda options, size: (2, 2),
    definition="guided_backprop times grad_cam at `layer` (upsampled bilinearly, where Captum alone repeats pixels)",
)
def guided_grad_cam(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    layer: str | nn.Module | None = None,
    relu: bool = True,
) -> Tensor:
    cam = grad_cam(model, images, target, work, layer=layer, relu=relu)
    return guided_backprop(model, images, target, work) * cam[:, None]
