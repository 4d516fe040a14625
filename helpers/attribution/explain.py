"""One call for every attribution method."""

from __future__ import annotations

import numbers
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.bias.settings import whole
from helpers.names import choose

from . import captum, lrp, xplique
from .baselines import baseline_of, check_baseline
from .feature_layer import shapes
from .memory import check_memory, fitting, with_less
from .method import Method, Work, cost, find_method, outside
from .score import (
    Score,
    borrowed,
    channels_last,
    check_batch_size,
    check_images,
    check_model,
    dtype_of,
    resolve_target,
    trial,
)
from .segments import check_kind, check_segments
from .timing import how_long

SESSIONS = {
    "torch": lambda score, work: nullcontext(score),
    "captum": captum.session,
    "zennit": lrp.session,
    "xplique": xplique.session,
}


def attribute(
    model: nn.Module,
    images: Tensor | np.ndarray,
    target: int | Tensor | np.ndarray | None = None,
    method: str = "integrated_gradients",
    backend: str = "auto",
    *,
    channels: bool = False,
    batch_size: int | None = None,
    memory: float | None = None,
    first: int = 0,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
    report: dict[str, Tensor] | None = None,
    **options: Any,
) -> Tensor:
    """How much each pixel speaks for a class: a signed map for each image.

    The score explained is the model's output for the target (a logit, not a probability). A model with one logit z is
    explained by z for target 1 and by −z for target 0.

    Parameters
    ----------
    model : torch.nn.Module, images (N, C, H, W) to logits (N, classes); used in evaluation mode and left as it was
        (training flags, `requires_grad`, hooks, device), even after an error
    images : float (N, C, H, W) in [0, 1]
    target : class code, or one for each image (N,); None explains each image's predicted class
    method : a name from `methods()`
    backend : "torch" (our own loops, in full passes), "captum", "zennit", "xplique", or "auto" for the first of these that has
        the method
    channels : keep a value for each channel instead of their sum
    batch_size : images in one pass; by default 64 up to 128 × 128 pixels, fewer above, four times as many on a GPU. Fewer, with a
        warning, where half of the free memory has no room for so many; backend "torch" halves the number where a GPU runs out
    memory : bytes that passes may take, in place of half of what is free; `attribution.estimate` says what they do take
    first : number of the first image, where these are some of more: noise belongs to an image's number (backend "torch")
    seed : of the noise of sampled methods. Backend "torch" draws it image by image, from the seed and the image's number; the
        others batch by batch, so that there a map is repeated by the same seed and the same `batch_size`. No global random
        state changes
    device : where to compute; by default where the model is
    progress : show a progress bar
    report : a dict to be filled by a method that counts: int64 (N,) `forward` and `backward`, the passes that each image took,
        and where a `tolerance` was asked for float64 `error`, what was reached. Methods that do not count leave it empty
    **options : the method's own, see `methods()["options"]`: `integrated_gradients(steps=50, baseline="black")`,
        `smoothgrad(samples=50, noise=0.1, absolute=False, squared=False)` with `noise` the standard deviation in pixel
        values, `occlusion(patch=8, stride=4, baseline=0.0)` in pixels, `saliency(absolute=True)`, `gradient_input()`,
        `rise(samples=1000, grid=7, keep=0.5, baseline=0.0)`, `grad_cam(layer=None, relu=True)` and its family.
        Segments (feature ablation, Shapley values, LIME) are the number of a grid's rows, or an integer mask (H, W) or
        (N, H, W). A baseline is "black", "white", "mean", "blur", a pixel value or a tensor.
        `tolerance=0.01` (backend "torch") takes as many steps or samples as an error needs, image by image, instead of a fixed
        number: for `integrated_gradients` the completeness error relative to the range of the score along the path (at most
        `most` steps), for sampled methods the standard error of the map relative to its spread over pixels (at most `samples`).

    Returns
    -------
    float32 tensor on the CPU, (N, H, W), or (N, C, H, W) with `channels=True`.

    Raises
    ------
    ValueError : before any long work, for an unknown method, backend or option (with the nearest name), a backend
        without the method (with those that have it), images of another rank, type or range, a target outside the
        classes, a model that does not fit the images or has no gradient where one is needed, a function in the model for which
        DeepLift, LRP or guided backpropagation has no rule (named, with what to use instead), `channels=True` for a
        method with one value a pixel (occlusion, RISE, class activation maps), a `layer` without a map.

    References
    ----------
    Simonyan et al. 2014 (saliency); Shrikumar et al. 2016 (gradient × input); Sundararajan et al. 2017 (integrated
    gradients); Smilkov et al. 2017 (SmoothGrad); Hooker et al. 2019 (SquareGrad); Adebayo et al. 2018 (VarGrad); Zeiler &
    Fergus 2014 (occlusion); Petsiuk et al. 2018 (RISE); Selvaraju et al. 2017 (Grad-CAM), and for its family those that
    `methods()` names.
    """
    chosen = find_method(method, backend)
    options = check_options(chosen, options)
    if channels and not chosen.per_channel:
        raise ValueError(f"channels: {chosen.name} has one value a pixel, not one a channel; leave channels=False")
    seed = whole(seed, "seed", least=0)
    check_model(model)
    images = check_images(images)
    check_values(options, images)
    if chosen.needs_layers:
        model = getattr(model, "_orig_mod", model)  # of torch.compile, whose code need not see a hook
    if "layer" in options and getattr(model, "keras", None) is not None:
        model, options["layer"] = model.split(options["layer"])
    score = Score(model)
    with torch.inference_mode(False), borrowed(score, device) as place:
        images = images.to(place, dtype_of(model), copy=images.is_inference())
        with shapes(model) if "layer" in options else nullcontext() as outputs:
            classes, batch_size = check_fit(chosen, score, images, batch_size, memory, options)
        target = resolve_target(target, score, images, classes, batch_size)
        if "baseline" in options:
            options["baseline"] = check_baseline(options["baseline"], images)
        if "segments" in options:
            options["segments"] = check_segments(options["segments"], images)
        work = Work(batch_size, seed, classes, kept={"shapes": outputs})
        maps, start = [], 0
        name = chosen.name + (how_long(chosen, score, images, batch_size, options) if progress else "")
        bar = tqdm(total=len(images), desc=name, disable=not progress)
        with SESSIONS[chosen.backend](score, work) as session_model, bar:

            def explained(size: int) -> tuple[Tensor, dict[str, list[Tensor]]]:
                rows = slice(start, start + size)
                batch = channels_last(images[rows])
                now, here = dict(options), replace(work, first=first + start, batch_size=size, told={})
                if "baseline" in now:
                    number = rows if isinstance(now["baseline"], Tensor) else slice(first + start, first + start + size)
                    now["baseline"] = channels_last(baseline_of(now["baseline"], batch, number, seed))
                if "segments" in now:
                    now["segments"] = now["segments"][rows]
                found = chosen.function(session_model, batch, target[rows], here, **now).detach()
                found = found.sum(1) if chosen.per_channel and not channels else found
                return found.to("cpu", torch.float32).contiguous(), here.told

            while start < len(images):
                if chosen.backend == "torch":
                    (found, told), batch_size = with_less(batch_size, explained)
                else:  # there a map may depend on how many images a pass has
                    found, told = explained(batch_size)
                maps.append(found)
                start += len(found)
                bar.update(len(found))
                for key, values in told.items():
                    work.told.setdefault(key, []).extend(values)
    if report is not None:
        report.update({name: torch.cat(parts) for name, parts in work.told.items()})
    return torch.cat(maps)


