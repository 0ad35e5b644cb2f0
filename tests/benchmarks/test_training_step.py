"""The benchmark runs and writes what it says; its figures are not judged here."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kernels import CATEGORIES

SWITCHES = ["1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25"]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.training_step", *flags]
    return subprocess.run(command, capture_output=True, text=True)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, model, sliced",
    [
        (["--width_multiplier=0.125"], "mobilenet_v1", {"depthwise convolution", "slicing"}),
        (["--model=resnet", "--depth=18"], "resnet18", {"elementwise", "slicing"}),
    ],
)
def test_it_times_every_model(tmp_path: Path, flags: list[str], model: str, sliced: set[str]) -> None:
    file = tmp_path / "results" / "step.csv"
    done = run(*flags, "--batch_size=4", "--rounds=2", "--profile", f"--csv={file}")
    assert done.returncode == 0, done.stderr
    rows = rows_of(file)
    levels = ["triangular levels", "nested levels"]
    models = ["joint", "joint, no live sets", "full width alone", *levels, *SWITCHES]
    ratios = ["joint/apart", "joint/joint, no live sets", *(f"{name}/full width alone" for name in levels)]
    assert [row["step"] for row in rows] == [*models, *ratios]
    assert all(float(row["median_ms"]) > 0 and row["model"] == model for row in rows)
    assert all(float(row["traced_s"]) > 0 for row in rows[: len(models)])
    traced = {(row["step"], row["kernels"]): float(row["mean_ms"]) for row in rows_of(file.with_stem("step_profile"))}
    assert list(traced) == [(step, kind) for step in models for kind in CATEGORIES]
    always = {"batch norm", "convolution", "activation", "optimizer", "variables", "other"}
    assert all(traced["joint", kind] > 0 for kind in always | sliced)
    assert all(traced[switch, kind] > 0 for switch in SWITCHES for kind in always)
    assert all((value > 0) == (model == "mobilenet_v1") for (_, kind), value in traced.items() if "depthwise" in kind)


@pytest.mark.slow
def test_a_resnet_too_narrow_for_stock_layers_is_refused() -> None:
    done = run("--model=resnet", "--width_multiplier=0.25", "--rounds=1")
    assert done.returncode == 2
    assert "has 4 input channels" in done.stderr and "at a width of 0.5" in done.stderr
