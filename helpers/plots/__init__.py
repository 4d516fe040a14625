"""Figures: every function takes plain tables or arrays and returns the Axes or the Figure."""

from .show import alt_text, img, png, show
from .style import DIVERGING, PALETTE, SEQUENTIAL, alt, figure_of, use

__all__ = ["DIVERGING", "PALETTE", "SEQUENTIAL", "alt", "alt_text", "figure_of", "img", "png", "show", "use"]
