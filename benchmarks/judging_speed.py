"""Deletion, insertion and MuFidelity, ours against Xplique's, in one run: time, and values at equal draws.

    python benchmarks/judging_speed.py [--images 16] [--samples 100] [--threads 1] [--side 64]

A ResNet-18 with random weights, random images and random maps; both warm (TensorFlow has traced, Xplique's metric is made once
and evaluated several times); batches of 64. MuFidelity of at most 128 samples, so that Xplique's two batches can be told what to
draw. "floor" is the time of the bare forward passes that the metric needs, `channels_last`, parameters frozen. Rounds take turns,
and the smallest time of each counts. The last line judges the maps of four methods: what the model says does not hang on the map,
so that ours asks it once. Writes benchmarks/results/judging_speed.txt.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.models import resnet18

from helpers.attribution import evaluate, random_maps
from helpers.attribution.score import Score, borrowed, channels_last
from helpers.attribution.xplique import load_tensorflow
from helpers.files import whole

RESULTS = Path(__file__).resolve().parent / "results"
GRID, STEPS, BATCH, METHODS = 9, 50, 64, 4


def repeated(call, times: int):
    """A call that does the same several times, as one is needed for each method's maps."""
    return lambda: [call() for _ in range(times)][0]


def least(calls: dict, rounds: int) -> tuple[dict, dict]:
    """For each call the smallest time over the rounds, in turns after one round to warm up, and its value."""
    times, values = {name: [] for name in calls}, {}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            values[name] = call()
            times[name].append(time.perf_counter() - began)
    return {name: min(each[1:]) for name, each in times.items()}, values


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in {"images": 16, "samples": 100, "threads": 1, "side": 64, "rounds": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    tensorflow = load_tensorflow()
    import xplique.metrics
    from xplique.wrappers import TorchWrapper

    torch.set_num_threads(args.threads)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, images = resnet18(num_classes=2).eval(), torch.rand(args.images, 3, args.side, args.side)
    maps, target = random_maps(images, 1), torch.arange(args.images) % 2
    rows, one_hot = images.permute(0, 2, 3, 1).numpy(), np.eye(2, dtype=np.float32)[target]
    wrapped = TorchWrapper(Score(model).eval(), "cpu", is_channel_first=True)

    drawn = np.random.default_rng(0).random((args.samples, GRID**2), dtype=np.float32)
    subsets = (drawn <= 0.2).reshape(-1, GRID, GRID)
    uniform = tensorflow.random.uniform

    def theirs(name, settings):
        """Xplique's metric, ready to be evaluated as often as wanted. MuFidelity draws our subsets, batch after batch."""
        draw = lambda shape, *_, **__: tensorflow.constant(drawn[:BATCH] if shape[0] == BATCH else drawn[-shape[0] :])
        metric = getattr(xplique.metrics, name)(wrapped, rows, one_hot, batch_size=BATCH, **settings)

        def call():
            tensorflow.random.uniform = draw if name == "MuFidelity" else uniform
            try:
                return metric.evaluate(maps.numpy())
            finally:
                tensorflow.random.uniform = uniform

        return call

    def ours(name, methods=1, **options):
        several = {str(seed): random_maps(images, seed) for seed in range(1, methods + 1)}  # the first is `maps`
        frame = evaluate(model, images, several, target, name, batch_size=BATCH, activation="logit", **options)
        return frame.value[: args.images].mean()

    def floor(passes):
        with borrowed(model), torch.no_grad():
            batch = channels_last(images[torch.arange(BATCH) % len(images)])
            for start in range(0, passes, BATCH):
                model(batch[: passes - start])

    lines = []
    curve, sampled = {"steps": STEPS}, {"grid_size": GRID, "nb_samples": args.samples}
    for name, xpliques, passes, options, settings in (
        ("deletion", "Deletion", args.images * (STEPS + 1), curve, curve),
        ("insertion", "Insertion", args.images * (STEPS + 1), curve, curve),
        ("mu_fidelity", "MuFidelity", args.images * (args.samples + 1), {"subsets": subsets}, sampled),
        ("mu_fidelity", "MuFidelity", args.images * (args.samples + 1), {"subsets": subsets, "methods": METHODS}, sampled),
    ):
        calls = {
            "ours": lambda name=name, options=options: ours(name, **options),
            "xplique": repeated(theirs(xpliques, settings), options.get("methods", 1)),
            "floor": lambda passes=passes: floor(passes),
        }
        times, values = least(calls, args.rounds)
        lines.append(
            {
                "metric": name,
                "methods": options.get("methods", 1),
                "passes": passes,
                "ours s": times["ours"],
                "Xplique s": times["xplique"],
                "ours / Xplique": times["ours"] / times["xplique"],
                "ours / floor": times["ours"] / times["floor"],
                "our value": values["ours"],
                "Xplique's value": values["xplique"],
            }
        )
        print(lines[-1], flush=True)
    table = pd.DataFrame(lines)
    work = f"{args.images} images of {args.side} px, ResNet-18, {args.threads} thread(s)"
    head = f"{work}, {args.samples} samples, {STEPS} steps\n\n"
    RESULTS.mkdir(exist_ok=True)
    with whole(RESULTS / "judging_speed.txt") as file:
        file.write_text(head + table.to_string(index=False, float_format="{:.4g}".format) + "\n", encoding="utf-8")
    print(head + table.to_string(index=False))


if __name__ == "__main__":
    main()
