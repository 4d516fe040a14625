"""Do thousands of randomly damaged image files crash, stall or swell the reading, and is each of them named once?

    python benchmarks/damaged_images.py --n 20000 [--seed 0] [--out benchmarks/results/damaged_images.txt]

Small pictures in every format that is read (plain, animated, palette, transparent, progressive, 16 bits, compressed in several
ways) are written; nine of ten are damaged: bytes flipped, in the header or anywhere, overwritten, set to extremes, cut out, put
in, doubled, the end cut off, or two files glued together. They are read as a folder, `load_faces("folder", on_error="skip")`, and
a second time one by one, which times each. Nobody can know whether a damaged file that still decodes shows what it should: such a
file counts as readable, and the two readings must agree to the bit.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import re
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.data import load_faces
from helpers.data.decode import decode

SIDE = 16
BATCH = 2000  # files that lie on the disk at a time
INTACT = 10  # one in so many is left as it was


def originals() -> list[tuple[str, bytes]]:
    """(ending, content) of small pictures in all formats."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(36), np.arange(28))[..., None] * np.array([3, 2, 1]) % 256
    colour = Image.fromarray((smooth + rng.integers(0, 30, smooth.shape)).astype(np.uint8))
    other = colour.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    deep = Image.fromarray((smooth[..., 0] * 257).astype(np.uint16))
    veiled = colour.convert("RGBA")
    veiled.putalpha(Image.fromarray(rng.integers(0, 256, (36, 28), dtype=np.uint8)))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    several = {"save_all": True, "append_images": [other]}
    written = [
        ("jpg", colour, {}),
        ("jpg", colour, {"progressive": True, "exif": exif.tobytes()}),
        ("jpg", colour.convert("L"), {"comment": b"grey"}),
        ("jpg", colour.convert("CMYK"), {}),
        ("jpg", colour, {"format": "MPO", **several}),
        ("png", colour, {"exif": exif.tobytes()}),
        ("png", colour.quantize(16), {"transparency": 3}),
        ("png", veiled, {}),
        ("png", deep, {}),
        ("png", colour, several),
        ("gif", colour, several),
        ("gif", colour.quantize(16), {"transparency": 1}),
        ("bmp", colour, {}),
        ("bmp", colour.quantize(16), {}),
        ("webp", colour, {"exif": exif.tobytes()}),
        ("webp", veiled, {"lossless": True}),
        ("webp", colour, several),
        ("ppm", colour, {}),
        ("pgm", deep, {}),
        ("tif", colour, {}),
        ("tif", deep, {}),
        ("tif", colour, {"exif": exif.tobytes(), "compression": "tiff_lzw"}),
        ("tif", veiled, {"compression": "tiff_deflate"}),
        ("tif", colour, {"compression": "jpeg"}),
        ("tif", colour, {"compression": "packbits"}),
    ]
    kinds = {"jpg": "JPEG", "tif": "TIFF", "pgm": "PPM"}
    made = []
    for ending, image, options in written:
        content = io.BytesIO()
        image.save(content, **{"format": kinds.get(ending, ending.upper()), **options})
        made.append((ending, content.getvalue()))
    return [*made, ("pnm", b"P3 3 3 255\n" + b"200 100 0\n" * 9), ("pnm", b"P1 3 3\n010101010\n")]


