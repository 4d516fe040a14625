"""Image files to one array of square RGB images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, cpu_count, delayed
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from helpers.names import choose

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
# The decoders behind these suffixes, whatever a file is called: Pillow would hand an EPS to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # below the size at which Pillow itself warns of a decompression bomb
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
    def square(image: Image.Image) -> Image.Image:
        # JPEGs can be decoded at 1/2, 1/4 or 1/8: twice the wanted size leaves the resizing its quality.
        image.draft(image.mode, (2 * image_size, 2 * image_size))
        upright = _to_rgb(ImageOps.exif_transpose(image))
        return ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BILINEAR)

    return _read(Path(path), square)


def decode_whole(path: str | Path) -> np.ndarray:
    """Read one image file as it is: upright and RGB as `decode` makes it, neither cut nor resized.

    Returns
    -------
    uint8 array (H, W, 3)

    Raises
    ------
    FileNotFoundError, ValueError : as `decode`.
    """
    return _read(Path(path), lambda image: _to_rgb(ImageOps.exif_transpose(image)))


def _read(path: Path, made: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """What is made of the opened file, as an array; what is wrong with the file is told with its name."""
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
            return np.array(made(image))
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
    on_error = choose(on_error, ("raise", "skip"), "on_error")
    images = np.zeros((len(paths), image_size, image_size, 3), dtype=np.uint8)

    def read(start: int) -> list[tuple[int, str]]:
        failed = []
        for i in range(start, min(start + CHUNK, len(paths))):
            try:
                images[i] = decode(paths[i], image_size)
            except (ValueError, FileNotFoundError) as error:
                if on_error == "raise":
                    raise type(error)(f'{error} (on_error="skip" leaves such files out)') from error
                failed.append((i, str(error)))
        return failed

    starts = range(0, len(paths), CHUNK)
    # Threads: Pillow lets go of the interpreter lock while it decodes, and all of them fill the same array.
    tasks = Parallel(n_jobs=cpu_count(), require="sharedmem", return_as="generator")(
        delayed(read)(start) for start in starts
    )
    quiet = len(paths) < QUIET_BELOW if progress is None else not progress
    skipped = [
        bad for chunk in tqdm(tasks, total=len(starts), desc="Reading images", disable=quiet) for bad in chunk
    ]
    if paths and len(skipped) == len(paths):
        raise ValueError(f"none of the {len(paths)} image files can be read; the first: {skipped[0][1]}")
    if not skipped:
        return images, np.arange(len(paths)), []
    kept = np.setdiff1d(np.arange(len(paths)), [i for i, _ in skipped])
    return images[kept], kept, skipped
