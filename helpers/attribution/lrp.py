"""Layer-wise relevance propagation through zennit (Anders et al., 2021). zennit is imported when a method first runs.

zennit hooks modules by their type, and asks for a canonizer where an architecture adds, normalises or reuses. `Unrolled` gives
it a module for each call instead, in the order of the data, which does the same for every architecture: sums and means are
layers, and a batch normalisation is merged into the convolution that feeds it. What has no rule is refused.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from helpers.names import choose

from .captum_guided import relu_step, with_relus
from .method import Work, method
from .score import Score
from .unrolled import Step, Unrolled, arguments, depends

COMPOSITES = (
    "epsilon_plus_flat",
    "epsilon_plus",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "excitation_backprop",
    "epsilon",
)
ACTIVATIONS = set(
    "relu relu6 leaky_relu elu selu celu gelu silu mish hardtanh hardswish hardsigmoid sigmoid tanh softplus softsign prelu "
    "clamp clamp_min neg".split()
)
AVERAGES = set("avg_pool2d adaptive_avg_pool2d mean sum interpolate".split())
# their gradient hands relevance on unchanged: to the place it came from, or to the largest value of a window
NATIVE = set(
    "to float double half type type_as view view_as reshape reshape_as flatten unflatten ravel permute transpose t T mT movedim "
    "moveaxis swapaxes contiguous clone squeeze unsqueeze expand expand_as repeat repeat_interleave unfold gather getitem select "
    "narrow index_select cat concat stack chunk split unbind pad roll flip copy dropout dropout2d max_pool2d adaptive_max_pool2d "
    "max_pool2d_with_indices amax max add sub pixel_shuffle pixel_unshuffle".split()
)


@contextmanager
def session(score: Score, work: Work) -> Iterator[Score]:
    """zennit needs nothing but the score: all its hooks live on the modules of `Unrolled`, which end with the call."""
    if importlib.util.find_spec("zennit") is None:
        raise ImportError("backend 'zennit' needs the package zennit, which is not installed; install it with pip install zennit")
    yield score


class Elementwise(nn.Module):
    """A function of each value on its own, or times a constant; relevance passes through it."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Mixing(Elementwise):
    """A linear function without parameters, such as a mean; relevance goes back in proportion to what each input gave."""


def relevance_step(name: str, function: Callable, args: tuple, kwargs: dict) -> Step | None:
    """What LRP has rules for, as steps: layers, activations, means, sums of two branches, constant factors."""
    values = [*args[:2], *[kwargs[key] for key in ("input", "other") if key in kwargs]]
    given = [position for position, value in enumerate(values) if depends(value)]
    if not given:
        return None
    x = values[given[0]]
    if given == [0] and not depends(kwargs.get("weight")):
        if name == "conv2d":
            return Step(x, lambda: convolution(args, kwargs))
        if name == "linear":
            return Step(x, lambda: linear(**arguments("input weight bias", args, kwargs, bias=None)))
        if name == "batch_norm":
            return Step(x, lambda: normalisation(args, kwargs))
        if relu_step(name, function, args, kwargs):
            return Step(x, nn.ReLU)
        rest = {key: value for key, value in kwargs.items() if key not in ("input", "inplace")}
        alone = lambda value: function(value.clone(), *args[1:], **rest)
        if name in ACTIVATIONS:
            return Step(x, lambda: Elementwise(alone))
        if name in AVERAGES:
            return Step(x, lambda: Mixing(alone))
    if len(given) == 1 and name in ("mul", "div", "rsub", "sub", "matmul"):
        return of_constant(name, function, values, given[0], x)
    if name == "einsum" and sum(map(depends, args[1:])) == 1 and all(isinstance(part, Tensor) for part in args[1:]):
        place = next(i for i, part in enumerate(args) if depends(part))
        return Step(args[place], lambda: Mixing(lambda value: function(*args[:place], value, *args[place + 1 :])))
    if len(given) == 2 and name in ("add", "sub"):
        scale = kwargs.get("alpha", 1) * (1 if name == "add" else -1)
        return Step(
            torch.stack(torch.broadcast_tensors(*values), -1), lambda: Mixing(lambda pair: pair[..., 0] + scale * pair[..., 1])
        )
    return None


def of_constant(name: str, function: Callable, values: list, place: int, x: Tensor) -> Step | None:
    """x op constant. A difference x − c has derivative one and runs as it is; in c − x the sign must not reach the relevance."""
    if place == (0 if name == "sub" else 1 if name == "div" else None):
        return None
    other = values[1 - place].detach() if isinstance(values[1 - place], Tensor) else values[1 - place]
    order = (lambda value: (value, other)) if place == 0 else (lambda value: (other, value))
    alone = lambda value: function(*order(value.clone()))
    if name == "matmul":
        return Step(x, lambda: Mixing(alone))
    shape = getattr(other, "shape", ())
    if torch.broadcast_shapes(x.shape, shape) != x.shape:
        return None
    return Step(x, lambda: Elementwise(alone))


