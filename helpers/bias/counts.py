"""The contingency table of an audit: all that a rate, its interval and a distributed sum need to know of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Images by group, label and prediction. Tables of parts of the data add up: `Counts + Counts`.

    Parameters
    ----------
    table : int64 (G, C, C); `table[g, y, p]` images of group g, label y, prediction p
    groups : G names, in the order of the first axis
    classes : C names, in the order of the other two axes

    Raises
    ------
    ValueError : the table does not fit the names, counts something negative, or is not of integers.
    """

    table: np.ndarray
    groups: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self):
        table = np.asarray(self.table)
        if not np.issubdtype(table.dtype, np.integer):
            raise ValueError(f"table: whole numbers expected, {table.dtype} given")
        groups, classes = tuple(map(str, self.groups)), tuple(map(str, self.classes))
        wanted = (len(groups), len(classes), len(classes))
        if table.shape != wanted:
            raise ValueError(f"table: shape {table.shape} does not fit {wanted[0]} groups and {wanted[1]} classes")
        for argument, names in (("groups", groups), ("classes", classes)):
            if len(set(names)) < len(names):
                raise ValueError(f"{argument}: names repeat in {', '.join(names)}")
        if table.size and table.min() < 0:
            raise ValueError(f"table: holds the negative count {table.min()}")
        table = table.astype(np.int64)  # a copy: whoever made the table may go on writing to theirs
        table.setflags(write=False)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "classes", classes)

    def __add__(self, other: Counts) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        for name in ("groups", "classes"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"{name}: tables of ({', '.join(getattr(self, name))}) and "
                    f"({', '.join(getattr(other, name))}) do not add up"
                )
        return Counts(self.table + other.table, self.groups, self.classes)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Counts)
            and (self.groups, self.classes) == (other.groups, other.classes)
            and bool((self.table == other.table).all())
        )

    __hash__ = None  # an array has no hash, and == compares its values

    @property
    def n(self) -> np.ndarray:
        """Images of each group, int64 (G,)."""
        return self.table.sum((1, 2))

    def existing(self) -> Counts:
        """The same table without the groups that no image belongs to."""
        kept = self.n > 0
        return Counts(self.table[kept], tuple(np.array(self.groups, dtype=object)[kept]), self.classes)


def count(
    y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray, groups: tuple[str, ...], classes: tuple[str, ...]
) -> Counts:
    """Count integer codes by group, label and prediction in one pass.

    Parameters
    ----------
    y_true, y_pred : integer (N,), codes into `classes`
    group : integer (N,), codes into `groups`
    groups, classes : names in the order of the codes

    Returns
    -------
    Counts

    Raises
    ------
    ValueError : lengths differ, or a code is out of range (argument, code and range are named).

    Examples
    --------
    >>> count([0, 1, 1], [0, 1, 0], [0, 0, 1], ("a", "b"), ("no", "yes")).table.tolist()
    [[[1, 0], [0, 1]], [[0, 0], [1, 0]]]
    """
    columns = {"y_true": (y_true, len(classes)), "y_pred": (y_pred, len(classes)), "group": (group, len(groups))}
    codes = {}
    for argument, (column, levels) in columns.items():
        codes[argument] = column = np.asarray(column)
        if column.ndim != 1 or len(column) != len(codes["y_true"]):
            raise ValueError(f"{argument}: shape ({len(codes['y_true'])},) expected, {column.shape} given")
        if len(column) and not np.issubdtype(column.dtype, np.integer):
            raise ValueError(f"{argument}: integer codes expected, {column.dtype} given")
        if len(column) and not 0 <= column.min() <= column.max() < levels:
            outside = column.min() if column.min() < 0 else column.max()
            raise ValueError(f"{argument}: code {outside} is outside 0 to {levels - 1}")
    c = len(classes)
    cell = (codes["group"].astype(np.int64, copy=False) * c + codes["y_true"]) * c + codes["y_pred"]
    table = np.bincount(cell.astype(np.int64, copy=False), minlength=len(groups) * c * c)
    return Counts(table.reshape(len(groups), c, c), groups, classes)
