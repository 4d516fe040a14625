"""Training a classifier: AdamW, a one-cycle learning rate, and checkpoints that resume to the same bytes."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from helpers.crew import Crew, crew_of, whole_batch
from helpers.files import check
from helpers.models import data_in, resume
from helpers.models.prediction import hard, predict
from helpers.models.resnet import build
from helpers.models.running import call, evaluating, untouched_random_state
from helpers.models.synchronised import synchronised
from helpers.names import choose

Fairness = Callable[[Tensor, Tensor, Tensor], Tensor]
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def train(
    data,
    model: str | nn.Module = "resnet18",
    *,
    validation=None,
    epochs: int = 5,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
    device=None,
    checkpoint: str | os.PathLike | None = None,
    augment: str | None = None,
    balance: str | None = None,
    fairness: Fairness | None = None,
    strength: float = 1.0,
    objective: Objective | None = None,
    accumulate: int = 1,
    progress: bool = True,
) -> nn.Module:
    """Train a classifier with cross-entropy (binary cross-entropy for one logit), or with a loss of your own.

    The same seed, data and machine give the same bytes of weights, whether the run was interrupted or not.
    Torch's global random state is left as it was. A last batch of a single image is left out, because
    batch normalisation has no variance from it.

    Parameters
    ----------
    data : FaceDataset, shuffled anew each epoch with `seed + epoch`; or a loader of (image, target, group)
        batches, iterated as it is (`batch_size` is then not used)
    model : an architecture for `build` (random weights from `seed`; the classes of the data, or two), or a
        module, of which a copy is trained. Parameters with `requires_grad=False` stay as they are.
    validation : the same kinds as `data`; scored after every epoch, never trained on
    epochs, batch_size : int
    lr : float, the peak of the one-cycle schedule (Smith and Topin, 2018)
    weight_decay : float, of AdamW (Loshchilov and Hutter, 2019)
    seed : int, of the weights, the order, dropout and augmentation
    device : str or torch.device; by default a CUDA device if there is one, else the CPU. Or a launched Lightning `Fabric`: its
        processes share every batch, images, batch normalisation, loss and all, so that training is that of one process up to
        rounding; each gets the trained model. Its precision is used.
    checkpoint : a file written after every epoch (whole or not at all). If it is there already, the run
        goes on after the epoch it holds.
    augment : None, or "flip": each image is mirrored with probability 1/2
    balance : None, or "group", "class" or "cell" (class × group), which then come equally often in each epoch: a FaceDataset
        as `helpers.data.balance` draws it, with as many images an epoch as it has. Training scores are of these draws.
    fairness : called as `fairness(logit, sens, label)` and added to the loss of each batch, times `strength`: a loss of
        `helpers.losses`, or your own. `logit` float (N, 1) (with two logits: of class 1 minus class 0; with more, all of
        them, (N, C)), `sens` float (N, G) one-hot groups, `label` float (N, 1). Returns a scalar tensor. What a loss
        remembers (it has `reset`) is forgotten at the start, and kept in the checkpoint.
    strength : float
    objective : called as `objective(logits, target, group)` in place of the cross-entropy: `logits` float (N, K), `target`
        and `group` int64 (N,). Returns a scalar tensor.
    accumulate : int, batches whose gradients are averaged before a step is taken; a fairness loss sees one batch at a time
    progress : bool, show a bar

    Returns
    -------
    nn.Module in eval mode, on `device`, with `.history` (DataFrame, one row an epoch: epoch, loss, accuracy,
    balanced_accuracy, the same with `validation_`, seconds), `.classes` and `.info` (json-able).
    The training columns are means over the epoch, while the weights were moving.

    Raises
    ------
    ValueError : before the first step, for empty data, images or targets that do not fit, a model whose
        output does not fit the target, a device that is not there, a bad option, a checkpoint of another run
        (what differs is named). Later, for a batch with a target outside the classes, where a loader did not
        show it before.
    FloatingPointError : the loss became NaN or infinite (epoch and step are named).
    """
    settings = _checked(epochs=epochs, lr=lr, weight_decay=weight_decay, seed=seed, augment=augment, strength=strength)
    if not isinstance(accumulate, int) or isinstance(accumulate, bool) or accumulate < 1:
        raise ValueError(f"accumulate: {accumulate!r} came; accepted is a whole number of at least 1")
    crew = crew_of(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    device = crew.device
    if balance is not None:
        data_in.loader_of(data, batch_size, balance=balance)  # what cannot be balanced is named before long work
    start, steps = _look(data, batch_size)
    classes = data_in.classes_of(data)
    if isinstance(model, nn.Module):
        trained = copy.deepcopy(model)
    else:
        trained = build(_architecture(model), classes or 2, seed=seed)
    trained = trained.to(device, memory_format=torch.channels_last)
    outputs = _check_fit(trained, data, start, classes, device)
    if validation is not None:
        first, _ = _look(validation, batch_size)
        _check_fit(trained, validation, first, classes or data_in.classes_of(validation), device)
    groups = _check_fairness(fairness, data)
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("model: no parameter has requires_grad=True, so there is nothing to train")

    settings |= {
        "batch_size": batch_size if hasattr(data, "loader") else None,
        "batches an epoch": steps,
        "images": len(data) if hasattr(data, "loader") else None,
        "outputs": outputs,
        "balance": balance,
        "image_size": list(start[0].shape[-2:]),
        "fairness": None if fairness is None else _described(fairness),
        "objective": None if objective is None else _described(objective),
    }
    if accumulate > 1:
        settings["accumulate"] = accumulate
    # The bytes that the run starts from: without them a resumed run could mix two models or two data sets.
    configuration = settings | {
        "architecture": getattr(trained, "architecture", type(trained).__qualname__),
        "classes": list(classes) if classes else None,
        "initial weights": resume.weights_fingerprint(trained),
        "data": resume.fingerprint(*start, *_codes(data)) if hasattr(data, "loader") else None,
    }
    if checkpoint is not None:
        check(checkpoint, "checkpoint")
    saved = None if checkpoint is None else resume.read(checkpoint, configuration)

    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=-(-steps // accumulate) * epochs)
    history: list[dict] = []
    if saved is not None:
        trained.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        history = saved["history"]
        for generator, order in zip(data_in.generators_of(data), saved["order"], strict=True):
            generator.set_state(order)

    remembers = isinstance(fairness, nn.Module)
    if remembers:
        fairness.train()
        for part in fairness.modules():
            getattr(part, "reset", lambda: None)()
        if saved is not None:
            fairness.load_state_dict(saved["fairness"])
    task = Task(fairness, strength, groups, objective)
    crew = crew.launched()
    running, stepping = crew.fabric.setup(trained, optimizer)
    plan = Plan(batch_size, seed, settings["augment"], crew, outputs, classes, balance, accumulate)
    silent = not progress or crew.rank > 0
    bar = tqdm(total=steps * epochs, initial=steps * len(history), desc="train", unit="batch", disable=silent)
    with bar, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for epoch in range(len(history), epochs):
            bar.set_description(f"epoch {epoch + 1}/{epochs}")
            began = time.perf_counter()
            # Each epoch has its own seed, so that a resumed one draws what the undisturbed one drew.
            with untouched_random_state(_epoch_seed(seed, epoch)), synchronised(trained, crew.size):
                row = _epoch(running, data, stepping, schedule, task, plan, epoch, bar)
            if validation is not None:
                row |= {f"validation_{key}": value for key, value in _scores(trained, validation, batch_size, crew).items()}
            history.append({"epoch": epoch + 1, **row, "seconds": time.perf_counter() - began})
            if checkpoint is not None and crew.rank == 0:
                resume.write(
                    checkpoint,
                    configuration,
                    {
                        "model": trained.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                        "history": history,
                        "fairness": fairness.state_dict() if remembers else None,
                        "order": [generator.get_state() for generator in data_in.generators_of(data)],
                    },
                )
            crew.wait()  # until the checkpoint is whole

    trained.eval()
    trained.history = pd.DataFrame(history)
    if classes or not hasattr(trained, "classes"):
        trained.classes = classes or tuple(str(code) for code in range(max(outputs, 2)))
    trained.info = dict(getattr(trained, "info", None) or {}) | {
        "data": _summary(data, start[0]),
        "training": settings,
    }
    rows = {"train": data_in.recipe_of(data), "validation": data_in.recipe_of(validation)}
    trained.info["rows"] = {part: recipe for part, recipe in rows.items() if recipe is not None}
    return trained


@dataclass(frozen=True)
class Plan:
    """What stays the same from epoch to epoch."""

    batch_size: int
    seed: int
    augment: str | None
    crew: Crew
    outputs: int
    classes: tuple[str, ...] | None
    balance: str | None = None
    accumulate: int = 1


@dataclass(frozen=True)
class Task:
    """The loss of a batch: the task's, plus `strength` times a fairness loss over `groups` groups."""

    fairness: Fairness | None = None
    strength: float = 1.0
    groups: int = 0
    objective: Objective | None = None

    def __call__(self, logits: Tensor, target: Tensor, group: Tensor) -> Tensor:
        loss = task_loss(logits, target) if self.objective is None else self.objective(logits, target, group)
        if self.fairness is None:
            return loss
        logit = logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits
        sens = F.one_hot(group, self.groups).to(logits.dtype)
        fairness = getattr(self.fairness, "on_batch", self.fairness)  # a loss with another call of its own brings this one
        return loss + self.strength * fairness(logit, sens, target[:, None].to(logits.dtype))


