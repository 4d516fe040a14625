"""The part of a network that runs after a layer, fed from what that layer put out once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.debiasing.method import Batch
from helpers.debiasing.tuning import LARGEST_NORM, WEIGHT_DECAY, cell_weights, check_options, check_whole, drawn
from helpers.models.data_in import batches, triple
from helpers.models.intake import spread, take
from helpers.models.layers import capture, flow
from helpers.models.running import call, device_of

MOST_VALUES = 1 << 28  # of a layer's output that are kept: 1 GB; more is computed again from the images
SMALLEST = 1e-2  # root mean square of a parameter that sets its rate: a bias of 0 is to move too
CUTS = 16  # layers at which is tried to cut a model in two
TRIED = 8  # images on which the short cut is checked


class Between(nn.Module):
    """Stands after a layer while the rest is trained: what passes becomes a leaf of the graph, is kept, and may be changed."""

    change: Callable[[Tensor], Tensor] | None = None
    seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.detach().requires_grad_(torch.is_grad_enabled())
        # A copy, which an in-place function after the layer may change.
        return self.seen.clone() if self.change is None else self.change(self.seen)


class Feeder(nn.Module):
    """Puts out what it holds, whatever comes in."""

    output: Tensor | None = None

    def forward(self, *args, **kwargs) -> Tensor:
        return self.output


class Blank(nn.Module):
    """Puts out zeros of the shape that the layer in whose place it stands would give: nobody reads them."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        return x.new_zeros(1).expand(len(x), *self.shape)  # one number, however many are asked for


