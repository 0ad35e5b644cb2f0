"""A training that is killed ten times, at whatever moment, ends where an undisturbed one does."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paradis_tf.records.workdir import load_model
from tests.paradis_tf.test_train import command, metrics

FLAGS = (
    "--config=paradis_tf/configs/digits_mobilenet_v1.py",
    "--config.model.width_multiplier=0.125",
    "--config.switches=('1.0','0.5+0.5')",
    "--config.epochs=8",
)
Moment = Callable[[Path, str], bool]


def _parts(workdir: Path, pattern: str) -> bool:
    return any(workdir.glob(pattern))


# What is to be seen when the process is killed: its files, and what it has printed.
MOMENTS: dict[str, Moment] = {
    "start": lambda workdir, output: True,
    "folder": lambda workdir, output: (workdir / "config.json").exists(),
    "tracing": lambda workdir, output: "tracing" in output,
    "first step": lambda workdir, output: "traced" in output,
    "row without checkpoint": lambda workdir, output: (workdir / "metrics.csv").exists(),
    "checkpoint being written": lambda workdir, output: _parts(workdir, "checkpoints/.*.part*"),
    "an epoch": lambda workdir, output: "epoch " in output.partition("traced")[2],
    "two epochs": lambda workdir, output: output.partition("traced")[2].count("epoch ") >= 2,
    "within an epoch": lambda workdir, output: "epoch " in output.partition("traced")[2],
    "model being written": lambda workdir, output: _parts(workdir, ".model.part*"),
}


@pytest.mark.slow
def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(command(*FLAGS, f"--workdir={undisturbed}"), check=True, capture_output=True)
    rng = random.Random(0)
    for name, moment in MOMENTS.items():
        printed = tmp_path / "printed"
        with (
            printed.open("w") as output,
            subprocess.Popen(command(*FLAGS, f"--workdir={killed}"), stdout=output, stderr=output) as process,
        ):
            while not moment(killed, printed.read_text()) and process.poll() is None:
                time.sleep(0.001)
            if name in ("start", "tracing", "within an epoch"):
                time.sleep(rng.uniform(0, 2.0 if name == "start" else 0.3))
            assert process.poll() is None, f"ended before {name!r}: {printed.read_text()}"
            process.send_signal(signal.SIGKILL)
        found = len(metrics(killed)[1]) if (killed / "metrics.csv").exists() else 0
        print(f"killed at {name}: {found} rows", file=sys.stderr)
    subprocess.run(command(*FLAGS, f"--workdir={killed}"), check=True, capture_output=True)
    (names, expected), (found_names, rows) = metrics(undisturbed), metrics(killed)
    assert names == found_names
    print("largest difference of the metrics", np.abs(rows - expected).max(), file=sys.stderr)
    np.testing.assert_allclose(rows, expected, rtol=2e-3, atol=2e-3)
    models = [load_model(workdir / "model.keras") for workdir in (undisturbed, killed)]
    pairs = list(zip(models[0].weights, models[1].weights, strict=True))
    print(
        "largest difference of the weights", max(np.abs(a.numpy() - b.numpy()).max() for a, b in pairs), file=sys.stderr
    )
    for wanted, weight in pairs:
        np.testing.assert_allclose(weight.numpy(), wanted.numpy(), rtol=5e-3, atol=5e-3, err_msg=weight.path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["folder", "tracing", "first step", "checkpoint being written", "an epoch"])
def test_signals_end_a_training_in_one_way(name: str, tmp_path: Path) -> None:
    for number, word in ((signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), (signal.SIGHUP, "hung up")):
        workdir, printed = tmp_path / str(int(number)), tmp_path / f"{int(number)}.txt"
        with (
            printed.open("w") as output,
            subprocess.Popen(
                command(*FLAGS, f"--workdir={workdir}"), stdout=output, stderr=subprocess.PIPE, text=True
            ) as process,
        ):
            while not MOMENTS[name](workdir, printed.read_text()):
                assert process.poll() is None
                time.sleep(0.001)
            process.send_signal(number)
            errors = process.communicate(timeout=300)[1]
        assert (process.returncode, errors.splitlines()[-1]) == (128 + number, word)
        assert "Traceback" not in errors
        assert f"the same command resumes {workdir}" in printed.read_text()
