"""A training of seconds: the tiny network on random images of 8x8.

As a file for --config: the environment gives it the images (TINY_DATA) and, where no GPUs are, CPUs that count as
several (TINY_CPUS). As a program it runs another one that knows the tiny network:
`python -m tests.paradis_tf.tiny_config paradis_tf.evaluate --workdir=...`.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

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
    return config_of(Path(os.environ["TINY_DATA"]), method)


def config_of(data: Path, method: str = "paradis") -> ConfigDict:
    config = defaults.get_config(method)
    config.epochs = EPOCHS
    config.batch_size = 16
    config.grid = 4
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
