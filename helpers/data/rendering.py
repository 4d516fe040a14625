"""From attributes to pixels: one drawn face under its nuisances (pose, blur, light, background, noise)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from helpers.data.styles import GUIDES, Person, definition, svg_options


@dataclass(frozen=True)
class Nuisance:
    """What differs between two pictures of the same face and should not matter.

    Lengths are fractions of the picture's side, angles degrees, light a factor on linear intensity.
    """

    scale: float = 1.0
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.0
    light: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shade: tuple[float, float] = (0.0, 0.0)
    background: tuple[tuple[float, float, float], tuple[float, float, float], float] = ((1, 1, 1), (1, 1, 1), 0.0)
    noise: float = 0.0
    noise_seed: int = 0


def draw_nuisance(rng: np.random.Generator, strength: float = 1.0) -> Nuisance:
    """Random crop, rotation, blur, light, background and sensor noise; `strength` 0 is a clean studio picture."""
    base, turn = rng.uniform(0.25, 0.95), rng.uniform(0, 360)
    colours = [tuple(np.clip(base + rng.normal(0, 0.12, 3), 0, 1).tolist()) for _ in range(2)]
    white = (1.0, 1.0, 1.0)
    mix = lambda colour: tuple(float(strength * c + (1 - strength) * w) for c, w in zip(colour, white, strict=True))
    return Nuisance(
        scale=1.0 + strength * float(rng.uniform(-0.08, 0.12)),
        rotation=strength * float(rng.uniform(-10, 10)),
        shift=tuple((strength * rng.uniform(-0.05, 0.05, 2)).tolist()),
        blur=strength * float(rng.uniform(0.004, 0.016)),
        light=1.0 + strength * float(rng.uniform(-0.35, 0.15)),
        tint=tuple((1 + strength * rng.uniform(-0.08, 0.08, 3)).tolist()),
        shade=tuple((strength * rng.uniform(-0.2, 0.2, 2)).tolist()),
        background=(mix(colours[0]), mix(colours[1]), float(turn)),
        noise=strength * 0.02,
        noise_seed=int(rng.integers(2**31)),
    )


def rasterise(options: Mapping[str, Any], style: str, nuisance: Nuisance, size: int) -> np.ndarray:
    """Draw the SVG with its pose: float32 (size, size, 4), straight alpha, values in [0, 1]."""
    import resvg_py
    from dicebear import Avatar

    x, y, zoom = GUIDES[style].frame
    zoom = zoom * nuisance.scale
    pose = {"scale": zoom, "rotate": nuisance.rotation,
            "translateX": 100 * ((0.5 - x) * zoom + nuisance.shift[0]),
            "translateY": 100 * ((0.5 - y) * zoom + nuisance.shift[1])}
    svg = Avatar(definition(style), {**options, **pose}).to_string()
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), dtype=np.float32) / 255


def photograph(drawing: np.ndarray, nuisance: Nuisance) -> np.ndarray:
    """Put a drawing (H, W, 4) before its background and take the picture: uint8 (H, W, 3)."""
    size = drawing.shape[0]
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    first, second, angle = nuisance.background
    slope = grid[None] * np.cos(np.radians(angle)) + grid[:, None] * np.sin(np.radians(angle)) + 0.5
    backdrop = np.array(first) + (np.array(second) - np.array(first)) * slope[..., None]
    alpha = drawing[..., 3:]
    picture = drawing[..., :3] * alpha + backdrop * (1 - alpha)
    if nuisance.blur:
        picture = gaussian_filter(picture, (nuisance.blur * size, nuisance.blur * size, 0), truncate=3)
    fall = 1 + nuisance.shade[0] * 2 * grid[None, :, None] + nuisance.shade[1] * 2 * grid[:, None, None]
    picture = picture * nuisance.light * np.array(nuisance.tint) * fall
    if nuisance.noise:
        picture = picture + np.random.default_rng(nuisance.noise_seed).normal(0, nuisance.noise, picture.shape)
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)


def render(person: Person, attributes: Mapping[str, Any], nuisance: Nuisance, size: int) -> np.ndarray:
    """One picture, uint8 (size, size, 3): `person` with `attributes` under `nuisance`. Same input, same bytes."""
    return photograph(rasterise(svg_options(person, attributes), person.style, nuisance, size), nuisance)
