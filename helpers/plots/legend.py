"""Where a legend goes: inside the axes if it is short, below them if it would hide the curves."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

FEW = 4  # curves whose names fit beside them


def place(ax: Axes, curves: int, **options: Any) -> None:
    """Add the legend of an Axes with this many curves; `options` are those of `Axes.legend`."""
    if curves > FEW:
        below(ax, **options)
    else:
        ax.legend(**{"loc": "best"} | options, frameon=True, fontsize="small")


def below(ax: Axes, **options: Any) -> None:
    """Add the legend under the label of the x-axis, which has to be there, so that it hides nothing."""
    # A distance in inches, for the axis label is as high in a low figure as in a high one.
    lines = ax.get_xlabel().count("\n") + 1
    under = ax.transAxes + ScaledTranslation(0, -0.42 - 0.18 * lines, ax.figure.dpi_scale_trans)
    where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": under, "ncols": 2}
    ax.legend(**where | options, frameon=True, fontsize="small")
