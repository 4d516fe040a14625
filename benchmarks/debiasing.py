"""Every debiasing method beside DetoxAI's of the same name, on the same trained networks and the same images.

    export OMP_NUM_THREADS=1
    python benchmarks/debiasing.py problems NAME …  # the images and the trained network, into build/debiasing/NAME
    … then benchmarks/debiasing_peer.py on those folders, in DetoxAI's own environment
    python benchmarks/debiasing.py ours NAME …      # our methods, one call of `debias` each; --methods for some of them
    python benchmarks/debiasing.py best NAME …      # all of them in one call that returns the best
    python benchmarks/debiasing.py keep             # results/debiasing_runs.csv, from the runs that are in build/debiasing
    python benchmarks/debiasing.py table            # results/debiasing.csv and .txt, from results/debiasing_runs.csv

NAME is illustrated-<strength>-<seed> or orl-<seed>. A drawn problem is a bias strength and a seed: 4,000 faces of one style
(Avataaars, 64 px, target smiling, glasses correlated with it by `strength`), a ResNet-18 trained on them for 4 epochs, and
1,000 + 1,000 faces without that correlation to fit the methods on and to test them on. `unbiased-<seed>` is the network for
which the 4,000 faces had no correlation either: what could be had if the bias had never come in.

Networks differ between machines for the same seed, so the runs that are compared come from one machine; the table checks it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import helpers
from helpers.bias import audit, compare
from helpers.debiasing import METHODS, select
from helpers.files import whole
from helpers.models.prediction import predict
from helpers.problem import Problem, load_problem

RESULTS = Path(__file__).resolve().parent / "results"
ROOT = RESULTS.parent.parent / "build" / "debiasing"
STYLE = "avataaars"
CLOSED_FORM = ("LEACE", "PCLARC", "INLP", "DFR", "NT", "ROC", "GT")
CHOICE = ("balanced_accuracy", "equalized_odds")
VANILLA, TOGETHER, BEST = "Vanilla", "CLOSED-FORM", "best"


def problem_of(name: str) -> Problem:
    """The faces and the trained network that a name stands for; from the cache if they were made before."""
    kind, *numbers = name.split("-")
    if kind == "orl":
        return load_problem(kind, seed=int(numbers[0]), progress=False)
    strength, seed = (0.0, *numbers) if kind == "unbiased" else numbers
    made = {"seed": int(seed), "styles": STYLE, "progress": False}
    found = load_problem("illustrated", correlation=float(strength), **made)
    test = helpers.load_faces("illustrated", split="test", n=1000, **made)
    return Problem(found.train, found.validation, test, found.model)


def export(name: str) -> None:
    """Write a problem's images, codes and weights where the other environment can read them."""
    folder = ROOT / name
    if (folder / "problem.npz").exists():
        return
    problem = problem_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(problem.model.network.state_dict(), folder / "network.pth")
    arrays = {}
    for split, faces in (("fit", problem.validation), ("test", problem.test)):
        codes = {f"{split}_target": faces.targets, f"{split}_group": faces.group}
        arrays |= {f"{split}_images": np.asarray(faces.images)} | codes
    np.savez(folder / "problem.npz", **arrays)


