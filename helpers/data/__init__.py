"""Faces as a table plus images: `load_faces` and the data sets behind it."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.data import sources as _sources  # noqa: F401  each source registers itself
from helpers.data.base import FaceDataset
from helpers.data.card import DataCard, card, table_card
from helpers.data.duplicates import Leaks, duplicates, leaks
from helpers.data.pictures import pictures
from helpers.data.recipe import recall, source_of
from helpers.data.registry import SOURCES, find_source, source
from helpers.data.sampling import SPLITS, balanced, split_identities
from helpers.data.sources.files import choosing
from helpers.data.suspicious import Suspicious, suspicious
from helpers.data.variants import read as read_variant
from helpers.names import choose

__all__ = [
    "SOURCES", "SPLITS", "DataCard", "FaceDataset", "Leaks", "Suspicious",
    "balanced", "card", "duplicates", "leaks", "load_faces", "pictures", "recall", "source", "split_identities", "suspicious",
    "table_card",
]  # fmt: skip

SMALLEST_SIDE, LARGEST_SIDE = 8, 1024


def load_faces(
    name: str,
    *,
    root=None,
    target: str | None = None,
    protected: str | Sequence[str] | None = None,
    split: str = "train",
    image_size: int = 64,
    seed: int = 0,
    variant=None,
    **options,
) -> FaceDataset:
    """Load a data set of faces by name.

    Parameters
    ----------
    name : "illustrated", "orl", "bfw", "celeba", "fairface", "utkface", "lfw", "folder" or "table" (see
        `data/README.md`)
    root : path of the data; "illustrated" and "orl" need none, nor does what `python -m helpers fetch` has put in
        the cache
    target : column to predict, a common name (`helpers.data.vocabulary`) or one of the data set's own; None: its
        default
    protected : column, or several, whose groups are compared; None: the data set's default
    split : "train", "validation", "test" or "all". The official splits where the data has them; else 60, 20
        and 20 % of the *people*, by `seed`, so that no face is in two splits
    image_size : side of the square images in pixels, 8 to 1024
    seed : int, non-negative
    variant : wanted shares of attribute combinations, `{"woman, not smiling": 0.1, …}`, a correlation of target and
        protected attribute, `{"correlation": 0.8}`, DetoxAI's configuration, or another form of
        `helpers.data.variants.read`. Of the split, as many rows as have them are read; `.chosen` is the report. What
        `on_error="skip"` then leaves out is not made up for
    **options : the data set's own options, as in the signature of its function, such as `on_error="skip"`,
        which lists unreadable images in `.skipped` and goes on, and for photographs `cache=`: "auto" decodes 20,000
        images (or 1 GB of pixels) and more once, into a file in the cache folder from which they are read as needed;
        True does so always, False never, a folder there (`helpers.data.store`)

    Returns
    -------
    FaceDataset of (image float32 (3, H, W) in [0, 1], target int64, group int64)

    Raises
    ------
    ValueError : an unknown name, split or column (the nearest is named), missing labels, an unreadable image
        (named)
    FileNotFoundError : the data is not where `root` says; the message says how to get it
    TypeError : an option that the data set does not have

    Examples
    --------
    >>> faces = load_faces("orl", target="glasses", protected="facial_hair", split="test")
    >>> len(faces), faces.classes
    (80, ('not glasses', 'glasses'))
    """
    function = find_source(name)
    name = choose(name, SOURCES, "name")
    if (
        isinstance(image_size, bool)
        or not isinstance(image_size, int)
        or not SMALLEST_SIDE <= image_size <= LARGEST_SIDE
    ):
        raise ValueError(
            f"image_size: expected a whole number from {SMALLEST_SIDE} to {LARGEST_SIDE}, got {image_size!r}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
    given = {"root": root, "target": target, "protected": protected}
    options.update({key: value for key, value in given.items() if value is not None})
    split = choose(split, (*SPLITS, "all"), "split")
    wish = None if variant is None else read_variant(variant)
    if wish is not None:
        wish.of(split), wish.fractions  # what cannot be is named before anything is read
    with choosing(wish):
        faces = function(split=split, image_size=image_size, seed=seed, **options)
    if wish is not None and faces.chosen is None:  # a source that does not read files
        faces = faces.variant(wish, seed=seed)
    if isinstance(faces, FaceDataset):
        faces.source, faces.steps = source_of(name, root, split, image_size, seed, options, wish, faces), ()
    return faces
