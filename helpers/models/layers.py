"""Finding a model's layers by how data flows through them, and looking at what they put out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from tqdm.auto import tqdm

from helpers.crew import crew_of
from helpers.models.data_in import batches, loader_of
from helpers.models.editing import EDITS, Edited, append_after, edit, edits, unedited
from helpers.models.intake import intake_of, is_vector, take
from helpers.models.running import call, device_of, evaluating, untouched_random_state
from helpers.names import choose

__all__ = [
    "EDITS",
    "Edited",
    "Features",
    "append_after",
    "capture",
    "edit",
    "edits",
    "features",
    "find",
    "flow",
    "unedited",
]


@contextmanager
def _watched(model: nn.Module, names, look) -> Iterator[None]:
    """Inside the block `look(name, args, output)` runs after each forward pass of each named layer."""
    layers = dict(model.named_modules())
    with ExitStack() as stack:
        for name in names:
            if name not in layers:
                choose(name, filter(None, layers), "names")
            hook = layers[name].register_forward_hook(lambda module, args, output, name=name: look(name, args, output))
            stack.callback(hook.remove)
        yield


@contextmanager
def capture(model: nn.Module, *names: str) -> Iterator[dict[str, Tensor]]:
    """Inside the block, the dict yielded fills with each named layer's output, detached and copied.

    Parameters
    ----------
    model : nn.Module
    *names : str, names of `model.named_modules()`; "" is the model's own output

    Yields
    ------
    dict name -> output of the latest forward pass (a later pass, or a second use of a layer, overwrites it)

    Raises
    ------
    ValueError : no layer has that name (the nearest is named). No hook stays behind, whatever is raised.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name, args, output):
        # A copy: an in-place ReLU after the layer would otherwise rewrite what was captured.
        outputs[name] = tree_map(lambda part: part.detach().clone() if isinstance(part, Tensor) else part, output)

    with _watched(model, names, keep):
        yield outputs


def flow(model: nn.Module, example: Tensor) -> list[str]:
    """Names of the layers that run on `example`, in the order in which they finish (a block after its parts).

    Parameters
    ----------
    model : nn.Module
    example : float tensor (N, 3, H, W)

    Returns
    -------
    list of names of `model.named_modules()`, without "", each once (at its first use). Layers that are
    registered but not run are missing.
    """
    order: dict[str, None] = {}
    names = [name for name, _ in model.named_modules() if name]
    with evaluating(model), torch.no_grad(), untouched_random_state():
        with _watched(model, names, lambda name, args, output: order.setdefault(name)):
            call(model, example.to(device_of(model)))
    return list(order)


def find(model: nn.Module, layer: str | nn.Module, example: Tensor | None = None) -> str:
    """The name of a layer that is given by its role, its name, or itself.

    The roles follow the graph that autograd records on `example`, not the order of registration: `"last"` is
    the layer with a weight matrix that is nearest to the logits (the classifier), `"penultimate"` the layer
    whose output feeds it (in a torchvision ResNet the average pooling). Functions without a layer, such as
    `torch.flatten` or `F.relu`, are passed through. Where the classifier is a function of a weight that
    the model itself holds, "last" is "".

    Parameters
    ----------
    model : nn.Module; frozen weights and any mode are fine, and stay so
    layer : "last", "penultimate", a name of `model.named_modules()`, or one of the model's modules
    example : float tensor (N, 3, H, W), N = 1 is enough; only the roles need it

    Returns
    -------
    str, a name of `model.named_modules()`

    Raises
    ------
    ValueError : no such layer; a role without `example`; logits that no gradient connects to a weight; a
        classifier that several layers feed (they are named, choose one).
    """
    if isinstance(layer, nn.Module):
        names = [name for name, module in model.named_modules() if module is layer]
        if not names:
            raise ValueError(f"layer: the {type(layer).__name__} given is not a part of the model")
        return names[0]
    if layer not in ("last", "penultimate"):
        return (
            layer
            if layer == ""
            else choose(layer, ["last", "penultimate", *filter(None, dict(model.named_modules()))], "layer")
        )
    if example is None:
        raise ValueError(f"example: finding the layer {layer!r} needs an image tensor (1, 3, H, W) to follow")
    if isinstance(model, Edited):  # an edit of the logits need not be differentiable
        inner = find(model.layer, layer, example)
        return f"layer.{inner}" if inner else "layer"
    return _find_role(model, layer, example)


