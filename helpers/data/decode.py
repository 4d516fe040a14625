"""Image files to one array of square RGB images."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, features
from tqdm.auto import tqdm

from helpers.data.threads import in_order
from helpers.names import choose

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
# The decoders behind these suffixes, whatever a file is called: Pillow would hand an EPS to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # below the size at which Pillow itself warns of a decompression bomb
VERSION = 1  # of what `decode` makes of a file; raise it when pixels change, and caches of decoded faces are made anew
LARGE = 16_000_000  # pixels above which one picture is turned to RGB at a time, so that memory does not grow with the cores
ONE_LARGE = threading.Lock()
MAX_SCANS = 100  # of a progressive JPEG, which has about ten; a small file of thousands keeps a core busy for minutes
WHITE_IS_ZERO, PHOTOMETRIC = 0, 262  # of TIFF
ROWS_PER_STRIP, STRIP_OFFSETS, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS = 278, 273, 322, 323, 324
TEXT_HEAD = re.compile(rb"(P[56])\r\n(\d{1,9}) (\d{1,9})\r\n(\d{1,5})\r\n")
FRAME = re.compile(rb"\xff[\xc0-\xc3]..\x08(..)(..)", re.DOTALL)  # height and width in a JPEG
FAX = ("group3", "group4", "tiff_ccitt")  # where libtiff leaves rows it cannot decode as they were in memory, without an error
CHUNK = 64  # files a task: large enough to hide the scheduling, small enough for a lively progress bar
QUIET_BELOW = 2000  # files; fewer take about a second, which needs no bar


def is_image(path: Path) -> bool:
    """Whether the file's name says that it is an image this module reads."""
    return path.suffix.lower() in SUFFIXES


def printable(path: str) -> str:
    """The path with bytes that are no UTF-8 written as \\udc…, which tables and terminals take."""
    return path.encode("utf-8", "backslashreplace").decode()


def decode(path: str | Path, image_size: int) -> np.ndarray:
    """Read one image file as a square RGB image.

    The picture (the first of several, as in an animation) is turned as its EXIF entry says, brought to RGB
    (grey is repeated, transparency laid on white, 16 bits reduced to 8), cut to its central square and
    resized with antialiasing (bilinear, as torchvision's default). What it is, is read from its content, not
    its name. Colour profiles are passed over, as torchvision does.

    Parameters
    ----------
    path : path of a BMP, GIF, JPEG, PNG, PNM, TIFF or WebP file
    image_size : int, side in pixels

    Returns
    -------
    uint8 array (image_size, image_size, 3)

    Raises
    ------
    FileNotFoundError : no file there.
    ValueError : the file is empty, truncated, unreadable, no such image, larger than 64 megapixels, coded as
        a fax, or its pixels are fractions or numbers outside 16 bits; the message names it.
    """

    def square(image: Image.Image) -> Image.Image:
        # JPEGs can be decoded at 1/2, 1/4 or 1/8: twice the wanted size leaves the resizing its quality.
        image.draft(image.mode, (2 * image_size, 2 * image_size))
        return ImageOps.fit(_upright(image), (image_size, image_size), Image.Resampling.BILINEAR)

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
    return _read(Path(path), _upright)


def _upright(image: Image.Image) -> Image.Image:
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
    return _to_rgb(ImageOps.exif_transpose(image), white_is_zero)


def _read(path: Path, made: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """What is made of the opened file, as an array; what is wrong with the file is told with its name."""
    _check_file(path)
    try:
        with Image.open(_binary(path), formats=FORMATS) as image:
            _check_content(image, path)
            with ONE_LARGE if image.width * image.height > LARGE else nullcontext():
                return np.array(made(image))
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly anything, from SyntaxError to struct.error
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = f"not an image in a known format ({', '.join(FORMATS)})" if unknown else str(error)
        raise ValueError(f"{path}: cannot read the image: {reason or type(error).__name__}") from error


def _check_file(path: Path) -> None:
    """A regular file with something in it: opening a pipe or a device could wait for ever."""
    try:
        about = os.stat(path)
    except PermissionError as error:
        raise ValueError(f"{path}: cannot read the image: {error.strerror}") from None
    except (OSError, ValueError) as error:  # a link in a circle, a name too long; ValueError: a NUL in the name
        known = isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR)
        raise FileNotFoundError(f"{path}: no such image file{f' ({error.strerror})' if known else ''}") from None
    if not stat.S_ISREG(about.st_mode):
        raise FileNotFoundError(f"{path}: no such image file")
    if about.st_size == 0:
        raise ValueError(f"{path}: the image file is empty")


