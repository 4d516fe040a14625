"""How a training run went: loss and accuracy, epoch by epoch."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.plots import style


def history(model_or_frame) -> Figure:
    """Loss, and accuracy with balanced accuracy, of training and validation against the epoch.

    Parameters
    ----------
    model_or_frame : a model that `train` returned, or its `.history`: a DataFrame with the columns epoch,
        loss (nats an image), accuracy, balanced_accuracy (shares in [0, 1]), and the same with `validation_`

    Returns
    -------
    Figure of two panels, with alternative text

    Raises
    ------
    ValueError : the model has no history, or the table lacks a column (it is named).
    """
    frame = model_or_frame if isinstance(model_or_frame, pd.DataFrame) else getattr(model_or_frame, "history", None)
    if frame is None or len(frame) == 0:
        raise ValueError(
            f"model_or_frame: {type(model_or_frame).__name__} has no history; accepted: a model that "
            "train() returned, or its .history"
        )
    missing = [column for column in ("epoch", "loss", "accuracy", "balanced_accuracy") if column not in frame]
    if missing:
        raise ValueError(f"model_or_frame: the table lacks {', '.join(missing)}; it has {', '.join(map(str, frame))}")

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    _lines(left, frame, {"loss": 0})
    _lines(right, frame, {"accuracy": 0, "balanced_accuracy": 1})
    left.set(xlabel="epoch", ylabel="cross-entropy (nats an image)", title="Loss")
    right.set(xlabel="epoch", ylabel="share of images", title="Accuracy", ylim=(0, 1.02))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
    return style.alt(figure, _sentence(frame))


def _lines(axes, frame: pd.DataFrame, colours: dict[str, int]) -> None:
    for prefix, what, line, marker in (("", "training", "-", "o"), ("validation_", "validation", "--", "s")):
        for column, colour in colours.items():
            if prefix + column in frame:
                axes.plot(
                    frame["epoch"],
                    frame[prefix + column],
                    line,
                    marker=marker,
                    markersize=4,
                    color=style.PALETTE[colour],
                    alpha=1 if prefix else 0.6,
                    label=f"{column.replace('_', ' ')}, {what}",
                )


def _sentence(frame: pd.DataFrame) -> str:
    prefix = "validation_" if "validation_loss" in frame else ""
    first, last = frame.iloc[0], frame.iloc[-1]
    return (
        f"{'Validation' if prefix else 'Training'} loss goes from {first[prefix + 'loss']:.3f} to "
        f"{last[prefix + 'loss']:.3f} and balanced accuracy from {first[prefix + 'balanced_accuracy']:.3f} "
        f"to {last[prefix + 'balanced_accuracy']:.3f} over {len(frame)} epoch{'s' if len(frame) > 1 else ''}."
    )
