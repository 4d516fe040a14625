"""Tables of small maps: the colours of the figures, one scale where two are compared, and words for what cannot be seen."""

import base64
import io
import re

import numpy as np
import torch
from PIL import Image

from helpers.explorer import panels
from helpers.plots.attribution import pixels

DRAW = np.random.default_rng(0)
FACES = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def cells(page):
    """(pixels, alternative text) of each picture in a table."""
    body = page.split("</table>")[0]
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]* alt="([^"]*)">', body)
    return [(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), words) for data, words in found]


def test_a_map_has_its_sign_its_scale_and_its_name():
    one = np.zeros((6, 5))
    one[0, 0], one[5, 4] = 2.0, -2.0
    page = panels.methods(FACES[:1], ["face 7, for smiling"], {"grad_cam": one[None]})
    (_, face), (shown, words) = cells(page)
    assert (face, words) == ("face 7, for smiling", "grad cam of face 7, for smiling") and shown.shape == (6, 5, 3)
    red, blue, white = (shown[place].astype(int) for place in ((0, 0), (5, 4), (2, 2)))
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 60 and white.min() > 240
    assert "±2" in page and '<th scope="row">face 7, for smiling</th>' in page and '<th scope="col">grad cam</th>' in page


def test_before_and_after_share_a_scale_and_the_change_has_its_own():
    before = DRAW.normal(size=(2, 6, 5))
    after = 10 * before
    (a, _), (b, _), (change, words), *_ = cells(panels.change(["one", "two"], before, after, ("Vanilla", "DFR")))
    end = float(np.percentile(np.abs(np.stack([before[0], after[0]])), 99))
    assert np.array_equal(a, pixels(before[0], end)) and np.array_equal(b, pixels(after[0], end)) and not np.array_equal(a, b)
    assert words == "map of one, DFR minus Vanilla"
    assert np.array_equal(change, pixels(after[0] - before[0], float(np.percentile(np.abs(9 * before[0]), 99))))
    assert len(cells(panels.change(["one", "two"], before, after, ("a", "b"), FACES))) == 8


def test_what_cannot_be_seen_is_said_and_names_are_escaped():
    nothing, unknown = np.zeros((1, 6, 5)), np.full((1, 6, 5), np.nan)
    page = panels.methods(FACES[:1], ["<script>alert(1)</script>"], {"saliency": nothing, "lrp": unknown})
    assert "all zero" in page and "no number" in page and "<script" not in page
    (_, _), (zero, _), (grey, _) = cells(page)
    assert zero.min() > 240 and len(np.unique(grey)) == 1 and 100 < grey[0, 0, 0] < 200
