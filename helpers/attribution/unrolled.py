"""A model as the steps that it runs: a module for each function that a rule of attribution has to catch.

DeepLift, guided backpropagation and LRP change how single functions pass a gradient back. Their libraries do so by hooks
on modules, and are silently wrong where a ReLU is a function, works in place or is one module called twice. Here the calls
are caught where PyTorch makes them, so it does not matter how the model was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

SAME = {"iadd": "add", "radd": "add", "isub": "sub", "imul": "mul", "rmul": "mul", "true_divide": "div", "truediv": "div"}
SAME |= {"idiv": "div", "itruediv": "div", "divide": "div", "multiply": "mul", "subtract": "sub", "negative": "neg"}
SAME |= {"rmatmul": "matmul", "mm": "matmul", "bmm": "matmul"}
# functions whose derivative needs no rule; where one is missing, they are not the reason
LINEAR = set(
    "conv2d linear batch_norm add sub flatten view reshape avg_pool2d adaptive_avg_pool2d to mean sum cat stack permute "
    "transpose dropout clone contiguous getitem neg pad copy".split()
)


@dataclass(frozen=True)
class Step:
    """One call that is to be run by a module: what goes in, and how to make the module."""

    input: Tensor
    make: Callable[[], nn.Module]


Spell = Callable[[str, Callable, tuple, dict], Step | None]


def arguments(names: str, args: tuple, kwargs: dict, **defaults: Any) -> dict[str, Any]:
    """The arguments of a call by name; `names` are those of the positional ones, in order."""
    return defaults | dict(zip(names.split(), args, strict=False)) | kwargs


def depends(value: Any) -> bool:
    """Whether a value depends on the image: the weights are frozen, so only such tensors require a gradient."""
    return isinstance(value, Tensor) and value.requires_grad


def name_of(function: Callable) -> str:
    """One name for a function, its method, its operator and its in-place form: "add" for torch.add, `+` and `+=`."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":  # of a property, such as x.T
        return getattr(function.__self__, "__name__", name)
    name = name.strip("_")
    return SAME.get(name, name)


def in_place(function: Callable, args: tuple, kwargs: dict) -> bool:
    name = getattr(function, "__name__", "")
    operator = name in ("__iadd__", "__isub__", "__imul__", "__idiv__", "__itruediv__")
    return operator or kwargs.get("inplace") is True or (name.endswith("_") and not name.endswith("__"))


class Caught(TorchFunctionMode):
    """Inside the block, each call for which `spell` has a step is run by the module that `take` gives for it."""

    def __init__(self, spell: Spell, take: Callable[[str, Step], nn.Module]):
        super().__init__()
        self.spell, self.take = spell, take

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():  # inside of an autograd.Function, say, whose derivative is its own
            return func(*args, **kwargs)
        name = name_of(func)
        step = self.spell(name, func, args, kwargs)
        if step is None:
            return self.note(name, args, kwargs, func(*args, **kwargs))
        if not in_place(func, args, kwargs):
            # a tensor of its own: hooks on one that is also the output of a step would run in the wrong order
            own = step.input.view_as(step.input)
            return self.note(name, args, kwargs, self.take(name, step)(own), step)
        output = self.take(name, step)(step.input.clone())
        return self.note(name, args, kwargs, args[0].copy_(output), step)  # others may hold this very tensor

    def note(self, name: str, args: tuple, kwargs: dict, output: Any, step: Step | None = None) -> Any:
        return output


class Recorder(Caught):
    """The same, with a new module at each step, and a memory of which step made which tensor."""

    def __init__(self, spell: Spell, example: Tensor):
        super().__init__(spell, self.add)
        self.names: list[str] = []
        self.modules: list[nn.Module] = []
        self.native: set[str] = set()
        self.unseen = False
        self.makers: dict[int, int | None] = {id(example): None}
        self.uses: Counter[int] = Counter()
        self.pairs: list[tuple[int, int, int]] = []
        self.kept: list[Any] = [example]  # so that no id is used twice

    def add(self, name: str, step: Step) -> nn.Module:
        module = step.make().eval().requires_grad_(False)
        maker = self.makers.get(id(step.input))
        if maker is not None:
            self.pairs.append((maker, len(self.modules), id(step.input)))
        self.names.append(name)
        self.modules.append(module)
        return module

    def note(self, name, args, kwargs, output, step=None):
        made = [leaf for leaf in tree_leaves(output) if depends(leaf)]
        if not made:
            return output
        for leaf in tree_leaves((args, kwargs)):
            if depends(leaf):
                self.unseen |= id(leaf) not in self.makers
                self.uses[id(leaf)] += 1
        if step is None:
            self.native.add(name)
        for leaf in made:
            if step is not None or id(leaf) not in self.makers:
                self.makers[id(leaf)] = None if step is None else len(self.modules) - 1
            self.kept.append(leaf)
        return output


class Unrolled(nn.Module):
    """A model whose caught calls are run by modules of its own; it computes what the model computes.

    Calls are caught where a gradient is wanted of the images; without one the model runs as it is.

    The model itself is no submodule, so hooks that a library puts on all parts never reach it.

    Parameters
    ----------
    model : nn.Module, its parameters frozen
    example : float (1, C, H, W); one pass over it finds the steps
    spell : function of a call, `(name, function, args, kwargs)`, that gives its `Step`, or None to let it run as it is

    Attributes
    ----------
    steps : ModuleList, in the order of the run; a module or function called twice has two
    names : list of str, the function at each step
    native : set of str, functions on the way from image to output that ran as they are
    unseen : bool, whether something on that way ran where PyTorch does not show it (TorchScript, `autograd.Function`)
    output : tensor, what the latest pass gave
    feeds : list of (i, j): all that step j takes is what step i gives, and nothing else takes it
    """

    def __init__(self, model: nn.Module, example: Tensor, spell: Spell):
        super().__init__()
        example = example.detach().clone().requires_grad_()
        self.spell, self.hidden = spell, (model,)
        with torch.enable_grad(), Recorder(spell, example) as recorder:
            output = model(example)
        self.steps = nn.ModuleList(recorder.modules)
        self.names, self.native = recorder.names, recorder.native
        self.unseen = recorder.unseen or id(output) not in recorder.makers
        self.feeds = [(i, j) for i, j, tensor in recorder.pairs if recorder.uses[tensor] == 1]

    def forward(self, images: Tensor) -> Tensor:
        left = iter(zip(self.names, self.steps, strict=True))

        def take(name: str, step: Step) -> nn.Module:
            expected, module = next(left, (None, None))
            if name != expected:
                raise ValueError(
                    f"model: it runs {name} where it ran {expected or 'nothing more'} for another image; a model that decides by "
                    "its input which layers to run is accepted by method='integrated_gradients'"
                )
            return module

        with Caught(self.spell, take):
            output = self.hidden[0](images)
        self.output = output.detach()
        return output
