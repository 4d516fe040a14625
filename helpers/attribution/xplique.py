"""Methods through Xplique's PyTorch wrapper (Fel et al., 2022). TensorFlow is imported when a method first runs.

Importing both takes about ten seconds; images go through NumPy at every pass, so these methods are for checking
one library against the other rather than for speed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers.models.foreign import Foreign
from helpers.models.keras_network import import_tensorflow, native
from helpers.models.running import device_of

from .method import Work, method
from .score import Score


def load_tensorflow() -> Any:
    """Import TensorFlow and Xplique quietly, and have TensorFlow take GPU memory as needed instead of all of it."""
    try:
        tensorflow = import_tensorflow()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import xplique.attributions
            import xplique.wrappers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"backend 'xplique' needs the packages xplique, tensorflow and tf_keras ({error}); "
            "install them, or use backend='captum'"
        ) from error
    return tensorflow


@contextmanager
def session(score: Score, work: Work) -> Iterator[Any]:
    """The model as Xplique sees it: a Keras model itself, another one through Xplique's wrapper.

    TensorFlow's seed and its eager switch are set inside the block, then put back.
    """
    tensorflow = load_tensorflow()
    from tensorflow.python.eager.context import context  # the seed can be set in public, but not read
    from xplique.wrappers import TorchWrapper

    eager = tensorflow.config.functions_run_eagerly()
    state = {name: getattr(context(), name) for name in ("_seed", "_rng") if hasattr(context(), name)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if isinstance(score.model, Foreign) and score.model.keras is not None:
                seen = native(score.model)
            else:
                seen = TorchWrapper(Single(score).eval(), device_of(score), is_channel_first=True)
            tensorflow.random.set_seed(work.seed)
            yield seen
        finally:
            tensorflow.config.run_functions_eagerly(eager)
            for name, value in state.items():
                setattr(context(), name, value)


class Single(nn.Module):
    """Scores in float32, whatever the model computes in: TensorFlow mixes no types."""

    def __init__(self, score: Score):
        super().__init__()
        self.score = score

    def forward(self, images: Tensor) -> Tensor:
        return self.score(images).float()


def rows(images: Tensor) -> np.ndarray:
    """Images (n, C, H, W) as Xplique takes them: float32 (n, H, W, C)."""
    return images.detach().permute(0, 2, 3, 1).to("cpu", torch.float32).contiguous().numpy()


def one_hot(target: Tensor, classes: int) -> np.ndarray:
    """Targets (n,) as Xplique takes them: float32 (n, classes)."""
    return np.eye(classes, dtype=np.float32)[target.cpu().numpy()]


def tensor(maps: Any) -> Tensor:
    """Xplique's maps (n, H, W, C) as (n, C, H, W)."""
    return torch.from_numpy(np.array(maps, dtype=np.float32)).permute(0, 3, 1, 2)


@method(
    "saliency",
    backend="xplique",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    cost=lambda options, size: (1, 1),
    definition="|∂f/∂x|, summed over channels (Xplique alone would take their maximum); absolute=False keeps the sign",
)
def saliency(model: Any, images: Tensor, target: Tensor, work: Work, *, absolute: bool = True) -> Tensor:
    from xplique.attributions import Saliency

    explainer = Saliency(model, batch_size=work.batch_size, reducer=None)
    if absolute:
        return tensor(explainer.explain(rows(images), one_hot(target, work.classes)))
    return tensor(explainer.batch_gradient(model, rows(images), one_hot(target, work.classes), work.batch_size))


@method(
    "gradient_input",
    backend="xplique",
    needs_gradient=True,
    deterministic=True,
    passes="1 forward + 1 backward",
    cost=lambda options, size: (1, 1),
    definition="x ∂f/∂x with x in [0, 1], summed over channels (Xplique alone would take their mean)",
)
def gradient_input(model: Any, images: Tensor, target: Tensor, work: Work) -> Tensor:
    from xplique.attributions import GradientInput

    explainer = GradientInput(model, batch_size=work.batch_size, reducer=None)
    return tensor(explainer.explain(rows(images), one_hot(target, work.classes)))


@method(
    "integrated_gradients",
    backend="xplique",
    needs_gradient=True,
    deterministic=True,
    passes="steps × (1 forward + 1 backward)",
    definition="(x − b) ∫ ∂f(b + α(x − b))/∂x dα, trapezoid rule; less exact than Captum's nodes at equal steps",
)
def integrated_gradients(
    model: Any,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    steps: int = 50,
    baseline: Tensor | str | float = "black",
) -> Tensor:
    from xplique.attributions import IntegratedGradients

    def explain(some: Tensor, codes: Tensor, base: np.ndarray) -> Tensor:
        explainer = IntegratedGradients(
            model, batch_size=work.batch_size, reducer=None, steps=steps, baseline_value=base
        )
        return tensor(explainer.explain(rows(some), one_hot(codes, work.classes)))

    return with_baseline(explain, images, target, baseline)


