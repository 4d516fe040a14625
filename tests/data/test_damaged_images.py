"""2,000 files damaged at random bytes: no crash, no hang, each failure named once, every intact picture as it was.

The accidents are those of `benchmarks/damaged_images.py`; CANDOR_DAMAGED=20000 reads as many files. About 8 s on one thread.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "damaged_images.py"
FILES = int(os.environ.get("CANDOR_DAMAGED", "2000"))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("damaged_images", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures():
    """What a process of its own makes of the files: a crash would show as its exit status, a hang as time, a leak as memory."""
    command = [sys.executable, "-W", "error", str(SCRIPT), "--n", str(FILES), "--seed", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + FILES / 20)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
    return json.loads(done.stdout)


def test_no_promise_is_broken(figures):
    assert figures["broken"] == dict.fromkeys(figures["broken"], 0) and len(figures["broken"]) == 5
    assert figures["intact"] == FILES // 10
    assert figures["damaged, named"] + figures["damaged, read"] + figures["intact"] == figures["files"] == FILES
    assert figures["damaged, named"] > FILES / 2 and figures["damaged, read"] > FILES / 20  # there was something to find


def test_time_and_memory_stay_small(figures):
    assert figures["seconds reading"] < 20 + FILES / 100
    assert figures["slowest file"][0] < 5
    assert figures["growth of memory, MB"] < 1200


def test_the_files_differ_from_the_originals_and_the_seed_decides(script):
    whole = script.originals()
    assert {ending for ending, _ in whole} == {"jpg", "png", "gif", "bmp", "webp", "ppm", "pgm", "pnm", "tif"}
    for _, content in whole:
        results = [[script.damage(content, whole[0][1], np.random.default_rng(s)) for s in range(20)] for _ in range(2)]
        assert results[0] == results[1] and sum(result != content for result in results[0]) >= 15
