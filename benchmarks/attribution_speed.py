"""Attribution methods against the bare passes that they need, and against Captum and Xplique, side by side in one run.

    python benchmarks/attribution_speed.py [--only rise] [--images 64] [--side 64] [--steps 50] [--repeats 2] [--threads 1]

The trained ResNet-18 of the default problem explains test faces. A bare pass is the model itself, frozen, in `channels_last`, on
full batches, as many as `attribution.cost` says; a class activation map is held against forward passes alone, since its way back
ends at the layer. All take turns (ours, bare, peer, ours, bare, peer, …) after a small warm-up that does not count; medians of
processor time, which other programs on the machine disturb little, and of wall time. Captum and Xplique get the model as
torchvision lays it out. "captum" is Captum at its defaults: all steps of all images in one pass, or for occlusion one patch a
pass; "captum, batched" gets passes as large as ours. Of methods that are not held against a peer, those of many passes explain a
sixteenth of the images. "difference" is the largest of the maps, relative to the largest value; sampled methods have none, since
their noise is another.

Writes benchmarks/results/attribution_speed.txt and .csv; with `--only` the rows of other methods stay as they are there.
What stops by accuracy is in attribution_accuracy.py, a GPU in attribution_gpu.py.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers.attribution import attribute, cost
from helpers.attribution.captum import last_feature_layer
from helpers.attribution.method import METHODS
from helpers.attribution.passes import scores, slopes
from helpers.attribution.score import Score, borrowed, channels_last
from helpers.files import whole
from helpers.problem import load_problem

RESULTS = Path(__file__).resolve().parent / "results"
PEERS = {  # method -> peers and the wanted ratio of our time to theirs
    "integrated_gradients": {"captum": 0.65, "captum, batched": None},
    "smoothgrad": {"captum": 0.65},
    "occlusion": {"captum": 0.6},
    "rise": {"xplique": 0.45},
    "grad_cam": {"captum": None},
}
WANTED = {"bare": 1.15}
LAYER = ("grad", "eigen", "hires", "layer_", "xgrad", "internal")  # names of methods whose way back ends at a layer


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall time of a call."""
    processor, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - processor, time.perf_counter() - wall