@method(
    "smoothgrad",
    backend="xplique",
    needs_gradient=True,
    deterministic=False,
    passes="samples × (1 forward + 1 backward)",
    definition="mean of ∂f/∂x over x + noise; absolute: its modulus; squared: mean of squares (Xplique's SquareGrad)",
)
def smoothgrad(
    model: Any,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    samples: int = 50,
    noise: float = 0.1,
    absolute: bool = False,
    squared: bool = False,
) -> Tensor:
    from xplique.attributions import SmoothGrad, SquareGrad

    statistic = SquareGrad if squared else SmoothGrad
    explainer = statistic(model, batch_size=work.batch_size, reducer=None, nb_samples=samples, noise=noise)
    maps = tensor(explainer.explain(rows(images), one_hot(target, work.classes)))
    return maps.abs() if absolute else maps


@method(
    "square_grad",
    backend="xplique",
    needs_gradient=True,
    deterministic=False,
    passes="samples × (1 forward + 1 backward)",
    definition="mean of (∂f/∂x)² over x + noise; smoothgrad(squared=True)",
)
def square_grad(model: Any, images: Tensor, target: Tensor, work: Work, *, samples: int = 50, noise: float = 0.1) -> Tensor:
    return smoothgrad(model, images, target, work, samples=samples, noise=noise, squared=True)


@method(
    "vargrad",
    backend="xplique",
    needs_gradient=True,
    deterministic=False,
    passes="samples × (1 forward + 1 backward)",
    definition="variance of ∂f/∂x over x + noise, unbiased; added over channels (Xplique alone would take their mean)",
)
def vargrad(model: Any, images: Tensor, target: Tensor, work: Work, *, samples: int = 50, noise: float = 0.1) -> Tensor:
    from xplique.attributions import VarGrad

    if samples < 2:
        raise ValueError(f"samples: {samples}; vargrad needs at least 2, because one has no variance")
    explainer = VarGrad(model, batch_size=work.batch_size, reducer=None, nb_samples=samples, noise=noise)
    return tensor(explainer.explain(rows(images), one_hot(target, work.classes)))


@method(
    "occlusion",
    backend="xplique",
    needs_gradient=False,
    deterministic=True,
    passes="1 + ⌊(H − patch)/stride + 1⌋ × ⌊(W − patch)/stride + 1⌋ forward",
    cost=lambda options, size: (1 + math.prod((side - options["patch"]) // options["stride"] + 1 for side in size), 0),
    per_channel=False,
    room=2,
    definition="mean drop of f over the patches that cover a pixel (Xplique alone would sum); "
    "a border that no whole patch reaches is 0, where Captum cuts the patch",
)
def occlusion(
    model: Any,
    images: Tensor,
    target: Tensor,
    work: Work,
    *,
    patch: int = 8,
    stride: int = 4,
    baseline: Tensor | str | float = 0.0,
) -> Tensor:
    from xplique.attributions import Occlusion

    def explain(some: Tensor, codes: Tensor, base: np.ndarray) -> Tensor:
        explainer = Occlusion(
            model, batch_size=work.batch_size, patch_size=patch, patch_stride=stride, occlusion_value=base
        )
        return tensor(explainer.explain(rows(some), one_hot(codes, work.classes)))[:, 0]

    covering = [cover(side, patch, stride) for side in images.shape[2:]]
    count = torch.from_numpy(np.outer(*covering)).clamp(min=1)
    return with_baseline(explain, images, target, baseline) / count


def cover(side: int, patch: int, stride: int) -> np.ndarray:
    """How many whole patches cover each position of a side, float32 (side,)."""
    count = np.zeros(side, dtype=np.float32)
    for start in range(0, side - patch + 1, stride):
        count[start : start + patch] += 1
    return count


def with_baseline(explain: Any, images: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
    """`explain` with the baseline (H, W, C) that Xplique takes: at once if all images share it, else one by one."""
    base = rows(baseline)
    if (base == base[:1]).all():
        return explain(images, target, base[0])
    return torch.cat([explain(images[i : i + 1], target[i : i + 1], base[i]) for i in range(len(images))])
