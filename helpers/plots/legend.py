"""Where a legend goes: inside the axes if it is short, below them if it would hide the curves."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

FEW = 4  # curves whose names fit beside them


def place(ax: Axes, curves: int, **options: Any) -> None:
    """Add the legend of an Axes with this many curves; `options` are those of `Axes.legend`."""
    where: dict[str, Any] = {"loc": "best"}
    if curves > FEW:
        # A distance in inches, for the axis label is as high in a low figure as in a high one.
        below = ax.transAxes + ScaledTranslation(0, -0.6, ax.figure.dpi_scale_trans)
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below, "ncols": 2}
    ax.legend(**where | options, frameon=True, fontsize="small")
