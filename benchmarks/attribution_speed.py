"""Attribution methods against the bare passes that they need, Captum and Xplique, side by side in one run.

    python benchmarks/attribution_speed.py [--images 64] [--side 64] [--steps 50] [--repeats 3] [--threads 2] [--quick]

The trained ResNet-18 of the default problem explains test faces. A bare pass is the model itself, frozen, in `channels_last`, on
full batches, as many as the method's `report` counts; a class activation map is held against forward passes alone, since its way
back ends at the layer. Captum and Xplique get the model as torchvision lays it out. Xplique gets as many images a pass; Captum
runs "batched", too, and at its defaults, all steps of all images in one pass, on 16 images a call to spare memory. The second
table stops by accuracy: integrated gradients whose completeness error is at most 1 % of the range of the score along the path,
against Captum at the fewest steps that reach it for every image; sampled methods at a wanted standard error. Writes
benchmarks/results/attribution_speed.txt and .csv. On a GPU: `--device cuda --side 224 --dtype bfloat16 --no-xplique`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
import warnings
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from helpers.attribution import attribute
from helpers.attribution.captum import last_feature_layer
from helpers.attribution.method import METHODS
from helpers.attribution.passes import scores, slopes
from helpers.attribution.score import Score, borrowed, channels_last
from helpers.files import whole
from helpers.problem import load_problem

RESULTS = Path(__file__).resolve().parent / "results"


def methods(steps: int, patch: int, stride: int) -> list[tuple[str, dict, tuple[str, ...], bool]]:
    """Name, options, the peers that have it, and whether the peers' maps are the same to rounding."""
    captum = "captum", "captum, batched"
    return [
        ("integrated_gradients", {"steps": steps, "quadrature": "trapezoid"}, (*captum, "xplique"), True),
        ("smoothgrad", {"samples": steps}, (*captum, "xplique"), False),
        ("vargrad", {"samples": steps}, ("xplique",), False),
        ("occlusion", {"patch": patch, "stride": stride}, ("captum", "xplique"), True),
        ("rise", {"samples": steps}, ("xplique",), False),
        ("grad_cam", {}, ("captum",), True),
        *((name, {}, (), False) for name in ("grad_cam_plus_plus", "hires_cam", "layer_cam", "xgrad_cam", "eigen_grad_cam")),
        ("eigen_cam", {}, (), False),
        ("score_cam", {}, (), False),
        ("ablation_cam", {}, (), False),
    ]