class Tail:
    """A copy of a model, of which the part after a layer is run and changed on its own.

    What runs before the layer is replaced by blanks of the same shape, and the layer by one that puts out features
    captured once: at the penultimate layer, what the classifier takes of it. Where that does not give the model's logits
    (a skip connection passes the layer by), or the features of all images are too many to keep, the images go through the
    whole model instead; its front stays as it is.

    Parameters
    ----------
    model : nn.Module in evaluation mode
    batch : Batch
    layer : str, name of a layer of `model`

    Attributes
    ----------
    model : nn.Module, the copy, in evaluation mode: running means of batch normalisation stay what they are
    short : bool, whether the tail runs on stored features
    parts : dict name -> module with parameters of its own that are used after the layer, in order of execution; "" is
        the model itself, where it holds the weights of a function
    parameters : list of the parameters of these, without those that are frozen in `model`
    between : Between, through which the layer's output goes

    Raises
    ------
    ValueError : the layer does not run, or nothing with parameters runs after it.
    """

    def __init__(self, model: nn.Module, batch: Batch, layer: str):
        self.batch, self.model, self.between, self.feeder = batch, copy.deepcopy(model).eval(), Between(), Feeder()
        self.device = device_of(self.model)
        self.example = batch.example[:TRIED].to(self.device)
        self.before, after = divided(self.model, layer, self.example)
        self.layer, self.features = layer, None
        self.intake = batch.intake if layer == batch.layer else ""
        self.network = self._stub()
        self.short = self.network is not None
        if not self.short:
            self.network = shared(self.model)
            put(self.network, layer, nn.Sequential(self.network.get_submodule(layer), self.between))
        used = self._used()
        self.parts = {name: part for name, part in after.items() if any(id(p) in used for p in part.parameters(recurse=False))}
        own = [p for part in self.parts.values() for p in part.parameters(recurse=False)]
        self.parameters = [p for p in own if id(p) in used and p.requires_grad]
        if not self.parameters:
            raise ValueError(f"layer: nothing that could be trained runs after {layer!r}; choose an earlier layer")

    def _used(self) -> set[int]:
        """The parameters, by their id, that the logits depend on when the layer's output is given, and that does not depend on.

        A block finishes after its parts, and yet may use its own parameters (the positions of a transformer) before them.
        """
        asked = [p for p in self.model.parameters() if p.is_floating_point()]
        frozen = [p for p in asked if not p.requires_grad]
        for p in frozen:
            p.requires_grad_(True)
        with torch.enable_grad():
            logits = call(self.network, self.example)
            # An edit of the logits that decides has no gradient: then nothing can be told apart.
            found = torch.autograd.grad(logits.sum(), asked, allow_unused=True) if logits.requires_grad else asked
            around = [part for name, part in self.model.named_modules() if name == "" or self.layer.startswith(f"{name}.")]
            own = [p for part in around for p in part.parameters(recurse=False) if p.is_floating_point()]
            before = self._depends_on(own) if own else set()
        for p in frozen:
            p.requires_grad_(False)
        return {id(p) for p, gradient in zip(asked, found, strict=True) if gradient is not None} - before

    def _depends_on(self, parameters: list[nn.Parameter]) -> set[int]:
        """Those of the parameters, by their id, that the layer's output depends on."""
        seen = []
        hook = self.model.get_submodule(self.layer).register_forward_hook(lambda module, args, output: seen.append(output))
        try:
            call(self.model, self.example)
        finally:
            hook.remove()
        if not isinstance(seen[0], Tensor) or not seen[0].requires_grad:
            return set()
        found = torch.autograd.grad(seen[0].sum(), parameters, allow_unused=True)
        return {id(p) for p, gradient in zip(parameters, found, strict=True) if gradient is not None}

    @torch.no_grad()
    def _stub(self) -> nn.Module | None:
        """The model with blanks before the layer and a feeder in its place; None where that gives other logits."""
        with capture(self.model, *self.before, self.layer) as seen:
            expected = call(self.model, self.example)
        output = seen[self.layer]
        if not isinstance(output, Tensor):
            return None
        self.shape = tuple(output.shape[1:])
        output = take(output, self.intake) if self.intake else output
        if output[0].numel() * len(self.batch) > MOST_VALUES:
            return None
        stub = shared(self.model)
        for name in self.before:
            if isinstance(seen.get(name), Tensor) and len(seen[name]) == len(self.example):
                put(stub, name, Blank(tuple(seen[name].shape[1:])))
        put(stub, self.layer, nn.Sequential(self.feeder, self.between))
        self.feeder.output = self._whole(output)
        try:
            found = call(stub, self.example.new_zeros(1).expand_as(self.example))
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):  # a function that zeros do not suit
            return None
        same = found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
        return stub if same else None

    def _whole(self, features: Tensor) -> Tensor:
        """The layer's output, given what the classifier takes of it."""
        return spread(features, self.shape) if self.intake else features

    def _stored(self) -> Tensor:
        """The layer's output for all rows, (n, …)."""
        if self.features is None:
            features = self.batch.features(self.layer)[1]
            self.features = features if self.intake else features.reshape(len(self.batch), *self.shape)
        return self.features

    def __call__(self, given: Tensor) -> Tensor:
        """Logits of the layer's output (short) or of images, (m, …) -> (m, K)."""
        layout = {"memory_format": torch.channels_last} if given.dim() == 4 else {}
        given = given.to(self.device, **layout)
        if not self.short:
            return call(self.network, given)
        self.feeder.output = self._whole(given)
        return call(self.network, self.example.new_zeros(1).expand(len(given), *self.example.shape[1:]))

    @torch.no_grad()
    def put(self, values: list[Tensor]) -> None:
        """Give the parameters other values."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def logits(self) -> Tensor:
        """Logits of all rows of the batch with the weights as they are now, float32 (n, K)."""
        with torch.no_grad():
            if self.short:
                stored = self._stored()
                each = max(1, (1 << 24) // math.prod(self.shape))
                return torch.cat([self(part).float().cpu() for part in stored.split(each)])
            with batches(self.network, self.batch.data.all) as (network, loop):
                found = torch.cat([call(network, images, group).float().cpu() for images, _, group in loop])
        return found if self.batch.rows is None else found[torch.from_numpy(self.batch.rows)]

    def steps(
        self, *, epochs: int, lr: float, batch_size: int | None, balanced: bool, name: str
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches (logits, target, group); after each, a step along the gradients that the caller left.

        AdamW with a one-cycle learning rate, gradients clipped to a norm of 1. The rate of each parameter is `lr` times its
        root mean square, so that the same `lr` suits features of any scale: a classifier of small features has large weights.

        Parameters
        ----------
        epochs : int, passes of as many rows as the batch has
        lr : float, the peak of the schedule, relative to the size of each parameter
        batch_size : int, or None for the loader's own
        balanced : bool, draw every group x class cell equally often; else every row once an epoch
        name : str, before the progress bar

        Raises
        ------
        ValueError : an option that is not as above.
        FloatingPointError : a gradient is NaN or infinite.
        """
        check_whole(epochs, "epochs")
        check_options(lr, batch_size, None)
        rng = np.random.default_rng(self.batch.seed)
        size = min(batch_size or self.batch.data.batch_size, len(self.batch))
        rates = [lr * max(p.detach().square().mean().sqrt().item(), SMALLEST) for p in self.parameters]
        each = [{"params": [p], "lr": rate} for p, rate in zip(self.parameters, rates, strict=True)]
        optimizer = torch.optim.AdamW(each, weight_decay=WEIGHT_DECAY, fused=True)
        total = epochs * -(-len(self.batch) // size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=total)
        with tqdm(total=total, desc=name, unit="batch", leave=False) as bar:
            for _ in range(epochs):
                rows = drawn(cell_weights(self.batch), rng) if balanced else rng.permutation(len(self.batch))
                for given, target, group in self._drawn(rows, size, rng):
                    optimizer.zero_grad(set_to_none=True)
                    yield self(given), target.to(self.device), group.to(self.device)
                    norm = nn.utils.clip_grad_norm_(self.parameters, LARGEST_NORM).item()
                    if not math.isfinite(norm):
                        raise FloatingPointError(f"a gradient became {norm}; a smaller lr than {lr:g} may help")
                    optimizer.step()
                    schedule.step()
                    bar.update()

    def _drawn(self, rows: np.ndarray, size: int, rng: np.random.Generator):
        """Batches (features or images, target, group) of some rows in random order."""
        if not self.short:
            for part in self.batch.take(rows).loader(seed=int(rng.integers(2**31)), batch_size=size):
                yield triple(part)
            return
        y, group = torch.from_numpy(self.batch.y), torch.from_numpy(self.batch.group)
        for part in torch.from_numpy(rows).split(size):
            yield self._stored()[part], y[part], group[part]


def tail_of(model: nn.Module, batch: Batch, parts: int) -> Tail:
    """The shortest tail that runs on stored features and holds the last `parts` modules with parameters.

    What runs first of all stays as it is, however many parts are asked for. Where no layer among the `CUTS` before
    them cuts the model in two, the whole of it is run on images.

    Raises
    ------
    ValueError : `parts` is below 1, or the model is a single layer.
    """
    check_whole(parts, "n_layers")
    order = flow(model, batch.example) + [""] * (batch.last == "")
    modules = dict(model.named_modules())
    places = [i for i, name in enumerate(order) if i and any(True for _ in modules[name].parameters(recurse=False))]
    if not places:
        raise ValueError("model: no layer with parameters runs after another one, so there is nothing to change")
    asked = min(parts, len(places))
    for start in places[len(places) - asked :: -1]:  # further to the front where a block used its parameters before its parts
        tail = cut_before(model, batch, order, start)
        if len(tail.parts) >= asked:
            break
    return tail


def cut_before(model: nn.Module, batch: Batch, order: list[str], start: int) -> Tail:
    """The shortest tail on stored features with all that finishes from `order[start]` on; else the shortest on images."""
    first = None
    cuts = order[max(0, start - CUTS) : start][::-1]
    if batch.intake and batch.layer in cuts[1:]:  # what the classifier takes is less than what a block around the layer puts out
        tail = Tail(model, batch, batch.layer)
        if tail.short and len(tail.parts) == 1:
            return tail
    for layer in cuts:
        tail = Tail(model, batch, layer)
        if tail.short:
            return tail
        first = first or tail
    return first


def divided(model: nn.Module, layer: str, example: Tensor) -> tuple[list[str], dict[str, nn.Module]]:
    """The outermost modules that finish before a layer, and those that finish after it and have parameters of their own.

    Raises
    ------
    ValueError : the layer does not run.
    """
    order = flow(model, example)
    if layer not in order:
        raise ValueError(f"layer: {layer!r} does not run inside the model; the layers that run: {', '.join(order)}")
    early = order[: order.index(layer) + 1]
    inside = [name for name in early if name.startswith(f"{layer}.")]
    front = [name for name in early if name != layer and name not in inside]
    outer = [name for name in front if not any(name.startswith(f"{other}.") for other in front)]
    modules = dict(model.named_modules())
    fixed = {id(p) for name in early for p in modules[name].parameters()}
    parts = {}
    for name in [*order[len(early) :], ""]:
        own = {id(p) for p in modules[name].parameters(recurse=False)}
        if own and not own & fixed:
            parts[name] = modules[name]
    return outer, parts


def shared(model: nn.Module) -> nn.Module:
    """A copy of a model's structure that holds the very same parameters and buffers."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another, wherever that is registered."""
    old = model.get_submodule(name)
    for place in [place for place, found in model.named_modules(remove_duplicate=False) if found is old]:
        parent, _, child = place.rpartition(".")
        setattr(model.get_submodule(parent), child, module)