def parameter(value: Tensor | None) -> nn.Parameter | None:
    return None if value is None else nn.Parameter(value.detach(), requires_grad=False)


def convolution(args: tuple, kwargs: dict) -> nn.Conv2d:
    found = arguments("input weight bias stride padding dilation groups", args, kwargs, bias=None, groups=1)
    out, into, *size = found["weight"].shape
    options = {key: found[key] for key in ("stride", "padding", "dilation") if key in found}
    layer = nn.Conv2d(into * found["groups"], out, size, groups=found["groups"], bias=False, device="meta", **options)
    layer.weight, layer.bias = parameter(found["weight"]), parameter(found["bias"])
    return layer


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight, layer.bias = parameter(weight), parameter(bias)
    return layer


def normalisation(args: tuple, kwargs: dict) -> nn.BatchNorm2d | nn.BatchNorm1d:
    names = "input running_mean running_var weight bias training momentum eps"
    found = arguments(names, args, kwargs, weight=None, bias=None, training=False, eps=1e-5)
    if found["training"] or found["running_mean"] is None:
        raise ValueError(
            "model: a batch normalisation without running statistics mixes the images of a batch, which LRP cannot explain; "
            "use method='integrated_gradients'"
        )
    kind = nn.BatchNorm2d if found["input"].ndim == 4 else nn.BatchNorm1d
    layer = kind(len(found["running_mean"]), eps=found["eps"], device="meta")
    layer.running_mean, layer.running_var = found["running_mean"], found["running_var"]
    weight = torch.ones_like(found["running_mean"]) if found["weight"] is None else found["weight"]
    bias = torch.zeros_like(found["running_mean"]) if found["bias"] is None else found["bias"]
    layer.weight, layer.bias = parameter(weight), parameter(bias)
    return layer


def canonical(model: Score, images: Tensor) -> Unrolled:
    """The model as a chain of layers that LRP has rules for, computing the same.

    Raises
    ------
    ValueError : a function without a rule (it is named), a part that PyTorch does not show, or other values.
    """
    steps = Unrolled(model, images[:1], relevance_step)
    instead = "use method='integrated_gradients'"
    strange = sorted(steps.native - NATIVE)
    if strange:
        raise ValueError(f"model: LRP has no rule for {', '.join(strange)}, which runs outside of a known layer; {instead}")
    if steps.unseen or not len(steps.steps):
        raise ValueError(f"model: a part of it runs where PyTorch does not show it (TorchScript, autograd.Function); {instead}")
    for before, after in steps.feeds:
        merge(steps.steps, before, after)
    expected, found = model(images[:1]).detach(), steps(images[:1].detach().clone().requires_grad_()).detach()
    tolerance = 100 * torch.finfo(expected.dtype).eps * (1 + expected.abs().max())
    if not (found - expected).abs().max() <= tolerance:
        raise ValueError(f"model: written as layers it gives {found[0].tolist()} instead of {expected[0].tolist()}; {instead}")
    return steps


def merge(layers: nn.ModuleList, before: int, after: int) -> None:
    """Put a batch normalisation into the layer before it: relevance is conserved over the two together, not over each."""
    layer, norm = layers[before], layers[after]
    if not isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)) or not isinstance(layer, (nn.Conv2d, nn.Linear)):
        return
    fuse = fuse_conv_bn_weights if isinstance(layer, nn.Conv2d) else fuse_linear_bn_weights
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    weight, bias = fuse(layer.weight, layer.bias, *statistics)
    layer.weight, layer.bias = parameter(weight), parameter(bias)
    layers[after] = nn.Identity()


