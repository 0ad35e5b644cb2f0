"""The benchmark of steps runs and writes what it says; its figures are not judged here."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_times_every_file(tmp_path: Path) -> None:
    file = tmp_path / "results" / "steps.csv"
    flags = ["--form=32", "--width_multiplier=0.125", "--levels=2", "--runs=5", f"--csv={file}"]
    command = [sys.executable, "-m", "benchmarks.steps", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with file.open(newline="") as stream:
        rows = {row["of"]: row for row in csv.DictReader(stream)}
    files = ["step_1", "step_2", "straight", "masked", "dense"]
    assert all(float(rows[name]["cpu_ms"]) > 0 and int(rows[name]["bytes"]) > 0 for name in files)
    madds = {name: int(rows[name]["madds"]) for name in files}
    # Going straight leaves out the head of the first level.
    assert 0 < madds["step_1"] + madds["step_2"] - madds["straight"] < madds["step_1"]
    assert madds["straight"] < madds["masked"] == madds["dense"]
