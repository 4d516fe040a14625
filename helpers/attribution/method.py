"""The contract of an attribution method, and the table of those that exist.

A method is a function `(model, images, target, work, *, option=default, …) -> Tensor` on one batch:
`images` (n, C, H, W) floats in [0, 1] on the model's device, `target` int64 (n,), `model(images)` scores (n, classes).
It returns (n, C, H, W), or (n, H, W) if it gives one value a pixel (`per_channel=False`).
Its keyword-only arguments are its options, and their defaults are stated there and nowhere else.
Backend "torch" are our own loops: they fill each pass with `work.batch_size` images, over images and steps alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor

from helpers.names import choose

BACKENDS = ("torch", "captum", "zennit", "xplique")  # in the order in which "auto" prefers them
METHODS: dict[tuple[str, str], Method] = {}
RULES = ("guided_backprop", "deconvolution", "deeplift", "deeplift_shap", "lrp")  # of single functions inside a network
Cost = Callable[[dict[str, Any], tuple[int, int]], tuple[int, int]]  # options, (H, W) -> forward and backward passes of an image


@dataclass(frozen=True)
class Work:
    """What a method may know of the run, and what it may keep and tell.

    Attributes
    ----------
    batch_size : images per pass
    seed : of the noise
    classes : number of classes
    first : the number, among all images of the call, of the first image of this batch
    """

    batch_size: int
    seed: int
    classes: int
    first: int = 0
    kept: dict[Hashable, Any] = field(default_factory=dict)
    told: dict[str, list[Tensor]] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make()` returned for the first batch: work that does not depend on the batch is done once a call."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def tell(self, **columns: Tensor) -> None:
        """Add one value an image (n,) to each named column of the caller's `report`."""
        for name, values in columns.items():
            self.told.setdefault(name, []).append(values.detach().cpu())


@dataclass(frozen=True)
class Method:
    """A registered method: its function and what a user should know before choosing it."""

    name: str
    backend: str
    function: Callable[..., Tensor]
    needs_gradient: bool
    deterministic: bool
    per_channel: bool
    passes: str
    definition: str
    cost: Cost | None = None
    room: float = 1.0

    @property
    def by_channel(self) -> bool:
        """Whether it takes a pass for each channel of a layer, so that its cost depends on the model."""
        return "channels of the layer" in self.passes

    @property
    def counted(self) -> bool:
        """Whether its options and the size of an image say what an image costs."""
        return not self.by_channel and (self.cost or METHODS.get((self.name, "torch"), self).cost) is not None

    @property
    def defaults(self) -> dict[str, Any]:
        """The options and their defaults, read from the function's signature."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def needs_layers(self) -> bool:
        """Whether it looks inside a network, so that a function of images is not enough."""
        return "layer" in self.defaults or self.name in RULES


def method(
    name: str,
    *,
    backend: str,
    needs_gradient: bool,
    deterministic: bool,
    passes: str,
    definition: str,
    per_channel: bool = True,
    cost: Cost | None = None,
    room: float = 1.0,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register the decorated function as method `name` of `backend`; a second one of that name is an error.

    Parameters
    ----------
    name : str, snake_case, the same on every backend that has it
    backend : one of `BACKENDS`
    needs_gradient : bool, False if forward passes are enough
    deterministic : bool, False if the map depends on the seed
    passes : str, the cost for one image, in forward and backward passes and in terms of the options
    definition : str, what exactly is computed, and where another backend differs
    per_channel : bool, whether a value per channel exists; a patch or a layer has only one per pixel
    cost : function of options and image size (H, W), `passes` as numbers: forward and backward passes of one image; by default
        that of the method of this name on backend "torch". Where they depend on the layer, `options["channels"]` has its number
        of channels
    room : float, the memory that a batch takes, in that of a plain pass over as many images (with a gradient, if it needs one)
    """

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if (name, backend) in METHODS:
            raise ValueError(f"name: method {name!r} of backend {backend!r} is already registered")
        METHODS[name, backend] = Method(
            name, backend, function, needs_gradient, deterministic, per_channel, passes, definition, cost, room
        )
        return function

    return register


def find_method(name: str, backend: str) -> Method:
    """The method of that name on that backend; "auto" takes the first backend that has it.

    Raises
    ------
    ValueError : unknown method or backend (with the nearest name), or the backend lacks the method
        (with the backends that have it).
    """
    name = choose(name, dict.fromkeys(known for known, _ in METHODS), "method")
    backend = choose(backend, ("auto", *BACKENDS), "backend")
    having = [candidate for candidate in BACKENDS if (name, candidate) in METHODS]
    if backend == "auto":
        return METHODS[name, having[0]]
    if backend not in having:
        raise ValueError(f"backend: {backend!r} has no {name!r}; available in: {', '.join(sorted(having))}")
    return METHODS[name, backend]


def outside(gradient: bool) -> str:
    """Names of the methods that need no layers, for messages: those with a gradient too, or those without alone."""
    found = [entry.name for entry in METHODS.values() if not entry.needs_layers and (gradient or not entry.needs_gradient)]
    return ", ".join(sorted(set(found)))


def cost(
    method: str = "integrated_gradients",
    backend: str = "auto",
    size: tuple[int, int] = (64, 64),
    channels: int | None = None,
    **options: Any,
) -> tuple[int, int]:
    """What one image takes before any is explained: forward and backward passes.

    Parameters
    ----------
    method, backend, **options : as in `attribute`
    size : (H, W) of the images in pixels
    channels : of the layer, for Score-CAM and Ablation-CAM, which take a pass for each

    Returns
    -------
    (forward, backward) passes; with a `tolerance` the most that an image may take.

    Raises
    ------
    ValueError : unknown method, backend or option, a number that depends on the model's `channels`, which are not given, or a
        method that was registered without its cost.
    """
    chosen = find_method(method, backend)
    known = METHODS.get((chosen.name, "torch"), chosen)
    if channels is None and chosen.by_channel:
        raise ValueError(f"channels: what {chosen.name} costs depends on the model, give the number of them: {chosen.passes}")
    if not chosen.counted and not chosen.by_channel:
        raise ValueError(f"method: {chosen.name} was registered without a cost; it says: {chosen.passes}")
    accepted = chosen.defaults
    given = {choose(name, accepted, f"options of {chosen.name} ({chosen.backend})"): value for name, value in options.items()}
    options = (known.defaults if chosen.cost is None else {}) | accepted | given | {"channels": channels}
    return (chosen.cost or known.cost)(options, size)


def methods() -> pd.DataFrame:
    """Every method and backend: what it needs, what it costs and how it is defined.

    Returns
    -------
    DataFrame, one row a method × backend: `name, backend, needs_gradient, deterministic, per_channel`
    (bool), `passes` (cost of one image), `options` (with defaults), `definition`.
    """
    rows = [
        {
            "name": entry.name,
            "backend": entry.backend,
            "needs_gradient": entry.needs_gradient,
            "deterministic": entry.deterministic,
            "per_channel": entry.per_channel,
            "passes": entry.passes,
            "options": ", ".join(f"{key}={value!r}" for key, value in entry.defaults.items()),
            "definition": entry.definition,
        }
        for entry in METHODS.values()
    ]
    order = list(dict.fromkeys(name for name, _ in METHODS))
    rows.sort(key=lambda row: (order.index(row["name"]), row["backend"]))
    return pd.DataFrame(rows)