def bare(model, images, forward: int, backward: int, batch_size: int) -> None:
    """So many passes of the model itself: `backward` with a gradient to the image, and what is left of `forward` without."""
    score = Score(model)
    with borrowed(score):
        target = torch.zeros(batch_size, dtype=torch.int64, device=images.device)
        batch = channels_last(images[torch.arange(batch_size) % len(images)])
        for count, function in ((backward, slopes), (forward - backward, scores)):
            for size in [batch_size] * (count // batch_size) + [count % batch_size] * bool(count % batch_size):
                function(score, batch[:size], target[:size])


def timed(clock, function, *args, **options) -> float:
    began = clock()
    function(*args, **options)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began


def speed(model, images, target, args, clock) -> pd.DataFrame:
    """One row a method: medians over repeats in which all take turns, after one turn that does not count."""
    rows, plain = [], copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    for name, options, peers, same in methods(args.steps, args.patch, args.stride):
        some = images[: max(1, args.images // 8)] if name in ("score_cam", "ablation_cam") else images
        codes, peers = target[: len(some)], [peer for peer in peers if peer != "xplique" or not args.no_xplique]
        report: dict = {}
        ours = attribute(model, some, codes, name, "torch", batch_size=args.batch, report=report, **options)
        forward, backward = (int(report[key].sum()) for key in ("forward", "backward"))
        needed = 0 if "cam" in name else backward
        taking = {
            "bare": partial(bare, model, some, forward, needed, args.batch),
            "torch": partial(attribute, model, some, codes, name, "torch", batch_size=args.batch, **options),
            **{peer: partial(PEERS[peer], plain, some, codes, name, args.batch, options) for peer in peers},
        }
        turns = [{key: timed(clock, take) for key, take in taking.items()} for _ in range(args.repeats + 1)][1:]
        middle = pd.DataFrame(turns).median()
        row = {"method": name, "images": len(some), "forward": forward, "backward": backward}
        row |= {f"{key} s": middle[key] for key in taking} | {"ours / bare": middle["torch"] / middle["bare"]}
        for peer in peers:
            row[f"ours / {peer}"] = middle["torch"] / middle[peer]
            if same and "," not in peer:
                known = {key: value for key, value in options.items() if key in METHODS[name, peer].defaults}
                theirs = attribute(model, some, codes, name, peer, **known)
                row[f"difference from {peer}"] = ((ours - theirs).abs().max() / theirs.abs().max()).item()
        rows.append(row)
        print(pd.Series(row).to_string(float_format=lambda x: f"{x:.4g}"), "\n", flush=True)
    return pd.DataFrame(rows)


def with_captum(model, images, target, name: str, batch: int | None, options: dict):
    """Captum with passes of a batch; None: at its defaults, all steps of all images of a call in one pass."""
    from captum import attr

    if name == "integrated_gradients":
        rule = {"trapezoid": "riemann_trapezoid"}.get(options.get("quadrature"), "gausslegendre")
        settings = {"n_steps": options["steps"], "method": rule, "internal_batch_size": batch and max(batch, len(images))}
        return attr.IntegratedGradients(model).attribute(images, 0.0, target, **settings)
    if name == "smoothgrad":
        made, few = attr.NoiseTunnel(attr.Saliency(model)), batch and max(1, batch // len(images))
        settings = {"nt_samples": options["samples"], "nt_samples_batch_size": few, "stdevs": 0.1, "abs": False}
        return made.attribute(images.clone().requires_grad_(), nt_type="smoothgrad", target=target, **settings)
    if name == "occlusion":
        window = (images.shape[1], options["patch"], options["patch"])
        stride = (images.shape[1], options["stride"], options["stride"])
        few = max(1, (batch or 1) // len(images))
        return attr.Occlusion(model).attribute(images, window, stride, 0.0, target, perturbations_per_eval=few)
    layer = last_feature_layer(model, images[:1])
    return attr.LayerGradCam(model, model.get_submodule(layer)).attribute(images.clone().requires_grad_(), target)


def with_xplique(model, images, target, name: str, batch: int, options: dict):
    import numpy as np
    from xplique import attributions
    from xplique.wrappers import TorchWrapper

    wrapped = TorchWrapper(model, images.device, is_channel_first=True)
    rows = images.permute(0, 2, 3, 1).cpu().numpy()
    codes = np.eye(2, dtype=np.float32)[target.cpu().numpy()]
    made = {
        "integrated_gradients": lambda: attributions.IntegratedGradients(wrapped, batch_size=batch, steps=options["steps"]),
        "smoothgrad": lambda: attributions.SmoothGrad(wrapped, batch_size=batch, nb_samples=options["samples"], noise=0.1),
        "vargrad": lambda: attributions.VarGrad(wrapped, batch_size=batch, nb_samples=options["samples"], noise=0.1),
        "occlusion": lambda: attributions.Occlusion(
            wrapped, batch_size=batch, patch_size=options["patch"], patch_stride=options["stride"], occlusion_value=0.0
        ),
        "rise": lambda: attributions.Rise(wrapped, batch_size=batch, nb_samples=options["samples"]),
    }[name]()
    return made.explain(rows, codes)


PEERS = {
    "captum": lambda model, images, target, name, batch, options: [
        with_captum(model, images[i : i + 16], target[i : i + 16], name, None, options) for i in range(0, len(images), 16)
    ],
    "captum, batched": with_captum,
    "xplique": with_xplique,
}


def accuracy(model, images, target, args, clock) -> pd.DataFrame:
    """What an accuracy costs: steps by completeness and samples by standard error, against fixed numbers of steps."""
    model.eval()
    with torch.no_grad():
        along = [model(images * share).gather(1, target[:, None])[:, 0].cpu() for share in torch.linspace(0, 1, 65).tolist()]
    change, span = along[-1] - along[0], torch.stack(along).amax(0) - torch.stack(along).amin(0)
    rows, plain = [], copy.deepcopy(model).to(memory_format=torch.contiguous_format)

    def add(method: str, setting: str, seconds: float, passes, error) -> None:
        rows.append((method, setting, seconds, float(passes), error.median().item(), error.max().item()))
        print(*rows[-1], flush=True)

    reached = None
    for steps in itertools.takewhile(lambda n: n <= args.most, (25 * 2**k for k in itertools.count())):
        began = clock()
        maps = with_captum(plain, images, target, "integrated_gradients", args.batch, {"steps": steps})
        taken = clock() - began
        error = (maps.sum((1, 2, 3)).detach().cpu() - change).abs() / span
        add("integrated_gradients, Captum", f"steps={steps}", taken, steps, error)
        if error.max() <= 0.01:
            reached = taken
            break
    for method, settings in (
        ("integrated_gradients", [{"tolerance": t, "most": 4096} for t in (0.1, 0.03, 0.01)]),
        ("smoothgrad", [{"tolerance": t, "samples": args.most} for t in (0.3, 0.2, 0.1)]),
        ("rise", [{"tolerance": t, "samples": 2 * args.most} for t in (0.3, 0.2)]),
    ):
        for options in settings:
            report: dict = {}
            seconds = timed(clock, attribute, model, images, target, method, batch_size=args.batch, report=report, **options)
            add(method, f"tolerance={options['tolerance']}", seconds, report["forward"].double().mean(), report["error"])
            if method == "integrated_gradients" and options["tolerance"] == 0.01 and reached:
                print(f"at 1 %: {seconds / reached:.3f} of Captum's time", flush=True)
    columns = ["method", "setting", "s", "forward passes an image", "median error", "largest error"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--patch", type=int, default=8, help="of occlusion, in pixels")
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="images a pass")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most", type=int, default=1600, help="steps or samples at most, in the table of accuracy")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--no-xplique", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a few images, to try the script; nothing is written")
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall", help="'processor' where others are at work")
    args = parser.parse_args()
    if args.quick:
        args.images, args.steps, args.batch, args.repeats, args.most, args.patch, args.stride = 8, 10, 8, 1, 200, 32, 16
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    problem = load_problem(progress=False)
    faces = problem.test if args.side == problem.test.image_size else None
    model = problem.model.to(args.device, getattr(torch, args.dtype)).eval()
    images = torch.stack([problem.test[i][0] for i in range(args.images)]).float()
    if faces is None:
        images = torch.nn.functional.interpolate(images, size=(args.side, args.side), mode="bilinear", align_corners=False)
    images = images.to(args.device, getattr(torch, args.dtype))
    with torch.no_grad():
        target = model(images).argmax(1)
    table, costs = speed(model, images, target, args, clock), accuracy(model, images, target, args, clock)
    head = f"{args.images} images of {args.side} px, {args.batch} a pass, {torch.get_num_threads()} threads, {args.device}, "
    head += f"{args.dtype}, {args.clock} time, torch {torch.__version__}"
    shown = [part.to_string(index=False, float_format=lambda x: f"{x:.4g}", na_rep="") for part in (table.T.reset_index(), costs)]
    print(head, *shown, sep="\n\n")
    if not args.quick:
        RESULTS.mkdir(exist_ok=True)
        with whole(RESULTS / "attribution_speed.txt") as part:
            part.write_text("\n\n".join([head, *shown]) + "\n")
        with whole(RESULTS / "attribution_speed.csv") as part:
            table.to_csv(part, index=False)


if __name__ == "__main__":
    main()
