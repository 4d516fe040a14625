"""Slides: a title, a line of numbers, a figure or a part of it, and how far the film has come. 1280 × 720, with Pillow."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from helpers.plots.style import PALETTE

SIZE = WIDTH, HEIGHT = 1280, 720
MARGIN = 40
TITLE, LINE, SMALL = 40, 30, 22  # heights of letters, pixels; none is smaller
TOP, FLOOR = 78, 650  # where a figure may be; players write captions below
INK, PAPER, GREY, ACCENT = "#1a1a2e", "#ffffff", "#6b7280", PALETTE[0]


@dataclass(frozen=True)
class Slide:
    """What is seen during a shot. `figure` is PNG or empty, `part` as in `story.Shot`, `done` the share of the film before it."""

    title: str
    mark: str
    card: str
    figure: bytes
    part: tuple[float, float, float, float]
    marks: tuple[float, ...] = ()  # where chapters begin, in shares of the film


@lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)


@lru_cache(maxsize=8)
def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def letters(slide: Slide) -> float:
    """Height on the slide, in pixels, of the figure's letters of 11 points, the size of its tick labels."""
    dpi = Image.open(io.BytesIO(slide.figure)).info.get("dpi", (72, 72))[0]
    return 11 / 72 * dpi * place(slide, slide.part)[2]


@lru_cache(maxsize=8)
def ground(slide: Slide) -> Image.Image:
    """Everything but the figure and the progress."""
    image = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(image)
    if not slide.figure:
        draw.rectangle((0, 0, 14, HEIGHT), fill=ACCENT)
        lines = [(slide.title, font(56, True), INK), *((line, font(34), INK) for line in slide.card.split(" | ") if line)]
        y = HEIGHT // 2 - 70 - 26 * len(lines)
        for text, face, colour in lines:
            draw.text((2 * MARGIN, y), fitted(text, face, WIDTH - 4 * MARGIN), font=face, fill=colour)
            y += face.size + 28
        return image
    draw.text((MARGIN, 20), slide.title, font=font(TITLE, True), fill=INK)
    draw.text((WIDTH - MARGIN, 34), slide.mark, font=font(SMALL), fill=GREY, anchor="ra")
    if slide.card:
        draw.text((WIDTH // 2, TOP + 4), slide.card, font=font(LINE), fill=ACCENT, anchor="ma")
    return image


def fitted(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    if face.getlength(text) > width:
        raise ValueError(f"slide: {text!r} is {face.getlength(text):.0f} pixels wide, {width} are free")
    return text


def check(slide: Slide) -> None:
    """Raise ValueError if a line of the slide does not fit."""
    if slide.figure:
        fitted(slide.title + slide.mark, font(TITLE, True), WIDTH - 2 * MARGIN)
        fitted(slide.card, font(LINE), WIDTH - 2 * MARGIN)
    ground(slide)


def place(slide: Slide, part: tuple[float, float, float, float]) -> tuple[Image.Image, tuple[int, int], float]:
    """A part of the slide's figure as large as it fits, where it goes, and the pixels on the slide for each of the figure."""
    figure = opened(slide.figure)
    left, top, right, bottom = np.array(part) * np.array([*figure.size, *figure.size])
    start = TOP + (LINE + 18 if slide.card else 0)
    scale = min((WIDTH - 2 * MARGIN) / (right - left), (FLOOR - start) / (bottom - top))
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    drawn = figure.resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom))
    return drawn, ((WIDTH - size[0]) // 2, start + (FLOOR - start - size[1]) // 2), scale


def picture(slide: Slide, part: tuple[float, float, float, float] | None = None) -> Image.Image:
    """The slide; with `part` as seen on the way from one part of its figure to another."""
    image = ground(slide).copy()
    if slide.figure:
        drawn, corner, _ = place(slide, part or slide.part)
        image.paste(drawn, corner)
    return image


def with_progress(image: Image.Image, done: float, marks: tuple[float, ...]) -> np.ndarray:
    """The frame, uint8 (720, 1280, 3): a line at the foot shows the share of the film that is over, and its chapters."""
    frame = np.array(image)
    frame[HEIGHT - 8 :] = 229
    frame[HEIGHT - 8 :, : round(done * WIDTH)] = tuple(bytes.fromhex(ACCENT[1:]))
    for mark in marks[1:]:
        frame[HEIGHT - 8 :, round(mark * WIDTH) - 1 : round(mark * WIDTH) + 1] = 255
    return frame