def damage(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """The file after one to three accidents."""
    data = np.frombuffer(content, np.uint8).copy()
    for _ in range(rng.integers(1, 4)):
        if len(data) < 4:
            break
        kind, at = rng.integers(9), int(rng.integers(len(data)))
        length = int(rng.integers(1, max(2, len(data) // 4)))
        header = slice(0, min(64, len(data)))
        if kind == 0:  # single bits
            places = rng.integers(0, len(data), rng.integers(1, 20))
            data[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
        elif kind == 1:  # bytes of the header
            places = rng.integers(0, header.stop, rng.integers(1, 4))
            data[places] = rng.integers(0, 256, len(places))
        elif kind == 2:  # sizes and counts that are huge or nothing
            start = int(rng.integers(max(1, header.stop - 4)))
            data[start : start + rng.integers(1, 5)] = rng.choice([0, 127, 128, 255])
        elif kind == 3:  # a block of noise
            data[at : at + length] = rng.integers(0, 256, len(data[at : at + length]))
        elif kind == 4:  # a block of one value, as of a lost sector
            data[at : at + length] = rng.choice([0, 255])
        elif kind == 5:  # the end cut off
            data = data[: max(1, at)]
        elif kind == 6:  # a piece lost
            data = np.concatenate([data[:at], data[at + length :]])
        elif kind == 7:  # a piece doubled
            data = np.concatenate([data[: at + length], data[at:]])
        else:  # the end of another file
            data = np.concatenate([data[:at], np.frombuffer(other, np.uint8)[at:]])
    return data.tobytes()


def measure(n: int, seed: int) -> dict:
    """Write, damage and read n files in batches.

    Returns
    -------
    Counts of files, the seconds that reading took and that one file took at most, the growth of memory in MB, how often which
    promise was broken, and the ten most frequent reasons.
    """
    rng, whole = np.random.default_rng(seed), originals()
    figures = dict.fromkeys(("files", "intact", "damaged, named", "damaged, read"), 0)
    broken = dict.fromkeys(("lost", "named twice", "an intact file named", "changed pixels", "open files left"), 0)
    reasons, slowest, reading, memory = collections.Counter(), (0.0, ""), 0.0, 0
    for first in range(0, n, BATCH):
        with tempfile.TemporaryDirectory() as place:
            intact, content_of = {}, {}
            for i in range(first, min(first + BATCH, n)):
                which = int(rng.integers(len(whole)))
                ending, content = whole[which]
                path = f"{'ab'[i % 2]}/{'xy'[i // 2 % 2]}/{i:07}.{ending}"
                if i % INTACT == 0:
                    intact[path] = which
                else:
                    content = damage(content, whole[int(rng.integers(len(whole)))][1], rng)
                content_of[path] = content
                file = Path(place) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            if first == 0:  # what is imported at the first picture is no growth
                right = [_read(place, ending, content) for ending, content in whole]
                memory = _peak()
            handles, start = len(os.listdir("/proc/self/fd")), time.perf_counter()
            faces = load_faces("folder", root=place, split="all", image_size=SIDE, on_error="skip")
            reading += time.perf_counter() - start
            broken["open files left"] += len(os.listdir("/proc/self/fd")) - handles
            names, kept = [path for path, _ in faces.skipped], faces.table["path"].tolist()
            broken["named twice"] += len(names) - len(set(names)) + len(set(names) & set(kept))
            broken["lost"] += len(set(content_of) - set(names) - set(kept))
            broken["an intact file named"] += len(set(names) & set(intact))
            row = {path: k for k, path in enumerate(kept)}
            for path in content_of:
                start = time.perf_counter()
                try:
                    alone = decode(Path(place) / path, SIDE)
                except ValueError as error:
                    alone = None
                    reasons[re.sub(r"\d[\d,.]*", "…", str(error).split(": ", 2)[-1])[:70]] += 1
                slowest = max(slowest, (time.perf_counter() - start, Path(path).suffix))
                wanted = right[intact[path]] if path in intact else alone
                same = wanted is None if path not in row else wanted is not None and (faces.images[row[path]] == wanted).all()
                broken["changed pixels"] += not same
            figures["files"] += len(content_of)
            figures["intact"] += len(intact)
            figures["damaged, named"] += len(names)
            figures["damaged, read"] += len(kept) - len(intact)
    figures |= {"seconds reading": round(reading, 1), "slowest file": [round(slowest[0], 2), slowest[1]]}
    return figures | {"growth of memory, MB": _peak() - memory, "broken": broken, "reasons": reasons.most_common(10)}


def _read(place: str, ending: str, content: bytes) -> np.ndarray:
    file = Path(place) / f"original.{ending}"
    file.write_bytes(content)
    read = decode(file, SIDE)
    file.unlink()
    return read


def _peak() -> int:
    """The most memory that this process ever took, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of the second reading, file by file
        figures = measure(given.n, given.seed)
    if given.json:
        print(json.dumps(figures))
        return
    lines = [f"{given.n:,} files, seed {given.seed}, Pillow {Image.__version__}"]
    told = {key: f"{value:,}" if isinstance(value, int) else value for key, value in figures.items()}
    lines += [f"{key:<28}{told[key]}" for key in list(told)[:-2]]
    lines += ["promises broken:", *(f"  {key:<26}{value}" for key, value in figures["broken"].items())]
    lines += ["reasons, the ten most frequent:", *(f"  {count:>7,}  {reason}" for reason, count in figures["reasons"])]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
