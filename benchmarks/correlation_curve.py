"""How biased does a plainly trained ResNet-18 become, as target and protected attribute go together more in training?

    python benchmarks/correlation_curve.py [--profile quick|full] [--seeds 0]

One model a correlation and seed, judged on the same balanced test set. Writes benchmarks/results/correlation.csv and
.png; models come from the cache if they were trained before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from helpers import audit, models
from helpers.files import whole
from helpers.plots import bias, use
from helpers.problem import load_problem

RESULTS = Path(__file__).resolve().parent / "results"
CORRELATIONS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)


def measure(profile: str = "quick", seeds=(0,), correlations=CORRELATIONS) -> pd.DataFrame:
    """One row a correlation and seed: balanced accuracy and equalized-odds gap on the balanced test set, with 95 % intervals."""
    rows = []
    for correlation in correlations:
        for seed in seeds:
            _, _, test, model = load_problem(profile=profile, correlation=correlation, seed=seed)
            found = models.predict(model, test)
            result = audit(found.y_true, found.y_pred, found.group, groups=test.groups)
            row = {"correlation": correlation, "seed": seed}
            row["balanced_accuracy"] = result.value("balanced_accuracy")
            row["balanced_accuracy_low"], row["balanced_accuracy_high"] = result.interval("balanced_accuracy")
            row["equalized_odds"] = result.gap("equalized_odds")
            row["equalized_odds_low"], row["equalized_odds_high"] = result.gap_interval("equalized_odds")
            rows.append(row)
            print({name: round(value, 3) for name, value in row.items()}, flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", choices=["quick", "full"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    use()
    table = measure(arguments.profile, arguments.seeds)
    RESULTS.mkdir(exist_ok=True)
    with whole(RESULTS / "correlation.csv") as part:
        table.to_csv(part, index=False, float_format="%.4f")
    axes = bias.gap_curve(table, "correlation", y="equalized_odds", ylabel="equalized-odds gap",
                          xlabel="correlation of target and protected attribute in training (phi)")
    with whole(RESULTS / "correlation.png") as part:
        axes.figure.savefig(part, bbox_inches="tight")


if __name__ == "__main__":
    main()
