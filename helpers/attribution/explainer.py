"""How maps were made, so that a metric can make them again: for a shifted image, another class, another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .explain import attribute, check_options
from .method import find_method
from .metric import check_maps

Explain = bool | str | tuple[str, Mapping[str, Any]] | Callable[[nn.Module, Tensor, Tensor], Tensor | np.ndarray]
SAME = 0.5  # correlation of a map with itself made again: sampled methods stay well above, other methods mostly below


@dataclass(frozen=True)
class Explainer:
    """`explainer(model, images, target)` -> maps float64 (n, H, W), `batch_size` images at a time.

    `method` and `options` say how, where it is a method of `methods()`; else None and {}. `room` is the memory of its passes, in
    that of plain ones.
    """

    function: Callable[[nn.Module, Tensor, Tensor], Tensor | np.ndarray]
    batch_size: int
    method: str | None
    options: Mapping[str, Any]
    room: float = 1.0

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor) -> np.ndarray:
        maps = []
        for some, codes in zip(images.split(self.batch_size), target.split(self.batch_size), strict=True):
            with torch.enable_grad():
                maps.append(check_maps(self.function(model, some.detach().clone(), codes), some, "explain"))
        return np.concatenate(maps)


def explainers(
    explain: Explain | Mapping[str, Explain] | None, names: list[str], batch_size: int, seed: int
) -> dict[str, Explainer | None]:
    """For each name of maps how they were made, or None; ValueError for what cannot be a way to make maps."""
    if explain is None:
        return dict.fromkeys(names)
    each = explain if isinstance(explain, Mapping) else dict.fromkeys(names, explain)
    if unknown := [name for name in each if name not in names]:
        raise ValueError(f"explain: {unknown[0]!r} is no name among attributions; there are {', '.join(map(repr, names))}")
    return {name: explainer(each[name], name, batch_size, seed) if name in each else None for name in names}


def explainer(explain: Explain, name: str, batch_size: int, seed: int) -> Explainer:
    """One way to make maps: True for the method called `name`, a method's name, (name, options), or a function."""
    if explain is True and not name:
        raise ValueError("explain: True, but the maps have no name; expected the method that made them, or maps by its name")
    if explain is True:
        explain = name
    if isinstance(explain, str):
        explain = (explain, {})
    if isinstance(explain, tuple) and len(explain) == 2 and isinstance(explain[1], Mapping):
        method, options = explain[0], dict(explain[1])
        backend = options.pop("backend", "auto")
        found = find_method(method, backend)
        check_options(found, options)

        def again(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
            return attribute(model, images, target, method, backend, batch_size=batch_size, seed=seed, **options)

        return Explainer(again, batch_size, found.name, options, found.room)
    if callable(explain):
        return Explainer(explain, batch_size, None, {})
    raise ValueError(
        f"explain: {explain!r}; expected a function (model, images, target) -> maps, the name of a method, a name with its "
        "options (name, {…}), True for methods that are called as attributions are, or a dict of these"
    )


def check_same(explain: Explainer, model: nn.Module, images: Tensor, target: Tensor, maps: np.ndarray, name: str) -> None:
    """Refuse a way that does not make the maps that are judged, by the first that is not flat: the scores would be another's."""
    usable = np.flatnonzero(np.isfinite(maps).all((1, 2)) & (np.ptp(maps, axis=(1, 2)) > 0))
    if not len(usable):
        return
    image = int(usable[0])
    made = explain(model, images[: image + 1], target[: image + 1])[-1].ravel()  # with those before it: noise may go by place
    given = maps[image].ravel()
    if not (np.isfinite(made).all() and np.ptp(made) > 0):
        return
    if (r := np.corrcoef(made, given)[0, 1]) < SAME:
        raise ValueError(
            f"explain: for image {image} it makes another map than attributions {name}".rstrip()
            + f" (correlation {r:.2f}); expected the method and options that made them"
        )
