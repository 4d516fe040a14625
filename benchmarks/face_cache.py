"""How fast do cached faces stream, beside torchvision's ImageFolder, which decodes them each time, and in how much memory?

    python benchmarks/face_cache.py [--n 20000] [--folder-images 20000] [--out benchmarks/results/face_cache.txt]

N JPEG files of 178×218 pixels, as CelebA's are, are written (from 2,000 distinct pictures: files all the same). Then each line is
measured in a process of its own: making the cache; opening it again; all batches of 64 through `faces.loader`, in order and
shuffled; and the same through `DataLoader(ImageFolder(…, Resize + CenterCrop + ToTensor))` without and with 2 workers, on the
first `--folder-images` files, since its time grows with their number. All files are in the operating system's cache. "peak" is
`ru_maxrss` of the process that takes the batches, "imports" what that was before any data was opened, "workers" the largest
worker times their number (pages that they share count twice). The temporary folder, 20 kB a face, is removed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

DISTINCT, BATCH, SIDE, PER_FOLDER = 2000, 64, 64, 10_000
IMPORT = "import resource, torch; print(torch.__version__, round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))"


def jpeg(rng: np.random.Generator) -> bytes:
    """A picture of 178×218 that compresses about as a photograph does: shades at several scales and some grain."""
    picture = np.full((218, 178, 3), 128.0)
    for cells, strength in ((3, 45), (12, 25), (50, 12)):
        coarse = Image.fromarray(rng.normal(128, strength, (cells, cells, 3)).clip(0, 255).astype(np.uint8))
        picture += np.asarray(coarse.resize((178, 218), Image.Resampling.BICUBIC), dtype=float) - 128
    picture += rng.normal(0, 2, picture.shape)
    out = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def write(top: Path, n: int) -> float:
    """Files 0/0000000.jpg … in folders of 10,000, and their table; the mean size in bytes."""
    rng = np.random.default_rng(0)
    pictures = [jpeg(rng) for _ in range(min(DISTINCT, n))]
    paths = []
    for i in range(n):
        paths.append(f"{i // PER_FOLDER:03}/{i:07}.jpg")
        if i % PER_FOLDER == 0:
            (top / paths[-1]).parent.mkdir(parents=True)
        (top / paths[-1]).write_bytes(pictures[i % len(pictures)])
    labels = {"smiling": np.arange(n) % 2, "glasses": np.arange(n) % 3 == 0}
    pd.DataFrame({"path": paths} | labels).to_csv(top / "faces.csv", index=False)
    return float(np.mean([len(picture) for picture in pictures]))


def peak(who: int = resource.RUSAGE_SELF) -> float:
    """Peak resident memory, MB."""
    return resource.getrusage(who).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def measure(what: str, top: Path, images: int) -> dict:
    """One line of the table, in a process of its own."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from helpers.data import load_faces

    torch.set_num_threads(1)
    asked = {"root": top / "faces.csv", "target": "smiling", "protected": "glasses", "split": "all", "image_size": SIDE}
    kind, order, workers = what.split()
    before = peak()
    if kind == "make":
        started, processor = time.perf_counter(), time.process_time()
        load_faces("table", **asked, cache=top.parent / "cache")
        return {"images": images, "seconds": time.perf_counter() - started, "cpu": time.process_time() - processor,
                "peak": peak(), "before": before, "workers": 0.0}  # fmt: skip
    started, processor = time.perf_counter(), time.process_time()
    if kind in ("cache", "open"):
        faces = load_faces("table", **asked, cache=top.parent / "cache")
        loader = faces.loader(BATCH, shuffle=order == "shuffled")
    else:
        steps = [transforms.Resize(SIDE), transforms.CenterCrop(SIDE), transforms.ToTensor()]
        data = torch.utils.data.Subset(ImageFolder(top, transforms.Compose(steps)), range(images))
        loader = DataLoader(data, BATCH, shuffle=order == "shuffled", num_workers=int(workers))
    if kind != "open":
        started, processor = time.perf_counter(), time.process_time()
        seen = sum(len(batch[0]) for batch in loader)
        assert seen == images, (seen, images)
    seconds, children = time.perf_counter() - started, os.times()
    return {"images": images, "seconds": seconds, "cpu": time.process_time() - processor + children[2] + children[3],
            "peak": peak(), "before": before, "workers": peak(resource.RUSAGE_CHILDREN) * int(workers)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--folder-images", type=int, default=20_000, help="images that ImageFolder reads")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, top, images = arguments.measure
        print(json.dumps(measure(what, Path(top), int(images))))
        return
    some = min(arguments.n, arguments.folder_images)
    place = Path(tempfile.mkdtemp())
    try:
        size = write(place / "photos", arguments.n)
        lines = [
            f"{arguments.n:,} JPEG files of 178×218 px, {size / 1e3:.1f} kB each, to {SIDE} px; batches of {BATCH}; one thread",
            f"{'':<44}{'images':>9}{'seconds':>9}{'of CPU':>9}{'images/s':>10}{'peak MB':>9}{'imports':>9}{'workers':>9}",
        ]
        found = {}
        for what, images, name in (
            ("make - 0", arguments.n, "making the cache, all cores"),
            ("open - 0", arguments.n, "opening it again (table, 1 stat a file)"),
            ("cache ordered 0", arguments.n, "epoch from the cache, in order"),
            ("cache shuffled 0", arguments.n, "epoch from the cache, shuffled"),
            ("folder ordered 0", some, "ImageFolder, in order, no workers"),
            ("folder shuffled 0", some, "ImageFolder, shuffled, no workers"),
            ("folder ordered 2", some, "ImageFolder, in order, 2 workers"),
            ("folder shuffled 2", some, "ImageFolder, shuffled, 2 workers"),
        ):
            command = [sys.executable, __file__, "--measure", what, str(place / "photos"), str(images)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = found[what] = json.loads(done.stdout.splitlines()[-1])
            lines.append(
                f"{name:<44}{images:>9,}{row['seconds']:>9.1f}{row['cpu']:>9.1f}{images / row['seconds']:>10,.0f}"
                f"{row['peak']:>9.0f}{row['before']:>9.0f}{row['workers']:>9.0f}"
            )
            print(lines[-1], file=sys.stderr)
        for order in ("ordered", "shuffled"):
            rate = {key: row["images"] / row["seconds"] for key, row in found.items()}
            alone, two = [rate[f"cache {order} 0"] / rate[f"folder {order} {workers}"] for workers in (0, 2)]
            lines.append(
                f"{order}: {alone:.1f} times ImageFolder's images a second without workers, {two:.1f} times with 2"
            )
            most = found[f"cache {order} 0"]
            lines.append(f"  memory that the epoch took beside the imports: {most['peak'] - most['before']:.0f} MB")
        load = os.getloadavg()
        torch = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout.strip()
        lines.append(
            f"importing PyTorch alone, version and MB: {torch} (much of it libraries for GPUs, where they are installed)"
        )
        lines.append(f"load average over the last 15 minutes: {load[2]:.1f} on {os.cpu_count()} cores")
        text = "\n".join(lines) + "\n"
        sys.stdout.write(text)
        if arguments.out:
            arguments.out.write_text(text)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
