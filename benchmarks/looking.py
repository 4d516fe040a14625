"""How long looking at data first takes: measures of the pictures, and copies among them, on many faces kept on disk.

    python benchmarks/looking.py [--n 200000] [--side 64]

The faces are the 400 ORL photographs, each copied with shifts, light and noise of its own, so that hashes crowd as those of
aligned faces do; 0.5 % are exact copies of others and 0.5 % compressed again. They are read from a memory-mapped file, as a large
data set would be. One thread unless OMP_NUM_THREADS says otherwise. Seconds of processor time, and by the clock, which other work
on the machine lengthens; memory is the growth of the process's own (RssAnon: pages of the mapped file are not counted).
Results: benchmarks/results/looking.txt.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from helpers.data import duplicates, load_faces, pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images, exact, again = make(Path(folder) / "faces.npy", arguments.n, arguments.side)
        rows = [("measures", *timed(lambda: pictures(images))[1:])]
        found, *cost = timed(lambda: duplicates(images))
        rows.append(("copies", *cost))
    pairs = set(zip(found["first"], found["second"], strict=True))
    print(f"{arguments.n:,} faces of {arguments.side} px\n\n| work | processor, s | clock, s | MB |\n|---|---:|---:|---:|")
    for name, *numbers in rows:
        print(f"| {name} | " + " | ".join(f"{number:.0f}" for number in numbers) + " |")
    print(f"\nplanted and found: {len(exact & pairs):,} of {len(exact):,} exact copies, "
          f"{len(again & pairs):,} of {len(again):,} compressed again; other pairs {len(pairs - exact - again):,}")  # fmt: skip


def make(path: Path, n: int, side: int):
    """A mapped file of n faces, and the planted pairs, exact and compressed."""
    rng = np.random.default_rng(0)
    base = load_faces("orl", split="all", image_size=side + 16).images
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, side, side, 3))
    planted = n // 100
    originals = n - planted
    for start in range(0, originals, 400):
        stop = min(start + 400, originals)
        for row, (dx, dy, light) in enumerate(
            zip(rng.integers(17, size=stop - start), rng.integers(17, size=stop - start), rng.uniform(0.6, 1.3, stop - start),
                strict=True), start
        ):  # fmt: skip
            image = base[row % 400, dy : dy + side, dx : dx + side, :1] * light
            coarse = rng.normal(0, 14, (8, 8, 1)).repeat(side // 8, 0).repeat(side // 8, 1)
            images[row] = (image + coarse + rng.normal(0, 5, image.shape)).clip(0, 255)
    sources = rng.choice(originals, planted, replace=False)
    for k, source in enumerate(sources):
        image = images[source]
        if k >= planted // 2:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=75)
            image = np.asarray(Image.open(file))
        images[originals + k] = image
    images.flush()
    pairs = list(zip(sources.tolist(), range(originals, n), strict=True))
    return np.load(path, mmap_mode="r"), set(pairs[: planted // 2]), set(pairs[planted // 2 :])


def timed(work):
    """Result, seconds of processor and clock, and the greatest growth of private memory in MB."""
    start, peak, done = private(), [0.0], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], private())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun, used = time.perf_counter(), time.process_time()
    try:
        result = work()
    finally:
        seconds, used = time.perf_counter() - begun, time.process_time() - used
        done.set()
        watcher.join()
    return result, used, seconds, max(peak[0], private()) - start


def private() -> float:
    """Private memory of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


if __name__ == "__main__":
    main()
