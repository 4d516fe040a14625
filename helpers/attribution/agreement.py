"""Does the map foretell what random changes of the image do to the score? MuFidelity and infidelity.

Both draw changes, add up the relevance of what was changed (the drop that the map foretells), and hold it against the drop of
the score that the model shows: MuFidelity by a correlation, infidelity by a squared difference. The model is asked once for all
maps that are judged in one call, since its drops do not hang on the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from .baselines import Baseline, check_baseline, remove
from .faithfulness import undefined
from .metric import Case, Values, metric
from .score import Score, channels_last

ROUND = 25  # samples between two looks at `tolerance`


@dataclass(frozen=True)
class Change:
    """A random change: `lost(image, sample)`, from numbers (n,) each, is how much each pixel loses, (n, H, W), and
    `images(image, lost)` the images without it, (n, C, H, W)."""

    lost: Callable[[Tensor, Tensor], Tensor]
    images: Callable[[Tensor, Tensor], Tensor]


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
        part = waiting[:, None], np.arange(done, end)
        foretold[part] = foretell(case, change, waiting, range(done, end))
        drop[part] = observe(case, "mu_fidelity", change, activation, waiting, range(done, end), samples)
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
    everyone = np.arange(len(case.images))
    foretold = foretell(case, change, everyone, range(samples))
    drop = observe(case, "infidelity", change, activation, everyone, range(samples), samples)
    scale = best_scale(foretold, drop) if normalize else np.ones(len(drop))
    values, reasons = ((scale[:, None] * foretold - drop) ** 2).mean(1), undefined(case)
    values[list(reasons)] = np.nan
    return values, reasons


def foretell(case: Case, change: Change, images: np.ndarray, samples: range) -> np.ndarray:
    """The drop that the map foretells: the relevance of what is lost, float64 (images, samples)."""
    maps, found = torch.from_numpy(np.nan_to_num(case.maps)), []
    for image, sample in pairs(images, samples, case.batch_size, case.images.device):
        found.append((change.lost(image, sample).cpu().double() * maps[image.cpu()]).sum((1, 2)))
    return torch.cat(found).numpy().reshape(len(images), len(samples))


def observe(
    case: Case, name: str, change: Change, activation: str, images: np.ndarray, samples: range, most: int
) -> np.ndarray:
    """The drop that the model shows, float64 (images, samples), of which `most` may be asked for; kept in the case's memo."""
    model, place = Score(case.model, None if activation == "logit" else activation), case.images.device

    def score(pictures: Tensor, which: Tensor) -> np.ndarray:
        return model(channels_last(pictures)).gather(1, case.target[which, None])[:, 0].double().cpu().numpy()

    with torch.no_grad():
        if name not in case.memo:
            numbers = torch.arange(len(case.images), device=place).split(case.batch_size)
            whole = np.concatenate([score(case.images[part], part) for part in numbers])
            case.memo[name] = whole, np.full((len(whole), most), np.nan)
        whole, drop = case.memo[name]
        unknown = images[np.isnan(drop[images, samples.start])]
        for image, sample in pairs(unknown, samples, case.batch_size, place):
            after = score(change.images(image, change.lost(image, sample)), image)
            which = image.cpu().numpy()
            drop[which, sample.cpu().numpy()] = whole[which] - after
    return drop[images, samples.start : samples.stop]


def pairs(images: np.ndarray, samples: range, batch_size: int, place: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Every sample of every image, image by image, in batches of image numbers (n,) and sample numbers (n,)."""
    if len(images):
        sample = torch.arange(samples.start, samples.stop, device=place).repeat(len(images))
        image = torch.from_numpy(images).to(place).repeat_interleave(len(samples))
        yield from zip(image.split(batch_size), sample.split(batch_size), strict=True)


def removing(case: Case, subsets: Callable[[Tensor, Tensor], Tensor], baseline: Baseline) -> Change:
    """The change that replaces pixels by the baseline: `subsets(image, sample)` says which, bool (n, rows, columns) of cells."""
    baseline = check_baseline(baseline, case.images, removing=True)

    def removed(image: Tensor, sample: Tensor) -> Tensor:
        cells = subsets(image, sample).to(case.images.device)
        rows, columns = (
            cell_of_each(*sides).to(cells.device) for sides in zip(case.maps.shape[1:], cells.shape[1:], strict=True)
        )
        return cells[:, rows][:, :, columns]

    return Change(removed, lambda image, lost: remove(case.images, image, lost[:, None], baseline, case.seed))


def cell_of_each(side: int, cells: int) -> Tensor:
    """The cell that the centre of each pixel along a side lies in, int64 (side,)."""
    return torch.from_numpy(((np.arange(side) + 0.5) * cells / side).astype(np.int64))


def adding_noise(case: Case, deviation: float) -> Change:
    """The change that takes normal noise off an image, one number a pixel."""
    shape = case.images.shape[2:]

    def noise(image: Tensor, sample: Tensor) -> Tensor:
        return deviation * draws(case, image, sample, lambda rng: rng.standard_normal(shape, dtype=np.float32)).to(case.images)

    return Change(noise, lambda image, lost: case.images[image] - lost[:, None])


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
