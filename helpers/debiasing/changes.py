"""What a method changed in a model, and where."""

from __future__ import annotations

import torch
from torch import nn

from helpers.models.layers import Edited, edits


def changes(before: nn.Module, after: nn.Module) -> tuple[tuple[str, nn.Module], ...]:
    """The edits that `after` has beyond `before`, and the layers whose own parameters differ.

    Parameters
    ----------
    before, after : nn.Module; `after` is an edited or retrained copy of `before`

    Returns
    -------
    Pairs (layer name in the unedited model, module): the edit itself, or the layer with its new weights.
    """
    present = [id_of(name, edit) for name, edit in edits(before)]
    added = []
    for name, edit in edits(after):
        if (key := id_of(name, edit)) in present:
            present.remove(key)
        else:
            added.append((name, edit))
    old = layers_by_base_name(before)
    retrained = [(name, layer) for name, layer in layers_by_base_name(after).items() if not same(old.get(name), layer)]
    return (*retrained, *added)


def id_of(name: str, edit: nn.Module) -> tuple:
    """What two copies of one edit have in common: place, class and values."""
    return name, type(edit).__name__, tuple((k, v.double().sum().item()) for k, v in edit.state_dict().items())


def layers_by_base_name(model: nn.Module) -> dict[str, nn.Module]:
    """Layers with parameters of their own, under the names that they have without edits; edits are left out."""
    wrappers = {name for name, module in model.named_modules() if isinstance(module, Edited)}
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Edited) or not any(True for _ in module.parameters(recurse=False)):
            continue
        kept, prefix = [], ""
        for part in name.split("."):
            if prefix not in wrappers:
                kept.append(part)
            elif part == "edit":
                break
            prefix = f"{prefix}.{part}" if prefix else part
        else:
            found[".".join(kept)] = module
    return found


def same(one: nn.Module | None, other: nn.Module) -> bool:
    """Whether two layers have equal parameters of their own."""
    if one is None:
        return False
    pairs = zip(one.parameters(recurse=False), other.parameters(recurse=False), strict=True)
    return all(torch.equal(a.detach().cpu(), b.detach().cpu()) for a, b in pairs)
