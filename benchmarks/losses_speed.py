"""Fairness losses forward and backward, ours against fairret's and FairTorch's, in one run.

    python benchmarks/losses_speed.py [--threads 1]

Random logits, four groups with different means. fairret's projections run at its default setting, ten iterations of its solver,
after which they are not converged: the column "value" holds what each reports, "exact" what cvxpy finds when run to convergence.
Writes benchmarks/results/losses_speed.txt. fairret and cvxpy are dev extras; FairTorch, which asks for torch below 2, takes part
if it is there (`pip install --no-deps fairtorch==0.1.2`).
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import cvxpy
import fairret.loss
import fairret.statistic
import pandas as pd
import torch

from helpers import losses
from helpers.bias import statistics
from helpers.files import whole

try:
    import fairtorch
except ImportError:
    fairtorch = None

RESULTS = Path(__file__).resolve().parent / "results"
PROJECTIONS = "KLProjectionLoss", "JensenShannonProjectionLoss", "SquaredEuclideanProjectionLoss", "TotalVariationProjectionLoss"
VIOLATIONS = "NormLoss", "LSELoss"
REPEATS = 25


def batch(rows: int, groups: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(0, groups, (rows,), generator=generator)
    logit = torch.randn(rows, 1, generator=generator) * 1.5 + 0.5 * group[:, None]
    label = (torch.rand(rows, 1, generator=generator) < 0.5).float()
    return logit.requires_grad_(), torch.nn.functional.one_hot(group, groups).float(), label, group


def seconds(loss, logit, *rest, repeats: int = REPEATS) -> tuple[float, float]:
    """Median time of a forward and backward pass after the first, and the value."""
    times = []
    for _ in range(repeats + 1):
        logit.grad = None
        began = time.perf_counter()
        value = loss(logit, *rest)
        value.backward()
        times.append(time.perf_counter() - began)
    return float(torch.tensor(times[1:]).median()), value.item()


def exact(name: str, statistic, logit, sens, *label) -> float:
    """The loss by a convex solver, run to convergence."""
    p = logit.detach().double().sigmoid()
    intercept, slope = (
        each.numpy() for each in statistic.fixed_constraint(statistic.overall_statistic(p, *label), sens.double(), *label)
    )
    p = p[:, 0].numpy()
    q = cvxpy.Variable(len(p))
    m = (q + p) / 2
    distance = {
        "KLProjectionLoss": lambda: cvxpy.sum(cvxpy.kl_div(q, p) + cvxpy.kl_div(1 - q, 1 - p)),
        "JensenShannonProjectionLoss": lambda: (
            cvxpy.sum(cvxpy.kl_div(q, m) + cvxpy.kl_div(1 - q, 1 - m) + cvxpy.kl_div(p, m) + cvxpy.kl_div(1 - p, 1 - m)) / 2
        ),
        "SquaredEuclideanProjectionLoss": lambda: cvxpy.sum_squares(q - p),
        "TotalVariationProjectionLoss": lambda: cvxpy.sum(cvxpy.abs(q - p)),
    }[name]()
    problem = cvxpy.Problem(cvxpy.Minimize(distance / len(p)), [intercept.sum(0) + slope.T @ q == 0, q >= 0, q <= 1])
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return float(problem.value)


def measure() -> pd.DataFrame:
    rows = []
    for short in ("PositiveRate", "TruePositiveRate"):
        for size in (64, 256, 1024, 4096):
            logit, sens, label, group = batch(size)
            labels = () if short == "PositiveRate" else (label,)
            for name in PROJECTIONS + VIOLATIONS:
                ours, value = seconds(getattr(losses, name)(getattr(statistics, short)()), logit, sens, *labels)
                theirs, other = seconds(
                    getattr(fairret.loss, name)(getattr(fairret.statistic, short)()), logit, sens, *labels, repeats=7
                )
                truth = exact(name, getattr(statistics, short)(), logit, sens, *labels) if name in PROJECTIONS else None
                rows.append((name, short, size, ours * 1e3, theirs * 1e3, theirs / ours, value, other, truth))
                print(*rows[-1], flush=True)
    if fairtorch is not None:
        for size in (64, 1024, 4096):
            logit, _, label, group = batch(size, groups=2)
            for name, published in (
                ("DemographicParityLoss", "DemographicParityLoss"),
                ("EqualizedOddsLoss", "EqualiedOddsLoss"),
            ):
                time_of = [
                    seconds(lambda out, made=made, group=group, label=label: made(None, out, group, label), logit)
                    for made in (getattr(losses, name)([0, 1]), getattr(fairtorch, published)([0, 1]))
                ]
                (ours, value), (theirs, other) = time_of
                rows.append((name, "", size, ours * 1e3, theirs * 1e3, theirs / ours, value, other, None))
    logit, sens, label, _ = batch(1_000_000)
    for name in PROJECTIONS + VIOLATIONS:
        ours, value = seconds(getattr(losses, name)(statistics.PositiveRate()), logit, sens, repeats=3)
        rows.append((name, "PositiveRate", len(logit), ours * 1e3, None, None, value, None, None))
    columns = ["loss", "statistic", "rows", "ms", "peer ms", "ratio", "value", "peer value", "exact"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    warnings.simplefilter("ignore")
    table = measure()
    text = table.to_string(index=False, float_format=lambda x: f"{x:.4g}", na_rep="")
    RESULTS.mkdir(exist_ok=True)
    with whole(RESULTS / "losses_speed.txt") as part:
        part.write_text(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n{text}\n")
    print(text)


if __name__ == "__main__":
    main()
