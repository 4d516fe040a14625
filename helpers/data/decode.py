"""Image files to one array of square RGB images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, cpu_count, delayed
from PIL import Image, ImageOps, features
from tqdm.auto import tqdm

from helpers.names import choose

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
# The decoders behind these suffixes, whatever a file is called: Pillow would hand an EPS to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # below the size at which Pillow itself warns of a decompression bomb
VERSION = 1  # of what `decode` makes of a file; raise it when pixels change, and caches of decoded faces are made anew
CHUNK = 64  # files a task: large enough to hide the scheduling, small enough for a lively progress bar
QUIET_BELOW = 2000  # files; fewer take about a second, which needs no bar


def is_image(path: Path) -> bool:
    """Whether the file's name says that it is an image this module reads."""
    return path.suffix.lower() in SUFFIXES


def decode(path: str | Path, image_size: int) -> np.ndarray:
    """Read one image file as a square RGB image.

    The picture is turned as its EXIF entry says, brought to RGB (grey is repeated, transparency laid on
    white, 16 bits reduced to 8), cut to its central square and resized with antialiasing (bilinear, as
    torchvision's default).

    Parameters
    ----------
    path : path of a BMP, GIF (first frame), JPEG, PNG, PNM, TIFF or WebP file
    image_size : int, side in pixels

    Returns
    -------
    uint8 array (image_size, image_size, 3)

    Raises
    ------
    FileNotFoundError : no file there.
    ValueError : the file is empty, truncated, no such image, or larger than 64 megapixels; the message names
        it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the image file is empty")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{image.width}×{image.height} pixels are more than the limit of {MAX_PIXELS:,}"
                )
            # JPEGs can be decoded at 1/2, 1/4 or 1/8: twice the wanted size leaves the resizing its quality.
            image.draft(image.mode, (2 * image_size, 2 * image_size))
            upright = _to_rgb(ImageOps.exif_transpose(image))
            return np.asarray(ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BILINEAR))
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # damaged files make Pillow raise nearly anything, from SyntaxError to struct.error
        reason = (
            "not an image in a known format"
            if isinstance(error, Image.UnidentifiedImageError)
            else str(error)
        )
        raise ValueError(f"{path}: cannot read the image: {reason or type(error).__name__}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is unknown")
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion clips at 255 instead of scaling
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:  # else the colours hidden under full transparency would come out
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def decode_all(
    paths: Sequence[str | Path], image_size: int, *, on_error: str = "raise", progress: bool | None = None
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
    """Read many image files on all cores into one array.

    Parameters
    ----------
    paths : N paths
    image_size : int, side in pixels
    on_error : "raise" stops at a file that cannot be read, "skip" leaves it out
    progress : show a bar; None: from 2,000 files on

    Returns
    -------
    images : uint8 array (n, image_size, image_size, 3), n ≤ N, in the order of `paths`
    kept : int64 (n,), which of the paths these are
    skipped : list of (index of the path, reason)

    Raises
    ------
    ValueError, FileNotFoundError : as `decode` with on_error="raise"; or not one file could be read.
    """
    images = np.zeros((len(paths), image_size, image_size, 3), dtype=np.uint8)

    def keep(start: int, pixels: np.ndarray, failed: list[tuple[int, str]]) -> None:
        images[start : start + len(pixels)] = pixels

    skipped = decode_chunks(paths, image_size, range(0, len(paths), CHUNK), keep, on_error=on_error, progress=progress)
    kept = readable(len(paths), skipped)
    return images[kept] if skipped else images, kept, skipped


def decode_chunks(
    paths: Sequence[str | Path],
    image_size: int,
    starts: Sequence[int],
    keep: Callable[[int, np.ndarray, list[tuple[int, str]]], None],
    *,
    on_error: str = "raise",
    progress: bool | None = None,
) -> list[tuple[int, str]]:
    """Read image files on all cores, `CHUNK` at a time.

    Parameters
    ----------
    paths, image_size, on_error, progress : as in `decode_all`
    starts : index of the first path of each chunk to read
    keep : called in the reading threads, as `keep(start, pixels, failed)`, with each chunk that was read: uint8
        (n, image_size, image_size, 3), zeros for a file that cannot be read, and (index of the path, reason) of these

    Returns
    -------
    (index of the path, reason) of all files that cannot be read, in the order of `starts`

    Raises
    ------
    ValueError, FileNotFoundError : as `decode` with on_error="raise"; the chunk of that file is not kept. Threads at work may
        call `keep` for a moment after this.
    """
    on_error = choose(on_error, ("raise", "skip"), "on_error")

    def read(start: int) -> list[tuple[int, str]]:
        some, failed = paths[start : start + CHUNK], []
        pixels = np.zeros((len(some), image_size, image_size, 3), dtype=np.uint8)
        for i, path in enumerate(some):
            try:
                pixels[i] = decode(path, image_size)
            except (ValueError, FileNotFoundError) as error:
                if on_error == "raise":
                    raise type(error)(f'{error} (on_error="skip" leaves such files out)') from error
                failed.append((start + i, str(error)))
        keep(start, pixels, failed)
        return failed

    # Threads: Pillow lets go of the interpreter lock while it decodes, and all of them hand over to the same `keep`.
    tasks = Parallel(n_jobs=cpu_count(), require="sharedmem", return_as="generator")(
        delayed(read)(start) for start in starts
    )
    quiet = len(starts) * CHUNK < QUIET_BELOW if progress is None else not progress
    return [bad for chunk in tqdm(tasks, total=len(starts), desc="Reading images", disable=quiet) for bad in chunk]


def readable(count: int, skipped: Sequence[tuple[int, str]]) -> np.ndarray:
    """int64 (n,), which of `count` files were read.

    Raises
    ------
    ValueError : not one of them.
    """
    if count and len(skipped) == count:
        raise ValueError(f"none of the {count} image files can be read; the first: {skipped[0][1]}")
    return np.setdiff1d(np.arange(count), [i for i, _ in skipped]) if skipped else np.arange(count)


def decoder() -> str:
    """What the pixels depend on besides the files: this module and the libraries that it decodes with."""
    libraries = [f"{name} {features.version(name)}" for name in ("pil", "libjpeg_turbo", "zlib", "webp", "libtiff")]
    return ", ".join([f"decode {VERSION}", *libraries])
