"""What every fairness loss shares: its call, the forms a prediction comes in, and what is refused by name."""

from __future__ import annotations

import abc
import contextlib
import math
import warnings

import torch
from torch import Tensor

SQUASHED = ("Sigmoid", "Softmax")  # what the gradient's history calls a tensor of probabilities
SATURATED = 300.0  # of logits: exp(-300) has a square, and so have its reciprocals
ENOUGH_TO_TELL = 32  # logits that all happen to lie in [0, 1] are no accident from here on


class FairnessLoss(torch.nn.Module, abc.ABC):
    """Base of the losses called `loss(pred, sens, *label)`, the call of fairret.

    A subclass defines `binary`, the loss of predictions (N, 1). Predictions of C classes are taken one class against the
    rest: class k is the binary problem with the probability softmax_k and the label "is of class k", and the loss is the
    mean over the classes. Two logits an image make the same loss as their difference does where the statistic treats
    both classes alike.
    """

    @abc.abstractmethod
    def binary(self, pred: Tensor, sens: Tensor, *label: Tensor, pred_as_logit: bool, **options) -> Tensor:
        """The loss, a scalar, of checked predictions (N, 1)."""

    def forward(self, pred: Tensor, sens: Tensor, *label: Tensor, pred_as_logit: bool = True, **options) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        pred : float (N, 1), logits, or probabilities with `pred_as_logit=False`; (N, C) of C classes, whose
            probabilities are the softmax
        sens : (N, S), one column a group: one-hot membership, several attributes side by side, or any weights
        *label : what the statistic needs, (N, 1) each. With C classes: int (N,) or (N, 1), or one-hot (N, C)
        pred_as_logit : bool
        **options : of the loss, such as `target_statistic`; labels by name

        Returns
        -------
        Tensor, a scalar in the precision of `pred`. It is computed outside autocast, half precision in float32.

        Raises
        ------
        ValueError : shapes or devices do not match, NaN or infinite predictions, probabilities outside [0, 1] or taken
            for logits.
        TypeError : predictions that are no floats; labels that the statistic lacks or does not take.

        Warns
        -----
        UserWarning : 32 or more logits all lie in [0, 1], as probabilities would.
        """
        named = {name: each for name, each in options.items() if isinstance(each, Tensor) and name != "target_statistic"}
        _check(self, pred, sens, (*label, *named.values()), pred_as_logit)
        given = pred.dtype
        with outside_autocast(pred):
            if given in (torch.float16, torch.bfloat16):
                pred = pred.float()
            sens = sens.to(pred.dtype)
            if pred.shape[1] == 1:
                return self.binary(pred, sens, *label, pred_as_logit=pred_as_logit, **options).to(given)
            each = []
            for k, one in enumerate(one_vs_rest(pred, pred_as_logit)):
                for module in self.modules():
                    if hasattr(module, "slot"):  # what it remembers, it remembers for each class
                        module.slot = k
                own = (of_class(y, k, pred.shape[1]) for y in label)
                options |= {name: of_class(y, k, pred.shape[1]) for name, y in named.items()}
                each.append(self.binary(one, sens, *own, pred_as_logit=pred_as_logit, **options))
            for module in self.modules():
                if hasattr(module, "slot"):
                    module.slot = 0
            return torch.stack(each).mean().to(given)


def outside_autocast(like: Tensor) -> contextlib.AbstractContextManager:
    """A context without autocast on the device of `like`; it costs nothing where there is none anyway."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else contextlib.nullcontext()


def exact(pred: Tensor) -> Tensor:
    """`pred` in float64, where the device has it."""
    return pred.to(torch.float32 if pred.device.type == "mps" else torch.float64)


def probabilities(pred: Tensor, pred_as_logit: bool) -> Tensor:
    """Probabilities in float64. Of logits they stay so far from 0 that a statistic's quotients have finite gradients."""
    pred = exact(pred)
    return pred.clamp(-SATURATED, SATURATED).sigmoid() if pred_as_logit else pred


