"""Errors as sentences, and pieces of HTML that a screen reader can read."""

from __future__ import annotations

import base64
import html
import io
import re
import threading
from collections.abc import Callable

EXPECTED = (ValueError, FileNotFoundError, PermissionError, ConnectionError, ModuleNotFoundError, RuntimeError)
DRAWING = threading.Lock()  # pyplot has one current figure, and jobs draw too


def sentence(error: BaseException) -> str:
    """What went wrong, for a visitor: the error's own words if it has been foreseen, else that it was not."""
    if isinstance(error, KeyboardInterrupt):
        return "Cancelled. What was finished before is kept."
    words = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, EXPECTED):
        words = f"Something unexpected went wrong ({type(error).__name__}: {words}); what was open stays open"
    words = re.sub(r"^--", "", words)
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def picture(draw: Callable, dpi: float = 90) -> str:
    """The figure that `draw()` gives, as an `<img>` with its alternative text; it is closed afterwards."""
    import matplotlib.pyplot as plt

    from helpers.plots import figure_of, img, use

    with DRAWING, plt.rc_context():
        use()
        drawing = draw()
        try:
            return img(drawing, dpi, crop=False)  # a visitor waits for it
        finally:
            plt.close(figure_of(drawing))


def face(image, words: str, side: int = 96) -> str:
    """One face, float (3, H, W) in [0, 1], as an `<img>` of `side` pixels, with its description."""
    from PIL import Image

    pixels = (image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" width="{side}" height="{side}" alt="{html.escape(words, quote=True)}">'


def table(frame, caption: str) -> str:
    """A DataFrame of texts as a table with a caption; the first column names the rows."""
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in frame.columns)
    body = ""
    for first, *cells in frame.itertuples(index=False):
        body += f'<tr><th scope="row">{html.escape(str(first))}</th>'
        body += "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"
    return f"<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(words)}</p>" if words else ""


def readable(name: str) -> str:
    """A name of the library as a reader writes it: "true_positive_rate" becomes "true positive rate"."""
    return str(name).replace("_", " ")


def interval(value: float, low: float, high: float) -> str:
    """A number with its interval, or a dash where there is none."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if value == value else "–"
