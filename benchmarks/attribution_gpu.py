"""Images per second of each attribution method on a GPU, and the share of the time that the model itself takes.

    python benchmarks/attribution_gpu.py [--device cuda] [--side 224] [--dtype bfloat16] [--model resnet50] [--seconds 3]

Every method of backends "torch", "captum" and "zennit", at its default options, on as many images as take about `--seconds`.
Time is taken by CUDA events, on a CPU by the clock. "in the model" is the share between the begin and the end of a forward pass,
and of a pass back from the logits to the image; a way back that ends at a layer is not seen. Where the number of passes is known,
"bare passes" is the share that these would take in full batches without the method. Writes
benchmarks/results/attribution_gpu.txt.

Without a GPU it runs, slowly: `--device cpu --side 32 --dtype float32 --model small --images 2 --few` tries it, and writes
nothing.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision import models

from helpers.attribution import attribute, cost
from helpers.attribution.method import METHODS
from helpers.attribution.score import Score, borrowed, default_batch
from helpers.attribution.timing import seconds_of
from helpers.files import whole

RESULTS = Path(__file__).resolve().parent / "results"
FEW = {"steps": 4, "samples": 4, "segments": 2}


class Clock:
    """Points in time on a device, and the seconds between them, known once all work is done."""

    def __init__(self, device: str):
        self.cuda = device.startswith("cuda")

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin, end) -> float:
        if not self.cuda:
            return end - begin
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000


class Watched(nn.Module):
    """A model that notes when its passes begin and end: `spans` of marks."""

    def __init__(self, inner: nn.Module, clock: Clock):
        super().__init__()
        self.inner, self.clock, self.spans = inner, clock, []

    def forward(self, images: Tensor) -> Tensor:
        began = self.clock.mark()
        output = self.inner(images)
        self.spans.append((began, self.clock.mark()))
        if output.requires_grad and images.requires_grad:
            started = []
            output.register_hook(lambda gradient: started.append(self.clock.mark()))
            images.register_hook(lambda gradient: started and self.spans.append((started.pop(), self.clock.mark())))
        return output

    def seconds(self) -> float:
        total = sum(self.clock.between(*span) for span in self.spans)
        self.spans.clear()
        return total


def small() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def measure(model: Watched, images: Tensor, name: str, backend: str, clock: Clock, seconds: float, options: dict) -> dict:
    """Images per second, share of the time in the model, and share that bare passes would take."""

    def run(count: int) -> float:
        began = clock.mark()
        attribute(model, images[:count], 0, name, backend, **options)
        return clock.between(began, clock.mark())

    run(1)
    one = run(1)
    count = max(1, min(len(images), int(seconds / one)))
    run(count)
    model.seconds()
    taken = run(count)
    row = {"method": name, "backend": backend, "images": count, "images/s": count / taken}
    row["in the model"] = model.seconds() / taken
    if not METHODS[name, backend].by_channel:
        forward, backward = cost(name, backend, tuple(images.shape[2:]), **options)
        with borrowed(model):
            passes = seconds_of(Score(model), images, count, default_batch(images), forward, backward)
        row |= {"forward": forward, "backward": backward, "bare passes": passes / taken}
    model.seconds()
    return row


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--model", default="resnet50", help="a name of torchvision.models, or small")
    parser.add_argument("--images", type=int, default=256, help="at most")
    parser.add_argument("--seconds", type=float, default=3.0, help="about as long a method is timed")
    parser.add_argument("--only", action="append", help="a method by name; may be given several times")
    parser.add_argument("--few", action="store_true", help="few steps and samples, to try the script; nothing is written")
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = small() if args.model == "small" else models.get_model(args.model, num_classes=10)
        images = torch.rand(args.images, 3, args.side, args.side)
    clock, dtype = Clock(args.device), getattr(torch, args.dtype)
    model = Watched(inner.eval().to(args.device, dtype), clock)
    images, rows = images.to(args.device, dtype), []
    for (name, backend), entry in METHODS.items():
        if backend == "xplique" or (args.only and name not in args.only):
            continue
        options = {key: value for key, value in FEW.items() if args.few and key in entry.defaults}
        if "samples" in options and "segments" in options:
            options["samples"] = 6  # a regression wants more samples than segments
        try:
            rows.append(measure(model, images, name, backend, clock, args.seconds, options))
        except (ValueError, RuntimeError) as error:  # a method that this model or this type of numbers has no rule or kernel for
            rows.append({"method": name, "backend": backend, "note": str(error).splitlines()[0][:100]})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    place = torch.cuda.get_device_name() if args.device.startswith("cuda") else args.device
    head = f"{args.model}, {args.side} px, {args.dtype}, {place}, torch {torch.__version__}"
    text = f"{head}\n\n{table.to_string(index=False, float_format=lambda x: f'{x:.3g}', na_rep='')}\n"
    print(text)
    if not args.few:
        RESULTS.mkdir(exist_ok=True)
        with whole(RESULTS / "attribution_gpu.txt") as part:
            part.write_text(text, encoding="utf-8")
    return table


if __name__ == "__main__":
    main()