def fitting(target: Tensor | float, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A target statistic as a tensor in the precision of `like`.

    Raises
    ------
    ValueError : it is not finite, or does not broadcast to `shape`, that of the statistic's values.
    """
    target = torch.as_tensor(target, dtype=like.dtype, device=like.device)
    if not target.isfinite().all():
        raise ValueError(f"target_statistic: {target.tolist()} given; finite numbers expected")
    try:
        target.broadcast_to(shape)
    except RuntimeError:
        raise ValueError(
            f"target_statistic: shape {tuple(target.shape)} given, which does not fit values of shape {tuple(shape)}"
        ) from None
    return target


def one_vs_rest(pred: Tensor, pred_as_logit: bool) -> list[Tensor]:
    """Predictions (N, C) as C binary ones (N, 1): probabilities as they are, logits as log p_k - log(1 - p_k)."""
    columns = pred.split(1, dim=1)
    if not pred_as_logit:
        return list(columns)
    # Not the log of a softmax, whose complement is lost where one class is nearly sure.
    return [
        own - torch.cat(columns[:k] + columns[k + 1 :], dim=1).logsumexp(dim=1, keepdim=True) for k, own in enumerate(columns)
    ]


def of_class(label: Tensor, k: int, classes: int) -> Tensor:
    """Labels of C classes as the binary label "is of class k", (N, 1)."""
    if label.dim() == 2 and label.shape[1] == classes:
        return label[:, k : k + 1]
    if label.dim() == 1 or label.shape[1] == 1:
        outside = (label < 0) | (label >= classes) | (label != label.long())
        if outside.any():
            raise ValueError(f"label: {label[outside][0].item():g} is none of the classes 0 to {classes - 1} of pred")
        return (label.reshape(-1, 1) == k).float()
    raise ValueError(f"label: shape ({len(label)},) or ({len(label)}, {classes}) expected, {tuple(label.shape)} given")


def _check(loss: torch.nn.Module, pred: Tensor, sens: Tensor, label: tuple[Tensor, ...], pred_as_logit: bool) -> None:
    for name, tensor in (("pred", pred), ("sens", sens), *(("label", each) for each in label)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: a tensor expected, {type(tensor).__name__} given")
        if tensor.device != pred.device:
            raise ValueError(f"{name}: on {tensor.device}, but pred is on {pred.device}")
    if not pred.is_floating_point():
        raise TypeError(f"pred: floats expected, {pred.dtype} given; the loss of hard predictions has no gradient")
    if pred.dim() != 2 or pred.shape[1] == 0:
        raise ValueError(f"pred: shape (N, 1), or (N, C) of C classes, expected, {tuple(pred.shape)} given")
    if sens.dim() != 2 or len(sens) != len(pred):
        raise ValueError(f"sens: shape ({len(pred)}, S) expected, {tuple(sens.shape)} given; one-hot encode integer groups")
    for each in label:
        if each.dim() and len(each) != len(pred):
            raise ValueError(f"label: {len(pred)} rows expected, as in pred, {len(each)} given")
    check_range(pred, pred_as_logit, type(loss).__name__)
    if not math.isfinite(sens.detach().sum()) and not sens.isfinite().all():
        raise ValueError(f"sens: {_first(sens)} is missing; a row of no group has zeros")


def check_range(pred: Tensor, pred_as_logit: bool, name: str, argument: str = "pred") -> None:
    """Raise ValueError for predictions that are missing or visibly of the other kind; warn where they seem to be."""
    if not pred.numel():
        return
    least, most = torch.stack(pred.detach().aminmax()).tolist()  # NaN if one is there, at the cost of one transfer
    if not (least > -torch.inf and most < torch.inf):
        raise ValueError(f"{argument}: {_first(pred)} is not finite")
    within = least >= 0 and most <= 1
    if not pred_as_logit:
        if not within:
            raise ValueError(
                f"{argument}: probabilities in [0, 1] expected, values from {least:g} to {most:g} given; "
                "leave out pred_as_logit=False for logits"
            )
    elif within:
        made_by = pred.grad_fn.name() if pred.grad_fn is not None else ""
        if made_by.startswith(SQUASHED):
            raise ValueError(
                f"{argument}: logits expected, the output of a {made_by.removesuffix('Backward0').lower()} given, which "
                f"{name} would squash again; give what went into it, or pred_as_logit=False where that is an option"
            )
        if pred.numel() >= ENOUGH_TO_TELL and least < most:
            warnings.warn(
                f"{name} takes logits, but all {pred.numel()} predictions lie in [{least:.3g}, {most:.3g}]: are they "
                "probabilities? Then say pred_as_logit=False",
                UserWarning,
                stacklevel=4,
            )


def _first(tensor: Tensor) -> str:
    row = int((~tensor.isfinite()).reshape(len(tensor), -1).any(1).nonzero()[0])
    return f"the value {tensor[row].tolist()} at row {row}"
