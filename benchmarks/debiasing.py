"""The problems on which every debiasing method is held beside DetoxAI's of the same name.

    python benchmarks/debiasing.py illustrated-0.97-0 illustrated-0.9-0 …   # writes build/debiasing/<problem>/
    … then benchmarks/debiasing_peer.py, in DetoxAI's own environment
    python benchmarks/debiasing.py --table          # benchmarks/results/debiasing_detoxai.csv, from the runs that are there

A problem is a bias strength and a seed: 4,000 faces of one drawing style (Avataaars, 64 px, target smiling, glasses
correlated with it by `strength`), a ResNet-18 trained on them for 4 epochs, and 1,000 + 1,000 faces without that correlation to
fit the methods on and to test them on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import helpers
from helpers.bias import audit
from helpers.files import whole
from helpers.problem import Problem, load_problem

RESULTS = Path(__file__).resolve().parent / "results"
ROOT = RESULTS.parent.parent / "build" / "debiasing"
STYLE = "avataaars"


def illustrated(strength: float, seed: int) -> Problem:
    """The faces and the trained model; from the cache if they were made before."""
    found = load_problem("illustrated", correlation=strength, seed=seed, styles=STYLE, progress=False)
    test = helpers.load_faces("illustrated", split="test", n=1000, seed=seed, styles=STYLE, progress=False)
    return Problem(found.train, found.validation, test, found.model)


def problem_of(name: str) -> Problem:
    """The problem that a folder's name stands for: illustrated-<strength>-<seed>, or orl-<seed>."""
    kind, *numbers = name.split("-")
    if kind == "orl":
        return load_problem(kind, seed=int(numbers[0]), progress=False)
    return illustrated(float(numbers[0]), int(numbers[1]))


def export(name: str) -> Path:
    """Write a problem's images, codes and weights where the other environment can read them; returns the folder."""
    folder = ROOT / name
    if not (folder / "problem.npz").exists():
        problem = problem_of(name)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(problem.model.network.state_dict(), folder / "network.pth")
        arrays = {}
        for split, faces in (("fit", problem.validation), ("test", problem.test)):
            codes = {f"{split}_target": faces.targets, f"{split}_group": faces.group}
            arrays |= {f"{split}_images": np.asarray(faces.images)} | codes
        np.savez(folder / "problem.npz", **arrays)
    return folder


def table() -> pd.DataFrame:
    """DetoxAI's runs, one row a problem and method: both numbers on the test images, and the seconds of the whole call."""
    rows = []
    for run in sorted(ROOT.glob("*/detoxai-*.json")):
        problem, predicted = np.load(run.parent / "problem.npz"), np.load(run.with_suffix(".npy"))
        row = {"problem": run.parent.name, "method": run.stem.removeprefix("detoxai-"), **json.loads(run.read_text())}
        if len(predicted):
            found = audit(problem["test_target"], predicted, problem["test_group"], n_boot=100)
            row |= {"balanced_accuracy": found.value("balanced_accuracy"), "equalized_odds": found.gap("equalized_odds")}
            row |= {"one_class": len(np.unique(predicted)) < 2}
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="illustrated-<strength>-<seed> or orl-<seed>")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        with whole(RESULTS / "debiasing_detoxai.csv") as part:
            table().to_csv(part, index=False, float_format="%.4f")
    for name in arguments.names:
        start = time.perf_counter()
        print(export(name), f"{time.perf_counter() - start:.0f} s", flush=True)
