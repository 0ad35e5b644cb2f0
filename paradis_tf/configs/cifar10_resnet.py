"""ParaDiS on a small ResNet (32x32 form, depth 10, base width 0.25) and CIFAR-10.

    python -m paradis_tf.train --config=paradis_tf/configs/cifar10_resnet.py --workdir=runs/cifar10_resnet \
        --data_dir=FOLDER_WITH_cifar10.npz

Method: a reconstruction of Ozerov, Lambert, Kumaraswamy 2021. Time: an epoch has 351 steps; a run on
one core without a GPU is a matter of hours. Expected: no full run is on record yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import defaults


def get_config(method: str = "paradis") -> ConfigDict:
    config = defaults.get_config(method)
    config.epochs = 15
    config.batch_size = 128
    config.dataset.name = "cifar10"
    config.augmentation.flip = True
    config.augmentation.crop_padding = 4
    with config.unlocked():
        config.model = ConfigDict({"name": "resnet", "depth": 10, "width_multiplier": 0.25, "form": "32"})
    config.optimizer.learning_rate = 0.1
    return config
