"""Several devices and several processes train what one process trains, and none waits for a worker that has gone."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.paradis_tf.tiny_config import EPOCHS, wait_until_stopped

ROOT = Path(__file__).parents[3]
_TIMES = ("seconds", "images_per_second")


def start(data: Path, workdir: Path, *flags: str, method: str = "paradis", **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "paradis_tf.train",
            f"--config=tests/paradis_tf/tiny_config.py:{method}",
            f"--workdir={workdir}",
            *flags,
        ],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TINY_DATA": str(data), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, status: int = 0) -> tuple[str, str]:
    output, errors = process.communicate(timeout=900)
    assert process.returncode == status, errors
    return output, errors


def start_two(data: Path, tmp_path: Path, **environment: str) -> list[subprocess.Popen]:
    """The chief and another worker, each with a run folder of its own: the other must not touch its one."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        addresses = [f"127.0.0.1:{held.getsockname()[1]}" for held in (one, other)]
    return [
        start(
            data,
            tmp_path / f"run{index}",
            TF_CONFIG=json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}),
            **environment,
        )
        for index in (0, 1)
    ]


def weights(workdir: Path) -> dict[str, np.ndarray]:
    """The last epoch's weights and the optimizer's state, read without Keras."""
    with zipfile.ZipFile(workdir / "checkpoints" / f"epoch_{EPOCHS:04}.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    found: dict[str, np.ndarray] = {}
    with h5py.File(content) as file:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = item[()]

        file.visititems(visit)
    assert len(found) > 20
    return found


def metrics(workdir: Path) -> list[dict[str, float]]:
    with (workdir / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if k not in _TIMES} for row in csv.DictReader(file)]


def assert_same_run(workdir: Path, expected: Path) -> None:
    found, wanted = metrics(workdir), metrics(expected)
    assert [row["epoch"] for row in found] == [1, 2, 3, 4]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    values, kept = weights(workdir), weights(expected)
    assert values.keys() == kept.keys()
    for name, value in values.items():
        np.testing.assert_allclose(value, kept[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_two_workers_survive_a_kill_and_end_where_one_process_does(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    # Without the chief, which writes the checkpoints, the other cannot go on.
    chief, other = start_two(tiny_data, tmp_path, TINY_STOP="epoch_0002.keras")
    wait_until_stopped(chief.pid)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    chief.send_signal(signal.SIGCONT)
    _, errors = finish(chief, status=2)
    assert "error: worker 1 at 127.0.0.1:" in errors
    assert "has gone" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run0" / "model.keras").exists()
    chief, other = start_two(tiny_data, tmp_path)
    assert "resuming" in finish(chief)[0]
    output, _ = finish(other)
    lines = output.splitlines()
    assert lines[:2] == [
        "worker 1 of 2, counted from 0",
        "worker 0 reports and keeps the run folder; waiting for the others ...",
    ]
    assert "resuming worker 0's run folder after epoch" in output
    epochs = [line.split()[1] for line in lines if line.startswith("epoch ")]
    assert epochs and epochs == [f"{number}/4" for number in range(5 - len(epochs), 5)]
    assert lines[-1] == "worker 1 of 2 is done; worker 0 writes the model"
    assert not (tmp_path / "run1").exists()
    assert_same_run(tmp_path / "run0", tiny_run)


def without_last_epoch(whole: Path, workdir: Path) -> None:
    shutil.copytree(whole, workdir)
    (workdir / "model.keras").unlink()
    (workdir / "checkpoints" / "epoch_0004.keras").unlink()


def test_two_devices_go_on_with_the_run_of_one(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    without_last_epoch(tiny_run, tmp_path / "run")
    output, _ = finish(start(tiny_data, tmp_path / "run", "--devices=CPU:0,CPU:1", TINY_CPUS="2"))
    assert "after epoch 3" in output
    assert_same_run(tmp_path / "run", tiny_run)


@pytest.mark.slow
def test_one_process_goes_on_with_the_run_of_two(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    chief, other = start_two(tiny_data, tmp_path, TINY_STOP="epoch_0002.keras")
    wait_until_stopped(chief.pid)
    chief.send_signal(signal.SIGKILL)
    chief.communicate()
    _, errors = finish(other, status=2)
    assert "error: worker 0 at 127.0.0.1:" in errors
    assert "resuming" in finish(start(tiny_data, tmp_path / "run0"))[0]
    assert_same_run(tmp_path / "run0", tiny_run)


@pytest.mark.slow
def test_passes_are_drawn_alike_on_two_devices(tiny_data: Path, tmp_path: Path) -> None:
    flags = ("--config.switches=('1.0','0.75','0.5','0.25')", "--config.method.random_widths=1")
    # oneDNN rounds by the size of the batch, and these few steps at a high rate make much of it.
    kernels = {"TF_ENABLE_ONEDNN_OPTS": "0"}
    finish(start(tiny_data, tmp_path / "one", *flags, method="us_slimmable", **kernels))
    devices = ("--devices=CPU:0,CPU:1", *flags)
    finish(start(tiny_data, tmp_path / "two", *devices, method="us_slimmable", TINY_CPUS="2", **kernels))
    assert_same_run(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("connectivity", ["triangular", "diagonal"])
def test_levels_are_trained_alike_on_two_devices(tiny_data: Path, tmp_path: Path, connectivity: str) -> None:
    flags = (f"--config.connectivity={connectivity}",)
    kernels = {"TF_ENABLE_ONEDNN_OPTS": "0"}
    finish(start(tiny_data, tmp_path / "one", *flags, method="anytime", **kernels))
    devices = ("--devices=CPU:0,CPU:1", *flags)
    finish(start(tiny_data, tmp_path / "two", *devices, method="anytime", TINY_CPUS="2", **kernels))
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_a_batch_that_cannot_be_split_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    flags = ("--devices=CPU:0,CPU:1", "--config.batch_size=15")
    _, errors = finish(start(tiny_data, tmp_path / "run", *flags, TINY_CPUS="2"), status=2)
    assert "error: batch_size is 15, and 2 devices train together" in errors
    assert not (tmp_path / "run").exists()