def save(folder: Path, side: str, method: str, predicted, **found) -> None:
    """One run: predictions for the test images, and what else is known of it."""
    np.save(folder / f"{side}-{method}.npy", np.asarray(predicted, np.int64))
    (folder / f"{side}-{method}.json").write_text(json.dumps({"error": ""} | found))


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self):
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        wall, cpu = self.start
        return {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def ours(name: str, methods) -> None:
    """Our methods on one problem, each a call of its own as DetoxAI's are; runs that are there are not made again."""
    folder, problem = ROOT / name, problem_of(name)
    data = {"dataloader": problem.validation, "test_dataloader": problem.test}
    if not (folder / f"ours-{VANILLA}.json").exists():
        save(folder, "ours", VANILLA, predict(problem.model, problem.test).y_pred)
    if name.startswith("unbiased"):  # there is nothing to mitigate
        return
    if not (folder / f"ours-{TOGETHER}.json").exists():
        passes = []
        for _ in range(3):
            clock = Clock()
            predict(problem.model, problem.validation), predict(problem.model, problem.test)
            passes.append(clock.read()["cpu"])
        clock = Clock()
        helpers.debias(problem.model, methods=CLOSED_FORM, **data)
        save(folder, "ours", TOGETHER, [], **clock.read(), one_pass=min(passes))
    for key in methods:
        if (folder / f"ours-{key}.json").exists():
            continue
        clock = Clock()
        result = helpers.debias(problem.model, methods=key, include_vanilla=False, **data)[key]
        told = clock.read() | {"note": result.note, "error": result.error or "", "needs_group": result.needs_group}
        told |= {f"held_{metric}": result.validation.get(metric) for metric in CHOICE}
        predicted = [] if result.error else predict(result.model, problem.test).y_pred
        save(folder, "ours", key, predicted, **told)
        print(name, key, f"{told['seconds']:.0f} s", result, flush=True)


def best(name: str) -> None:
    """What one call gives that has all methods choose from; the model as it was is among them."""
    folder, problem = ROOT / name, problem_of(name)
    clock = Clock()
    result = helpers.debias(problem.model, problem.validation, return_type="best", test_dataloader=problem.test)
    predicted = predict(result.model, problem.test).y_pred
    save(folder, "ours", BEST, predicted, **clock.read(), note=result.note, chosen=result.method)
    print(name, BEST, result, flush=True)


def keep() -> pd.DataFrame:
    """All runs that are there, one row each; the predictions as bits in hexadecimal, so that runs can be paired later."""
    rows = []
    for run in sorted(ROOT.glob("*/*-*.json")):
        side, _, method = run.stem.partition("-")
        predicted = np.load(run.with_suffix(".npy"))
        network = hashlib.sha256((run.parent / "network.pth").read_bytes()).hexdigest()[:12]
        row = {"problem": run.parent.name, "side": side, "method": method, "network": network, **json.loads(run.read_text())}
        rows.append(row | {"n": len(predicted), "predicted": np.packbits(predicted.astype(bool)).tobytes().hex()})
    return pd.DataFrame(rows)


def bits(row) -> np.ndarray:
    """The predictions of a run, int64 (n,)."""
    if not row.n:
        return np.zeros(0, np.int64)
    return np.unpackbits(np.frombuffer(bytes.fromhex(row.predicted), np.uint8))[: row.n].astype(np.int64)


def truth(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets and groups of a problem's test images."""
    kind, *numbers = name.split("-")
    made = {"split": "test", "seed": int(numbers[-1])}
    faces = helpers.load_faces(kind, **made) if kind == "orl" else helpers.load_faces(
        "illustrated", n=1000, styles=STYLE, progress=False, **made)  # fmt: skip
    return faces.targets, faces.group


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a problem and method: both sides' figures, and ours minus DetoxAI's on the same images with its interval."""
    rows = []
    for name, of_problem in runs.groupby("problem"):
        if of_problem["network"].nunique() != 1:
            raise ValueError(f"{name}: the runs are of different networks; make them on one machine")
        y, group = truth(name)
        by_side = {side: part.set_index("method") for side, part in of_problem.groupby("side")}
        if "ours" not in by_side:
            continue
        mine, theirs = by_side["ours"], by_side.get("detoxai", pd.DataFrame())
        together = mine.loc[TOGETHER] if TOGETHER in mine.index else None
        if together is not None:
            rows.append({"problem": name, "method": TOGETHER, "cpu": together.cpu, "passes": together.cpu / together.one_pass})
        for key in mine.index.drop([TOGETHER, BEST], errors="ignore"):
            rows.append({"problem": name, "method": key, **figures(mine.loc[key], y, group)})
            if key in theirs.index:
                rows[-1] |= {f"detoxai_{k}": v for k, v in figures(theirs.loc[key], y, group).items()}
                rows[-1] |= paired(bits(theirs.loc[key]), bits(mine.loc[key]), y, group)
        taken = mine.loc[BEST].chosen if BEST in mine.index else chosen(mine)
        if taken:
            run = mine.loc[BEST if BEST in mine.index else taken]
            rows.append({"problem": name, "method": BEST, "chosen": taken, **figures(run, y, group)})
    return pd.DataFrame(rows)


def figures(run, y, group) -> dict[str, object]:
    """Balanced accuracy, equalized-odds gap, whether one class only, and the processor seconds of the call."""
    if not run.n:
        return {"error": run.error, "cpu": run.cpu}
    predicted = bits(run)
    found = audit(y, predicted, group, n_boot=200)
    return {
        "balanced_accuracy": found.value("balanced_accuracy"),
        "equalized_odds": found.gap("equalized_odds"),
        "one_class": len(np.unique(predicted)) < 2,
        "cpu": run.cpu,
    }


def paired(theirs: np.ndarray, mine: np.ndarray, y, group) -> dict[str, float]:
    """The change from their predictions to ours, with its 95% interval."""
    if not len(theirs) or not len(mine):
        return {}
    found = compare(y, theirs, mine, group, names=("DetoxAI", "ours"), n_boot=200)
    overall = found.overall.set_index("statistic").loc["balanced_accuracy"]
    gap = found.gaps.set_index("statistic").loc["equalized_odds"]
    cells = {}
    for name, row in (("ba", overall), ("gap", gap)):
        cells |= {f"{name}_change": row.change, f"{name}_low": row.low, f"{name}_high": row.high}
    gains = cells["ba_low"] > 0 or cells["gap_high"] < 0
    losses = cells["ba_high"] < 0 or cells["gap_low"] > 0
    verdict = {(True, False): "better", (False, True): "worse", (True, True): "traded", (False, False): "alike"}
    if len(np.unique(theirs)) < 2 <= len(np.unique(mine)):
        return cells | {"verdict": "useful" if cells["ba_low"] > 0 else "at chance"}
    return cells | {"verdict": verdict[bool(gains), bool(losses)]}


def chosen(runs: pd.DataFrame) -> str | None:
    """What `return_type="best"` chooses: nearest to the ideal on the part held out of the data to fit on.

    The call would keep the model as it was if the held-out part did not tell the nearest from it; on the drawn problems,
    where it is far off, it does.
    """
    able = runs[runs.index.isin(METHODS) & runs.held_balanced_accuracy.notna() & (runs.held_balanced_accuracy != 0.5)]
    if not len(able):
        return None
    values = able[[f"held_{metric}" for metric in CHOICE]].to_numpy(float)
    return able.index[select.nearest(values, CHOICE)[0]]


def readable(found: pd.DataFrame) -> str:
    """Means over the seeds of each strength, and how the pairs stand, as text.

    "better": ours is better in one number beyond the paired interval and not worse in the other; "traded": better in one and
    worse in the other. Where DetoxAI's model predicts one class, whose gap is 0 and cannot be beaten: "useful" if ours is
    more accurate than that beyond the interval, else "at chance".
    """
    found = found.assign(kind=found.problem.str.rpartition("-")[0])
    lines = []
    for kind, part in found.groupby("kind"):
        lines.append(f"{kind}, mean over {part.problem.nunique()} seeds: balanced accuracy / equalized-odds gap, CPU s of a call")
        lines.append(f"{'method':12} {'ours':>16} {'s':>6} {'DetoxAI':>16} {'s':>6}   ours minus DetoxAI, each seed [95 %]")
        for key, rows in part.groupby("method", sort=False):
            if key == TOGETHER:
                lines.append(f"{key:12} {rows.cpu.mean():.1f} s, {rows.passes.mean():.2f} forward passes over all data")
                continue
            mean = rows.mean(numeric_only=True)
            text = f"{key:12} {mean.balanced_accuracy:.3f} / {mean.equalized_odds:.3f}  "
            text += f"{mean.cpu:6.0f}" if mean.cpu == mean.cpu else " " * 6
            if "chosen" in rows and rows.chosen.notna().any():
                text += f"   {', '.join(rows.chosen)}"
            elif "detoxai_cpu" in rows and rows.detoxai_cpu.notna().any():
                text += f" {mean.detoxai_balanced_accuracy:.3f} / {mean.detoxai_equalized_odds:.3f}  {mean.detoxai_cpu:6.0f}   "
                text += f"{', '.join(f'{n} {verdict}' for verdict, n in rows.verdict.value_counts().items())}: " + "; ".join(
                    f"{r.ba_change:+.3f} [{r.ba_low:+.3f}, {r.ba_high:+.3f}] / "
                    f"{r.gap_change:+.3f} [{r.gap_low:+.3f}, {r.gap_high:+.3f}]"
                    for r in rows.itertuples()
                )
            lines.append(text)
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("problems", "ours", "best", "keep", "table"))
    parser.add_argument("names", nargs="*", help="illustrated-<strength>-<seed>, unbiased-<seed> or orl-<seed>")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments = parser.parse_args()
    runs_file = RESULTS / "debiasing_runs.csv"
    if arguments.step == "keep":
        with whole(runs_file) as part:
            keep().to_csv(part, index=False, float_format="%.5g")
    elif arguments.step == "table":
        found = table(pd.read_csv(runs_file, dtype={"predicted": str}, keep_default_na=False, na_values=[""]))
        with whole(RESULTS / "debiasing.csv") as part:
            found.to_csv(part, index=False, float_format="%.4f")
        (RESULTS / "debiasing.txt").write_text(readable(found))
        print(readable(found))
    for name in arguments.names:
        start = time.perf_counter()
        if arguments.step == "problems":
            export(name)
            print(name, f"{time.perf_counter() - start:.0f} s", flush=True)
        elif arguments.step == "ours":
            ours(name, arguments.methods)
        elif arguments.step == "best":
            best(name)
