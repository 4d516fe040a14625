"""Text is read and written as UTF-8 wherever Candor runs: Windows would otherwise choose another encoding."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUFF = [sys.executable, "-m", "ruff", "check", "--isolated", "--preview", "--select", "PLW1514", "--output-format", "concise"]


def test_every_text_file_is_opened_with_its_encoding(tmp_path):
    (tmp_path / "without.py").write_text("print(open('a.txt').read())\n", encoding="utf-8")
    assert "without.py:1:" in subprocess.run([*RUFF, tmp_path], capture_output=True, encoding="utf-8").stdout, "the rule is known"
    found = subprocess.run([*RUFF, "helpers", "notebooks", "video"], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert found.returncode == 0, found.stdout + found.stderr
