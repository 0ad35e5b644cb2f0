"""A training of seconds, for tests that start the program: the tiny network on random images of 8x8.

The environment gives it the images (TINY_DATA) and, where no GPUs are, CPUs that count as several (TINY_CPUS).
"""

from __future__ import annotations

import os

from ml_collections import ConfigDict

from paradis_tf.configs import defaults


def get_config(method: str = "paradis") -> ConfigDict:
    import tensorflow as tf

    from paradis_tf import models
    from tests.conftest import TinyNet

    models.ARCHITECTURES["tiny"] = TinyNet
    cpus = int(os.environ.get("TINY_CPUS", "1"))
    if cpus > 1:
        [device] = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * cpus)
    config = defaults.get_config(method)
    config.epochs = 3
    config.batch_size = 16
    config.grid = 4
    config.switches = ("1.0", "0.5") if method == "us_slimmable" else ("1.0", "0.5+0.5")
    config.dataset.name = "npz"
    config.dataset.path = os.environ["TINY_DATA"]
    config.augmentation.crop_padding = 1
    config.optimizer.average_decay = 0.9
    with config.unlocked():
        config.model = ConfigDict({"name": "tiny"})
    return config
