"""Doing what a plan asks for: networks first, then methods, in processes of this machine or of a cluster; each cell kept once."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from tqdm.auto import tqdm

import helpers
from helpers.debiasing.result import VANILLA
from helpers.experiments.plan import Plan, Problem
from helpers.files import check, whole
from helpers.models import checkpoint
from helpers.names import choose

METRICS = ("balanced_accuracy", "equalized_odds", "demographic_parity", "accuracy")
BACKENDS = ("loky", "threading", "dask", "ray")
THREADS = 1  # of a cell: results must not depend on how many cells run beside it


def run(
    plan: Plan,
    out: str | os.PathLike,
    *,
    jobs: int = -1,
    backend: str = "loky",
    address: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Do what is not done yet, and put all cells into `out/results.parquet`.

    Networks are trained first, a process a problem; then the methods. A cluster has to see `out` and the data at the same paths.

    Parameters
    ----------
    plan : from `read_plan`
    out : folder; of an earlier run it is gone on with
    jobs : processes; -1 for one a core
    backend : "loky" (this machine), "threading", "dask" or "ray"
    address : of the Dask or Ray cluster; None starts or finds one on this machine
    progress : show a bar

    Returns
    -------
    DataFrame, one row a cell: `data, bias, seed, method`, the metrics of the test faces and as `validation_…` of held-out ones,
    `needs_group, degenerate, note, error`. Whatever was interrupted, the same plan on the same machine gives the same bytes.

    Raises
    ------
    ValueError : an unknown backend, a folder that cannot be written to.
    RuntimeError : problems whose faces or network could not be had; the others are done, and what is missing is tried again by
        the next call.
    """
    out = Path(out)
    backend = choose(backend, BACKENDS, "backend")
    check(out / "results.parquet", "out")
    jobs = os.cpu_count() or 1 if jobs == -1 else jobs
    if jobs < 1:
        raise ValueError(f"jobs: {jobs}; expected -1, or a whole number of at least 1")
    missing = {}
    for problem, method in plan.cells():
        if not plan.file(out, problem, method).is_file():
            missing.setdefault(problem.key, (problem, []))[1].append(method)
    with _cluster(backend, address, jobs) as parallel:
        failures = dict(filter(None, _each(parallel, _prepared, [(p, out) for p, _ in missing.values()], "networks", progress)))
        able = [(problem, methods) for key, (problem, methods) in missing.items() if key not in failures]
        parts = max(1, math.ceil(jobs / max(1, len(able))))
        work = [(plan, out, problem, methods[i::parts]) for problem, methods in able for i in range(parts) if methods[i::parts]]
        failures |= dict(filter(None, _each(parallel, _mitigated, work, "methods", progress)))
    table = collect(plan, out)
    with whole(out / "results.parquet") as part:
        table.to_parquet(part, index=False)
    if failures:
        said = "; ".join(dict.fromkeys(failures.values()))
        raise RuntimeError(f"plan: {len(failures)} of {len(plan.problems)} problems failed: {said}")
    return table


def collect(plan: Plan, out: str | os.PathLike) -> pd.DataFrame:
    """The cells of a plan that are there, in its order; see `run`."""
    rows = []
    for problem, method in plan.cells():
        path = plan.file(Path(out), problem, method)
        if path.is_file():
            rows.append({"data": problem.data, "bias": problem.bias, "seed": problem.seed, **json.loads(path.read_text("utf-8"))})
    names = [name for metric in METRICS for name in (metric, f"validation_{metric}")]
    columns = ["data", "bias", "seed", "method", *names, "needs_group", "degenerate", "note", "error"]
    return pd.DataFrame(rows, columns=columns).astype({name: float for name in names})