def _binary(path: Path) -> Path | io.BytesIO:
    """The file, or a portable map freed from the \\r that a transfer as text put before each \\n, those among its pixels as well.

    A third of the packaged ORL photographs are such; read as they are, their rows are shifted by up to 23 pixels.
    """
    if path.suffix.lower() not in (".pgm", ".ppm", ".pnm"):
        return path
    content = path.read_bytes()
    head = TEXT_HEAD.match(content)
    if head is None:
        return path
    kind, width, height, most = head.groups()
    size = int(width) * int(height) * (3 if kind == b"P6" else 1) * (2 if int(most) > 255 else 1)
    body = content[head.end() :]
    added = len(body) - size
    if not 0 <= added <= body.count(b"\r\n"):
        return path
    # Where a pair stood among the pixels before, one pair too many is found, and which one nobody knows: the last is kept.
    return io.BytesIO(b"%s\n%s %s\n%s\n%s" % (*head.groups(), body.replace(b"\r\n", b"\n", added)))


def _check_content(image: Image.Image, path: Path) -> None:
    """Refuse what would take very long, very much memory, or give chance pixels, before anything is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}×{image.height} pixels are more than the limit of {MAX_PIXELS:,}")
    if image.info.get("compression") in FAX:
        raise ValueError(f"coded as a fax ({image.info['compression']}), in which damage goes unnoticed; save it as PNG")
    if image.format == "TIFF" and image.info.get("compression") == "jpeg":
        _check_jpeg_parts(image, path.read_bytes())
    if image.format in ("JPEG", "MPO") and "progressive" in image.info:
        scans = path.read_bytes().count(b"\xff\xda")  # in coded data 0xff is always followed by 0
        if scans > MAX_SCANS:
            raise ValueError(f"a progressive JPEG of {scans} scans, more than the limit of {MAX_SCANS}")


def _check_jpeg_parts(image: Image.Image, content: bytes) -> None:
    """Refuse a TIFF whose strips or tiles are JPEGs smaller than it says: libtiff fills the rest with chance memory."""
    tags = image.tag_v2
    width = tags.get(TILE_WIDTH, image.width)
    height = tags.get(TILE_LENGTH) or min(tags.get(ROWS_PER_STRIP, image.height), image.height)
    parts = tags.get(STRIP_OFFSETS) or tags.get(TILE_OFFSETS) or ()
    for number, start in enumerate(parts):
        found = FRAME.search(content, start)
        high, wide = (int.from_bytes(side, "big") for side in found.groups()) if found else (0, 0)
        last = number == len(parts) - 1  # of several strips, the last one may be lower
        if wide < width or high < (1 if last and len(parts) > 1 else height):
            raise ValueError(f"its JPEG data has {wide}×{high} pixels where {width}×{height} are announced")


def _to_rgb(image: Image.Image, white_is_zero: bool = False) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is unknown")
    if image.mode.startswith("I"):
        image = _to_eight_bits(image, white_is_zero)
    if image.has_transparency_data:  # else the colours hidden under full transparency would come out
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image, white_is_zero: bool) -> Image.Image:
    """Whole numbers of 16 bits as grey: Pillow's own conversion clips them at 255, and reads white as it stands."""
    pixels = np.asarray(image)
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise ValueError(f"its pixels lie outside the 16 bits from 0 to 65535 (read as {low} to {high})")
    grey = (pixels // 257).astype(np.uint8)
    if white_is_zero:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[pixels == image.info["transparency"]] = 255
    return Image.fromarray(grey)


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
    ValueError, FileNotFoundError : as `decode` with on_error="raise", of the first such file in the order of
        `starts`; its chunk is not kept, and those that were being read are done.
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

    quiet = len(starts) * CHUNK < QUIET_BELOW if progress is None else not progress
    with warnings.catch_warnings(), closing(in_order(read, starts)) as found:
        warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, and each time in other words
        return [bad for failed in tqdm(found, total=len(starts), desc="Reading images", disable=quiet) for bad in failed]


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