def random_maps(images: Tensor | np.ndarray, seed: int = 0) -> Tensor:
    """Maps that know nothing, uniform in [0, 1): the chance level of every score that judges a map.

    Parameters
    ----------
    images : (N, C, H, W), of which only the shape is used
    seed : int

    Returns
    -------
    float32 tensor (N, H, W).
    """
    if len(images.shape) != 4:
        raise ValueError(f"images: shape {tuple(images.shape)}; expected (N, C, H, W)")
    count, _, height, width = images.shape
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(whole(seed, "seed", least=0)))


def check_options(chosen: Method, options: dict[str, Any]) -> dict[str, Any]:
    """The method's options with defaults filled in; ValueError for a name that the method does not have."""
    accepted = chosen.defaults
    where = f"options of {chosen.name} ({chosen.backend})"
    if options and not accepted:
        raise ValueError(f"{where}: {', '.join(map(repr, options))} given, but it takes none")
    given = {choose(name, accepted, where): value for name, value in options.items()}
    for name, value in given.items():
        if isinstance(accepted[name], bool) and not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{name}: {value!r}; expected True or False")
    return accepted | given


def check_values(options: dict[str, Any], images: Tensor) -> None:
    """Refuse option values that no backend could use; the options mean the same on every backend."""
    least = {"steps": 2, "samples": 1, "patch": 1, "stride": 1, "grid": 1, "most": 8, "designs": 2}
    for name in least.keys() & options.keys():
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least[name]:
            raise ValueError(f"{name}: {value!r}; expected a whole number of at least {least[name]}")
    if "noise" in options and not number(options["noise"]) >= 0:
        raise ValueError(f"noise: {options['noise']!r}; expected a standard deviation in pixel values, at least 0")
    if not 0 < number(options.get("keep", 0.5)) < 1:
        raise ValueError(f"keep: {options['keep']!r}; expected the share of the image that a mask shows, between 0 and 1")
    if options.get("tolerance") is not None and not number(options["tolerance"]) > 0:
        raise ValueError(f"tolerance: {options['tolerance']!r}; expected a relative error above 0, as 0.01, or None")
    if "patch" in options:
        side = min(images.shape[2:])
        if options["patch"] > side:
            raise ValueError(f"patch: {options['patch']} pixels, but the images' shorter side has {side}")
        if options["stride"] > options["patch"]:
            raise ValueError(f"stride: {options['stride']} is above patch={options['patch']}: pixels would be left out")
    if "segments" in options:
        check_kind(options["segments"])
    if "quadrature" in options:
        choose(options["quadrature"], captum.QUADRATURES, "quadrature")
    if "composite" in options:
        choose(options["composite"], lrp.COMPOSITES, "composite")


