"""The benchmark runs and writes what it says; its figures are not judged here."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_times_every_model(tmp_path: Path) -> None:
    file = tmp_path / "results" / "step.csv"
    flags = ["--width_multiplier=0.125", "--batch_size=8", "--rounds=2", f"--csv={file}"]
    done = subprocess.run([sys.executable, "-m", "benchmarks.training_step", *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with file.open(newline="") as stream:
        rows = {row["step"]: float(row["median_ms"]) for row in csv.DictReader(stream)}
    assert list(rows) == ["joint", "1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25", "joint/apart"]
    assert all(value > 0 for value in rows.values())
