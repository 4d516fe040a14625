"""The data sets that `load_faces` knows by name."""

from __future__ import annotations

from collections.abc import Callable

from helpers.names import choose

SOURCES: dict[str, Callable] = {}


def source(name: str) -> Callable[[Callable], Callable]:
    """Decorator that makes a function `load_faces(name, …)`.

    The function takes `split`, `image_size` and `seed`, `root`, `target` and `protected` where they make
    sense, and its own options, all by keyword and with its defaults in the signature; it returns a
    `FaceDataset`. `load_faces` hands on `root`, `target` and `protected` only when its caller gave them.

    Raises
    ------
    ValueError : another function has the name already.
    """

    def register(function: Callable) -> Callable:
        taken = SOURCES.get(name)
        # A reloaded module (Jupyter's autoreload) registers the same function again, which is no clash.
        if taken is not None and (taken.__module__, taken.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise ValueError(f"name: a data set {name!r} is registered already, by {taken.__module__}")
        SOURCES[name] = function
        return function

    return register


def find_source(name: str) -> Callable:
    """The function registered as `name`.

    Raises
    ------
    ValueError : no data set has the name; the nearest one and all of them are named.
    """
    return SOURCES[choose(name, SOURCES, "name")]
