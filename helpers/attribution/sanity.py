"""Does the map depend on what it claims to explain: the weights, the labels, the class, the score?

A map that stays the same when the model has forgotten all it learned shows the picture (its edges, say) and not the model. The
similarity of two maps is their rank correlation over pixels, or their SSIM; the signs of relevance count.

References
----------
Adebayo et al., "Sanity checks for saliency maps", 2018, arXiv 1810.03292 (weights and labels).
Sixt et al., "When explanations lie", 2020, arXiv 1912.09818 (random logit).
Sundararajan et al., "Axiomatic attribution for deep networks", 2017, arXiv 1703.01365 (completeness).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from helpers.models import layers
from helpers.models.running import untouched_random_state

from .agreement import correlations
from .baselines import Baseline, baseline_of, check_baseline
from .explainer import Explain, explainers
from .faithfulness import undefined
from .metric import Case, Values, check_value, metric
from .score import Score, borrowed, channels_last, check_model, prepare

SMALL = 1e-6  # a difference of scores, beside which nothing can be relative
COMPLETE = {  # methods whose maps add up to f(x) − f(baseline)
    "integrated_gradients",
    "deep_lift",
    "deep_lift_shap",
    "gradient_shap",
    "kernel_shap",
    "shapley_value_sampling",
    "shapley_values",
}


@metric(
    "model_randomisation",
    better="lower",
    needs_masks=False,
    needs_explain=True,
    definition="similarity of the map with that of the model whose weights are random; 1: the map ignores the weights "
    "(Adebayo et al. 2018)",
)
def model_randomisation(
    case: Case, *, part: float = 1.0, similarity: str = "spearman", absolute: bool = False, draws: int = 1
) -> Values:
    """Similarity of R(f, x) and R(f̃, x), f̃ a copy of the model with `part` of its layers, from the last on, at random.

    Random weights are those that a layer begins its training with, where it says so (`reset_parameters`), and otherwise its own
    weights shuffled. `randomisation_curve` shows all parts.

    Parameters
    ----------
    part : float in (0, 1], the share of the layers with weights that lose them
    similarity : "spearman", or "ssim" of the maps as they are drawn
    absolute : compare |R|
    draws : how often weights are drawn; the mean of the similarities is given. A draw of few layers can turn the score around and
        with it the map's sign, so that one similarity may be ±0.6 by chance; the mean of several tells such a map, which follows
        the weights, from one that always points the same way
    """
    order = weighted_layers(case.model, case.images[:1])
    if not order:
        reasons = dict.fromkeys(range(len(case.maps)), f"the model {without_weights(case.model)}")
        return np.full(len(case.maps), np.nan), reasons | undefined(case)
    count = max(1, round(part * len(order)))
    total, reasons = np.zeros(len(case.maps)), {}
    for draw in range(draws):
        other = randomised(case.model, order[:count], case.seed + draw)
        values, why = compared(case, case.explain(other, case.images, case.target), similarity, absolute)
        total, reasons = total + values, reasons | why
    return total / draws, reasons


@metric(
    "random_logit",
    better="lower",
    needs_masks=False,
    needs_explain=True,
    definition="similarity of the map with that for another class, drawn at random; 1: the map ignores the class "
    "(Sixt et al. 2020). Of two classes the maps are each other's negative at best, −1",
)
def random_logit(case: Case, *, similarity: str = "spearman", absolute: bool = False) -> Values:
    """Similarity of R_c(x) and R_k(x), k ≠ c.

    A cheap relative of the label randomisation of Adebayo et al., which needs a second training. A model of two classes has
    next to one score, so that unsigned maps (|gradient|) are alike for both classes whatever the method.

    Parameters
    ----------
    similarity, absolute : as in `model_randomisation`
    """
    with torch.no_grad():
        classes = Score(case.model)(case.images[:1]).shape[1]
    rng = np.random.default_rng(case.seed)
    other = (case.target + torch.from_numpy(rng.integers(1, max(classes, 2), len(case.target))).to(case.target)) % classes
    return compared(case, case.explain(case.model, case.images, other), similarity, absolute)


@metric(
    "label_randomisation",
    better="lower",
    needs_masks=False,
    needs_explain=True,
    by_name="needs the option retrained, a model that was trained on shuffled labels",
    check=lambda options, images: check_retrained(options["retrained"]),
    definition="similarity of the map with that of a model trained on shuffled labels; 1: the map ignores what was learned "
    "(Adebayo et al. 2018)",
)
def label_randomisation(
    case: Case, *, retrained: nn.Module | None = None, similarity: str = "spearman", absolute: bool = False
) -> Values:
    """Similarity of R(f, x) and R(f', x), f' trained as f was but on shuffled labels, until it knows them by heart.

    Parameters
    ----------
    retrained : nn.Module that takes the same images and has the same classes
    similarity, absolute : as in `model_randomisation`
    """
    with borrowed(retrained, case.images.device):
        return compared(case, case.explain(retrained, case.images, case.target), similarity, absolute)


@metric(
    "completeness",
    better="lower",
    needs_masks=False,
    by_name="holds for some methods only, which claim it, and for their baseline: ask for it by name",
    definition="|sum of the map − (f(x) − f(baseline))| / |f(x) − f(baseline)|; 0: the map shares out the whole score "
    "(Sundararajan et al. 2017)",
)
def completeness(case: Case, *, baseline: Baseline = "black", activation: str = "logit") -> Values:
    """Relative error of completeness; NaN for methods, known by `explain`, that do not claim it.

    Parameters
    ----------
    baseline : that of the method
    activation : "logit", which is what `attribute` explains
    """
    everyone = range(len(case.maps))
    if case.explain is not None and case.explain.method is not None and case.explain.method not in COMPLETE:
        reason = f"{case.explain.method} does not claim completeness"
        return np.full(len(case.maps), np.nan), dict.fromkeys(everyone, reason)
    baseline = check_baseline(baseline, case.images)
    score, found = Score(case.model, None if activation == "logit" else activation), []
    with torch.no_grad():
        for rows in torch.arange(len(case.images), device=case.images.device).split(case.batch_size):
            whole, base = case.images[rows], baseline_of(baseline, case.images[rows], rows, case.seed)
            difference = score(channels_last(whole)) - score(channels_last(base))
            found.append(difference.gather(1, case.target[rows, None])[:, 0].double().cpu())
    difference = torch.cat(found).numpy()
    small = np.abs(difference) < SMALL
    reasons = {int(i): "the score is that of the baseline" for i in np.flatnonzero(small)} | undefined(case)
    values = np.abs(case.maps.sum((1, 2)) - difference) / np.where(small, np.nan, np.abs(difference))
    values[list(reasons)] = np.nan
    return values, reasons


def randomisation_curve(
    model: nn.Module,
    images: Tensor | np.ndarray,
    explain: Explain,
    target: int | Tensor | np.ndarray | None = None,
    *,
    steps: int | None = None,
    similarity: str = "spearman",
    absolute: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> pd.DataFrame:
    """How maps change as a model forgets its weights, layer by layer from the last to the first (cascading randomisation).

    Parameters
    ----------
    model, images, target, batch_size, seed, device : as in `evaluate`
    explain : one way to make maps, as in `evaluate`
    steps : int, how many places to look at, spread evenly; None for all layers
    similarity, absolute : as in the metric `model_randomisation`, which is the last step

    Returns
    -------
    DataFrame, one row an image × step: `layers` (how many are random), `last` (the name of the one nearest the image),
    `image`, `value`.

    Raises
    ------
    ValueError : as in `evaluate`; the model has no weights.
    """
    similarity = check_value("similarity", similarity)
    if steps is not None:
        steps = check_value("steps", steps)
    check_model(model)
    rows = []
    with torch.inference_mode(False), borrowed(model, device) as place:
        room = explainers(explain, [""], 1, seed)[""].room
        ready = prepare(model, images, target, batch_size, place, backward=True, room=room)
        again = explainers(explain, [""], ready.batch_size, seed)[""]
        order = weighted_layers(model, ready.images[:1])
        if not order:
            raise ValueError(f"model: it {without_weights(model)} to randomise")
        maps = again(model, ready.images, ready.target)
        case = Case(model, ready.images, ready.target, maps, None, ready.batch_size, seed, explain=again)
        counts = np.unique(np.linspace(1, len(order), min(steps or len(order), len(order))).round().astype(int))
        for count in counts.tolist():
            other = again(randomised(model, order[:count], seed), ready.images, ready.target)
            values, _ = compared(case, other, similarity, absolute)
            rows.append(
                pd.DataFrame({"layers": count, "last": order[count - 1], "image": np.arange(len(values)), "value": values})
            )
    return pd.concat(rows, ignore_index=True)


def weighted_layers(model: nn.Module, example: Tensor) -> list[str]:
    """Names of the modules that hold parameters themselves, the last to run first; those that do not run at the end."""
    holding = [name for name, module in model.named_modules() if any(p is not None for p in module._parameters.values())]
    ran = [*reversed(layers.flow(model, example)), ""]
    place = {name: i for i, name in enumerate(ran)}

    def when(name: str) -> int:
        while name not in place:  # weights of a part that is read but not called, as in attention
            name = name.rpartition(".")[0]
        return place[name] if name or "" in holding else len(place)

    return sorted(holding, key=when)


def without_weights(model: nn.Module) -> str:
    """Why nothing can be randomised: a model from another library has its weights there."""
    return "has no weights that PyTorch can see" if getattr(model, "opaque", False) else "has no weights"


def randomised(model: nn.Module, names: list[str], seed: int) -> nn.Module:
    """A copy of the model in which the modules of these names have random weights. Global random state is left alone."""
    other = deepcopy(model)
    with torch.no_grad(), untouched_random_state(seed):
        for name in names:
            module = other.get_submodule(name)
            before = {key: p.clone() for key, p in module.named_parameters(recurse=False)}
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            for key, parameter in module.named_parameters(recurse=False):
                if torch.equal(parameter, before[key]):
                    order = torch.randperm(parameter.numel())
                    parameter.copy_(parameter.flatten()[order.to(parameter.device)].reshape(parameter.shape))
    return other


def check_retrained(model: Any) -> None:
    """Refuse what is not a module."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"retrained: {model!r}; expected a torch.nn.Module that was trained on shuffled labels")


def compared(case: Case, other: np.ndarray, similarity: str, absolute: bool) -> Values:
    """Similarity of each of the case's maps with another map of the same image, `other` float64 (N, H, W)."""
    first, second = case.maps, other
    if absolute:
        first, second = np.abs(first), np.abs(second)
    gone = {int(i): "the other map has values that are not finite" for i in np.flatnonzero(~np.isfinite(other).all((1, 2)))}
    first, second = np.nan_to_num(first), np.nan_to_num(second)
    values = SIMILARITIES[similarity](first, second)
    flat = {int(i): "a map is the same everywhere" for i in np.flatnonzero(np.isnan(values))}
    reasons = flat | gone | undefined(case)
    values[list(reasons)] = np.nan
    return values, reasons


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation over the pixels of each pair of maps, (N,); NaN where one is the same everywhere."""
    return correlations(first.reshape(len(first), -1), second.reshape(len(second), -1), "spearman")


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Structural similarity of each pair of maps, (N,); NaN where one is zero everywhere (Wang et al. 2004).

    Of the maps as they are drawn, with −max |R| at 0, no relevance at 0.5 and max |R| at 1. The window is Gaussian with a
    standard deviation of 1.5 pixels, less in images of fewer than 7.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as measure

    drawn = []
    for maps in (first, second):
        top = np.abs(maps).max((1, 2), keepdims=True)
        scaled = np.divide(maps, top, out=np.full_like(maps, np.nan), where=top > 0)
        drawn.append(torch.from_numpy((1 + scaled) / 2)[:, None])
    width = min(1.5, max(0.01, (min(first.shape[1:]) - 1.5) / 3.5))
    return np.array([measure(a[None], b[None], data_range=1.0, sigma=width).item() for a, b in zip(*drawn, strict=True)])


SIMILARITIES: dict[str, Any] = {"spearman": spearman, "ssim": ssim}
