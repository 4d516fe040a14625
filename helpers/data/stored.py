"""Images that stay in a file and are read when they are asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 1024  # images held at once where all of them are gone through
TURN = threading.Lock()


class Stored:
    """uint8 images (N, H, W, 3) in a file of raw pixels, indexed as a NumPy array is and never written to.

    An index gives an ordinary array with the images read for it; `select` chooses rows without reading any. Images are read with
    `os.preadv`, not through a memory map: the pages of a map count as the process's memory from the first touch on, and a
    shuffled epoch touches all of them. The operating system keeps what was read in its own cache either way.

    Pickled, it is the path and the rows; the file is opened anew where it arrives, as in a worker of a `DataLoader`.

    Parameters
    ----------
    path : file of n · H · W · 3 bytes
    shape : (n, H, W, 3), of the images in the file
    rows : int64 (N,), which of the n these are, in this order; None: all of them

    Raises
    ------
    ValueError : the file has another size; said when it is opened, at the first reading.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, path: str | Path, shape: tuple[int, int, int, int], rows: np.ndarray | None = None) -> None:
        self.path = Path(path).absolute()
        self._within = tuple(int(side) for side in shape)
        self._rows = rows
        self._file = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), *self._within[1:])

    @property
    def nbytes(self) -> int:
        """Bytes that the images would take in memory."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self._within[0] if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        return f"Stored(uint8 {self.shape} in {str(self.path)!r})"

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None}

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError("copy: images in a file become an array only as a copy")
        read = self._read(np.arange(len(self)))
        return read if dtype is None else read.astype(dtype, copy=False)

    def __getitem__(self, index) -> np.ndarray:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, slice):
            rows = np.arange(*first.indices(len(self)))
            plain = all(isinstance(each, (int, np.integer, slice)) for each in rest)
            if rest and plain and len(rows) > BLOCK:  # one channel of many images, say: they need not be held whole
                return np.concatenate([self[rows[i : i + BLOCK]][:, *rest] for i in range(0, len(rows), BLOCK)])
            read, place = self._read(rows), slice(None)
        elif first is None or first is Ellipsis or np.ndim(first) > 1 and np.asarray(first).dtype == bool:
            return np.asarray(self)[index]
        else:
            rows = self._numbers(first)
            read = self._read(rows.reshape(-1))
            if not rest and rows.ndim == 1:
                return read
            # numbers stand for themselves in what was read: NumPy then combines them with further indices by its own rules
            place = 0 if rows.ndim == 0 else np.arange(rows.size).reshape(rows.shape)
        return read[place, *rest]

    def _numbers(self, index) -> np.ndarray:
        """Row numbers in 0 … N-1, of any shape, for an int, a list, an array or a mask (N,)."""
        rows = np.asarray(index)
        if rows.dtype == bool and rows.shape == (len(self),):
            return np.flatnonzero(rows)
        if rows.size == 0 and not isinstance(index, np.ndarray):
            return rows.astype(np.int64)
        if rows.dtype.kind not in "iu":
            raise IndexError(f"index: expected ints, a slice or a mask of {len(self)} booleans, got {rows.dtype} {rows.shape}")
        rows = rows.astype(np.int64)
        outside = (rows < -len(self)) | (rows >= len(self))
        if outside.any():
            raise IndexError(f"index: {rows[outside].flat[0]} is outside {len(self)} images")
        return np.where(rows < 0, rows + len(self), rows)

    def select(self, rows: np.ndarray) -> Stored:
        """The chosen rows, int64 (m,) in 0 … N-1, in the order given; nothing is read."""
        part = Stored(self.path, self._within, rows if self._rows is None else self._rows[rows])
        part._file = self._file
        return part

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """All images in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def _read(self, rows: np.ndarray) -> np.ndarray:
        file = self._open()
        inner = rows if self._rows is None else self._rows[rows]
        images = np.empty((len(rows), *self._within[1:]), dtype=np.uint8)
        room = memoryview(images.reshape(-1))
        each = int(np.prod(self._within[1:]))
        # neighbours in the file that stay neighbours are read at once
        ends = np.append(np.flatnonzero(np.diff(inner) != 1) + 1, len(inner))
        start = 0
        for end in ends.tolist() if len(inner) else ():
            _fill(file, room[start * each : end * each], int(inner[start]) * each)
            start = end
        return images

    def _open(self) -> _Descriptor:
        file = self._file
        if file is None:
            file = _Descriptor(self.path)
            size, expected = os.fstat(file.number).st_size, int(np.prod(self._within))
            if size != expected:
                raise ValueError(f"{self.path}: has {size} bytes, not {expected}; load the faces again, which repairs it")
            self._file = file
        return file


class _Descriptor:
    """An open file that several `Stored` share, closed when the last of them has gone."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self, close=os.close) -> None:
        if hasattr(self, "number"):
            close(self.number)


def _fill(file: _Descriptor, room: memoryview, offset: int) -> None:
    """Read until `room` is full: one call may bring less (2 GB at most)."""
    while len(room):
        came = _read_at(file, room, offset)
        if came == 0:
            raise ValueError(f"{file.path}: was cut off while it was read; load the faces again, which repairs it")
        room, offset = room[came:], offset + came


def _read_at(file: _Descriptor, room: memoryview, offset: int) -> int:
    """Bytes read into `room` from a place in the file, whatever its position, which workers and threads share."""
    if hasattr(os, "preadv"):
        return os.preadv(file.number, [room], offset)
    with TURN:  # Windows, where a process is never forked, so that its threads alone share the position
        os.lseek(file.number, offset, os.SEEK_SET)
        read = os.read(file.number, len(room))
    room[: len(read)] = read
    return len(read)