def composite_of(name: str, options: dict[str, Any], steps: Unrolled, images: Tensor) -> Any:
    """zennit's composite of that name, with the options that are not None.

    Raises
    ------
    ValueError : an unknown composite, or an option that it does not have.
    """
    from zennit import composites, rules, types

    name = choose(name, COMPOSITES, "composite")
    make = composites.COMPOSITES.get(name, composites.EpsilonPlus)
    options = {key: value for key, value in options.items() if value is not None}
    accepted = [key for key in inspect.signature(make).parameters if key not in ("layer_map", "first_map", "canonizers")]
    if name == "epsilon":
        accepted.remove("stabilizer")
    for key, value in options.items():
        if key not in accepted:
            raise ValueError(f"{key}: composite {name!r} does not take it; it takes: {', '.join(accepted)}")
        if key in ("epsilon", "gamma", "stabilizer") and not (isinstance(value, (int, float)) and value >= 0):
            raise ValueError(f"{key}: {value!r}; expected a number of at least 0")
    if name == "epsilon_gamma_box":
        options = box(steps, images) | options
        if not bool((torch.as_tensor(options["low"]) < torch.as_tensor(options["high"])).all()):
            raise ValueError("low: it is not below high everywhere; expected the range of what the first convolution sees")
    extra = [
        (types.BatchNorm, rules.Pass()),
        (Mixing, rules.Norm(options.get("epsilon", options.get("stabilizer", 1e-6)))),
        (Elementwise, rules.Pass()),
    ]
    if name == "epsilon":
        extra.append((types.Linear, rules.Epsilon(**options)))
    return make(layer_map=extra, **options)


def box(steps: Unrolled, images: Tensor) -> dict[str, Tensor]:
    """What the first convolution sees of a black and of a white image: the range of pixel values, after the normalisation."""
    first = next((layer for layer in steps.steps if isinstance(layer, nn.Conv2d)), None)
    if first is None:
        raise ValueError("composite: 'epsilon_gamma_box' is for a first convolution, and the model has none; use 'epsilon_plus'")
    seen: list[Tensor] = []
    handle = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    try:
        for pixel in (0.0, 1.0):
            steps(torch.full_like(images[:1], pixel).requires_grad_())
    finally:
        handle.remove()
    return {"low": torch.minimum(*seen), "high": torch.maximum(*seen)}


@method(
    "lrp",
    backend="zennit",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward of 2 to 5 times the usual work, by the rules",
    cost=lambda options, size: (1, 1),
    room=5,
    definition="relevance f(x) handed back layer by layer; composite: "
    + ", ".join(COMPOSITES)
    + " (ε rule everywhere); their parameters as options. Batch norms merged, other factors passed",
)
def lrp(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    composite: str = "epsilon_plus_flat",
    epsilon: float | None = None,
    gamma: float | None = None,
    stabilizer: float | None = None,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    zero_params: str | list[str] | None = None,
) -> Tensor:
    """The relevance of each pixel for the target's score, handed back by the rules of a composite.

    Parameters
    ----------
    composite : a name of `COMPOSITES`, after the rules for the classifier, the convolutions and the first layer: ε, then z+
        (or αβ, γ), then flat (or box); "epsilon" is the ε rule everywhere, for ε → 0 gradient × input of a ReLU network
    epsilon, gamma, stabilizer, zero_params : as in zennit, whose defaults hold for None; `zero_params="bias"` keeps biases from
        taking up relevance, so that maps add up to the score
    low, high : of the box, on the scale of what the first convolution sees; by default the range of a pixel

    References
    ----------
    Bach et al. 2015 (ε, αβ: equations 58 and 60); Montavon et al. 2017 (z+, box) and 2019 (γ, composites).
    """
    given = {"epsilon": epsilon, "gamma": gamma, "stabilizer": stabilizer, "low": low, "high": high, "zero_params": zero_params}
    steps = canonical(model, images)
    return propagate(steps, composite_of(composite, given, steps, images), images, target, relevance=True)


def propagate(steps: Unrolled, composite: Any, images: Tensor, target: Tensor, relevance: bool) -> Tensor:
    """The modified gradient at the images, from a one at the target's output or from its value (`relevance`)."""
    images = images.detach().requires_grad_()
    with torch.enable_grad(), composite.context(steps) as hooked:
        output = hooked(images)
        start = nn.functional.one_hot(target, output.shape[1]).to(output)
        (maps,) = torch.autograd.grad(output, images, start * output.detach() if relevance else start)
    return maps


@method(
    "guided_backprop",
    backend="zennit",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    cost=lambda options, size: (1, 1),
    room=1.5,
    definition="∂f/∂x in which each ReLU passes back what is positive there and had a positive input; as Captum's",
)
def guided_backprop(model: Score, images: Tensor, target: Tensor, work: Work) -> Tensor:
    from zennit.composites import GuidedBackprop

    return propagate(with_relus(model, images, "guided_backprop"), GuidedBackprop(), images, target, relevance=False)


@method(
    "deconvolution",
    backend="zennit",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    cost=lambda options, size: (1, 1),
    room=1.5,
    definition="∂f/∂x in which each ReLU passes back what is positive there, whatever its input was; as Captum's",
)
def deconvolution(model: Score, images: Tensor, target: Tensor, work: Work) -> Tensor:
    from zennit.composites import DeconvNet

    return propagate(with_relus(model, images, "deconvolution"), DeconvNet(), images, target, relevance=False)
