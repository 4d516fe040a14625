"""Writing a file so that nobody ever finds half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; it becomes `path` when the block ends well.

    After an error or an interruption the temporary file is gone and what was at `path` before is still there.
    Missing folders above `path` are made.

    Raises
    ------
    ValueError : `path` is a folder.

    Examples
    --------
    >>> with whole("table.csv") as part:  # doctest: +SKIP
    ...     table.to_csv(part)
    """
    path = check(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays, since savefig and to_csv choose the format (and compression) by it
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        # mkstemp makes files that only their owner can read; a report is for others as well
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def check(path: str | Path, argument: str = "path") -> Path:
    """`path` as a Path if a file can be written there, so that a long computation does not end in an error.

    Raises
    ------
    ValueError : `path` is a folder, one of the folders above it is a file, or no file can be made there.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{argument}: {str(path)!r} is a folder; give the path of a file in it")
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise ValueError(f"{argument}: cannot write {str(path)!r}, since {str(parent)!r} is a file")
            try:  # asking for the permission alone would overlook a full or read-only disk
                tempfile.TemporaryFile(dir=parent).close()
            except OSError as error:
                raise ValueError(
                    f"{argument}: cannot write {str(path)!r}, since {str(parent)!r} takes no file ({error.strerror})"
                ) from error
            break
    return path
