"""MobileNet v1 (base width 0.5, first maps of 32x32) and Imagenette at 64x64 pixels.

    python -m paradis_tf.train --config=paradis_tf/configs/imagenette64_mobilenet_v1.py --workdir=runs/imagenette64 \
        --data_dir=FOLDER_WITH_imagenette64.npz

`:individual`, `:slimmable` and `:us_slimmable` as in cifar10_mobilenet_v1.py. Method: a reconstruction of Ozerov,
Lambert, Kumaraswamy 2021. Time: an epoch has 133 steps on four times the pixels of
CIFAR-10; on one core without a GPU, three others as busy, a run takes about an hour and a half, `:individual` a quarter
to half an hour. Expected: 77.1 % on the test part for switch 1.0, 74.1 % for 4x0.25; the whole table is that of
`benchmarks/runs/imagenette64_mobilenet_v1.toml`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import cifar10_mobilenet_v1


def get_config(method: str = "paradis") -> ConfigDict:
    # The same strides: here they give maps of 32x32 to 4x4.
    config = cifar10_mobilenet_v1.get_config(method)
    # Fewer images than CIFAR-10: smaller batches give steps enough.
    config.epochs = 25
    config.batch_size = 64
    config.optimizer.learning_rate = 0.1
    config.dataset.name = "imagenette64"
    config.augmentation.crop_padding = 8
    return config
