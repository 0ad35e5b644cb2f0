"""A training of seconds: the tiny network on random images of 8x8.

As a file for --config: the environment gives it the images (TINY_DATA) and, where no GPUs are, CPUs that count as
several (TINY_CPUS). It may name a file (TINY_STOP): as one of that name is put in place the process stops itself, as
by SIGSTOP, so that a test need not be fast to meet it there. As a program it runs another one that knows the tiny
network: `python -m tests.paradis_tf.tiny_config paradis_tf.evaluate --workdir=...`.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from paradis_tf.configs import defaults

EPOCHS = 4


def get_config(method: str = "paradis") -> ConfigDict:
    import tensorflow as tf

    cpus = int(os.environ.get("TINY_CPUS", "1"))
    if cpus > 1:
        [device] = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * cpus)
    register()
    name = os.environ.get("TINY_STOP")
    if name:
        stop_before(name)
    return config_of(Path(os.environ["TINY_DATA"]), method)


def stop_before(name: str) -> None:
    """Has this process stop as it is about to put a file of this name in place."""

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(arguments[1]).name == name:
            os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(look)


def wait_until_stopped(pid: int, within_s: float = 600.0) -> None:
    """Returns when a child that is to stop has."""
    deadline = time.monotonic() + within_s
    # T: stopped; Z: ended.
    while (state := Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) != "T":
        assert state != "Z" and time.monotonic() < deadline, f"process {pid} did not stop"
        time.sleep(0.01)


def config_of(data: Path, method: str = "paradis") -> ConfigDict:
    config = defaults.get_config(method)
    config.epochs = EPOCHS
    config.batch_size = 16
    config.grid = 4
    if not config.levels:
        config.switches = ("1.0", "0.5") if method == "us_slimmable" else ("1.0", "0.5+0.5")
    config.dataset.name = "npz"
    config.dataset.path = str(data)
    config.augmentation.crop_padding = 1
    config.optimizer.average_decay = 0.9
    with config.unlocked():
        config.model = ConfigDict({"name": "tiny"})
    return config


def register() -> None:
    from paradis_tf import models
    from tests.conftest import TinyNet

    models.ARCHITECTURES["tiny"] = TinyNet


if __name__ == "__main__":
    register()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
