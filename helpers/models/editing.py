"""Changing what a model computes by putting a module after one of its layers."""

from __future__ import annotations

import copy

import torch
from torch import nn

from helpers.names import choose

EDITS: dict[str, type[nn.Module]] = {}
DESCRIPTION = ("architecture", "classes", "info", "history")


def edit(cls: type[nn.Module]) -> type[nn.Module]:
    """Register a module class as an edit, so that a saved model that holds one can be built again.

    The class keeps all that it learned in buffers, and has `config()`, the json-able keyword arguments
    with which its constructor makes buffers of the right shapes.

    Raises
    ------
    TypeError : the class has no `config` method.
    ValueError : another class of that name is registered.
    """
    if not callable(getattr(cls, "config", None)):
        raise TypeError(f"cls: {cls.__name__} has no config() method, so it could not be built again from a file")
    known = EDITS.get(cls.__name__)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"cls: an edit named {cls.__name__!r} is registered already, by {known.__module__}")
    EDITS[cls.__name__] = cls
    return cls


class Edited(nn.Module):
    """A layer and the edit that follows it: `edit(layer(x))`.

    Parameters
    ----------
    layer : nn.Module, the layer as it was (a whole model, for an edit of its logits)
    edit : nn.Module, called with the layer's output; with `group=` too if it has `needs_group = True`.
        Setting `edit.enabled = False` switches it off until it is set to True again.

    A model that needs the group takes it as `model(images, group=codes)` or `model(images, codes)`.
    """

    def __init__(self, layer: nn.Module, edit: nn.Module):
        super().__init__()
        self.layer, self.edit = layer, edit
        self.needs_group = bool(getattr(layer, "needs_group", False) or getattr(edit, "needs_group", False))
        self.opaque = bool(getattr(layer, "opaque", False))
        for key in DESCRIPTION:  # an edit of the logits wraps the whole model, whose classes a caller still asks for
            if hasattr(layer, key):
                setattr(self, key, getattr(layer, key))

    def forward(self, *args, **kwargs):
        if self.needs_group and len(args) == 2:  # model(images, codes)
            args, kwargs = args[:1], {**kwargs, "group": args[1]}
        group = kwargs.get("group")
        if not getattr(self.layer, "needs_group", False):
            kwargs.pop("group", None)
        output = self.layer(*args, **kwargs)
        if not getattr(self.edit, "enabled", True):
            return output
        return self.edit(output, group=group) if getattr(self.edit, "needs_group", False) else self.edit(output)


def append_after(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """A deep copy of `model` in which `module` follows the layer `name`; `model` itself is left as it was.

    Parameters
    ----------
    model : nn.Module
    name : str, a name of `model.named_modules()`; "" is the whole model, so `module` receives the logits
    module : nn.Module, used as it is (not copied) and moved to the layer's device

    Returns
    -------
    nn.Module; the layer is found at `name` + ".layer" and the edit at `name` + ".edit".

    Raises
    ------
    ValueError : no layer has that name (the nearest is named), or an edit that needs the group is put after a
        layer inside the model, where no group arrives.
    """
    if name != "":
        name = choose(name, [known for known, _ in model.named_modules() if known], "name")
        if getattr(module, "needs_group", False):
            raise ValueError(
                f'name: {type(module).__name__} needs the group, which only name="" (the logits) gets; got {name!r}'
            )
    edited = copy.deepcopy(model)
    layer = edited.get_submodule(name)
    tensor = next((t for part in (layer, edited) for t in (*part.parameters(), *part.buffers())), None)
    wrapped = Edited(layer, module if tensor is None else module.to(tensor.device))
    wrapped.train(layer.training)
    if name == "":
        return wrapped
    # A layer registered under two names runs under both, so it is replaced under both.
    places = [place for place, found in edited.named_modules(remove_duplicate=False) if found is layer]
    for place in places:
        parent, _, child = place.rpartition(".")
        setattr(edited.get_submodule(parent), child, wrapped)
    return edited


def edits(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The edits in a model, as (layer name in the unedited model, edit), inner ones first.

    Appending them in this order to the unedited model gives the edited one again.
    """
    found, seen = [], set()

    def walk(module: nn.Module, name: str) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        if isinstance(module, Edited):
            walk(module.layer, name)
            found.append((name, module.edit))
            return
        for child, part in module.named_children():
            walk(part, f"{name}.{child}" if name else child)

    walk(model, "")
    return found


def unedited(model: nn.Module) -> nn.Module:
    """A deep copy of `model` without its edits."""
    base = copy.deepcopy(model)
    while isinstance(base, Edited):
        base = base.layer
    for module in list(base.modules()):
        for child, part in list(module._modules.items()):
            while isinstance(part, Edited):
                part = part.layer
            module._modules[child] = part
    return base


def on_features(x: torch.Tensor, features: int, function) -> torch.Tensor:
    """Apply a function of rows (M, features) to the output of a layer, whatever its shape.

    `x` is (N, d), tokens (N, T, d), or a map (N, C, H, W). A map with C = d is treated at every position
    on its own; a map with C·H·W = d as one long row.

    Raises
    ------
    ValueError : no axis of `x` fits `features` (the shape is named).
    """
    if x.dim() == 4 and x.shape[1] == features:
        return function(x.movedim(1, -1)).movedim(-1, 1)
    if x.dim() == 4 and x[0].numel() == features:
        return function(x.flatten(1)).reshape(x.shape)
    if x.dim() in (2, 3) and x.shape[-1] == features:
        return function(x)
    raise ValueError(
        f"x: shape {tuple(x.shape)} does not fit an edit of {features} features; "
        f"accepted (N, {features}), (N, T, {features}), (N, {features}, H, W) or C·H·W = {features}"
    )
