"""Xplique's methods that hide parts of an image and watch the score: RISE, LIME, Kernel SHAP, Sobol indices and HSIC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helpers.names import choose

from .method import Work, method
from .segments import Segments
from .xplique import one_hot, rows, tensor, with_baseline


@method(
    "rise",
    backend="xplique",
    needs_gradient=False,
    deterministic=False,
    passes="samples forward",
    cost=lambda options, size: (options["samples"], 0),
    per_channel=False,
    room=2,
    definition="Σ f(x under m) m / (Σ m + 0.0001); all images share their masks, and those of one pass are cut out at one place, "
    "where ours are drawn anew for each",
)
def rise(
    model: Any,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    samples: int = 1000,
    grid: int = 7,
    keep: float = 0.5,
    baseline: Tensor | str | float = 0.0,
) -> Tensor:
    from xplique.attributions import Rise

    settings = {"batch_size": work.batch_size, "nb_samples": samples, "grid_size": grid, "preservation_probability": keep}
    return with_baseline(explaining(Rise, model, work, "mask_value", settings), images, target, baseline)


@method(
    "lime",
    backend="xplique",
    needs_gradient=False,
    deterministic=False,
    passes="samples forward",
    cost=lambda options, size: (options["samples"], 0),
    per_channel=False,
    room=2,
    definition="slopes of a ridge regression (`penalty`) of f on which segments show, each with probability `keep`, weighted by "
    "exp(−‖x − x'‖² / width²) (Ribeiro et al. 2016); hidden segments take one colour, the baseline's (Xplique alone: grey)",
)
def lime(
    model: Any,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    samples: int = 150,
    segments: Segments = 8,
    keep: float = 0.5,
    width: float = 45.0,
    penalty: float = 2.0,
    baseline: Tensor | str | float = 0.0,
) -> Tensor:
    from sklearn.linear_model import Ridge
    from xplique.attributions import Lime

    settings = {
        "batch_size": work.batch_size,
        "nb_samples": samples,
        "prob": keep,
        "kernel_width": width,
        "interpretable_model": Ridge(alpha=penalty),
    }
    return image_by_image(Lime, model, work, settings, images, target, one_colour(baseline), segments)


@method(
    "kernel_shap",
    backend="xplique",
    needs_gradient=False,
    deterministic=False,
    passes="samples forward",
    cost=lambda options, size: (options["samples"], 0),
    per_channel=False,
    room=2,
    definition="slopes of a least-squares regression of f on which segments show, drawn by Shapley's kernel (Lundberg & Lee "
    "2017), with a free constant, so that they need not add up to f(x) − f(b); segments and baseline as in lime",
)
def kernel_shap(
    model: Any,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    samples: int = 800,
    segments: Segments = 8,
    baseline: Tensor | str | float = 0.0,
) -> Tensor:
    from xplique.attributions import KernelShap

    settings = {"batch_size": work.batch_size, "nb_samples": samples}
    return image_by_image(KernelShap, model, work, settings, images, target, one_colour(baseline), segments)


@method(
    "sobol",
    backend="xplique",
    needs_gradient=False,
    deterministic=True,
    passes="designs × (grid² + 2) forward",
    cost=lambda options, size: (options["designs"] * (options["grid"] ** 2 + 2), 0),
    per_channel=False,
    room=2,
    definition="total Sobol index of each cell: its share, alone and with others, in the variance of f when cells are mixed with "
    "the baseline by a Sobol sequence (Fel et al. 2021); not signed; `estimator` jansen, homma, janon, glen or saltelli",
)
def sobol(
    model: Any,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    grid: int = 8,
    designs: int = 32,
    estimator: str = "jansen",
    baseline: Tensor | str | float = 0.0,
) -> Tensor:
    from xplique.attributions import SobolAttributionMethod, global_sensitivity_analysis

    if designs & (designs - 1):
        raise ValueError(f"designs: {designs}; a Sobol sequence needs a power of two")
    name = choose(estimator, ("jansen", "homma", "janon", "glen", "saltelli"), "estimator")
    settings = {
        "batch_size": work.batch_size,
        "grid_size": grid,
        "nb_design": designs,
        "estimator": getattr(global_sensitivity_analysis, f"{name.capitalize()}Estimator")(),
    }
    make = explaining(SobolAttributionMethod, model, work, "perturbation_function", settings, mixing)
    return with_baseline(make, images, target, baseline)


@method(
    "hsic",
    backend="xplique",
    needs_gradient=False,
    deterministic=True,
    passes="designs forward",
    cost=lambda options, size: (options["designs"], 0),
    per_channel=False,
    room=2,
    definition="Hilbert–Schmidt independence criterion between f and whether a cell shows, over a Sobol sequence of masks "
    "(Novello et al. 2022), with a Gaussian kernel on f as wide as the median of f; not signed; `estimator` is the cells' "
    "kernel: binary, rbf or sobolev",
)
def hsic(
    model: Any,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    grid: int = 8,
    designs: int = 512,
    estimator: str = "binary",
    baseline: Tensor | str | float = 0.0,
) -> Tensor:
    from xplique.attributions import HsicAttributionMethod, global_sensitivity_analysis
    from xplique.attributions.global_sensitivity_analysis import TFSobolSequence

    name = choose(estimator, ("binary", "rbf", "sobolev"), "estimator")
    settings = {
        "batch_size": work.batch_size,
        "grid_size": grid,
        "nb_design": designs,
        "sampler": TFSobolSequence(binary=name == "binary"),
        "estimator": getattr(global_sensitivity_analysis, f"{name.capitalize()}Estimator")(),
        "estimator_batch_size": max(1, 2**25 // designs**2),
    }
    make = explaining(HsicAttributionMethod, model, work, "perturbation_function", settings, mixing)
    return with_baseline(make, images, target, baseline)


def explaining(
    explainer: Any, model: Any, work: Work, option: str, settings: dict[str, Any], given: Callable = lambda base: base
) -> Callable[[Tensor, Tensor, np.ndarray], Tensor]:
    """For `with_baseline`: maps (n, H, W) of an explainer that takes `given(baseline)` as its `option`."""

    def explain(some: Tensor, codes: Tensor, base: np.ndarray) -> Tensor:
        made = explainer(model, **settings, **{option: given(base)})
        return tensor(made.explain(rows(some), one_hot(codes, work.classes)))[:, 0]

    return explain


def mixing(base: np.ndarray) -> Callable[[Any], Callable[[Any], Any]]:
    """Xplique's perturbation x m + b (1 − m) with masks m (k, H, W, 1), for any baseline."""
    return lambda image: lambda masks: image[None] * masks + base[None] * (1.0 - masks)


