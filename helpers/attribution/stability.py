"""Does nearly the same image get nearly the same map? Average stability and max-sensitivity.

Both shift the image by noise and explain again, so that they cost as many explanations as samples. A small value is good only
of a map that is good otherwise: a map that never changes is perfectly stable.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from helpers.models.running import untouched_random_state

from .agreement import draws, pairs
from .metric import Case, Values, metric

ROUND = 5  # samples between two looks at `tolerance`


@metric(
    "average_stability",
    better="lower",
    needs_masks=False,
    needs_explain=True,
    definition="mean distance between the map and those of the image with noise added, in units of the map; "
    "relative=True: over the size of the map (Bhatt et al. 2020, def. 2)",
    check=lambda options, images: options["shifts"] is None or check_shifts(options["shifts"], images),
)
def average_stability(
    case: Case,
    *,
    samples: int = 20,
    radius: float = 0.1,
    distance: str = "l2",
    relative: bool = False,
    clip: bool = True,
    shifts: Tensor | np.ndarray | None = None,
    tolerance: float | None = None,
) -> Values:
    """E_e[D(R(x), R(x + e))] with e uniform in [0, radius), each value of each pixel for itself.

    The mean over images equals Xplique's `AverageStability` at equal shifts, with `clip=False` where images reach 1. Xplique
    shifts all images alike; here each has shifts of its own, alike for every method.

    Parameters
    ----------
    samples : int, shifted copies of each image
    radius : float, in pixel values
    distance : "l2" or "l1", over all pixels
    relative : divide by the norm of the map, so that methods in different units can be compared
    clip : keep the shifted images in [0, 1], as all methods of `attribute` want them
    shifts : float (samples, C, H, W), your own for all images, in place of `samples` and `radius`
    tolerance : float, an image is done when the standard error of its mean is at most this share of it, looked at every 5
        samples, of which `samples` are the most; None takes all
    """
    own = None if shifts is None else check_shifts(shifts, case.images)
    samples = samples if own is None else len(own)
    shape = case.images.shape[1:]
    order = 1 if distance == "l1" else 2

    def shifted(image: Tensor, sample: Tensor) -> Tensor:
        if own is None:
            shift = radius * draws(case, image, sample, lambda rng: rng.random(shape, dtype=np.float32)).to(case.images)
        else:
            shift = own[sample]
        moved = case.images[image] + shift
        return moved.clamp(0, 1) if clip else moved

    base = case.explain(case.model, case.images, case.target).reshape(len(case.images), -1)
    found = np.full((len(base), samples), np.nan)
    waiting = np.flatnonzero(np.isfinite(base).all(1))
    for done in range(0, samples, samples if tolerance is None else ROUND):
        now = range(done, samples if tolerance is None else min(done + ROUND, samples))
        for image, sample in pairs(waiting, now, case.batch_size, case.images.device):
            maps = case.explain(case.model, shifted(image, sample), case.target[image]).reshape(len(image), -1)
            which = image.cpu().numpy()
            found[which, sample.cpu().numpy()] = np.linalg.norm(maps - base[which], ord=order, axis=1)
        if tolerance is not None:
            known = found[waiting, : now.stop]
            waiting = waiting[~(known.std(1, ddof=1) / np.sqrt(now.stop) <= tolerance * known.mean(1))]
        if not len(waiting):
            break
    reasons = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no sample is NaN
        values = np.nanmean(found, axis=1)
    if relative:
        size = np.linalg.norm(base, ord=order, axis=1)
        reasons = {int(i): "the map has no relevance" for i in np.flatnonzero(size == 0)}
        values = np.divide(values, size, out=np.full(len(size), np.nan), where=size > 0)
    return not_finite(case, base, values, reasons)


@metric(
    "sensitivity_max",
    better="lower",
    needs_masks=False,
    needs_explain=True,
    definition="largest distance between the map and those of the image with a little noise, over the size of the map "
    "(Yeh et al. 2019, def. 3.1)",
)
def sensitivity_max(case: Case, *, samples: int = 10, radius: float = 0.02, clip: bool = True) -> Values:
    """max_e ‖R(x + e) − R(x)‖ / ‖R(x)‖ with e uniform in [−radius, radius], by Captum.

    Parameters
    ----------
    samples : int, shifted copies of each image
    radius : float, in pixel values
    clip : keep the shifted images in [0, 1], as all methods of `attribute` want them
    """
    from captum.metrics import sensitivity_max as captums

    def maps(images: Tensor | tuple[Tensor], target: Tensor) -> Tensor | tuple[Tensor]:
        if isinstance(images, tuple):  # Captum passes the images themselves in a tuple, and wants their maps in one
            return (maps(images[0], target),)
        # Captum repeats a target with its image, but not one that is alone
        return torch.from_numpy(case.explain(case.model, images, target.expand(len(images)) if len(target) == 1 else target))

    def shifted(images: Tensor) -> Tensor:
        moved = images + torch.empty(images.shape).uniform_(-radius, radius).to(images)
        return moved.clamp(0, 1) if clip else moved

    values = []
    with untouched_random_state(case.seed):
        for images, target in zip(case.images.split(case.batch_size), case.target.split(case.batch_size), strict=True):
            most = min(max(case.batch_size, len(images)), len(images) * samples)
            values.append(
                captums(
                    maps, images, shifted, n_perturb_samples=samples, max_examples_per_batch=most, target=target
                ).cpu()
            )
    base = case.explain(case.model, case.images, case.target).reshape(len(case.images), -1)
    return not_finite(case, base, torch.cat(values).double().numpy(), {})


def check_shifts(shifts: Tensor | np.ndarray, images: Tensor) -> Tensor:
    """The user's shifts as a tensor (samples, C, H, W) like the images; ValueError for another shape."""
    shifts = torch.as_tensor(shifts).detach()
    if shifts.ndim != 4 or shifts.shape[1:] != images.shape[1:] or len(shifts) < 2:
        raise ValueError(
            f"shifts: shape {tuple(shifts.shape)}; expected (samples, {', '.join(map(str, images.shape[1:]))}) with at least "
            "2 samples"
        )
    return shifts.to(images)


def not_finite(case: Case, base: np.ndarray, values: np.ndarray, reasons: dict[int, str]) -> Values:
    """NaN where a map is not finite, be it one that was given or made again."""
    gone = {int(i): "the map of a shifted image has values that are not finite" for i in np.flatnonzero(~np.isfinite(values))}
    bad = ~np.isfinite(base).all(1) | ~np.isfinite(case.maps).all((1, 2))
    reasons = gone | reasons | {int(i): "the map has values that are not finite" for i in np.flatnonzero(bad)}
    values[list(reasons)] = np.nan
    return values, reasons
