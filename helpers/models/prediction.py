"""A model's predictions for a whole data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from helpers.crew import crew_of
from helpers.models.data_in import batches, check_classes, check_logits, check_targets, classes_of, codes_of, loader_of
from helpers.models.running import call, device_of


@dataclass(frozen=True)
class Predictions:
    """Truth, prediction and group of N images, in the order of the data.

    Attributes
    ----------
    y_true : int64 (N,)
    y_pred : int64 (N,), the class of the largest logit; with one logit, 1 where it is positive
    y_score : float64, P(class 1) of shape (N,) for two classes; softmax of shape (N, C) for more
    logits : float32 (N, K), K = 1 or the number of classes
    group : int64 (N,)
    """

    y_true: np.ndarray
    y_pred: np.ndarray
    y_score: np.ndarray
    logits: np.ndarray
    group: np.ndarray


def predict(model: nn.Module, data, *, device=None, batch_size: int = 256, progress: bool = False) -> Predictions:
    """Run a model over a data set once.

    Parameters
    ----------
    model : nn.Module, images (N, 3, H, W) in [0, 1] -> logits (N, K); one with `needs_group = True` is also
        passed `group=` int64 (N,). Its mode is left as it was.
    data : FaceDataset, or a loader of (image, target, group) batches
    device : str or torch.device, the model's own by default; or a launched Lightning `Fabric`, whose processes then share the
        images and all get all predictions
    batch_size : int, images a pass (a loader keeps its own)
    progress : bool, show a bar

    Returns
    -------
    Predictions

    Raises
    ------
    ValueError : empty data, classes in another order than the model's, a batch that is not such a triple, a
        target outside the classes, an output whose width does not fit the target (after the first batch), a
        device that is not there.
    """
    classes, rows, outputs = classes_of(data), [], None
    check_classes(model, classes)
    crew = crew_of(device_of(model) if device is None else device)
    with batches(model, data, device=crew, batch_size=batch_size) as (model, loop), torch.inference_mode():
        total = len(loader_of(data, batch_size))
        for images, target, group in tqdm(loop, "predict", total=total, unit="batch", disable=not progress or crew.rank > 0):
            logits = call(model, images, group)
            if outputs is None:
                outputs = check_logits(logits, images, classes)
                known = codes_of(data, "targets")
                if known is not None:
                    check_targets(known, outputs, classes)
            logits, target, group = crew.whole(logits, target, group)
            check_targets(target.cpu(), outputs, classes)
            rows.append((logits.float().cpu().numpy(), target.cpu().numpy(), group.cpu().numpy()))
    if not rows:
        raise ValueError(f"data: the {type(data).__name__} given yielded no batch")
    logits, y_true, group = (np.concatenate(column) for column in zip(*rows, strict=True))
    return Predictions(y_true, hard(logits), score(logits), logits, group)


def hard(logits: np.ndarray) -> np.ndarray:
    """Predicted class int64 (N,) of logits (N, K): the largest; with K = 1, 1 where the logit is positive."""
    return (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(1).astype(np.int64)


def score(logits: np.ndarray) -> np.ndarray:
    """P(class 1), float64 (N,), of logits with K = 1 or 2; softmax, float64 (N, K), of more."""
    logits = torch.from_numpy(np.asarray(logits, dtype=np.float64))
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid().numpy()
    if logits.shape[1] == 2:
        return (logits[:, 1] - logits[:, 0]).sigmoid().numpy()
    return logits.softmax(1).numpy()
