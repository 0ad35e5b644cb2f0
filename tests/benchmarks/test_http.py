"""This code, another checkout and the bare fan-out, measured in turn."""

import csv
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*flags):
    return subprocess.run([sys.executable, "-m", "benchmarks.http", *flags], capture_output=True, text=True, cwd=ROOT)


def test_program(bundle, tmp_path):
    out = tmp_path / "new" / "http.csv"
    turns = ("--switches=0.5+0.5", "--rounds=2", "--requests=4", "--at_once=2")
    done = run(f"--bundle={bundle}", f"--other={ROOT}", *turns, f"--csv={out}")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["switch"], row["at_once"], row["side"]) for row in rows] == [
        ("0.5+0.5", at_once, side) for at_once in ("1", "2") for side in ("this", "other", "bare")
    ]
    for row in rows:
        assert 0 < float(row["p50_ms"]) <= float(row["p95_ms"]) and float(row["requests_per_s"]) > 0
        assert row["p50_ms"] in done.stdout and row["image"] == "6x8" and "cores" in row["conditions"]
    assert "0.5+0.5: this code's p50 is " in done.stdout


def test_a_folder_without_a_runner_is_refused(bundle, tmp_path):
    done = run(f"--bundle={bundle}", f"--other={tmp_path}")
    assert done.returncode == 2 and f"error: --other={tmp_path} holds no runner" in done.stderr
