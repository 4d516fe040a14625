"""How long, and how much memory, do the maps of 10,000 images of 224 pixels take? Written to disk in half precision as they come.

    python benchmarks/attribution_streaming.py [--images 10000] [--side 224] [--threads 1] [--model small]

Images are made one by one when they are asked for. `--model small` is a network of three convolutions that leaves little to wait
for besides the streaming itself; `--model resnet18` is torchvision's, with random weights. The method is the plain gradient, one
pass forward and one back. Prints the peak resident memory of the process before (imports, model, and one chunk), the peak in the
end, the time, how much of it bare passes take, and the largest error of half precision in the first 64 maps, relative to each
map's maximum. Adds a line to benchmarks/results/attribution_streaming.txt.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.models import resnet18

from helpers.attribution import attribute, stream
from helpers.attribution.passes import slopes
from helpers.attribution.score import Score, borrowed, channels_last
from helpers.files import whole

RESULTS = Path(__file__).resolve().parent / "results"


class Made(Dataset):
    """Random images, each from its number."""

    def __init__(self, count: int, side: int):
        self.count, self.side = count, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Tensor:
        if not 0 <= number < self.count:
            raise IndexError(number)
        return torch.rand(3, self.side, self.side, generator=torch.Generator().manual_seed(number))


def small() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 16, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 2, 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))


def peak() -> float:
    """Peak resident memory of this process so far, MB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", choices=["small", "resnet18"], default="small")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (small() if args.model == "small" else resnet18(num_classes=2)).eval()
    images = Made(args.images, args.side)
    with tempfile.TemporaryDirectory() as folder:
        stream(model, Made(128, args.side), Path(folder) / "first.npy", 0, "saliency")
        before, wall, processor = peak(), time.perf_counter(), time.process_time()
        maps = stream(model, images, Path(folder) / "maps.npy", 0, "saliency", progress=True)
        wall, processor, after = time.perf_counter() - wall, time.process_time() - processor, peak()
        some = torch.stack([images[i] for i in range(min(64, args.images))])
        exact = attribute(model, some, 0, "saliency").numpy()
        error = (abs(maps[: len(some)] - exact).max((1, 2)) / abs(exact).max((1, 2))).max()
        size = sum(file.stat().st_size for file in Path(folder).glob("maps*")) / 1e6
    score = Score(model)
    with borrowed(score):
        target, batch = torch.zeros(21, dtype=torch.int64), channels_last(some[:21])  # as many as `stream` has in a pass
        slopes(score, batch, target)
        began = time.process_time()
        for _ in range(5):
            slopes(score, batch, target)
        passes = (time.process_time() - began) / (5 * len(batch)) * args.images
    held = args.images * 3 * args.side**2 * 4 / 1e6
    text = (
        f"{args.images:,} images of {args.side} px ({held:,.0f} MB), {args.model} network, saliency, {args.threads} thread(s): "
        f"{wall:.0f} s ({processor:.0f} s of processor time, of which bare passes about {passes:.0f} s and the rest making "
        f"images, checks and writing); peak memory before {before:.0f} MB, in the end {after:.0f} MB, so the stream took "
        f"{after - before:.0f} MB; {size:,.0f} MB on disk, largest error {error:.1e} of a map's maximum\n"
    )
    print(text)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "attribution_streaming.txt"
    lines = path.read_text(encoding="utf-8") if path.exists() else ""
    with whole(path) as part:
        part.write_text(lines + text, encoding="utf-8")


if __name__ == "__main__":
    main()
