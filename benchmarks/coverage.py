"""How often do the intervals of an audit contain the truth? Simulated audits with known rates, one table printed.

    python benchmarks/coverage.py [--audits 2000] [--seed 0]

Every group's images are drawn independently: a label with the group's base rate, a prediction with its true or false
positive rate. `rates` is the coverage of the intervals of single groups, `gaps` that of max - min, `ratios` that of
min / max, each averaged over the statistics with the lowest of them by name. `width` is the mean width of the interval
of the equalized-odds gap, and `false alarms` the share of audits that exclude a gap of zero for it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.bias import NAMED, STATISTICS, Counts, audit_counts
from helpers.bias.estimates import evaluate


@dataclass(frozen=True)
class Scenario:
    """Groups of `2 * per_cell` images; with a base rate of 0.5, about `per_cell` a group and label."""

    name: str
    per_cell: tuple[int, ...]
    base: tuple[float, ...]
    tpr: tuple[float, ...]
    fpr: tuple[float, ...]

    def shares(self) -> np.ndarray:
        """Probability of each cell (label, prediction) in each group, (G, 2, 2)."""
        base, tpr, fpr = np.array(self.base), np.array(self.tpr), np.array(self.fpr)
        rows = [(1 - base) * (1 - fpr), (1 - base) * fpr, base * (1 - tpr), base * tpr]
        return np.stack(rows, 1).reshape(-1, 2, 2)


def scenarios() -> list[Scenario]:
    """Equal and unequal groups, two and eight of them, 20 to 200 images a cell, and three harder cases."""
    found = []
    for g in (2, 8):
        for n in (20, 50, 200):
            found.append(Scenario(f"{g} equal groups", (n,) * g, (0.5,) * g, (0.8,) * g, (0.2,) * g))
            spread = np.linspace(0, 1, g)
            tpr, fpr = tuple(0.9 - 0.3 * spread), tuple(0.1 + 0.2 * spread)
            found.append(Scenario(f"{g} unequal groups", (n,) * g, (0.5,) * g, tpr, fpr))
    found.append(Scenario("4 groups, one stands out", (50,) * 4, (0.5,) * 4, (0.9, 0.9, 0.9, 0.6), (0.1,) * 4))
    found.append(Scenario("4 groups, 20 to 500", (20, 50, 200, 500), (0.5,) * 4, (0.7, 0.8, 0.8, 0.9), (0.2,) * 4))
    found.append(Scenario("4 groups, rare errors", (100,) * 4, (0.5,) * 4, (0.97, 0.98, 0.99, 0.98), (0.02,) * 4))
    return found


def truth(scenario: Scenario) -> tuple[pd.DataFrame, dict[str, tuple[float, float]]]:
    """True value of every statistic and group, and true difference and ratio of every gap."""
    shares = scenario.shares().reshape(-1, 4).T
    values = pd.DataFrame({name: evaluate(statistic, shares) for name, statistic in STATISTICS.items()})
    gaps = {name: (column.max() - column.min(), column.min() / column.max()) for name, column in values.items()}
    for name, parts in NAMED.items():
        gaps[name] = (max(gaps[part][0] for part in parts), min(gaps[part][1] for part in parts))
    return values, gaps


def simulate(scenario: Scenario, audits: int, seed: int) -> dict[str, object]:
    """One row of the table: coverage over `audits` simulated audits."""
    rng = np.random.default_rng(seed)
    values, gaps = truth(scenario)
    groups = tuple(f"g{i}" for i in range(len(scenario.base)))
    sizes = 2 * np.array(scenario.per_cell)
    tables = rng.multinomial(sizes, scenario.shares().reshape(-1, 4), size=(audits, len(groups)))
    hits: dict[str, list[np.ndarray]] = {"rates": [], "gaps": [], "ratios": []}
    widths, alarms = [], []
    for table in tables:
        result = audit_counts(Counts(table.reshape(-1, 2, 2), groups, ("no", "yes")))
        rows = result.by_group
        true = values.to_numpy().ravel()
        hits["rates"].append(contained(true, rows["low"], rows["high"]))
        difference, ratio = np.array([gaps[name] for name in result.gaps["statistic"]]).T
        hits["gaps"].append(contained(difference, result.gaps["difference_low"], result.gaps["difference_high"]))
        hits["ratios"].append(contained(ratio, result.gaps["ratio_low"], result.gaps["ratio_high"]))
        low, high = result.gap_interval("equalized_odds")
        widths.append(high - low)
        alarms.append(low > 0)
    sizes = "/".join(map(str, dict.fromkeys(scenario.per_cell)))
    row: dict[str, object] = {"scenario": scenario.name, "per cell": sizes}
    for kind, found in hits.items():
        names = list(values) * len(groups) if kind == "rates" else list(result.gaps["statistic"])
        share = pd.Series(np.nanmean(found, axis=0)).groupby(names).mean()
        row[kind] = f"{share.mean():.3f}"
        row[f"lowest of {kind}"] = f"{share.min():.3f} {share.idxmin()}"
    without_gap = gaps["equalized_odds"][0] == 0
    return row | {"width": f"{np.mean(widths):.3f}", "false alarms": f"{np.mean(alarms):.3f}" if without_gap else ""}


def contained(true: np.ndarray, low: pd.Series, high: pd.Series) -> np.ndarray:
    """1 where the interval holds the truth, 0 where not, NaN where there is none."""
    slack = 1e-12  # a limit at exactly 0 or 1 against a truth that arithmetic put beside it
    inside = (low.to_numpy() - slack <= true) & (true <= high.to_numpy() + slack)
    return np.where(low.isna(), np.nan, inside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audits", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows = [simulate(each, arguments.audits, arguments.seed) for each in scenarios()]
    print(pd.DataFrame(rows).to_string(index=False))
    print(f"{arguments.audits} audits a row, nominal 0.95, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
