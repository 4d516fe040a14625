"""Show a figure in a notebook with its alternative text."""

from __future__ import annotations

import base64
import html
import io

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import figure_of


def alt_text(drawing: Axes | Figure) -> str:
    """The text attached with `helpers.plots.alt`, else the titles of the axes, else a stopgap."""
    figure = figure_of(drawing)
    label = str(figure.get_label() or "")
    titles = [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center", "right")]
    return label or "; ".join(filter(None, titles)) or "Figure without a description"


def png(drawing: Axes | Figure, dpi: float | None = None, *, crop: bool = True) -> bytes:
    """The figure as PNG bytes, cropped to what is drawn; the same drawing gives the same bytes.

    Uncropped it is drawn once in place of twice, the size of the figure; what reaches over its edge is cut off.
    """
    buffer = io.BytesIO()
    # matplotlib would write its version into the file, so that an upgrade alone changed every report
    figure_of(drawing).savefig(
        buffer, format="png", dpi=dpi or "figure", bbox_inches="tight" if crop else None, metadata={"Software": None}
    )
    return buffer.getvalue()


def img(drawing: Axes | Figure, dpi: float | None = None, *, crop: bool = True) -> str:
    """An HTML `<img>` that holds the figure itself (a data URI, as of `png`) and its alternative text, escaped."""
    data = base64.b64encode(png(drawing, dpi, crop=crop)).decode()
    alt = html.escape(alt_text(drawing), quote=True)
    return f'<img src="data:image/png;base64,{data}" alt="{alt}" style="max-width: 100%; height: auto">'


def show(drawing: Axes | Figure) -> None:
    """Display the figure below a notebook cell, once, and close it.

    The output is an HTML `<img>`, because neither JupyterLab nor nbconvert's default template passes the
    metadata of an `image/png` output on as `alt`: a reader who cannot see the figure would be told nothing.
    Outside IPython the alternative text is printed.
    """
    from IPython import get_ipython
    from IPython.display import display

    figure = figure_of(drawing)
    if get_ipython() is None:
        print(alt_text(figure))
    else:
        display({"text/html": img(figure), "text/plain": alt_text(figure)}, raw=True)
    plt.close(figure)  # the inline backend would draw an open figure a second time at the end of the cell