def task_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, K) and targets int64 (N,); of one logit, binary cross-entropy."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype))
    return F.cross_entropy(logits, target)


def _architecture(model) -> str:
    if not isinstance(model, str):
        raise ValueError(f"model: {type(model).__name__} came; accepted: the name of an architecture, or an nn.Module")
    return model


def _checked(*, epochs, lr, weight_decay, seed, augment, strength) -> dict:
    for name, value in (("epochs", epochs), ("seed", seed)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < (name == "epochs"):
            raise ValueError(f"{name}: {value!r} came; accepted is a whole number of at least {int(name == 'epochs')}")
    for name, value, least in (
        ("lr", lr, 0),
        ("weight_decay", weight_decay, 0),
        ("strength", strength, -math.inf),
    ):
        if (
            not isinstance(value, (int, float))
            or not math.isfinite(value)
            or value < least
            or (name == "lr" and value == 0)
        ):
            raise ValueError(f"{name}: {value!r} came; accepted is a finite number{' above 0' if name == 'lr' else ''}")
    if augment is not None:
        augment = choose(augment, ["flip"], "augment")
    return {
        "epochs": int(epochs),
        "lr": float(lr),
        "weight_decay": float(weight_decay),
        "seed": int(seed),
        "augment": augment,
        "strength": float(strength),
    }


def _look(data, batch_size: int) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """The first batch, unshuffled, and the number of batches; a loader's generators stay where they are."""
    loader = data_in.loader_of(data, batch_size)
    before = [(generator, generator.get_state()) for generator in data_in.generators_of(loader)]
    with untouched_random_state():
        batch = next(iter(loader), None)
    for generator, state in before:
        generator.set_state(state)
    if batch is None:
        raise ValueError(f"data: the {type(data).__name__} given yielded no batch")
    first = data_in.triple(batch)
    data_in.check_range(first[0])
    return first, len(loader)


def _check_fit(model: nn.Module, data, first, classes, device) -> int:
    """The number of outputs, once images, targets and model are known to fit each other."""
    images, targets, group = first
    try:
        with evaluating(model), torch.no_grad(), untouched_random_state():
            logits = call(model, images[:2].to(device, torch.float32), group[:2].to(device))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"model: {type(model).__name__} cannot take images of shape {tuple(images.shape)}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    outputs = data_in.check_logits(logits, images[:2], classes)
    data_in.check_targets(targets, outputs, classes)
    known = data_in.codes_of(data, "targets")
    if known is not None:
        data_in.check_targets(known, outputs, classes)
    return outputs


def _described(fairness: Fairness) -> str:
    return str(fairness) if isinstance(fairness, nn.Module) else getattr(fairness, "__qualname__", type(fairness).__qualname__)


def _check_fairness(fairness, data) -> int:
    if fairness is None:
        return 0
    if not callable(fairness):
        raise ValueError(
            f"fairness: {type(fairness).__name__} came; accepted is a callable (logit, sens, label) -> loss"
        )
    groups = data_in.group_count(data)
    if not groups:
        raise ValueError("fairness: the number of groups is not known; give a FaceDataset or a loader over one")
    return groups


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch


def _epoch(model, data, optimizer, schedule, task: Task, plan: Plan, epoch: int, bar) -> dict:
    """One pass over the data with a step every `accumulate` batches; the loss and rates of the training images on the way."""
    model.train()
    crew, fabric = plan.crew, plan.crew.fabric
    flips = torch.Generator().manual_seed(_epoch_seed(plan.seed, epoch))
    confusion = np.zeros((max(plan.outputs, 2),) * 2, dtype=np.int64)
    total, usual, waiting = 0.0, 0, 0
    loader = data_in.loader_of(data, plan.batch_size, shuffle=True, seed=plan.seed + epoch, balance=plan.balance)
    steps = len(loader)
    for step, batch in enumerate(crew.batches(loader), start=1):
        images, *codes = data_in.triple(batch)
        target, group = crew.whole(*codes)
        data_in.check_targets(target.cpu(), plan.outputs, plan.classes)
        usual = max(usual, len(target))
        full = step % plan.accumulate == 0 or step == steps
        if len(target) == 1 and usual > 1:
            if waiting:
                _average(model, crew)
                _step(optimizer, schedule)
            bar.update()
            continue
        if plan.augment == "flip":
            (mirrored,) = crew.share(torch.rand(len(target), generator=flips) < 0.5)
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        images = images.to(crew.device, torch.float32, memory_format=torch.channels_last)
        target, group = target.to(crew.device), group.to(crew.device)
        with fabric.no_backward_sync(model, enabled=not full):
            (logits,) = crew.whole(call(model, images, *crew.share(group)))
            with whole_batch():
                loss = task(logits, target, group)
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss became {value} in epoch {epoch + 1}, step {step}; a smaller lr "
                    f"(now {schedule.get_last_lr()[0]:.2g}), or checking the images for NaN, may help"
                )
            if not waiting:
                optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss / min(plan.accumulate, steps - (step - 1) // plan.accumulate * plan.accumulate))
        waiting += 1
        if full:
            _step(optimizer, schedule)
            waiting = 0
        total += value * len(target)
        count(confusion, target.cpu().numpy(), hard(logits.detach().float().cpu().numpy()))
        bar.set_postfix(loss=f"{value:.3f}", refresh=False)
        bar.update()
    return {"loss": total / max(int(confusion.sum()), 1), **_rates(confusion)}


def _step(optimizer, schedule) -> None:
    optimizer.step()
    schedule.step()


def _average(model: nn.Module, crew: Crew) -> None:
    """The mean over processes of gradients that were gathered for a step that does not come."""
    for parameter in model.parameters() if crew.size > 1 else ():
        if parameter.grad is not None:
            parameter.grad = crew.fabric.all_reduce(parameter.grad)


def count(confusion: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray) -> None:
    """Add rows to a confusion table int64 (C, C) of true × predicted classes, in place."""
    confusion += np.bincount(y_true * len(confusion) + y_pred, minlength=confusion.size).reshape(confusion.shape)


def _rates(confusion: np.ndarray) -> dict:
    """Accuracy, and balanced accuracy: the mean recall of the classes that are there."""
    rows = confusion.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = confusion.diagonal() / rows
        return {
            "accuracy": float(confusion.trace() / confusion.sum()),
            "balanced_accuracy": float(recall[rows > 0].mean()) if rows.any() else math.nan,
        }


def _scores(model: nn.Module, data, batch_size: int, crew: Crew) -> dict:
    found = predict(model, data, batch_size=max(batch_size, 256), device=crew)
    confusion = np.zeros((max(found.logits.shape[1], 2),) * 2, dtype=np.int64)
    count(confusion, found.y_true, found.y_pred)
    loss = task_loss(torch.from_numpy(found.logits), torch.from_numpy(found.y_true)).item()
    return {"loss": loss, **_rates(confusion)}


def _codes(data) -> list[np.ndarray]:
    return [codes for which in ("targets", "group") if (codes := data_in.codes_of(data, which)) is not None]


def _summary(data, images: Tensor) -> dict:
    source = getattr(data, "dataset", data)
    height, width = images.shape[-2:]
    protected = getattr(source, "protected", None)
    return {
        "name": getattr(source, "name", type(source).__name__),
        "split": getattr(source, "split", None),
        "target": getattr(source, "target", None),
        "protected": list(protected) if isinstance(protected, (tuple, list)) else protected,
        "groups": list(map(str, getattr(source, "groups", None) or ())),
        "images": len(source),
        "image_size": height if height == width else [height, width],
    }
