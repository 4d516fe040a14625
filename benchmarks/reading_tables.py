"""How long does it take to read the tables of big data sets, before any image is opened?

    python benchmarks/reading_tables.py [--out benchmarks/results/reading_tables.txt]

Lists in CelebA's official form are written (random labels, the official widths), 202,599 rows as there are and a million, and a
CSV of a million rows with five columns. Timed are the best of three: our reader, pandas with `sep=r"\\s+"` on the same file, and
for the CSV everything up to the opening of images: reading, yes/no columns, splits by identity, labels.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.labels import encode
from helpers.data.sampling import split_identities
from helpers.data.sources.celeba import read_attributes
from helpers.data.sources.table import read_table

ATTRIBUTES = 40


def write_celeba(file: Path, rows: int) -> None:
    signs = np.where(np.random.default_rng(0).random((rows, ATTRIBUTES)) < 0.5, " 1", "-1")
    with file.open("w", encoding="utf-8") as out:
        out.write(f"{rows}\n{' '.join(f'Attribute_{i}' for i in range(ATTRIBUTES))} \n")
        out.writelines(f"{i:06}.jpg {' '.join(row)}\n" for i, row in enumerate(signs, 1))


def write_table(file: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    pd.DataFrame(
        {
            "path": [f"images/{i // 1000:04}/{i:07}.jpg" for i in range(rows)],
            "smiling": rng.choice(["yes", "no"], rows),
            "glasses": rng.integers(0, 2, rows),
            "age": rng.choice(["old", "young", "middle"], rows),
            "person": rng.integers(0, rows // 10, rows),
        }
    ).to_csv(file, index=False)


def read_and_label(file: Path) -> None:
    table = read_table(file)
    split_identities(table["person"])
    for column in ("smiling", "glasses", "age"):
        encode(table[column], column)


def best(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of processor time, the best of three."""
    runs = []
    for _ in range(3):
        clock, processor = time.perf_counter(), time.process_time()
        work()
        runs.append((time.perf_counter() - clock, time.process_time() - processor))
    return min(clock for clock, _ in runs), min(processor for _, processor in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    lines = [f"{'what':<72}{'seconds':>9}{'of CPU':>9}"]
    with tempfile.TemporaryDirectory() as place:
        for rows in (202_599, 1_000_000):
            file = Path(place) / f"{rows}.txt"
            write_celeba(file, rows)
            name = f"CelebA's list, {rows:,} rows of {ATTRIBUTES} attributes ({file.stat().st_size / 1e6:.0f} MB)"
            lines.append(f"{name:<72}{'{:9.2f}{:9.2f}'.format(*best(lambda file=file: read_attributes(file)))}")
            plain = best(lambda file=file: pd.read_csv(file, sep=r"\s+", skiprows=2, header=None))
            lines.append(f"{'  the same, pandas alone, unchecked':<72}{'{:9.2f}{:9.2f}'.format(*plain)}")
        file = Path(place) / "faces.csv"
        write_table(file, 1_000_000)
        took = best(lambda: read_and_label(file))
        name = "a CSV of 1,000,000 rows: read, 100,000 people split, 3 columns encoded"
        lines.append(f"{name:<72}{'{:9.2f}{:9.2f}'.format(*took)}")
    # On a machine shared with other work the clock says little and the processor time more.
    lines.append(f"load average of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if out:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