def number(value: Any) -> float:
    """A number as it is; NaN, which no comparison accepts, for anything else."""
    return value if isinstance(value, numbers.Real) and not isinstance(value, bool) else float("nan")


def check_fit(
    chosen: Method,
    score: Score,
    images: Tensor,
    batch_size: int | None,
    memory: float | None,
    options: dict[str, Any],
    count: int | None = None,
) -> tuple[int, int]:
    """The number of classes and the images of a pass, from a pass over one image that also shows whether there is a gradient.

    `images` are all, or some of `count`.
    """
    most, memory = check_batch_size(batch_size, images), check_memory(memory)
    opaque = getattr(score.model, "opaque", False)
    output, each = trial(score, images, chosen.needs_gradient or opaque, chosen.room)
    if chosen.needs_gradient and not output.requires_grad:
        raise ValueError(
            f"model: no gradient reaches the image, and {chosen.name} needs it; without one work {outside(gradient=False)}"
        )
    if "layer" in chosen.defaults and any(isinstance(module, torch.jit.ScriptModule) for module in score.modules()):
        raise ValueError(
            f"model: {chosen.name} looks at layers, and those of TorchScript cannot be watched; pass the module it was made "
            f"from, or use {outside(gradient=output.requires_grad)}"
        )
    if chosen.needs_layers and opaque:
        raise ValueError(
            f"model: {chosen.name} looks at layers, and PyTorch sees none inside of an ONNX file, an exported program, a Keras "
            f"model or a function; without them work {outside(gradient=output.requires_grad)}"
        )
    # a number of images that the user wants is taken at its word, unless there is a limit as well
    if batch_size and memory is None:
        return output.shape[1], most
    needed = None
    if chosen.counted:
        needed = (count or len(images)) * cost(chosen.name, chosen.backend, tuple(images.shape[2:]), **options)[0]
    return output.shape[1], fitting(most, each, images.device, memory, needed)
