"""Setting rows aside, every cell in proportion."""

from __future__ import annotations

import numpy as np


def stratified(cell: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into those to fit on and those held out, cell by cell.

    Parameters
    ----------
    cell : int array (n,), non-negative code of each row's cell
    share : float in (0, 1), share held out; a cell of two rows or more gives at least one and keeps at least one,
        a cell of a single row keeps it
    rng : numpy Generator

    Returns
    -------
    rest, aside : int64 arrays of row numbers, each ascending; together every row once.
    """
    aside = []
    for code in np.unique(cell):
        rows = rng.permutation(np.flatnonzero(cell == code))
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        aside.append(rows[:count])
    held = np.sort(np.concatenate(aside))
    return np.setdiff1d(np.arange(len(cell)), held), held
