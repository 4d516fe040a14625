"""How exact is a map after so many passes? Fixed numbers of steps or samples, and `tolerance=`.

    python benchmarks/attribution_accuracy.py [--images 8] [--few 4] [--threads 1]

The trained ResNet-18 of the default problem, test faces of 64 pixels. Integrated gradients: the completeness error
|Σ map − (f(x) − f(b))|, relative to the range of f along the path (257 points). The fixed steps are Gauss–Legendre nodes, whose
maps equal Captum's (tests/attribution/test_fast.py), and go on doubling from 400 until every image is within 1 %, which says what
Captum needs for that. Sampled methods: the standard deviation over pixels of the difference from a map of 2,000
samples of another noise, relative to that map's standard deviation, and the correlation with it; of 4 faces. The reference has an
error of its own: what is measured cannot fall far below that of 2,000 samples.

Writes benchmarks/results/attribution_accuracy.csv and .png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt

from helpers.attribution import attribute
from helpers.files import whole
from helpers.plots import use
from helpers.plots.style import PALETTE, alt
from helpers.problem import load_problem

RESULTS = Path(__file__).resolve().parent / "results"
FIXED = (5, 10, 20, 50, 100, 200, 400)
REFERENCE, GOAL = 2000, 0.01
SAMPLED = ("smoothgrad", "vargrad", "rise")
TOLERANCES = {"integrated_gradients": (0.1, 0.03, 0.01), **dict.fromkeys(SAMPLED, (0.3, 0.2))}
STYLE = dict(zip(("integrated_gradients", *SAMPLED), zip(PALETTE, "os^D", strict=False), strict=False))


def explained(model, images, target, method: str, **options) -> tuple[np.ndarray, float]:
    """Maps, and the mean of the forward passes that an image took."""
    maps = attribute(model, images, target, method, "torch", report=(report := {}), **options)
    return maps.double().numpy(), report["forward"].double().mean().item()


def row(method: str, setting: str, passes: float, error: np.ndarray, correlation=None) -> dict:
    found = {"method": method, "setting": setting, "passes": passes}
    found |= {"median error": np.median(error), "largest error": error.max()}
    found["correlation"] = None if correlation is None else np.mean(correlation)
    print(found, flush=True)
    return found


def completeness(model, images, target) -> list[dict]:
    """Integrated gradients: fixed steps until the goal is reached, and tolerances."""
    with torch.no_grad():
        path = [model(images * share).gather(1, target[:, None])[:, 0].double() for share in torch.linspace(0, 1, 257).tolist()]
    path = torch.stack(path).numpy()
    change, span = path[-1] - path[0], path.max(0) - path.min(0)
    rows, steps, reached = [], list(FIXED), None
    for count in steps:
        maps, passes = explained(model, images, target, "integrated_gradients", steps=count)
        error = np.abs(maps.sum((1, 2)) - change) / span
        rows.append(row("integrated_gradients", f"steps={count}", passes, error))
        reached = count if error.max() <= GOAL and reached is None else reached
        if count == steps[-1] and reached is None and count < 3200:
            steps.append(2 * count)
    for tolerance in TOLERANCES["integrated_gradients"]:
        maps, passes = explained(model, images, target, "integrated_gradients", tolerance=tolerance)
        error = np.abs(maps.sum((1, 2)) - change) / span
        rows.append(row("integrated_gradients", f"tolerance={tolerance}", passes, error))
    if reached:
        print(f"1 % for every image: {passes:.0f} passes on average, where fixed steps take {reached}: {passes / reached:.2f}")
    return rows


def against_reference(model, images, target, method: str) -> list[dict]:
    """A sampled method: its distance from a long run, for fixed numbers of samples and for tolerances."""
    long, _ = explained(model, images, target, method, samples=REFERENCE, seed=1)
    long = long.reshape(len(long), -1)
    rows = []
    settings = [{"samples": count} for count in FIXED] + [{"samples": 1000, "tolerance": t} for t in TOLERANCES[method]]
    for options in settings:
        maps, passes = explained(model, images, target, method, **options)
        maps = maps.reshape(len(maps), -1)
        error = (maps - long).std(1) / long.std(1)
        correlation = [np.corrcoef(*pair)[0, 1] for pair in zip(maps, long, strict=True)]
        key = list(options)[-1]
        rows.append(row(method, f"{key}={options[key]}", passes, error, correlation))
    return rows


def draw(table: pd.DataFrame, path: Path) -> None:
    use()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for method, part in table.groupby("method", sort=False):
        axes = left if method == "integrated_gradients" else right
        colour, marker = STYLE[method]
        fixed = part.setting.str.startswith("tolerance").map({False: True, True: False})
        line, own = part[fixed], part[~fixed]
        label = "fixed steps, median image" if axes is left else f"{method}, fixed"
        axes.plot(line.passes, line["median error"], color=colour, marker=marker, label=label)
        if axes is left:
            axes.plot(line.passes, line["largest error"], color=colour, marker=marker, ls=":", label="fixed steps, worst image")
        label = "tolerance=, worst image" if axes is left else f"{method}, tolerance="
        axes.scatter(
            own.passes, own["largest error" if axes is left else "median error"], s=110, marker=marker, facecolor="white",
            edgecolor="black", linewidth=1.5, zorder=3, label=label,
        )
    left.axhline(GOAL, color="grey", lw=1)
    left.set(title="Integrated gradients", ylabel="completeness error / range of the score")
    right.set(title="Sampled methods", ylabel="error of the map / its spread over pixels")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="forward passes an image")
        axes.legend(fontsize=8)
    alt(figure, "Error of maps against forward passes an image, on logarithmic axes: it falls, also for tolerances.")
    with whole(path) as part:
        figure.savefig(part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8, help="for integrated gradients")
    parser.add_argument("--few", type=int, default=4, help="for sampled methods")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    problem = load_problem(progress=False)
    model = problem.model.eval()
    images = torch.stack([problem.test[i][0] for i in range(args.images)]).float()
    with torch.no_grad():
        target = model(images).argmax(1)
    rows = completeness(model, images, target)
    few = images[: args.few], target[: args.few]
    for method in ("rise", "smoothgrad", "vargrad"):
        rows += against_reference(model, *few, method)
        table = pd.DataFrame(rows)
        RESULTS.mkdir(exist_ok=True)
        with whole(RESULTS / "attribution_accuracy.csv") as part:
            table.to_csv(part, index=False, float_format="%.4g")
        draw(table, RESULTS / "attribution_accuracy.png")


if __name__ == "__main__":
    main()
