"""A cache of decoded faces: image files are decoded once, into one file that is read in pieces ever after.

A folder `<place>/<key>` holds

- `pixels.u8`: the images one after the other, uint8 (N, size, size, 3), zeros where a file cannot be read;
- `progress.jsonl`, while it is made: a line for each block of 64 images whose pixels have been written, with their SHA-256;
- `faces.json`, written last: these checksums, the files that cannot be read with the reason, and a checksum over all of it.

The key is a hash of what is in it: paths, sizes and times of the image files, the content of a few of them, the side of the
images and the versions of what decodes. Changed, added or removed files, another split or another side are another key.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

from helpers.data.cache import cache_dir
from helpers.data.decode import CHUNK, decode, decode_chunks, decoder, readable
from helpers.data.stored import Stored
from helpers.files import check, whole
from helpers.names import choose

PIXELS, PROGRESS, ABOUT = "pixels.u8", "progress.jsonl", "faces.json"
FORMAT = 1
SAMPLED = 32  # files whose content goes into the key
FROM_IMAGES, FROM_BYTES = 20_000, 1_000_000_000  # cache="auto": at and above either, what is decoded is kept
SPARE = 50_000_000  # bytes left free on the disk


class Unwritable(ValueError):
    """The cache has no room, or takes no files."""


def place_of(cache: str | bool | Path, count: int, image_size: int) -> Path | None:
    """The folder of caches that the argument `cache` means; None: the images are to be held in memory.

    Parameters
    ----------
    cache : "auto", a cache from 20,000 images or 1 GB of pixels on; True or False; or the folder for it
    count, image_size : number and side of the images

    Raises
    ------
    ValueError : another value.
    """
    if isinstance(cache, str) and cache == "auto":
        large = count >= FROM_IMAGES or count * image_size**2 * 3 >= FROM_BYTES
        return _own_place() if large else None
    if isinstance(cache, (bool, np.bool_)):
        return _own_place() if cache else None
    if isinstance(cache, (str, Path)) and str(cache):
        return Path(cache).expanduser()
    raise ValueError(f'cache: expected "auto", True, False or a folder, got {cache!r}')


def _own_place() -> Path:
    try:
        return cache_dir("faces")
    except OSError as error:
        raise Unwritable(f'cache: cannot make {error.filename} ({error.strerror}); give a folder, or cache=False') from error


def open_faces(
    folder: Path,
    names: Sequence[str],
    image_size: int,
    place: Path,
    *,
    on_error: str = "raise",
    progress: bool | None = None,
) -> tuple[Stored, np.ndarray, list[tuple[int, str]]]:
    """Faces from the cache, which is made, finished or repaired first where need be, on all cores.

    What a killed process had written is kept, after a look at its checksums; of several processes one makes the cache and the
    others wait. Opening a finished one compares sizes and the time of the last change, and reads no pixels; if the file of pixels
    was touched since, all checksums are compared and what differs is decoded again. `verify` compares them at any time.

    Parameters
    ----------
    folder : Path that `names` are relative to
    names : N paths of image files
    image_size, on_error, progress : as in `decode_all`
    place : folder of caches

    Returns
    -------
    As `decode_all`, but for the images, which are `Stored`.

    Raises
    ------
    Unwritable : a ValueError; the place takes no files or the disk is full (what is needed is told).
    ValueError, FileNotFoundError : as `decode_all`. With on_error="raise" what was decoded before stays for the next call.
    """
    on_error = choose(on_error, ("raise", "skip"), "on_error")
    paths = [os.path.join(folder, name) for name in names]
    home = place / _key(paths, names, image_size)
    about = _finished(home, paths, image_size) or _make(home, paths, image_size, on_error, progress)
    failed = [(i, f"{Path(paths[i])}{reason}") for i, reason in about["failed"]]
    if failed and on_error == "raise":
        decode_chunks([paths[failed[0][0]]], image_size, [0], lambda *_: None)  # raises what it would without a cache
    kept = readable(len(paths), failed)
    images = Stored(home / PIXELS, (len(paths), image_size, image_size, 3))
    return images.select(kept) if failed else images, kept, failed


def verify(images: Stored) -> None:
    """Compare all pixels in the file behind `images`, of `open_faces`, with their checksums: a gigabyte takes about a second.

    Raises
    ------
    ValueError : they differ, or there are no checksums; the message says what to do.
    """
    home = images.path.parent
    about = _read_about(home)
    if about is None:
        raise ValueError(f"images: {home} has no {ABOUT} with the right checksum; remove the folder and load the faces again")
    known = _known(home, about)
    damaged = len(known) - len(_sound(home, known, about["images"], about["image_size"]))
    if damaged:
        raise ValueError(
            f"images: {damaged} of {len(known)} blocks of {images.path} are damaged; remove it and load the faces again"
        )


def _key(paths: Sequence[str], names: Sequence[str], image_size: int) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, decoder(), image_size, len(paths)]).encode())
    for path, name in zip(paths, names, strict=True):
        try:
            seen = os.stat(path)
            digest.update(b"%b\0%d\0%d\n" % (os.fsencode(name), seen.st_size, seen.st_mtime_ns))
        except OSError:
            digest.update(b"%b\0absent\n" % os.fsencode(name))
    # Archives often give all their files one time, and some formats one size: two such folders differ in content only.
    for i in sorted({len(paths) * k // SAMPLED for k in range(SAMPLED)}) if len(paths) else ():
        try:
            with open(paths[i], "rb") as file:
                digest.update(hashlib.sha256(file.read(1 << 16)).digest())
        except OSError:
            digest.update(b"absent")
    return digest.hexdigest()[:20]


def _finished(home: Path, paths: Sequence[str], image_size: int) -> dict | None:
    """The description of a cache that is whole and still right; None if there is something to do."""
    about = _read_about(home)
    if about is None or about["images"] != len(paths) or about["image_size"] != image_size:
        return None
    try:
        seen = (home / PIXELS).stat()
    except OSError:
        return None
    if seen.st_size != len(paths) * image_size**2 * 3 or any(_reads_now(paths[i], image_size) for i, _ in about["failed"]):
        return None
    if seen.st_mtime_ns != about["changed"]:  # copied elsewhere, or written to: only the checksums can tell
        known = _known(home, about)
        if len(_sound(home, known, len(paths), image_size)) < len(known):
            return None
        try:
            _write_about(home, about | {"changed": seen.st_mtime_ns})
        except (OSError, ValueError):
            pass  # a cache that others keep can be read all the same
    return about


def _reads_now(path: str, image_size: int) -> bool:
    """Whether a file that could not be read can be now: permissions leave its time as it was."""
    try:
        decode(path, image_size)
    except (ValueError, FileNotFoundError):
        return False
    return True


def _make(home: Path, paths: Sequence[str], image_size: int, on_error: str, progress: bool | None) -> dict:
    """Decode what is not there yet or damaged, and describe the whole."""
    try:
        check(home / ABOUT, "cache")
        home.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise Unwritable(f"{error}; give another folder, or cache=False") from error
    with FileLock(home.with_suffix(".lock")):
        about = _finished(home, paths, image_size)
        if about is not None:  # another process made it in the meantime
            return about
        known = _known(home, _read_about(home))
        done = _sound(home, known, len(paths), image_size)
        if len(done) < len(known):
            warnings.warn(
                f"cache: {len(known) - len(done)} of {len(known)} blocks in {home} are damaged and are decoded again",
                stacklevel=2,
            )
        done = {b: state for b, state in done.items() if not any(_reads_now(paths[i], image_size) for i, _ in state[1])}
        _check_room(home, len(paths) * image_size**2 * 3)
        _decode_into(home, done, paths, image_size, on_error, progress)
        blocks = [done[block] for block in range(len(done))]
        about = {
            "format": FORMAT,
            "decoder": decoder(),
            "images": len(paths),
            "image_size": image_size,
            "failed": [bad for _, failed in blocks for bad in failed],
            "blocks": [digest for digest, _ in blocks],
            "changed": (home / PIXELS).stat().st_mtime_ns,
        }
        with _told(home):
            _write_about(home, about)
            (home / PROGRESS).unlink(missing_ok=True)
        return about


@contextmanager
def _told(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"cache: cannot write into {home} ({error.strerror}); make room or give another folder, and call again: what has "
            "been decoded is kept. cache=False does without"
        ) from error


def _check_room(home: Path, size: int) -> None:
    try:
        there = (home / PIXELS).stat()
        # what is not written yet takes no room on the disk, whatever the size of the file
        size -= min(there.st_blocks * 512, there.st_size)
    except OSError:
        pass
    free = shutil.disk_usage(home).free
    if size + SPARE > free:
        raise Unwritable(
            f"cache: {home.parent} has {free / 1e6:,.0f} MB free, but {size / 1e6:,.0f} MB are to be written and "
            f"{SPARE / 1e6:.0f} to be left; make room, give a folder on another disk (or set CANDOR_CACHE), or cache=False"
        )


def _decode_into(
    home: Path, done: dict[int, tuple[str, list]], paths: Sequence[str], image_size: int, on_error: str, progress: bool | None
) -> None:
    """Decode the blocks that are not in `done`, and enter each there and in the file of progress when its pixels are written."""
    each = image_size**2 * 3
    with _told(home):
        with whole(home / PROGRESS) as part:  # without the line that a kill cut short
            part.write_text("".join(_line(block, *state) for block, state in done.items()), encoding="utf-8")
        (home / PIXELS).touch()
        pixels, log, guard = (home / PIXELS).open("r+b"), (home / PROGRESS).open("a", encoding="utf-8"), threading.Lock()

    def keep(start: int, images: np.ndarray, failed: list[tuple[int, str]]) -> None:
        block = start // CHUNK
        state = (hashlib.sha256(images).hexdigest(), [[i, reason.removeprefix(str(Path(paths[i])))] for i, reason in failed])
        with guard:
            if pixels.closed:  # Ctrl-C came again while threads were waited for
                return
            with _told(home):
                pixels.seek(start * each)
                pixels.write(images)
                pixels.flush()
                log.write(_line(block, *state))
                log.flush()
            done[block] = state

    try:
        todo = [start for start in range(0, len(paths), CHUNK) if start // CHUNK not in done]
        decode_chunks(paths, image_size, todo, keep, on_error=on_error, progress=progress)
        pixels.truncate(len(paths) * each)  # what was there before may have been longer
    finally:
        with guard:
            for file in (pixels, log):
                try:
                    file.close()
                except OSError:  # of a full disk, which has been told
                    pass


def _line(block: int, digest: str, failed: list) -> str:
    return json.dumps([block, digest, failed]) + "\n"


def _known(home: Path, about: dict | None) -> dict[int, tuple[str, list]]:
    """For each block that is said to be written, its checksum and its failures."""
    known = {}
    if about is not None:
        known = {block: (digest, []) for block, digest in enumerate(about["blocks"])}
        for i, reason in about["failed"]:
            known[i // CHUNK][1].append([i, reason])
    try:
        lines = (home / PROGRESS).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return known
    for line in lines:
        try:
            block, digest, failed = json.loads(line)
        except (ValueError, TypeError):  # cut short by a kill
            continue
        known[block] = (digest, failed)
    return known


def _sound(home: Path, known: dict[int, tuple[str, list]], count: int, image_size: int) -> dict[int, tuple[str, list]]:
    """Those of the blocks whose pixels have the checksum that is known of them."""
    each, sound = image_size**2 * 3, {}
    try:
        with (home / PIXELS).open("rb") as file:
            for block in sorted(block for block in known if 0 <= block * CHUNK < count):
                file.seek(block * CHUNK * each)
                pixels = file.read((min(CHUNK, count - block * CHUNK)) * each)
                if hashlib.sha256(pixels).hexdigest() == known[block][0]:
                    sound[block] = known[block]
    except FileNotFoundError:
        pass
    return sound


def _checksum(about: dict) -> str:
    content = {key: value for key, value in about.items() if key not in ("changed", "checksum")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_about(home: Path) -> dict | None:
    """What `faces.json` says; None if there is none, or it disagrees with its checksum."""
    try:
        about = json.loads((home / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("checksum") == _checksum(about) else None


def _write_about(home: Path, about: dict) -> None:
    with whole(home / ABOUT) as part:
        part.write_text(json.dumps(about | {"checksum": _checksum(about)}, indent=1), encoding="utf-8")
