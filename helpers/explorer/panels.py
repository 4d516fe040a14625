"""Faces and maps as tables of small pictures: a figure of them takes matplotlib half a second, which is what a visitor waits."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np

from helpers.explorer.sentences import face, readable

SIDE = 112  # pixels of the page
LEGEND = np.linspace(-1, 1, 128)[None].repeat(8, 0)


def coloured(values: np.ndarray, end: float, words: str) -> str:
    """A map (H, W) as `<img>` on a scale from -end to end; beneath it where the scale ends, or that there is nothing to see."""
    known = values[np.isfinite(values)]
    said = "no number" if not known.size else f"±{end:.2g}" if known.any() else "all zero"
    return f"{_img(values, end, words)}<br><small>{said}</small>"


def methods(images, labels: Sequence[str], maps: Mapping[str, np.ndarray]) -> str:
    """A row a face, a column a method, each map on its own scale.

    Parameters
    ----------
    images : float (N, 3, H, W) in [0, 1]
    labels : N texts, whose face and for which class
    maps : method -> (N, H, W)
    """
    from helpers.plots.attribution import end_of

    rows = [
        (label, [face(image, label, SIDE), *(coloured(found[i], end_of(found[i]), f"{readable(name)} of {label}")
                                             for name, found in maps.items())])
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]  # fmt: skip
    return _table("Where the model looks", ["face", *map(readable, maps)], rows)


def change(labels: Sequence[str], before: np.ndarray, after: np.ndarray, names: tuple[str, str], images=None) -> str:
    """A row a face: its map before and after on one scale, and after minus before on its own.

    Parameters
    ----------
    labels : as in `methods`
    before, after : (N, H, W)
    names : what "before" and "after" are called
    images : as in `methods`; None leaves the faces out
    """
    from helpers.plots.attribution import end_of

    rows = []
    for i, label in enumerate(labels):
        end, moved = end_of(np.stack([before[i], after[i]])), after[i] - before[i]
        cells = [] if images is None else [face(images[i], label, SIDE)]
        cells += [coloured(each[i], end, f"map of {label}, {name}") for each, name in zip((before, after), names, strict=True)]
        cells.append(coloured(moved, end_of(moved), f"map of {label}, {names[1]} minus {names[0]}"))
        rows.append((label, cells))
    heads = [*([] if images is None else ["face"]), *names, f"{names[1]} − {names[0]}"]
    return _table(f"Where the model looks, {names[0]} and {names[1]}", heads, rows)


def _table(caption: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for label, cells in rows
    )
    return (
        f'<table class="candor-maps"><caption>{html.escape(caption)}</caption><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table><p>against the class {_img(LEGEND, 1.0, 'Scale from blue over white to red', 'auto')} "
        "for the class; white is zero, and the scale ends at the number under each map.</p>"
    )


def _img(values: np.ndarray, end: float, words: str, side: int | str = SIDE) -> str:
    from PIL import Image

    from helpers.plots.attribution import pixels

    buffer = io.BytesIO()
    Image.fromarray(pixels(values, end)).save(buffer, format="PNG")
    size = "" if side == "auto" else f' width="{side}" height="{side}" style="image-rendering:pixelated"'
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}"{size} alt="{html.escape(words, quote=True)}">'