def _find_role(model: nn.Module, role: str, example: Tensor) -> str:
    # Stand-ins that want a gradient make frozen weights show in the graph without touching the model.
    stand_ins = {name: p.detach().requires_grad_(p.is_floating_point()) for name, p in model.named_parameters()}
    owners = {id(tensor): name for name, tensor in stand_ins.items()}
    image = example[:1].detach().to(device_of(model)).clone().requires_grad_(True)
    ends: list[tuple[str, object]] = []  # (layer, node of the graph that made its output), in order of execution

    def note(name, args, output):
        ends.extend(
            (name, part.grad_fn)
            for part in tree_leaves(output)
            if isinstance(part, Tensor) and part.grad_fn is not None
        )

    names = [name for name, _ in model.named_modules() if name]
    kwargs = (
        {"group": torch.zeros(1, dtype=torch.int64, device=image.device)}
        if getattr(model, "needs_group", False)
        else {}
    )
    with evaluating(model), torch.enable_grad(), untouched_random_state(), _watched(model, names, note):
        output = torch.func.functional_call(model, stand_ins, (image,), kwargs)
    logits = next(part for part in tree_leaves(output) if isinstance(part, Tensor))

    head, weights = _nearest_weighted(logits.grad_fn, image, owners)
    if head is None:
        raise ValueError(
            f"layer: no gradient connects the logits to a weight, so {role!r} cannot be found; give the layer's name"
        )
    if role == "last":
        return _executed_owner(weights, owners, {name for name, _ in ends})
    feeding = _layers_before(head, image, ends)
    if not feeding:
        raise ValueError("layer: nothing but the image feeds the classifier, so there is no 'penultimate' layer")
    chosen = {_one_name(model, names) for names in feeding}
    if len(chosen) > 1:
        raise ValueError(f"layer: several layers feed the classifier ({', '.join(sorted(chosen))}); name one of them")
    return chosen.pop()


def _children(node) -> list:
    return [child for child, _ in node.next_functions if child is not None]


