"""Averages of the gradient: along a path from a baseline (integrated gradients) or over noise (SmoothGrad and its kin)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .method import Work, method
from .passes import each, pairs, precise, rounds, scores, slopes, slopes_and_scores
from .sampling import average
from .score import Score

GOLDEN = (5**0.5 - 1) / 2


def path_cost(options: dict, size: tuple[int, int]) -> tuple[int, int]:
    """Of the path; with a tolerance the two ends are looked at as well."""
    return (options["steps"],) * 2 if options["tolerance"] is None else (options["most"] + 2, options["most"])


@method(
    "integrated_gradients",
    backend="torch",
    needs_gradient=True,
    deterministic=True,
    passes="steps × (1 forward + 1 backward)",
    cost=path_cost,
    definition="(x − b) ∫ ∂f(b + α(x − b))/∂x dα, Gauss–Legendre nodes; quadrature='trapezoid' equals Xplique's; with "
    "`tolerance` each image takes the points (1/2 + 0.618… i) mod 1, at most `most`, until its map adds up to f(x) − f(b) within "
    "that share of the range of f along the path",
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
    tolerance: float | None = None,
    most: int = 1000,
) -> Tensor:
    way = images - baseline
    if tolerance is not None:
        return way * mean_until_complete(model, baseline, way, target, work, tolerance, most)
    nodes, weights = (torch.from_numpy(part).to(images.device) for part in rule(quadrature, steps))
    total = torch.zeros_like(precise(images))
    for which, step in pairs(len(images), steps, work.batch_size, images.device):
        here = torch.addcmul(baseline[which], nodes[step].to(way).view(-1, 1, 1, 1), way[which])
        total.index_add_(0, which, slopes(model, here, target[which]).to(total) * weights[step].to(total).view(-1, 1, 1, 1))
    work.tell(forward=each(steps, images), backward=each(steps, images))
    return way * total


def rule(quadrature: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and their weights, which add up to 1: float64 (steps,) both."""
    if quadrature == "trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def mean_until_complete(
    model: Score, baseline: Tensor, way: Tensor, target: Tensor, work: Work, tolerance: float, most: int
) -> Tensor:
    """Mean gradient along each image's path, over as many points as completeness needs: (n, C, H, W).

    Σ (x − b) mean ∂f/∂x = f(x) − f(b) holds in the limit (completeness; Sundararajan et al. 2017, proposition 1). The slope of a
    network of ReLUs jumps along the path, so that nodes of high order gain nothing. These points are spread evenly whatever
    their number, so that none is thrown away when more are needed.

    The error is relative to the range of f seen along the path, which is at least |f(x) − f(b)|: where f rises and falls again,
    no number of points could make it small against the little that is left.
    """
    ends = torch.stack([scores(model, baseline + way, target), scores(model, baseline, target)]).double()
    change, low, high = ends[0] - ends[1], ends.amin(0), ends.amax(0)
    total, taken, error = torch.zeros_like(precise(way)), each(0, way), torch.zeros(len(way), dtype=torch.float64)
    active = torch.arange(len(way), device=way.device)
    for begin, end in rounds(most):
        for row, step in pairs(len(active), end - begin, work.batch_size, way.device):
            which = active[row]
            node = ((0.5 + GOLDEN * (begin + step).double()) % 1).to(way.dtype)
            here = torch.addcmul(baseline[which], node.view(-1, 1, 1, 1), way[which])
            found, score = slopes_and_scores(model, here, target[which])
            total.index_add_(0, which, found.to(total))
            low.scatter_reduce_(0, which, score.double(), "amin")
            high.scatter_reduce_(0, which, score.double(), "amax")
        taken[active.cpu()] = end
        reached = (way[active] * total[active]).flatten(1).sum(1).double() / end
        missing, span = (reached - change[active]).abs(), (high - low)[active]
        error[active.cpu()] = torch.where(missing > 0, missing / span, 0).cpu()
        active = active[missing > tolerance * span]
        if not len(active):
            break
    work.tell(forward=taken + 2, backward=taken, error=error)
    return total / taken.to(total).view(-1, 1, 1, 1)


def over_noise(model: Score, images: Tensor, target: Tensor, work: Work, samples, noise, tolerance, powers, finish) -> Tensor:
    """`finish` of the sums, over noisy copies of each image, of the slope to each of `powers`."""

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randn(images.shape[1:], generator=generator, device=generator.device)

    def gather(which: Tensor, drawn: Tensor) -> Tensor:
        found = precise(slopes(model, images[which] + noise * drawn.to(images.dtype), target[which]))
        return torch.stack([found**power for power in powers], dim=1)

    return average(images, work, samples, tolerance, draw, gather, finish, backward=True, device=images.device)


def mean(sums: Tensor, counts: Tensor) -> Tensor:
    return sums[:, 0] / counts.view(-1, 1, 1, 1)


def variance(sums: Tensor, counts: Tensor) -> Tensor:
    counts = counts.view(-1, 1, 1, 1)
    middle = sums[:, 0] / counts
    return (sums[:, 1] / counts - middle**2).clamp(min=0) * counts / (counts - 1)


SAMPLED = {
    "backend": "torch",
    "needs_gradient": True,
    "deterministic": False,
    "passes": "samples × (1 forward + 1 backward)",
    "cost": lambda options, size: (options["samples"],) * 2,
}


@method(
    "smoothgrad",
    **SAMPLED,
    definition="mean of ∂f/∂x over x + noise (Smilkov et al. 2017); absolute: its modulus; squared: mean of the squares",
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
    tolerance: float | None = None,
) -> Tensor:
    powers = (2,) if squared else (1,)
    maps = over_noise(model, images, target, work, samples, noise, tolerance, powers, mean)
    return maps.abs() if absolute else maps


@method("square_grad", **SAMPLED, definition="mean of (∂f/∂x)² over x + noise (Hooker et al. 2019); smoothgrad(squared=True)")
def square_grad(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    samples: int = 50,
    noise: float = 0.1,
    tolerance: float | None = None,
) -> Tensor:
    return over_noise(model, images, target, work, samples, noise, tolerance, (2,), mean)


@method("vargrad", **SAMPLED, definition="variance of ∂f/∂x over x + noise, unbiased (Adebayo et al. 2018)")
def vargrad(
    model: Score,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    samples: int = 50,
    noise: float = 0.1,
    tolerance: float | None = None,
) -> Tensor:
    if samples < 2:
        raise ValueError(f"samples: {samples}; vargrad needs at least 2, because one has no variance")
    return over_noise(model, images, target, work, samples, noise, tolerance, (1, 2), variance)
