"""Do tests and intervals of relevance by group keep what they promise? Simulated shares with known truth, one table printed.

    python benchmarks/attribution_groups.py [--designs 8] [--studies 250] [--seed 0]

A share is the logistic of a normal value with standard deviation 1, six tenths of whose variance the images of a person have in
common. Group a has `size` images and group b three times as many. Each person has one image ("alone"), or 1 to 8, all in one
group ("apart") or some in each ("shared", such as with and without glasses). Unequal: group b's values spread half as much about
the same mean share.

`level` is how often the test of `helpers.bias.by_people` finds a difference at 0.05 where there is none, `images` how often
the same test does that is not told about people, `bare` how often a permutation test of the bare difference of means does.
`power` is that of ours where group a's values are 0.5 higher. `mean` and `gap` are the coverage of nominal 95 % intervals of
group a's mean and of the difference.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import permutation_test

from helpers.bias.by_people import Draws, Members, difference_test, differences, estimates

WAYS, BARE = 999, 40  # permutations; columns that the slow comparison looks at
DESIGNS = [
    (size, people, person, unequal)
    for size in (10, 30, 100)
    for people, person in (("alone", 0.0), ("apart", 0.6), ("shared", 0.6))
    for unequal in (False, True)
]


def design(size: int, people: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which images are in group a, and whose they are."""
    first = np.arange(4 * size) < size
    if people == "alone":
        return first, np.arange(4 * size)
    lengths = rng.integers(1, 9, 4 * size)
    if people == "apart":
        sides = [np.repeat(np.arange(4 * size), lengths)[:count] for count in (size, 3 * size)]
        return first, np.unique(np.r_[sides[0], sides[1] + 4 * size], return_inverse=True)[1]
    person = np.repeat(np.arange(4 * size), lengths)[: 4 * size]
    taste = np.repeat(rng.random(4 * size), lengths)[: 4 * size]  # who is seen with glasses often, who seldom
    return np.argsort(np.argsort(rng.normal(0, 0.5, 4 * size) - taste)) < size, person


def shares(first: np.ndarray, person: np.ndarray, common: float, unequal: bool, studies: int, rng) -> np.ndarray:
    """Shares (N, studies) whose mean is one half in both groups."""
    of_person = rng.normal(0, np.sqrt(common), (person.max() + 1, studies))[person]
    values = of_person + rng.normal(0, np.sqrt(1 - common), (len(person), studies))
    return np.where(~first & unequal, 0.5, 1.0)[:, None] * values


def measure(size: int, people: str, common: float, unequal: bool, designs: int, studies: int, rng) -> dict[str, float]:
    rows = []
    for _ in range(designs):
        first, person = design(size, people, rng)
        raw = shares(first, person, common, unequal, studies, rng)
        values, alone = expit(raw), np.arange(len(first))
        members, draws = Members((~first).astype(int), ("a", "b"), person), Draws(n_boot=500, n_permutations=9)
        means, gaps = estimates(values, members, draws), differences(values, members, draws)
        means = means[means["group"] == "a"]
        bare = permutation_test(
            (values[first, :BARE], values[~first, :BARE]), lambda x, y, axis: np.abs(x.mean(axis) - y.mean(axis)),
            vectorized=True, alternative="greater", n_resamples=199, rng=rng,
        ).pvalue  # fmt: skip
        rows.append(
            {
                "level": (difference_test(values, first, person, WAYS, 0) <= 0.05).mean(),
                "images": (difference_test(values, first, alone, WAYS, 0) <= 0.05).mean(),
                "bare": (bare <= 0.05).mean(),
                "power": (difference_test(expit(raw + 0.5 * first[:, None]), first, person, WAYS, 0) <= 0.05).mean(),
                "mean": ((means["low"] <= 0.5) & (means["high"] >= 0.5)).mean(),
                "gap": ((gaps["low"] <= 0) & (gaps["high"] >= 0)).mean(),
            }
        )
    return {"size": size, "people": people, "unequal": unequal, **pd.DataFrame(rows).mean().to_dict()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--designs", type=int, default=8)
    parser.add_argument("--studies", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, start = np.random.default_rng(options.seed), time.perf_counter()
    table = pd.DataFrame([measure(*each, options.designs, options.studies, rng) for each in DESIGNS])
    print(table.to_string(index=False, float_format="{:.3f}".format))
    print(f"\n{options.designs * options.studies} simulated studies a row, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
