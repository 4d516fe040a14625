"""DeepLift through Captum (Shrikumar et al., 2017), made complete: a map adds up to the change of the score, or is refused.

Captum puts its hooks on modules; `Unrolled` gives it one for each call, so that functional, reused and in-place activations are
caught too. Where Captum has no rule, or one that loses something, a function of ours goes back by the rule.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .baselines import DISTRIBUTION, Baseline, references
from .captum_guided import relu_step
from .method import Work, method
from .score import Score
from .unrolled import LINEAR, Step, Unrolled, arguments, depends

TOLERANCE = 0.01
OTHERS = ("relu6", "hardtanh", "gelu", "silu", "hardswish", "hardsigmoid", "selu", "celu", "softsign")
POOLING = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")


def deeplift_step(name: str, function: Callable, args: tuple, kwargs: dict) -> Step | None:
    """The functions for which DeepLift has a rule, as steps."""
    if not args or not depends(args[0]):
        return None
    given = lambda names, **defaults: arguments(f"input {names}", args, kwargs, **defaults)
    if name == "elu":
        return Step(args[0], lambda: nn.ELU(given("alpha", alpha=1.0)["alpha"]))
    if name == "leaky_relu":
        return Step(args[0], lambda: nn.LeakyReLU(given("negative_slope", negative_slope=0.01)["negative_slope"]))
    if name == "softplus":
        options = given("beta threshold", beta=1, threshold=20)
        return Step(args[0], lambda: nn.Softplus(options["beta"], options["threshold"]))
    if name in ("sigmoid", "tanh"):
        return Step(args[0], nn.Sigmoid if name == "sigmoid" else nn.Tanh)
    if name == "max_pool2d" and not kwargs.get("return_indices"):
        options = given("kernel_size stride padding dilation ceil_mode")
        return Step(args[0], lambda: RescaledMaxPool(**{key: options[key] for key in POOLING if key in options}))
    if name in OTHERS:
        rest = {key: value for key, value in kwargs.items() if key not in ("input", "inplace")}
        return Step(args[0], lambda: Rescaled(lambda x: function(x, *args[1:], **rest)))
    return relu_step(name, function, args, kwargs)


class Rescaled(nn.Module):
    """An elementwise function of a batch of images and their baselines that goes back by DeepLift's rescale rule."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return RescaledFunction.apply(x, self.function)


class RescaledFunction(torch.autograd.Function):
    """f(x), passing back (f(x) − f(x')) / (x − x'), and f' where x = x'."""

    @staticmethod
    def forward(ctx, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        output = function(x.clone())
        ctx.save_for_backward(x, output)
        ctx.function = function
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        x, output = ctx.saved_tensors
        with torch.enable_grad():
            copy = x.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.function(copy.clone()).sum(), copy)
        half = len(x) // 2
        change, change_out = x - x.roll(half, 0), output - output.roll(half, 0)
        return torch.where(change.abs() < 1e-10, slope, change_out / change) * gradient, None


