"""Methods through Captum (Kokhlikyan et al., 2020). Captum is imported when a method first runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from helpers.models import layers
from helpers.models.running import untouched_random_state

from .baselines import DISTRIBUTION, Baseline, references
from .method import Work, method
from .score import Score

QUADRATURES = {"gausslegendre": "gausslegendre", "trapezoid": "riemann_trapezoid"}


@contextmanager
def session(score: Score, work: Work) -> Iterator[Score]:
    """Captum draws from torch's global generators: inside the block they are seeded, after it as before."""
    with untouched_random_state(work.seed):
        yield score


@method(
    "saliency",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    cost=lambda options, size: (1, 1),
    definition="|∂f/∂x|, summed over channels; absolute=False keeps the sign",
)
def saliency(model: Score, images: Tensor, target: Tensor, work: Work, *, absolute: bool = True) -> Tensor:
    from captum.attr import Saliency

    return Saliency(model).attribute(images.requires_grad_(), target, abs=absolute)


@method(
    "gradient_input",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    cost=lambda options, size: (1, 1),
    definition="x ∂f/∂x with x in [0, 1], before the model's own normalisation",
)
def gradient_input(model: Score, images: Tensor, target: Tensor, work: Work) -> Tensor:
    from captum.attr import InputXGradient

    return InputXGradient(model).attribute(images.requires_grad_(), target)


@method(
    "integrated_gradients",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="steps × (1 forward + 1 backward)",
    definition="(x − b) ∫ ∂f(b + α(x − b))/∂x dα, Gauss–Legendre nodes; quadrature='trapezoid' equals Xplique's",
)
def integrated_gradients(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    steps: int = 50,
    baseline: Tensor | str | float = "black",
    quadrature: str = "gausslegendre",
) -> Tensor:
    from captum.attr import IntegratedGradients

    rule = QUADRATURES[quadrature]
    maps = IntegratedGradients(model).attribute(
        images,
        baseline,
        target,
        n_steps=steps,
        method=rule,
        internal_batch_size=max(work.batch_size, len(images)),
    )
    # Captum's trapezoid weights add up to (steps - 1) / steps instead of 1
    return maps * (steps / (steps - 1)) if quadrature == "trapezoid" else maps


