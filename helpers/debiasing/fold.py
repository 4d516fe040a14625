"""Folding an affine edit into the weights beside it, so that nothing of it remains but numbers."""

from __future__ import annotations

import copy
from types import MethodType

import torch
from torch import Tensor, nn

from helpers.models.affine import Affine, LowRank
from helpers.models.layers import Edited, flow
from helpers.models.running import call, device_of, evaluating

AFFINE = (Affine, LowRank)
# In evaluation mode these change no value, or take means of what an edit treats alike.
PASSED_THROUGH = (nn.Flatten, nn.Identity, nn.Dropout, nn.AdaptiveAvgPool2d)


def fold(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """A copy of `model` whose affine edits are merged into neighbouring `nn.Linear` layers.

    With the edit x -> A x + c, a Linear (W, b) that takes its output becomes (W A, W c + b), and a Linear that it
    follows becomes (A W, A b + c). Edits that are not affine, or that are switched off, stay as they are.

    Parameters
    ----------
    model : nn.Module with edits, in evaluation mode
    example : float tensor (n, 3, H, W): images by which the layer that follows is found and the result is checked.
        Not needed for a model from `debias`, whose method `model.fold()` knows that layer, nor for edits that
        follow a Linear.

    Returns
    -------
    nn.Module with the same outputs up to rounding and without those edits.

    Raises
    ------
    ValueError : there is nothing to fold; no Linear stands next to an edit; `example` is needed; or the outputs
        on `example` change, as they do if a function without a module stands between edit and Linear.
    """
    into = dict(getattr(model, "folds_into", {}))
    folded = copy.deepcopy(model)
    for name in ("fold", "folds_into"):
        folded.__dict__.pop(name, None)
    if not affine_places(folded):
        raise ValueError("model: no affine edit that is switched on, so there is nothing to fold")
    while places := affine_places(folded):  # of two edits at a layer the outer one comes first, and leaves the inner
        folded = merge(folded, places[0], follower(folded, places[0], into, example))
    if example is not None:
        check_equal(model, folded, example)
    return folded


def affine_places(model: nn.Module) -> list[str]:
    """Names of the layers with an affine edit that is switched on, outer ones first."""
    edited = [(name, module.edit) for name, module in model.named_modules() if isinstance(module, Edited)]
    return [name for name, edit in edited if isinstance(edit, AFFINE) and edit.enabled]


def follower(model: nn.Module, place: str, into: dict[str, str], example: Tensor | None) -> nn.Module:
    """The Linear that takes the output of the edited layer at `place`, or the Linear that is edited.

    By `into` also a module that uses its own parameters `weight` and `bias` as a Linear does.
    """
    edited = model.get_submodule(place)
    if isinstance(edited.layer, nn.Linear):
        return edited.layer
    if place in into:
        return bare(bare(model).get_submodule(into[place]))
    if place == "":
        raise ValueError(f"model: the logits of {type(edited.layer).__name__} are edited; only a Linear can take that in")
    if example is None:
        raise ValueError(f"example: images are needed to find the layer that follows {place!r}")
    order = flow(model, example[:1])
    for name in order[order.index(place) + 1 :]:
        layer = model.get_submodule(name)
        if isinstance(layer, nn.Linear):
            return layer
        inside = place.startswith(f"{name}.") or any(True for _ in layer.children())  # blocks finish after their parts
        if not (inside or isinstance(layer, PASSED_THROUGH)):
            raise ValueError(
                f"model: {name!r} ({type(layer).__name__}) follows the edit at {place!r}; only a Linear can take it in"
            )
    raise ValueError(f"model: no Linear follows the edit at {place!r}")


def bare(module: nn.Module) -> nn.Module:
    """A layer without the edits that follow it."""
    while isinstance(module, Edited):
        module = module.layer
    return module


@torch.no_grad()
def merge(model: nn.Module, place: str, linear: nn.Module) -> nn.Module:
    """`model` itself, with the affine edit at `place` put into `linear` and the plain layer back in its place."""
    edited = model.get_submodule(place)
    edit = copy.deepcopy(edited.edit).double().cpu()
    shift = edit(torch.zeros(1, edit.features, dtype=torch.float64))[0]
    matrix = (edit(torch.eye(edit.features, dtype=torch.float64)) - shift).T  # column j is the image of unit vector j
    weight = linear.weight.double().cpu()
    bias = linear.bias.double().cpu() if linear.bias is not None else weight.new_zeros(len(weight))
    if edited.layer is linear:
        weight, bias = matrix @ weight, matrix @ bias + shift
    elif edit.features == weight.shape[1]:
        weight, bias = weight @ matrix, weight @ shift + bias
    else:
        raise ValueError(
            f"model: the edit at {place!r} has {edit.features} features, the Linear takes {weight.shape[1]}"
        )
    linear.weight.copy_(weight)
    if linear.bias is None:
        linear.bias = nn.Parameter(torch.zeros_like(linear.weight[:, 0]))
    linear.bias.copy_(bias)
    if place == "":
        return edited.layer
    parent, _, child = place.rpartition(".")
    setattr(model.get_submodule(parent), child, edited.layer)
    return model


def check_equal(before: nn.Module, after: nn.Module, example: Tensor) -> None:
    """ValueError unless both models give the same outputs on `example`, up to rounding."""
    example = example.to(device_of(before))
    with evaluating(before), evaluating(after), torch.inference_mode():
        one, other = call(before, example), call(after, example)
    if not torch.allclose(one, other, rtol=1e-4, atol=1e-4 * max(1.0, one.abs().max().item())):
        raise ValueError(
            f"model: folding changes the outputs by up to {(one - other).abs().max():.3g}; "
            "a function without a module stands between the edit and the next Linear"
        )


def make_foldable(model: nn.Module, layer: str, linear: str) -> None:
    """Give `model` a method `fold()` that merges edits at `layer`, and of `linear` itself, into the Linear named `linear`.

    A bound method and a dict of names, so that a deep copy folds itself and not the model it was copied from.
    """
    model.folds_into = {layer: linear, linear: linear}
    model.fold = MethodType(fold, model)
