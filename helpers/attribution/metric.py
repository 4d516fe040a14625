"""The contract of a score that judges attribution maps, and the table of those that exist.

A metric is a function `(case, *, option=default, …) -> (values, reasons)`: `values` float64 (N,), one an image, and
`reasons` says for each undefined (NaN) value, by image number, why it is undefined.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.names import choose

if TYPE_CHECKING:
    from .explainer import Explainer

Values = tuple[np.ndarray, dict[int, str]]
METRICS: dict[str, Metric] = {}

CHOICES = {
    "activation": ("softmax", "logit"),
    "correlation": ("spearman", "pearson"),
    "distance": ("l1", "l2"),
    "perturbation": ("noise", "subsets"),
    "similarity": ("spearman", "ssim"),
}
LEAST = {"steps": 1, "draws": 1, "samples": 2, "grid": 1}
POSITIVE = {"share": 1, "noise": np.inf, "radius": np.inf, "tolerance": np.inf, "part": 1}  # and at most this


@dataclass(frozen=True)
class Case:
    """What is judged: the maps, and the model, images and masks that they are judged by.

    `maps` float64 (N, H, W); `masks` bool (N, H, W) or None; `before` None or float64 (N, H, W), maps of the same images
    for the model as it was before it was changed; `explain` None or how the maps were made, called as
    `explain(model, images, target)`; `images` (N, C, H, W); `target` int64 (N,); `model(images)` the probabilities or
    logits that `activation` names, see `helpers.attribution.score.Score`. What a metric finds out about the model, whatever
    the map, it may keep in `memo` under its name: the maps that are judged in one call, with one set of options, share it.
    """

    model: Any
    images: Tensor
    target: Tensor
    maps: np.ndarray
    masks: np.ndarray | None
    batch_size: int
    seed: int
    before: np.ndarray | None = None
    explain: Explainer | None = None
    memo: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A registered metric: its function, which direction is better, and what it needs beside model, images and maps.

    `by_name` says why "all" leaves it out, so that it is computed only when it is asked for; empty for most. `check`, if any,
    is called with the options and the images before any work, and raises ValueError.
    """

    name: str
    function: Callable[..., Values]
    better: str
    needs_masks: bool
    definition: str
    needs_before: bool = False
    needs_explain: bool = False
    by_name: str = ""
    check: Callable[[dict[str, Any], Tensor], Any] | None = None

    @property
    def defaults(self) -> dict[str, Any]:
        """The options and their defaults, read from the function's signature."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def metric(
    name: str,
    *,
    better: str,
    needs_masks: bool,
    definition: str,
    needs_before: bool = False,
    needs_explain: bool = False,
    by_name: str = "",
    check: Callable[[dict[str, Any], Tensor], Any] | None = None,
) -> Callable[[Callable[..., Values]], Callable[..., Values]]:
    """Register the decorated function as metric `name`; a second one of that name is an error."""

    def register(function: Callable[..., Values]) -> Callable[..., Values]:
        if name in METRICS:
            raise ValueError(f"name: metric {name!r} is already registered")
        METRICS[name] = Metric(
            name, function, better, needs_masks, definition, needs_before, needs_explain, by_name, check
        )
        return function

    return register


def metrics() -> pd.DataFrame:
    """Every metric: `name`, `better` ("lower", "higher" or "depends on the region"), `needs_masks`, `needs_before` and
    `needs_explain` (bool), `options` (defaults), `definition`."""
    return pd.DataFrame(
        {
            "name": entry.name,
            "better": entry.better,
            "needs_masks": entry.needs_masks,
            "needs_before": entry.needs_before,
            "needs_explain": entry.needs_explain,
            "options": ", ".join(f"{key}={value!r}" for key, value in entry.defaults.items()),
            "definition": entry.definition,
        }
        for entry in METRICS.values()
    )


def check_metric_options(chosen: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each metric's options with defaults filled in; ValueError for a name that none of them has."""
    accepted = {name for metric in chosen for name in METRICS[metric].defaults}
    if options and not accepted:
        raise ValueError(f"options: {', '.join(map(repr, options))} given, but {', '.join(chosen)} take none")
    given = {
        choose(name, sorted(accepted), f"options of {', '.join(chosen)}"): value for name, value in options.items()
    }
    given = {name: check_value(name, value) for name, value in given.items()}
    return {
        metric: {name: given.get(name, default) for name, default in METRICS[metric].defaults.items()}
        for metric in chosen
    }


def check_value(name: str, value: Any) -> Any:
    """The value of an option, which means the same in every metric that has it; ValueError for one that none could use."""
    if name in CHOICES:
        return choose(value, CHOICES[name], name)
    if name in LEAST and not (name == "grid" and value is None):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < LEAST[name]:
            raise ValueError(f"{name}: {value!r}; expected a whole number of at least {LEAST[name]}")
    if name in POSITIVE and not (name == "tolerance" and value is None):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= POSITIVE[name]:
            limit = "" if POSITIVE[name] == np.inf else f" and at most {POSITIVE[name]:g}"
            raise ValueError(f"{name}: {value!r}; expected a number above 0{limit}")
    return value


def check_maps(maps: Tensor | np.ndarray, images: Tensor, argument: str) -> np.ndarray:
    """Maps as float64 (N, H, W); ValueError if they do not lie on the images."""
    maps = maps.detach().cpu().double().numpy() if isinstance(maps, Tensor) else np.asarray(maps)  # NumPy has no bfloat16
    expected = (len(images), *images.shape[2:])
    if maps.shape != expected:
        hint = "; sum over channels first, maps.sum(1)" if maps.ndim == 4 else ""
        raise ValueError(f"{argument}: shape {maps.shape}; expected {expected}{hint}")
    return maps.astype(np.float64)


def check_masks(masks: Tensor | np.ndarray, images: Tensor) -> np.ndarray:
    """Masks as bool (N, H, W); ValueError if they do not lie on the images or are not yes-or-no."""
    masks = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    expected = (len(images), *images.shape[2:])
    if masks.shape != expected:
        raise ValueError(f"masks: shape {masks.shape}; expected {expected}")
    if masks.dtype != bool and not np.isin(masks, (0, 1)).all():
        raise ValueError(f"masks: {masks.dtype} with values other than 0 and 1; expected booleans")
    return masks.astype(bool)
