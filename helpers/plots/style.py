"""One look for every figure: a colour-blind-safe palette, readable sizes and alternative text."""

from __future__ import annotations

import os

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = sns.color_palette("colorblind").as_hex()
DIVERGING = "RdBu_r"  # signed relevance: zero is white, and red against blue survives the common colour blindnesses
SEQUENTIAL = "viridis"


def use() -> None:
    """Set the figure defaults of the course: seaborn's whitegrid, the colour-blind palette, 110 dpi.

    The environment variable CANDOR_DPI asks for another resolution: print and film need more than a screen does.
    """
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE)
    dpi = float(os.environ.get("CANDOR_DPI", 110))
    plt.rcParams.update({"figure.dpi": dpi, "savefig.dpi": dpi, "axes.titlesize": 12, "axes.titlelocation": "left"})


def figure_of(drawing: Axes | Figure) -> Figure:
    """The figure that an Axes belongs to, or the figure itself."""
    return drawing if isinstance(drawing, Figure) else drawing.figure


def alt(drawing: Axes | Figure, text: str) -> Axes | Figure:
    """Attach alternative text (a sentence that says what the figure shows) and return the drawing.

    The text travels as the figure's label; `helpers.plots.show` and the report write it into the HTML `alt` attribute.
    """
    if not text:
        raise ValueError("text: alternative text is empty; say in one sentence what the figure shows")
    figure_of(drawing).set_label(text)
    return drawing
