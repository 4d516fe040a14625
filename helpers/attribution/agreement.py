"""Does the map foretell what random changes of the image do to the score? MuFidelity and infidelity.

Both draw changes, add up the relevance of what was changed (the drop that the map foretells), and hold it against the drop of
the score that the model shows: MuFidelity by a correlation, infidelity by a squared difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from .baselines import Baseline, check_baseline, remove
from .faithfulness import undefined
from .metric import Case, Values, metric
from .score import Score, channels_last

ROUND = 25  # samples between two looks at `tolerance`

# (image numbers (n,), sample numbers (n,)) -> how much each pixel loses (n, H, W), and the changed images (n, C, H, W)
Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@metric(
    "mu_fidelity",
    better="higher",
    needs_masks=False,
    definition="correlation over random subsets of pixels of their relevance with the drop of the score without them "
    "(Bhatt et al. 2020, def. 3)",
    check=lambda options, images: options["subsets"] is None or check_subsets(options["subsets"], images),
)
def mu_fidelity(
    case: Case,
    *,
    samples: int = 200,
    grid: int | None = 9,
    share: float = 0.2,
    baseline: Baseline = "black",
    activation: str = "logit",
    correlation: str = "spearman",
    subsets: Tensor | np.ndarray | None = None,
    tolerance: float | None = None,
) -> Values:
    """corr_S(Σ_{p in S} R_p, f_c(x) − f_c(x with S replaced by the baseline)) over random subsets S.

    The mean over images equals Xplique's `MuFidelity` at equal settings and subsets, but for maps or scores that do not vary,
    which are NaN here and 0 there. Xplique draws one set of subsets for many images; here each image has its own, alike for
    every method, so that images are independent and an interval over them holds. Chance is not 0: subsets differ in size, and
    a map without negative relevance gives more to larger ones; `random_maps` shows its level.

    Parameters
    ----------
    samples : int, subsets for each image
    grid : int, cells along a side, each removed as a whole; None for single pixels; never smaller than a pixel
    share : float in (0, 1], the chance of a cell to be removed
    baseline, activation : as in `deletion`
    correlation : "spearman" (Xplique's) or "pearson" (the paper's)
    subsets : bool (samples, rows, columns), True is removed: your own, for all images, in place of `samples`, `grid`, `share`
    tolerance : float, an image is done when the standard error of its correlation is at most this, looked at every 25
        samples; None takes all samples. The error is (1 − r²)/√(n − 1), for ranks times √(1 + r²/2) (Bonett & Wright 2000)
    """
    own = None if subsets is None else check_subsets(subsets, case.images)
    samples, count = samples if own is None else len(own), len(case.maps)
    change = removing(case, random_subsets(case, grid, share) if own is None else lambda _, sample: own[sample.cpu()], baseline)
    foretold, drop = np.full((2, count, samples), np.nan)
    values, waiting = np.full(count, np.nan), np.arange(count)
    step = samples if tolerance is None else ROUND
    for done in range(0, samples, step):
        end = min(done + step, samples)
        foretold[waiting, done:end], drop[waiting, done:end] = measure(case, change, activation, waiting, range(done, end))
        values[waiting] = correlations(foretold[waiting, :end], drop[waiting, :end], correlation)
        if tolerance is not None:
            waiting = waiting[~(standard_error(values[waiting], end, correlation) <= tolerance)]
        if not len(waiting):
            break
    reasons = {int(i): "the score stays the same, whatever is removed" for i in np.flatnonzero(np.isnan(values))}
    flat = np.isnan(values) & (np.nanmax(foretold, 1) == np.nanmin(foretold, 1))
    reasons |= {int(i): "all subsets have the same relevance" for i in np.flatnonzero(flat)} | undefined(case)
    values[list(reasons)] = np.nan
    return values, reasons


@metric(
    "infidelity",
    better="lower",
    needs_masks=False,
    definition="mean square of the difference between the drop of the score under random changes and the drop that the map "
    "foretells, the map in its best scale (Yeh et al. 2019, def. 2.1)",
)
def infidelity(
    case: Case,
    *,
    samples: int = 50,
    perturbation: str = "noise",
    noise: float = 0.1,
    grid: int | None = 9,
    share: float = 0.2,
    baseline: Baseline = "black",
    activation: str = "logit",
    normalize: bool = True,
) -> Values:
    """E_I[(β Iᵀ R − (f_c(x) − f_c(x − I)))²] over random changes I, in squared units of the score.

    Equal to `captum.metrics.infidelity` at equal changes, with one exception: the scale β that suits the map best may not be
    negative here, for a map that points the wrong way is no good map (β = 0 stands for no map at all). Two kinds of change
    suit two kinds of map: "noise" those that are gradients (signed saliency, SmoothGrad), "subsets" those that share out
    f(x) − f(baseline) (integrated gradients, gradient × input, occlusion, LRP).

    Parameters
    ----------
    samples : int, changes for each image
    perturbation : "noise", normal, one number a pixel for all channels, as a map has one; or "subsets", those of
        `mu_fidelity` with its `grid`, `share` and `baseline`
    noise : float, standard deviation in pixel values
    activation : as in `deletion`
    normalize : False for β = 1, where maps are in units of the score
    """
    if perturbation == "noise":
        change = adding_noise(case, noise)
    else:
        change = removing(case, random_subsets(case, grid, share), baseline)
    foretold, drop = measure(case, change, activation, np.arange(len(case.images)), range(samples))
    scale = best_scale(foretold, drop) if normalize else np.ones(len(drop))
    values, reasons = ((scale[:, None] * foretold - drop) ** 2).mean(1), undefined(case)
    values[list(reasons)] = np.nan
    return values, reasons


def measure(
    case: Case, change: Change, activation: str, images: np.ndarray, samples: range
) -> tuple[np.ndarray, np.ndarray]:
    """The drop that the map foretells and the one that the model shows, each float64 (images, samples)."""
    place, maps = case.images.device, torch.from_numpy(np.nan_to_num(case.maps))
    model = Score(case.model, None if activation == "logit" else activation)

    def score(pictures: Tensor, which: Tensor) -> Tensor:
        return model(channels_last(pictures)).gather(1, case.target[which, None])[:, 0].double().cpu()

    foretold, after = [], []
    with torch.no_grad():
        numbers = torch.from_numpy(images).to(place)
        whole = torch.cat([score(case.images[part], part) for part in numbers.split(case.batch_size)])
        for image, sample in pairs(numbers, samples, case.batch_size):
            lost, changed = change(image, sample)
            foretold.append((lost.cpu().double() * maps[image.cpu()]).sum((1, 2)))
            after.append(score(changed, image))
    shape = len(images), len(samples)
    return torch.cat(foretold).numpy().reshape(shape), (whole[:, None] - torch.cat(after).reshape(shape)).numpy()


def pairs(images: Tensor, samples: range, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every sample of every image, image by image, in batches of image numbers (n,) and sample numbers (n,)."""
    sample = torch.arange(samples.start, samples.stop, device=images.device).repeat(len(images))
    image = images.repeat_interleave(len(samples))
    yield from zip(image.split(batch_size), sample.split(batch_size), strict=True)


