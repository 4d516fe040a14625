"""Faces as one table and one array of images."""

from __future__ import annotations

import copy
import html
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from helpers.data import recipe, sampling, variants
from helpers.data.balance import BalancedSampler, kinds_of
from helpers.data.labels import cross, encode, find_column
from helpers.data.stored import Stored


class FaceDataset(Dataset):
    """Images of faces, a table with one row an image, and the two columns under study.

    Parameters
    ----------
    images : uint8 array (N, H, W, 3), in memory or memory-mapped, or `Stored` in a file; never written to
    table : DataFrame of N rows: attributes, `identity`, `path`, …; its index is replaced by 0 … N-1
    target : str, column to predict
    protected : str, or several: their values are crossed and the groups named "first, second"
    name : str, the data set's name
    split : str, "train", "validation", "test" or "all"
    classes, groups : names in the order of the codes, for splits that must share codes; None: taken from
        `reference`
    reference : DataFrame that defines the levels of the columns, usually the table of all splits; None:
        `table`
    skipped : pairs (path, reason) of images that could not be read

    Attributes
    ----------
    images, table, target, protected, name, split : as given (`protected` is a str or a tuple of str)
    classes, groups : tuple of str, names in the order of the codes. A yes/no column has "not x", "x"; others
        have their values. Crossed groups list every combination, the empty ones as well.
    targets, group : int64 arrays (N,)
    image_size : int, or (H, W) if the images are not square
    skipped : list of (path, reason)
    reference : as given, or the table
    source, steps : what `recipe` is made from: what `load_faces` was asked for (None: made by hand), and what was done since
    chosen : DataFrame, what a variant's shares came to (`helpers.data.variants.Variant.report`); None: no variant
    folder : Path that the column `path` is relative to, where images were read from files; else None

    Raises
    ------
    ValueError : images that are not uint8 (N, H, W, 3), N of images and table that differ, an unknown column
        (with the nearest one), missing labels (column and count), a label outside `classes`.

    Examples
    --------
    >>> table = pd.DataFrame({"smiling": [True, False], "glasses": [False, False]})
    >>> faces = FaceDataset(np.zeros((2, 8, 8, 3), np.uint8), table, target="smiling", protected="glasses")
    >>> faces.classes, faces.groups
    (('not smiling', 'smiling'), ('not glasses', 'glasses'))
    >>> image, target, group = faces[0]
    >>> tuple(image.shape), int(target), int(group)
    ((3, 8, 8), 1, 0)
    """

    folder: Path | None = None

    def __init__(
        self,
        images: np.ndarray | Stored,
        table: pd.DataFrame,
        *,
        target: str,
        protected: str | Sequence[str],
        name: str = "faces",
        split: str = "all",
        classes: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        reference: pd.DataFrame | None = None,
        skipped: Iterable[tuple[str, str]] = (),
    ) -> None:
        if (
            not isinstance(images, (np.ndarray, Stored))
            or images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[3] != 3
        ):
            raise ValueError(f"images: expected a uint8 array (N, H, W, 3), got {_describe(images)}")
        if len(images) != len(table):
            raise ValueError(f"table: {len(table)} rows do not fit {len(images)} images")
        if len(images) == 0:
            raise ValueError(f"images: the data set {name!r} ({split}) has no image")
        self.images = images
        self.table = table.reset_index(drop=True)
        self.name, self.split = name, split
        self.skipped = list(skipped)
        self.chosen: pd.DataFrame | None = None
        self.source: dict | None = None  # what `load_faces` was asked for
        self.steps: tuple[dict, ...] = ()  # and what was done afterwards, for the recipe
        self.reference = self.table if reference is None else reference
        self._label(target, protected, classes, groups)

    def _label(self, target, protected, classes, groups) -> None:
        """Read the target and protected columns into codes and names."""
        columns = (protected,) if isinstance(protected, str) else tuple(protected)
        if not columns:
            raise ValueError("protected: expected the name of a column, or several, got none")
        self.target = find_column(self.table, target, "target")
        columns = tuple(find_column(self.table, column, "protected") for column in columns)
        if len(set(columns)) != len(columns):
            raise ValueError(f"protected: a column is named twice in {columns}")
        self.protected = columns[0] if len(columns) == 1 else columns
        self.targets, self.classes = self._encode(self.target, classes)
        if len(columns) == 1:
            self.group, self.groups = self._encode(columns[0], groups)
        else:
            coded = [self._encode(column, None) for column in columns]
            self.group, self.groups = cross([codes for codes, _ in coded], [names for _, names in coded])
            if groups is not None:
                self.group, self.groups = encode(
                    pd.Series(np.array(self.groups, dtype=object)[self.group]), ", ".join(columns), groups
                )

    def _encode(self, column: str, names: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
        reference = self.reference[column] if column in self.reference else None
        return encode(self.table[column], column, names, reference=reference)

    @property
    def recipe(self) -> dict | None:
        """Which rows these are, as a small dict for JSON; `helpers.data.recall` loads them again. None: made by hand."""
        return recipe.describe(self)

    @property
    def image_size(self) -> int | tuple[int, int]:
        """Side in pixels, or (H, W) if the images are not square."""
        height, width = self.images.shape[1:3]
        return height if height == width else (height, width)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> tuple[Tensor, Tensor, Tensor]:
        """One triple for an int, a batch of triples for a slice, a list, an index array or a boolean mask.

        Returns
        -------
        image : float32 (3, H, W) or (n, 3, H, W) in [0, 1]; a batch lies in memory as channels_last
        target : int64 () or (n,)
        group : int64 () or (n,)

        Raises
        ------
        IndexError : an index outside the data set.
        """
        single = np.ndim(index) == 0 and not isinstance(index, slice)
        rows = self._rows([index] if single else index)
        # Row numbers (never a slice) make numpy copy, so torch gets writable memory, even of a read-only map.
        stored = torch.from_numpy(np.asarray(self.images[rows]))
        pixels = stored.permute(0, 3, 1, 2).to(torch.float32).div_(255)
        target, group = torch.from_numpy(self.targets[rows]), torch.from_numpy(self.group[rows])
        return (pixels[0].contiguous(), target[0], group[0]) if single else (pixels, target, group)

    def _rows(self, indices) -> np.ndarray:
        """Row numbers int64 (n,) in 0 … N-1 for whatever numpy would accept as one index axis."""
        if isinstance(indices, slice):
            return np.arange(len(self))[indices]
        rows = np.asarray(indices)
        if rows.ndim == 1 and rows.size == 0:
            return np.empty(0, dtype=np.int64)
        if rows.ndim != 1 or rows.dtype.kind not in "iub":
            raise TypeError(
                "index: expected an int, a slice, or a flat sequence of ints or booleans, got "
                f"{_describe(indices)}"
            )
        if rows.dtype == bool:
            if len(rows) != len(self):
                raise IndexError(f"index: a mask of {len(rows)} does not fit {len(self)} images")
            return np.flatnonzero(rows)
        rows = rows.astype(np.int64)
        if (rows < -len(self)).any() or (rows >= len(self)).any():
            raise IndexError(
                f"index: {rows[(rows < -len(self)) | (rows >= len(self))][0]} is outside {len(self)} images"
            )
        return rows % len(self)

    def loader(
        self, batch_size: int = 64, shuffle: bool = False, seed: int = 0, balance: str | None = None
    ) -> DataLoader:
        """Batches of triples, in order or shuffled by `seed` (anew each time the loader is gone through).

        Parameters
        ----------
        batch_size : int, at least 1; the last batch may be smaller
        shuffle : bool
        seed : int, of a generator of its own: the global random state is neither read nor changed
        balance : "group", "class" or "cell" (class × group): each comes equally often, small ones by repeating their images
            (`helpers.data.balance`), in an order by `seed`; None: every image once

        Returns
        -------
        DataLoader yielding (float32 (n, 3, H, W), int64 (n,), int64 (n,))
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ValueError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}")
        draws = torch.Generator().manual_seed(seed)
        if balance is not None:
            order = BalancedSampler(kinds_of(self, balance), draws)
        else:
            order = RandomSampler(self, generator=draws) if shuffle else SequentialSampler(self)
        # A sampler of whole batches with batch_size=None lets one array lookup make the batch: no per-image
        # collation. DataLoader draws a seed for its workers at each pass: its own generator keeps that off
        # the global state.
        return DataLoader(
            self,
            sampler=BatchSampler(order, int(batch_size), drop_last=False),
            batch_size=None,
            generator=torch.Generator().manual_seed(seed),
        )

    def subset(self, indices) -> FaceDataset:
        """The chosen rows, in the order given, with the same classes and groups.

        Parameters
        ----------
        indices : slice, ints (n,), or a boolean mask (N,)

        Returns
        -------
        A data set of the same class. What a subclass keeps for each row belongs in `table`, which is cut with
        the images.

        Raises
        ------
        ValueError : no row is chosen.
        IndexError : an index outside the data set.
        """
        rows = self._rows(indices)
        if len(rows) == 0:
            raise ValueError("indices: they select no image")
        part = copy.copy(self)
        # Images in a file stay there: chosen rows of a million faces would not fit into memory.
        part.images = self.images.select(rows) if isinstance(self.images, Stored) else self.images[rows]
        part.table = self.table.iloc[rows].reset_index(drop=True)
        part.targets, part.group = self.targets[rows], self.group[rows]
        part.chosen = None
        part.steps = (*self.steps, {"rows": rows, "of": len(self)})
        return part

    def variant(self, wanted, *, size: int | None = None, seed: int = 0) -> FaceDataset:
        """As many rows as there can be with wanted shares of attribute combinations, or with a wanted correlation.

        Parameters
        ----------
        wanted : `{"woman, not smiling": 0.1, …}`, `{"correlation": 0.8}` or another form of `helpers.data.variants.read`
        size : int, fewer rows than there could be
        seed : int, of the draw within combinations

        Returns
        -------
        FaceDataset whose `.chosen` says what was wanted, available and achieved.

        Raises
        ------
        ValueError : as `helpers.data.variants.variant`.
        """
        wish = variants.read(wanted).of(self.split)
        if wish.fraction is not None:
            raise ValueError("variant: a fraction of the people is cut where they are loaded: load_faces(…, variant=…)")
        if size is not None:
            wish = replace(wish, size=size)
        found = variants.choose_rows(
            self.table, wish, target=self.target, protected=self.protected, split=self.split, seed=seed
        )
        part = self.subset(found.rows)
        part.chosen = found.report
        part.steps = (*self.steps, {"variant": {"wanted": wish.to_dict(), "seed": int(seed)}})
        return part

    def balanced(self, seed: int = 0) -> FaceDataset:
        """As many rows of every cell (class × group) as the smallest has, drawn by seed.

        Raises
        ------
        ValueError : a cell is empty (it is named).
        """
        part = self.subset(sampling.balanced(self, seed))
        part.steps = (*self.steps, {"balanced": {"seed": int(seed)}})
        return part

    def relabel(self, target: str | None = None, protected: str | Sequence[str] | None = None) -> FaceDataset:
        """The same images with other columns as target or protected attribute; None keeps the present one.

        Raises
        ------
        ValueError : as the constructor.
        """
        other = copy.copy(self)
        classes = self.classes if target is None else None
        groups = self.groups if protected is None else None
        other._label(
            self.target if target is None else target,
            self.protected if protected is None else protected,
            classes,
            groups,
        )
        other.steps = (*self.steps, {"relabel": {"target": target, "protected": protected}})
        return other

    def counts(self) -> pd.DataFrame:
        """Number of images by group (rows) and class (columns), empty cells as 0."""
        cells = np.bincount(
            self.group * len(self.classes) + self.targets, minlength=len(self.groups) * len(self.classes)
        )
        protected = self.protected if isinstance(self.protected, str) else ", ".join(self.protected)
        return pd.DataFrame(
            cells.reshape(len(self.groups), len(self.classes)),
            index=pd.Index(self.groups, name=protected),
            columns=pd.Index(self.classes, name=self.target),
        )

    def _headline(self) -> str:
        size = self.images.shape[1:3]
        people = f" of {self.table['identity'].nunique()} people" if "identity" in self.table else ""
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{self.name} ({self.split}): {len(self)} images{people}, {size[0]}×{size[1]} px{skipped}"

    def __repr__(self) -> str:
        protected = self.protected if isinstance(self.protected, str) else " × ".join(self.protected)
        return (
            f"{type(self).__name__} {self._headline()}; target {self.target} ({' | '.join(self.classes)}), "
            f"protected {protected} ({' | '.join(self.groups)})"
        )

    def _repr_html_(self) -> str:
        return f"<p><b>{html.escape(self._headline())}</b></p>{self.counts().to_html()}"


def _describe(value) -> str:
    shape = getattr(value, "shape", None)
    return (
        type(value).__name__ if shape is None else f"{type(value).__name__} of {value.dtype} {tuple(shape)}"
    )
