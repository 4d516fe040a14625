"""A model and the process around it are found again as they were left, error or not."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers.attribution import attribute, curve, evaluate, random_maps
from helpers.attribution.method import METHODS

HERE = [key for key in METHODS if key[1] in ("torch", "captum")]
QUICK = {"integrated_gradients": {"steps": 5}, "smoothgrad": {"samples": 4}, "rise": {"samples": 8}}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def trace(model):
    """All that a call could change, in comparable form."""
    modules = [
        (name, module.training, [list(getattr(module, hooks)) for hooks in HOOKS])
        for name, module in model.named_modules()
    ]
    tensors = [(t.data_ptr(), t.requires_grad, t.grad, t.stride(), t.device) for t in model.parameters()]
    buffers = [(name, id(b), b.clone().tolist()) for name, b in model.named_buffers()]
    state = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    return modules, tensors, buffers, state, torch.is_grad_enabled()


@pytest.fixture
def lived_in(cnn):
    """A model half frozen, half in evaluation mode, with a hook of its owner's."""
    cnn[0].weight.requires_grad_(False)
    cnn[1].eval()
    cnn[2].register_forward_hook(lambda module, args, output: None)
    return cnn


@pytest.mark.parametrize("name, backend", HERE)
def test_a_call_leaves_no_trace(lived_in, images, name, backend):
    before, pixels = trace(lived_in), images.clone()
    attribute(lived_in, images, None, name, backend, **QUICK.get(name, {}))
    assert trace(lived_in) == before
    assert torch.equal(images, pixels) and not images.requires_grad


@pytest.mark.parametrize("name, backend", HERE)
@pytest.mark.parametrize("good_passes", [2, 4, 5])
def test_an_error_in_the_middle_leaves_no_trace(lived_in, images, name, backend, good_passes):
    passes = 0

    def fail(module, args, output):
        nonlocal passes
        passes += 1
        if passes > good_passes:
            raise RuntimeError("out of memory, say")

    lived_in[6].register_forward_hook(fail)
    before = trace(lived_in)
    with pytest.raises(RuntimeError, match="out of memory"):
        attribute(lived_in, images, None, name, backend, batch_size=1, **QUICK.get(name, {}))
    assert trace(lived_in) == before


def test_judging_leaves_no_trace(lived_in, images):
    before = trace(lived_in)
    evaluate(lived_in, images, random_maps(images), masks=random_maps(images) > 0.5, steps=4)
    curve(lived_in, images, random_maps(images), steps=4)
    with pytest.raises(ValueError, match="baseline"):
        evaluate(lived_in, images, random_maps(images), baseline="blak")
    assert trace(lived_in) == before


def test_dropout_and_batch_norm_are_in_evaluation_mode(lived_in, images):
    first = attribute(lived_in, images, 0, "saliency")
    assert torch.equal(first, attribute(lived_in, images, 0, "saliency"))


def test_importing_the_package_imports_neither_tensorflow_nor_captum():
    code = "import sys, helpers.attribution; print({'tensorflow', 'xplique', 'captum', 'zennit', 'keras'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
