"""The profile program prints the known table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_known_table(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    flags = ["--config=paradis_tf/configs/defaults.py", "--image_size=224", "--classes=1000", f"--json={table}"]
    done = subprocess.run([sys.executable, "-m", "paradis_tf.profile", *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {
        row["switch"]: (round(row["madds_total"] / 1e6, 1), round(row["madds_largest"] / 1e6, 1))
        for row in json.loads(table.read_text())
    }
    assert found == {
        "1.0": (568.7, 568.7),
        "0.5+0.5": (299.0, 149.5),
        "0.5+0.25+0.25": (231.6, 149.5),
        "4x0.25": (164.1, 41.0),
    }
    line = next(line for line in done.stdout.splitlines() if line.startswith("4x0.25"))
    assert line.split() == ["4x0.25", "total", "164.12", "1,855,400", "1,877,288"]


def test_a_dataset_of_unknown_shape_asks_for_it() -> None:
    flags = ["--config=paradis_tf/configs/defaults.py", "--config.dataset.name=npz"]
    done = subprocess.run([sys.executable, "-m", "paradis_tf.profile", *flags], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--image_size or --classes is missing" in done.stderr


def test_the_tail_of_super_resolution_is_a_line_of_its_own(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    flags = ["--config=paradis_tf/configs/wdsr_x2.py", "--image_size=10", f"--json={table}"]
    values = ["--config.model.blocks=16", "--config.model.filters=32"]
    done = subprocess.run([sys.executable, "-m", "paradis_tf.profile", *flags, *values], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole = json.loads(table.read_text())[0]
    # The published count; of the multiply-adds the 5x5 convolution of the image is the tail's.
    assert (whole["parameters"], whole["madds_total"]) == (1_190_100, 118_486_800)
    assert whole["tail"] == {"madds": 100 * 75 * 12, "parameters": 75 * 12 + 12 + 12 + 12}
    assert any(line.split()[0] == "tail" for line in done.stdout.splitlines() if line.split())
