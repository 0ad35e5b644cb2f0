"""Synthetic evaluated runs: folders with a config, an evaluation and a file in the model's place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paradis_tf.configs import defaults
from paradis_tf.evaluation.live_subsets import live_subsets

# Multiply-adds in all and of the largest device; powers of ten, so that logarithms are whole numbers.
COSTS = {
    "1.0": (100_000_000, 100_000_000),
    "0.5": (10_000_000, 10_000_000),
    "0.25": (1_000_000, 1_000_000),
    "0.5+0.5": (31_622_777, 10_000_000),
    "4x0.25": (3_162_278, 1_000_000),
}
DEVICES = {"0.5+0.5": 2, "4x0.25": 4}


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a run with these accuracies by switch."""

    def write(name: str, method: str, accuracies: dict[str, float], seed: int = 0, **changes: Any) -> Path:
        folder = tmp_path / "runs" / name
        (folder / "checkpoints").mkdir(parents=True)
        config = json.loads(defaults.get_config(method).to_json())
        config |= {"seed": seed, "switches": list(accuracies), **changes}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "versions.json").write_text('{"python": "3.11.9", "keras": "3.15.1"}')
        (folder / "model.keras").write_text(name)
        rows = []
        for switch, accuracy in accuracies.items():
            devices = DEVICES.get(switch, 1)
            total, largest = COSTS[switch]
            rows.append(
                {
                    "model_id": name,
                    "switch": switch,
                    "devices": devices,
                    "images": 1000,
                    "metric": "accuracy",
                    "accuracy": accuracy,
                    "top5_accuracy": None,
                    "madds_total": total,
                    "madds_largest": largest,
                    "parameters": 12_345,
                    "live_subsets": [
                        {"devices": list(live), "accuracy": accuracy * len(live) / devices}
                        for live in live_subsets(devices)
                    ],
                    "part": "test",
                    "model_file_sha256": hashlib.sha256(name.encode()).hexdigest(),
                }
            )
        (folder / "evaluation.json").write_text(json.dumps(rows))
        return folder

    return write


@pytest.fixture
def four_methods(write_run: Callable[..., Path]) -> list[Path]:
    """ParaDiS and universally slimmable networks with two seeds each, slimmable and individual ones with one."""
    return [
        write_run("p0", "paradis", {"1.0": 0.90, "0.5+0.5": 0.88, "4x0.25": 0.80}),
        write_run("p1", "paradis", {"1.0": 0.92, "0.5+0.5": 0.88, "4x0.25": 0.82}, seed=1),
        write_run("i_full", "individual", {"1.0": 0.93}),
        write_run("i_quarters", "individual", {"4x0.25": 0.78}),
        write_run("s", "slimmable", {"1.0": 0.90, "0.5": 0.85, "0.25": 0.70}),
        write_run("u0", "us_slimmable", {"1.0": 0.90, "0.5": 0.84, "0.25": 0.70}),
        write_run("u1", "us_slimmable", {"1.0": 0.90, "0.5": 0.86, "0.25": 0.72}, seed=1),
    ]