def _leaves(node) -> list[Tensor]:
    """The tensors at the ends of the graph above `node`."""
    stack, seen, leaves = [node], {node}, []
    while stack:
        current = stack.pop()
        if hasattr(current, "variable"):
            leaves.append(current.variable)
        fresh = [child for child in _children(current) if child not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return leaves


def _nearest_weighted(start, image: Tensor, owners: dict[int, str]):
    """Breadth-first from the logits: the first operation with a weight of two or more axes; its weights."""
    fallback = (None, [])
    queue, seen = [start] if start is not None else [], {start}
    while queue:
        node = queue.pop(0)
        weights, onward = [], []
        for child in _children(node):
            leaves = _leaves(child)
            if any(leaf is image for leaf in leaves):
                onward.append(child)
            else:
                weights += [leaf for leaf in leaves if id(leaf) in owners]
        if any(weight.dim() >= 2 for weight in weights):
            return node, weights
        if weights and fallback[0] is None:  # a scale or a bias: only if there is no matrix at all
            fallback = (node, weights)
        queue += [child for child in onward if child not in seen]
        seen.update(onward)
    return fallback


def _executed_owner(weights: list[Tensor], owners: dict[int, str], executed: set[str]) -> str:
    weight = max(weights, key=lambda tensor: tensor.dim())
    name = owners[id(weight)].rpartition(".")[0].split(".parametrizations")[0]
    while name and name not in executed:  # attention reads the weights of a layer that it never calls
        name = name.rpartition(".")[0]
    return name


def _layers_before(head, image: Tensor, ends) -> list[list[str]]:
    """For each path from `head` towards the image: the names of the layers whose output is met first."""
    made: dict[object, list[str]] = {}
    for name, node in ends:
        made.setdefault(node, []).append(name)
    queue, seen, found = [head], {head}, []
    while queue:
        for child in _children(queue.pop(0)):
            if child in seen or not any(leaf is image for leaf in _leaves(child)):
                continue
            seen.add(child)
            if child in made:
                found.append(made[child])
            else:
                queue.append(child)
    return found


def _one_name(model: nn.Module, names: list[str]) -> str:
    """Of layers that put out one and the same tensor: the edited layer whole, else the innermost, latest."""
    edited = [name for name in names if isinstance(model.get_submodule(name), Edited)]
    outside = [name for name in names if not any(name.startswith(f"{outer}.") for outer in edited)]
    innermost = [name for name in outside if not any(other.startswith(f"{name}.") for other in outside)]
    return innermost[-1]


def find_intake(model: nn.Module, layer: str, images: Tensor, group: Tensor) -> str:
    """What the classifier takes of the output of the penultimate layer: a name of `intake.INTAKES`, or "" for something else.

    Parameters
    ----------
    model : nn.Module in evaluation mode
    layer : str, name of the penultimate layer
    images, group : a few images (n, 3, H, W), and their groups (n,)
    """
    last = find(model, "last", images[:1])
    inputs, outputs = {}, {}

    def note(name, args, output):
        inputs[name], outputs[name] = args, output

    with torch.no_grad(), _watched(model, (layer, last), note):
        logits = call(model, images, group)
    taken = inputs[last][0] if last and inputs[last] else None
    return intake_of(outputs[layer], taken, model.get_submodule(last), logits)


@dataclass(frozen=True)
class Features:
    """What one pass over the data showed at one layer.

    Attributes
    ----------
    features : float32 (N, d); (N, C, H, W) at a layer with a map of more than one position, (N, T, d) at one with tokens
    y : int64 (N,), targets
    group : int64 (N,)
    logits : float32 (N, K)
    layer : str, the name that the role was resolved to
    intake : str, what the features are of the layer's output, "" for all of it; see `features`
    """

    features: np.ndarray
    y: np.ndarray
    group: np.ndarray
    logits: np.ndarray
    layer: str = ""
    intake: str = ""


def features(
    model: nn.Module,
    data,
    layer: str | nn.Module = "penultimate",
    *,
    device=None,
    batch_size: int = 256,
    progress: bool = False,
) -> Features:
    """The output of one layer for every image, with the logits, in one pass over the data.

    At "penultimate" the features are what the classifier takes: where a function without a module stands between, the first
    token of (N, T, d), as in a vision transformer, or the mean over positions or tokens. An edit that treats
    all of these alike, put after the layer, acts on the features as it would right before the classifier.

    Parameters
    ----------
    model : nn.Module; its mode is left as it was
    data : FaceDataset, or a loader of (image, target, group) batches
    layer : see `find`
    device : str or torch.device, the model's own by default; or a launched Lightning `Fabric`, as in `predict`
    batch_size : int, images a pass (a loader keeps its own)
    progress : bool, show a bar

    Returns
    -------
    Features, in the order of the data

    Raises
    ------
    ValueError : bad data (see `data_in.batches`), no such layer, or a layer that does not run.
    """
    rows, name, intake = [], None, ""
    crew = crew_of(device_of(model) if device is None else device)
    with batches(model, data, device=crew, batch_size=batch_size) as (model, loop):
        total = len(loader_of(data, batch_size))
        for images, target, group in tqdm(loop, "features", total=total, unit="batch", leave=False, disable=not progress):
            if name is None:
                name = find(model, layer, images[:1])
            with capture(model, name) as seen, torch.inference_mode():
                logits = call(model, images, group)
            if not isinstance(seen.get(name), Tensor):
                raise ValueError(
                    f"layer: {name!r} puts out no tensor; layers that run: {', '.join(flow(model, images[:1]))}"
                )
            if not rows and layer == "penultimate" and not is_vector(seen[name]):
                intake = find_intake(model, name, images[:2], group[:2])
            output, logits, target, group = crew.whole(take(seen[name], intake), logits, target, group)
            rows.append(
                [part.float().cpu().contiguous().numpy() for part in (output, logits)]
                + [part.cpu().numpy() for part in (target, group)]
            )
    output, logits, y, group = (np.concatenate(column) for column in zip(*rows, strict=True))
    return Features(output, y, group, logits, name, intake)
