"""ParaDiS on MobileNet v1 (32x32 form, base width 0.5) and CIFAR-10.

    python -m paradis_tf.train --config=paradis_tf/configs/cifar10_mobilenet_v1.py --workdir=runs/cifar10 \
        --data_dir=FOLDER_WITH_cifar10.npz

Method: a reconstruction of Ozerov, Lambert, Kumaraswamy 2021. Time: an epoch has 351 steps of about half a second on 4
cores without a GPU (benchmarks/METHODOLOGY.md), an hour and a half in all. Expected: no full run is on record yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import defaults


def get_config(method: str = "paradis") -> ConfigDict:
    config = defaults.get_config(method)
    config.epochs = 30
    config.batch_size = 128
    config.dataset.name = "cifar10"
    config.augmentation.flip = True
    config.augmentation.crop_padding = 4
    config.model.width_multiplier = 0.5
    config.model.form = "32"
    config.optimizer.learning_rate = 0.1
    return config
