"""Do intervals of a rate hold the truth when several images show one person? Simulated groups with known rates, one table.

    python benchmarks/rates_coverage.py [--studies 1000] [--seed 0]

Everybody in a group has a rate of their own, drawn from a Beta distribution with mean `rate`; `alike` is the correlation of two
images of one person, 1 / (a + b + 1). Each person has ten images. `images` is Wilson's interval that takes each image as
another person's, `people` that of `helpers.bias.rates` with `identity`; nominal 95 %. `width` is the median width of the latter
over that of the former.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from helpers.bias.people import rate_of_people
from helpers.bias.uncertainty import critical, wilson

IMAGES = 10


def study(people: int, rate: float, alike: float, studies: int, rng: np.random.Generator) -> dict[str, float]:
    """One row of the table."""
    both = 1 / alike - 1
    person = np.repeat(np.arange(people), IMAGES)
    held, widths = {"images": 0, "people": 0}, []
    for _ in range(studies):
        outcome = rng.random(len(person)) < rng.beta(rate * both, (1 - rate) * both, people)[person]
        low, high = (each[0] for each in wilson([outcome.sum()], [len(outcome)], critical(0.95)))
        _, low_people, high_people = rate_of_people(outcome, person, 0.95)
        held["images"] += low <= rate <= high
        held["people"] += low_people <= rate <= high_people
        widths.append((high_people - low_people) / (high - low))
    shares = {name: count / studies for name, count in held.items()}
    return {"people in the group": people, "rate": rate, "alike": alike, **shares, "width": np.median(widths)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    rows = [
        study(people, rate, alike, arguments.studies, rng)
        for people in (4, 10, 15, 40, 100)
        for rate in (0.8, 0.95)
        for alike in (0.1, 0.3, 0.5)
    ]
    print(pd.DataFrame(rows).round({"images": 3, "people": 3, "width": 2}).to_string(index=False))


if __name__ == "__main__":
    main()