def bare(model, images, forward: int, backward: int, batch_size: int) -> None:
    """So many passes of the model itself: `backward` with a gradient to the image, and what is left of `forward` without."""
    score = Score(model)
    with borrowed(score):
        target = torch.zeros(batch_size, dtype=torch.int64)
        batch = channels_last(images[torch.arange(batch_size) % len(images)])
        for count, function in ((backward, slopes), (forward - backward, scores)):
            for size in [batch_size] * (count // batch_size) + [count % batch_size] * bool(count % batch_size):
                function(score, batch[:size], target[:size])


def with_captum(model, images, target, name: str, batch: int | None, options: dict):
    """Captum with passes of a batch; None: at its defaults."""
    from captum import attr

    if name == "integrated_gradients":
        settings = {"n_steps": options["steps"], "internal_batch_size": batch and max(batch, len(images))}
        return attr.IntegratedGradients(model).attribute(images, 0.0, target, **settings)
    if name == "smoothgrad":
        made, few = attr.NoiseTunnel(attr.Saliency(model)), batch and max(1, batch // len(images))
        settings = {"nt_samples": options["samples"], "nt_samples_batch_size": few, "stdevs": 0.1, "abs": False}
        return made.attribute(images.clone().requires_grad_(), nt_type="smoothgrad", target=target, **settings)
    if name == "occlusion":
        window = (images.shape[1], options["patch"], options["patch"])
        stride = (images.shape[1], options["stride"], options["stride"])
        return attr.Occlusion(model).attribute(images, window, stride, 0.0, target)
    layer = last_feature_layer(model, images[:1])
    return attr.LayerGradCam(model, model.get_submodule(layer)).attribute(images.clone().requires_grad_(), target)


def with_xplique(model, images, target, name: str, batch: int, options: dict):
    from xplique import attributions
    from xplique.wrappers import TorchWrapper

    wrapped = TorchWrapper(model, images.device, is_channel_first=True)
    rows = images.permute(0, 2, 3, 1).cpu().numpy()
    codes = np.eye(2, dtype=np.float32)[target.cpu().numpy()]
    return attributions.Rise(wrapped, batch_size=batch, nb_samples=options["samples"]).explain(rows, codes)


def compare(name: str, backend: str, model, plain, images, target, args) -> list[dict]:
    """One row for each that the method is held against."""
    defaults = METHODS[name, backend].defaults
    options = {key: args.steps for key in ("steps", "samples") if key in defaults and "segments" not in defaults}
    options |= {key: defaults[key] for key in ("patch", "stride") if key in defaults}
    channels = 512 if METHODS[name, backend].by_channel else None
    forward, backward = cost(name, backend, (args.side, args.side), channels, **options)
    many = forward > 8 and not (name in PEERS and backend == "torch")
    some, codes = (part[: max(1, args.images // 16)] if many else part for part in (images, target))
    ours = partial(attribute, model, some, codes, name, backend, batch_size=args.batch, **options)
    needed = 0 if name.startswith(LAYER) and "shap" not in name and "input" not in name else backward
    calls = {"ours": ours, "bare": partial(bare, model, some, forward * len(some), needed * len(some), args.batch)}
    warm = [partial(attribute, model, some[:4], codes[:4], name, backend, batch_size=args.batch, **options)]
    for peer in PEERS.get(name, {}) if backend == "torch" else ():
        function = with_xplique if peer == "xplique" else with_captum
        size = None if peer == "captum" else args.batch
        calls[peer] = partial(function, plain, some, codes, name, size, options)
        warm.append(partial(function, plain, some[:2], codes[:2], name, size, options))
    for call in warm if forward <= 60 else ():
        call()
    turns = [{key: seconds(call) for key, call in calls.items()} for _ in range(args.repeats)]
    middle = {key: np.median([turn[key] for turn in turns], axis=0) for key in calls}
    rows = []
    for other in list(calls)[1:]:
        row = {"method": name, "backend": backend, "images": len(some), "forward": forward, "backward": backward}
        row |= {"turns": args.repeats, "against": other}
        row |= {"processor s": middle["ours"][0], "its": middle[other][0], "ratio": middle["ours"][0] / middle[other][0]}
        row |= {"wall s": middle["ours"][1], "wall ratio": middle["ours"][1] / middle[other][1]}
        row["wanted"] = WANTED.get(other, PEERS.get(name, {}).get(other))
        if other == "captum" and name in ("integrated_gradients", "occlusion", "grad_cam"):
            found = attribute(model, some, codes, name, "captum", batch_size=args.batch, **options)
            row["difference"] = ((ours() - found).abs().max() / found.abs().max()).item()
        rows.append(row)
        print(pd.Series(row).to_frame().T.to_string(index=False, header=False), flush=True)
    return rows


def write(table: pd.DataFrame, head: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    order = list(dict.fromkeys(name for name, _ in METHODS))
    table = table.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    with whole(RESULTS / "attribution_speed.csv") as part:
        table.to_csv(part, index=False, float_format="%.5g")
    with whole(RESULTS / "attribution_speed.txt") as part:
        text = table.to_string(index=False, float_format=lambda x: f"{x:.3g}", na_rep="")
        part.write_text(f"{head}\n\n{text}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="a method by name; may be given several times")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=64, help="images a pass")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a few images, to try the script; nothing is written")
    args = parser.parse_args()
    if args.quick:
        args.images, args.steps, args.batch, args.repeats = 8, 5, 8, 1
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    problem = load_problem(progress=False)
    model = problem.model.eval()
    images = torch.stack([problem.test[i][0] for i in range(args.images)]).float()
    if args.side != images.shape[2]:
        images = torch.nn.functional.interpolate(images, size=(args.side, args.side), mode="bilinear", align_corners=False)
    with torch.no_grad():
        target = model(images).argmax(1)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    head = f"{args.images} images of {args.side} px, ResNet-18, {args.batch} a pass, {args.steps} steps or samples, "
    head += f"{torch.get_num_threads()} thread(s), medians over turns, torch {torch.__version__}"
    path, kept = RESULTS / "attribution_speed.csv", []
    if args.only and path.exists():
        before = pd.read_csv(path)
        kept = [before[~before.method.isin(args.only)]]
    rows: list[dict] = []
    for name, backend in METHODS:
        if backend != "xplique" and (not args.only or name in args.only):
            rows += compare(name, backend, model, plain, images, target, args)
            if not args.quick:
                write(pd.concat([*kept, pd.DataFrame(rows)]), head)


if __name__ == "__main__":
    main()
