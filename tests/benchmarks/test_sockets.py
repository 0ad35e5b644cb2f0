"""The times of bare sockets."""

import csv
import subprocess
import sys


def test_program(tmp_path):
    out = tmp_path / "new" / "sockets.csv"
    flags = ["--workers=1", "--workers=2", "--invoke_ms=2", "--image_bytes=100000", "--runs=5", f"--csv={out}"]
    done = subprocess.run([sys.executable, "-m", "benchmarks.sockets", *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["workers"], row["invoke_ms"], row["image_bytes"]) for row in rows] == [
        ("1", "2.0", "100000"),
        ("2", "2.0", "100000"),
    ]
    for row in rows:
        # A worker that did not wait, or was not waited for, would be answered sooner.
        assert float(row["p50_ms"]) >= 2 and float(row["overhead_ms"]) >= 0
        assert f"{float(row['p50_ms']):g}" in done.stdout and "cores" in row["conditions"]