def removing(case: Case, subsets: Callable[[Tensor, Tensor], Tensor], baseline: Baseline) -> Change:
    """The change that replaces pixels by the baseline: `subsets(image, sample)` says which, bool (n, rows, columns) of cells."""
    place, baseline = case.images.device, check_baseline(baseline, case.images, removing=True)

    def change(image: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        cells = subsets(image, sample).to(place)
        rows, columns = (cell_of_each(*sides).to(place) for sides in zip(case.maps.shape[1:], cells.shape[1:], strict=True))
        removed = cells[:, rows][:, :, columns]
        return removed, remove(case.images, image, removed[:, None], baseline, case.seed)

    return change


def cell_of_each(side: int, cells: int) -> Tensor:
    """The cell that the centre of each pixel along a side lies in, int64 (side,)."""
    return torch.from_numpy(((np.arange(side) + 0.5) * cells / side).astype(np.int64))


def adding_noise(case: Case, deviation: float) -> Change:
    """The change that takes normal noise off an image, one number a pixel."""
    shape = case.images.shape[2:]

    def change(image: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        lost = deviation * draws(case, image, sample, lambda rng: rng.standard_normal(shape, dtype=np.float32)).to(case.images)
        return lost, case.images[image] - lost[:, None]

    return change


def random_subsets(case: Case, grid: int | None, share: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Subsets of the cells of a grid, each cell with chance `share`."""
    cells = [side if grid is None else min(grid, side) for side in case.maps.shape[1:]]
    return lambda image, sample: draws(case, image, sample, lambda rng: rng.random(cells) < share)


def draws(case: Case, image: Tensor, sample: Tensor, draw: Callable[[np.random.Generator], np.ndarray]) -> Tensor:
    """What `draw` draws for each pair of image and sample, one upon the other: it hangs on the seed and the pair alone."""
    pairs = zip(image.tolist(), sample.tolist(), strict=True)
    return torch.from_numpy(np.stack([draw(np.random.default_rng([case.seed, *pair])) for pair in pairs]))


def check_subsets(subsets: Tensor | np.ndarray, images: Tensor) -> Tensor:
    """The user's subsets, bool (samples, rows, columns); ValueError if they cannot be that."""
    subsets = torch.as_tensor(subsets).detach().cpu()
    height, width = images.shape[2:]
    fits = subsets.ndim == 3 and len(subsets) > 1 and 0 < subsets.shape[1] <= height and 0 < subsets.shape[2] <= width
    if subsets.dtype != torch.bool or not fits:
        raise ValueError(
            f"subsets: {subsets.dtype} {tuple(subsets.shape)}; expected bool (samples, rows, columns) of at least 2 samples "
            f"and at most {height} rows and {width} columns"
        )
    return subsets


def correlations(first: np.ndarray, second: np.ndarray, kind: str) -> np.ndarray:
    """Correlation of each row (N, samples) with its partner, (N,); NaN where either does not vary."""
    if kind == "spearman":
        first, second = rankdata(first, axis=1), rankdata(second, axis=1)
    first, second = (values - values.mean(1, keepdims=True) for values in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))


def standard_error(r: np.ndarray, samples: int, kind: str) -> np.ndarray:
    """Approximate standard error of a correlation r over so many samples."""
    return (1 - r**2) / np.sqrt(samples - 1) * (np.sqrt(1 + r**2 / 2) if kind == "spearman" else 1)


def best_scale(foretold: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """The β ≥ 0 of least squares for β · foretold ≈ drop, row by row; 0 for a map of zeros."""
    size = (foretold**2).sum(1)
    return np.divide(np.maximum((foretold * drop).sum(1), 0), size, out=np.zeros(len(size)), where=size > 0)
