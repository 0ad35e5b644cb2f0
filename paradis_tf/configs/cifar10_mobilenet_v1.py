"""MobileNet v1 (base width 0.5, first maps of 16x16) and CIFAR-10: ParaDiS, or a network it is judged by.

    python -m paradis_tf.train --config=paradis_tf/configs/cifar10_mobilenet_v1.py --workdir=runs/cifar10 \
        --data_dir=FOLDER_WITH_cifar10.npz

`--config=paradis_tf/configs/cifar10_mobilenet_v1.py:individual`, `:slimmable` or `:us_slimmable` trains the others with
the same recipe. Method: a reconstruction of Ozerov, Lambert, Kumaraswamy 2021. Time: an epoch has 351
steps; on one core without a GPU, three others as busy, a run takes about two hours, `:individual` half an hour.
Expected: 80.2 % on the test part for switch 1.0, of `:individual` too; the whole table is that of
`benchmarks/runs/cifar10_mobilenet_v1.toml`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import defaults


def get_config(method: str = "paradis") -> ConfigDict:
    config = defaults.get_config(method)
    config.epochs = 25
    config.batch_size = 128
    config.dataset.name = "cifar10"
    config.augmentation.flip = True
    config.augmentation.crop_padding = 4
    config.model.width_multiplier = 0.5
    config.model.form = "32"
    # Maps of 16x16, 8x8, 4x4 and 2x2, for the time of a training on a CPU.
    config.model.strides = (2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1)
    config.optimizer.learning_rate = 0.2
    config.optimizer.weight_decay = 5e-4
    return config
