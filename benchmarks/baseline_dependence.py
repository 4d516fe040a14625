"""How far deletion, insertion and MuFidelity hang on what removed pixels become: the order of methods by five baselines.

    python benchmarks/baseline_dependence.py [--faces 20]

The default problem (a ResNet-18 that learned *smiling* from faces among which smiling and glasses go together), its test faces,
six methods and random maps. Writes benchmarks/results/baseline_dependence.txt and .png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import torch

from helpers.attribution import attribute, baseline_dependence, random_maps
from helpers.files import whole
from helpers.plots import judging, use
from helpers.problem import load_problem

RESULTS = Path(__file__).resolve().parent / "results"
METHODS = {
    "saliency": {},
    "gradient_input": {},
    "integrated_gradients": {"steps": 10},
    "smoothgrad": {"samples": 10},
    "occlusion": {},
    "grad_cam": {"layer": "network.layer2"},
}


def text(scores: pd.DataFrame, agreement: pd.DataFrame, head: str) -> str:
    """Both tables, the first with a column a baseline: the mean and in brackets the method's rank."""
    cell = scores["mean"].map("{:.3f}".format) + " (" + scores["rank"].map("{:.0f}".format) + ")"
    wide = scores.assign(cell=cell).pivot(index=["metric", "method"], columns="baseline", values="cell")
    return f"{head}\n\n{wide.to_string()}\n\n{agreement.to_string(index=False, float_format='{:.2f}'.format)}\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--faces", type=int, default=20)
    count = parser.parse_args().faces
    _, _, test, model = load_problem(target="smiling", protected="glasses", correlation=0.8)
    images = torch.stack([test[i][0] for i in range(count)])
    with torch.no_grad():
        target = model.eval()(images).argmax(1)
    maps = {name: attribute(model, images, target, name, **options) for name, options in METHODS.items()}
    maps["chance"] = random_maps(images)
    found = baseline_dependence(model, images, maps, target, steps=20, samples=60, activation="softmax")
    said = text(found.scores, found.agreement, f"{count} faces; mean over faces, in brackets the rank of the method")
    with whole(RESULTS / "baseline_dependence.txt") as file:
        file.write_text(said, encoding="utf-8")
    use()
    with whole(RESULTS / "baseline_dependence.png") as file:
        judging.baselines(found.scores, chance="chance").savefig(file)
    print(said)


if __name__ == "__main__":
    main()