def _prepared(problem: Problem, out: Path) -> tuple[str, str] | None:
    """Train the network of a problem, or go on with that; the problem's key and what went wrong, if anything did."""
    try:
        with _threads():
            _network(problem, out, _faces(problem, "train"))
    except (ValueError, OSError, RuntimeError, FloatingPointError, ModuleNotFoundError) as error:
        return problem.key, f"{problem.data} {problem.bias} {problem.seed}: {str(error).splitlines()[0]}"


def _mitigated(plan: Plan, out: Path, problem: Problem, methods: list[str]) -> tuple[str, str] | None:
    """Run methods on a problem; each is kept as soon as it is there."""

    def keep(result) -> None:
        if result.method not in methods:
            return
        found = {"method": result.method, "error": result.error, "note": result.note or None}
        found |= {"needs_group": bool(result.needs_group), "degenerate": bool(result.degenerate)}
        for name in METRICS:
            found[name] = _number(result.metrics.get(name))
            found[f"validation_{name}"] = _number(result.validation.get(name))
        with whole(plan.file(out, problem, result.method)) as part:
            part.write_text(json.dumps(found), encoding="utf-8")

    try:
        with _threads():
            fit, test = _faces(problem, "validation"), _faces(problem, "test")
            model = _network(problem, out, None)
            chosen = [name for name in methods if name != VANILLA] or ["GT"]
            options = {name: plan.methods.get(name, {}) for name in chosen}
            helpers.debias(model, fit, chosen, methods_config=options, test_dataloader=test, seed=problem.seed, each=keep)
    except (ValueError, OSError, RuntimeError) as error:
        return problem.key, f"{problem.data} {problem.bias} {problem.seed}: {str(error).splitlines()[0]}"


def _number(value: Any) -> float | None:
    """JSON has no NaN."""
    return None if value is None or not np.isfinite(value) else float(value)


def _faces(problem: Problem, split: str):
    options = dict(problem.load[split])
    return helpers.load_faces(options.pop("name"), split=split, seed=problem.seed, **options)


def _network(problem: Problem, out: Path, faces):
    """The trained network of a problem; `faces` None where it is known to be there."""
    path = out / "networks" / f"{problem.key}.safetensors"
    if faces is not None and not (path.is_file() and path.with_suffix(".json").is_file()):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not (path.is_file() and path.with_suffix(".json").is_file()):
                options = dict(problem.model)
                part = path.with_suffix(".part")
                how = {"seed": problem.seed, "checkpoint": part, "device": "cpu", "progress": False}
                model = helpers.train(faces, options.pop("architecture"), **how, **options)
                checkpoint.save(model, path)
                part.unlink(missing_ok=True)
    return checkpoint.load(path)


def _each(parallel, function, work: list[tuple], what: str, progress: bool) -> list:
    found = parallel(joblib.delayed(function)(*arguments) for arguments in work)
    return list(tqdm(found, what, total=len(work), disable=not progress or not work))


class _cluster:
    """`joblib.Parallel` on a backend that is started, or found, and left as it was."""

    def __init__(self, backend: str, address: str | None, jobs: int):
        self.backend, self.address, self.jobs, self.client = backend, address, jobs, None

    def __enter__(self):
        if self.backend == "dask":
            from distributed import Client

            workers = {} if self.address else {"n_workers": self.jobs, "threads_per_worker": 1, "dashboard_address": None}
            self.client = Client(self.address, **workers)
        elif self.backend == "ray":
            import ray
            from ray.util.joblib import register_ray

            ray.init(self.address, ignore_reinit_error=True)
            register_ray()
        self.config = joblib.parallel_config(backend=self.backend)
        self.config.__enter__()
        return joblib.Parallel(n_jobs=self.jobs, return_as="generator")

    def __exit__(self, *error):
        self.config.__exit__(*error)
        if self.client is not None:
            self.client.close()


class _threads:
    """PyTorch with `THREADS` threads inside the block."""

    def __enter__(self):
        self.before = torch.get_num_threads()
        torch.set_num_threads(THREADS)

    def __exit__(self, *error):
        torch.set_num_threads(self.before)