@method(
    "smoothgrad",
    backend="captum",
    needs_gradient=True,
    deterministic=False,
    passes="samples × (1 forward + 1 backward)",
    definition="mean of ∂f/∂x over x + noise; absolute: its modulus; squared: mean of the squares",
)
def smoothgrad(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    samples: int = 50,
    noise: float = 0.1,
    absolute: bool = False,
    squared: bool = False,
) -> Tensor:
    from captum.attr import NoiseTunnel, Saliency

    maps = NoiseTunnel(Saliency(model)).attribute(
        images.requires_grad_(),
        nt_type="smoothgrad_sq" if squared else "smoothgrad",
        nt_samples=samples,
        nt_samples_batch_size=min(samples, max(1, work.batch_size // len(images))),
        stdevs=float(noise),
        target=target,
        abs=False,
    )
    return maps.abs() if absolute else maps


@method(
    "square_grad",
    backend="captum",
    needs_gradient=True,
    deterministic=False,
    passes="samples × (1 forward + 1 backward)",
    definition="mean over x + noise of the square of ∂f/∂x (Hooker et al. 2019); smoothgrad(squared=True) by its own name",
)
def square_grad(
    model: Score, images: Tensor, target: Tensor, work: Work, *, samples: int = 50, noise: float = 0.1
) -> Tensor:
    return smoothgrad(model, images, target, work, samples=samples, noise=noise, squared=True)


@method(
    "vargrad",
    backend="captum",
    needs_gradient=True,
    deterministic=False,
    passes="samples × (1 forward + 1 backward)",
    definition="variance over x + noise of ∂f/∂x, unbiased (Captum alone divides by the number of samples; Adebayo et al. 2018)",
)
def vargrad(model: Score, images: Tensor, target: Tensor, work: Work, *, samples: int = 50, noise: float = 0.1) -> Tensor:
    from captum.attr import NoiseTunnel, Saliency

    if samples < 2:
        raise ValueError(f"samples: {samples}; vargrad needs at least 2, because one has no variance")
    maps = NoiseTunnel(Saliency(model)).attribute(
        images.requires_grad_(),
        nt_type="vargrad",
        nt_samples=samples,
        nt_samples_batch_size=min(samples, max(1, work.batch_size // len(images))),
        stdevs=float(noise),
        target=target,
        abs=False,
    )
    return maps * (samples / (samples - 1))


@method(
    "gradient_shap",
    backend="captum",
    needs_gradient=True,
    deterministic=False,
    passes="samples × (1 forward + 1 backward)",
    cost=lambda options, size: (options["samples"], options["samples"]),
    definition="mean of (x + noise − b) ∂f/∂x at a random point between b and x + noise, b drawn from the `baselines` "
    "(names, pixel values, or a tensor (M, C, H, W)); on average adds up to the mean of f(x) − f(b) (Lundberg & Lee 2017)",
)
def gradient_shap(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    samples: int = 50,
    noise: float = 0.0,
    baselines: Sequence[Baseline] | Tensor = DISTRIBUTION,
) -> Tensor:
    from captum.attr import NoiseTunnel
    from captum.attr._core.gradient_shap import InputBaselineXGradient  # GradientShap takes all samples in one pass

    tunnel, maps = NoiseTunnel(InputBaselineXGradient(model)), []
    given = torch.stack(references(baselines, images), 1)
    for i in range(len(images)):
        with untouched_random_state(work.seed), untouched_numpy_state(work.seed):
            found = tunnel.attribute(
                images[i : i + 1].detach().requires_grad_(),
                nt_samples=samples,
                nt_samples_batch_size=min(samples, work.batch_size),
                stdevs=float(noise),
                draw_baseline_from_distrib=True,
                baselines=given[i],
                target=target[i : i + 1],
            )
        maps.append(found.detach())
    return torch.cat(maps)


@contextmanager
def untouched_numpy_state(seed: int) -> Iterator[None]:
    """Inside the block NumPy's global random state starts from `seed`; afterwards it is as before."""
    state = np.random.get_state()  # noqa: NPY002  (GradientShap draws from the global state)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@method(
    "occlusion",
    backend="captum",
    needs_gradient=False,
    deterministic=True,
    passes="1 + ⌈(H − patch)/stride + 1⌉ × ⌈(W − patch)/stride + 1⌉ forward",
    per_channel=False,
    definition="mean drop of f over the patches that cover a pixel; patches that stick out at the border are cut off",
)
def occlusion(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    patch: int = 8,
    stride: int = 4,
    baseline: Tensor | str | float = 0.0,
) -> Tensor:
    from captum.attr import Occlusion

    channels = images.shape[1]
    maps = Occlusion(model).attribute(
        images,
        sliding_window_shapes=(channels, patch, patch),
        strides=(channels, stride, stride),
        baselines=baseline,
        target=target,
        perturbations_per_eval=max(1, work.batch_size // len(images)),
    )
    return maps[:, 0]  # a patch covers all channels at once, so Captum repeats one value in each


@method(
    "grad_cam",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    per_channel=False,
    definition="ReLU of Σ_k mean(∂f/∂A_k) A_k at `layer` (default: the last feature map), upsampled bilinearly; "
    "coarse in small images: of 64 pixels a ResNet's last map has 2 × 2",
)
def grad_cam(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    layer: str | nn.Module | None = None,
    relu: bool = True,
) -> Tensor:
    from captum.attr import LayerGradCam

    name = last_feature_layer(model.model, images[:1]) if layer is None else None
    name = name or layers.find(model.model, layer, images[:1])
    cam = LayerGradCam(model, model.model.get_submodule(name))
    maps = cam.attribute(images.requires_grad_(), target, relu_attributions=relu)
    if maps.ndim != 4:
        raise ValueError(f"layer: its output has {maps.ndim} dimensions; Grad-CAM needs a map (N, C, H, W)")
    return interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def last_feature_layer(model: nn.Module, example: Tensor) -> str:
    """Name of the last layer, by data flow, whose output is a feature map (1, C, H, W) of more than one pixel.

    Where a layer and the block around it end with the same map the block is meant: a ReLU inside a residual
    block runs several times, the block once. In a torchvision ResNet it is `layer4`.

    Parameters
    ----------
    model : nn.Module
    example : float (1, C, H, W)

    Raises
    ------
    ValueError : the model has no such layer at or after a convolution.
    """
    modules, order = dict(model.named_modules()), layers.flow(model, example)
    first = next((i for i, name in enumerate(order) if isinstance(modules[name], nn.Conv2d)), len(order))
    with layers.capture(model, *order[first:]) as outputs, torch.no_grad():
        model(example)
    for name in reversed(order[first:]):
        output = outputs[name]
        if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            return name
    raise ValueError("layer: the model has no convolutional feature map for Grad-CAM; name a layer that has one")