class RescaledMaxPool(nn.Module):
    """Max pooling of a batch of images and their baselines that goes back by DeepLift's rule.

    Captum 0.9 has a rule too, but it loses what two windows share (every ResNet's overlap), and the activation before it, where
    there is one, takes the gradient as it was without the rule: maps do not add up.
    """

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
        super().__init__()
        pair = lambda value: (value, value) if isinstance(value, int) else tuple(value)
        self.kernel, self.padding, self.dilation = pair(kernel_size), pair(padding), pair(dilation)
        self.stride = pair(stride) if stride else self.kernel
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            size = F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode).shape
        edges = []
        for side, out, k, s, p, d in zip(
            x.shape[2:], size[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            edges = [p, (out - 1) * s + d * (k - 1) + 1 - side - p, *edges]
        x = F.pad(x, edges, value=x.detach().min().item() - 1)  # never the largest of a window
        windows = F.unfold(x, self.kernel, self.dilation, 0, self.stride)
        return RescaledMax.apply(windows.unflatten(1, (size[1], -1))).reshape(size)


class RescaledMax(torch.autograd.Function):
    """The maximum over axis 2 of (2n, C, K, L), images before their baselines.

    Of the change from y' to y, what lies above y' goes to the place of the image's maximum, what lies below to that of the
    baseline's (Captum's choice), each divided by the change of its input. Where an input does not change the derivative is
    passed on.
    """

    @staticmethod
    def forward(ctx, windows: Tensor) -> Tensor:
        best, place = windows.max(2)
        ctx.save_for_backward(windows, best, place)
        return best

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        windows, best, place = ctx.saved_tensors
        image, baseline = best.chunk(2)
        top = torch.maximum(image, baseline)
        change = (windows - windows.roll(len(image), 0)).chunk(2)[0]
        shares = []
        for part, where in zip((top - baseline, image - top), place.chunk(2), strict=True):
            shares.append(torch.zeros_like(change).scatter_(2, where[:, :, None], part[:, :, None]))
        multiplier = torch.where(change == 0, 0.0, (shares[0] + shares[1]) / change)
        still = torch.zeros_like(windows).scatter_(2, place[:, :, None], 1.0)
        multiplier = torch.where((change == 0).repeat(2, 1, 1, 1), still, multiplier.repeat(2, 1, 1, 1))
        return multiplier * gradient[:, :, None]


@method(
    "deeplift",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="2 forward + 2 backward",
    cost=lambda options, size: (2, 2),
    definition="DeepLift's rescale rule: (x − b) times the slope, where each nonlinear function's is Δout/Δin; "
    "adds up to f(x) − f(b), or is refused",
)
def deeplift(
    model: Score, images: Tensor, target: Tensor, work: Work, *, baseline: Tensor | str | float = "black"
) -> Tensor:
    from captum.attr import DeepLift

    steps = Unrolled(model, images[:1], deeplift_step)
    # half precision rounds equal inputs apart, and a difference of two roundings is no slope
    eps = max(1e-10, torch.finfo(images.dtype).eps ** 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
        maps = DeepLift(steps, eps=eps).attribute(images.requires_grad_(), baseline, target)
    check_complete(maps.detach(), steps.output, target, steps.native)
    return maps


def check_complete(maps: Tensor, scores: Tensor, target: Tensor, native: set[str]) -> None:
    """Refuse maps (n, C, H, W) that do not add up to the change of the score from the baseline.

    `scores` (2n, classes) are those of the images and of their baselines, `native` the functions that ran without a rule.

    Accepted is an error of 1 % of the change, and what rounding can add: 1000 units in the last place of the sum of all moduli
    (at most a twentieth of it, in half precision), and 100 of the score.
    """
    eps = torch.finfo(scores.dtype).eps
    here, there = scores.gather(1, target.repeat(2)[:, None])[:, 0].float().chunk(2)
    change, maps = here - there, maps.float().flatten(1)
    rounding = min(max(1000 * eps, 1e-6), 0.05) * maps.abs().sum(1) + 100 * eps * torch.maximum(here.abs(), there.abs())
    excess = (maps.sum(1) - change).abs() - TOLERANCE * change.abs() - rounding
    worst = int(excess.argmax())
    if not excess[worst] <= 0:  # written so that NaN fails too
        raise ValueError(
            f"model: the deeplift map of an image adds up to {maps[worst].sum().item():.3g} where its score changes by "
            f"{change[worst].item():.3g} from the baseline (accepted: within {TOLERANCE:.0%}). DeepLift has no rule for a "
            f"function in it, one of: {', '.join(sorted(native - LINEAR)) or 'functions that PyTorch does not show'}; "
            "use method='integrated_gradients'"
        )


@method(
    "deeplift_shap",
    backend="captum",
    needs_gradient=True,
    deterministic=True,
    passes="baselines × (2 forward + 2 backward)",
    cost=lambda options, size: (2 * len(options["baselines"]), 2 * len(options["baselines"])),
    definition="mean of DeepLift over the `baselines`: names, pixel values, or a tensor (M, C, H, W)",
)
def deeplift_shap(
    model: Score, images: Tensor, target: Tensor, work: Work, *, baselines: Sequence[Baseline] | Tensor = DISTRIBUTION
) -> Tensor:
    # one baseline at a time, because Captum's DeepLiftShap holds images × baselines at once
    found = [deeplift(model, images.detach(), target, work, baseline=one).detach() for one in references(baselines, images)]
    return torch.stack(found).mean(0)
