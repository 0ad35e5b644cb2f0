"""ParaDiS on a small ResNet (32x32 form, depth 10, base width 0.25) and CIFAR-10.

    python -m paradis_tf.train --config=paradis_tf/configs/cifar10_resnet.py --workdir=runs/cifar10_resnet \
        --data_dir=FOLDER_WITH_cifar10.npz

`:individual`, `:slimmable` and `:us_slimmable` as in cifar10_mobilenet_v1.py. Method: a reconstruction of Ozerov,
Lambert, Kumaraswamy 2021. Time: an epoch has 351 steps; on one core without a GPU, three others as busy, a run takes
about three hours, `:individual` half an hour to an hour. Expected: 83.2 % on the test part for switch 1.0, 78.2 % for
4x0.25; the whole table is that of `benchmarks/runs/cifar10_resnet.toml`.
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