def one_colour(baseline: Tensor) -> Tensor:
    """The baseline (n, C, H, W) as (n, C, 1, 1); ValueError where an image's baseline has several colours."""
    colour = baseline[:, :, :1, :1]
    if not torch.equal(colour.expand_as(baseline), baseline):
        raise ValueError("baseline: Xplique hides segments by one colour; expected 'black', 'white', 'mean' or a pixel value")
    return colour


def image_by_image(
    kind: Any, model: Any, work: Work, settings: dict, images: Tensor, target: Tensor, colour: Tensor, segments: Tensor
) -> Tensor:
    """Maps (n, H, W) of an explainer that takes one division into segments: made anew for each image, with its codes (H, W)."""
    found = []
    for i, codes in enumerate(segments):
        own = torch.unique(codes, return_inverse=True)[1].cpu().numpy().astype(np.int32)
        here = settings | {"map_to_interpret_space": lambda image, own=own: constant(own)}
        make = explaining(kind, model, work, "ref_value", here, np.ravel)
        found.append(make(images[i : i + 1], target[i : i + 1], rows(colour[i : i + 1])[0]))
    return torch.cat(found)


def constant(codes: np.ndarray) -> Any:
    """TensorFlow's form of an array."""
    import tensorflow

    return tensorflow.constant(codes)
