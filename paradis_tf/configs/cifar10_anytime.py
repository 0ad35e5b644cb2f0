"""MobileNet v1 (base width 0.5, first maps of 16x16) and CIFAR-10: four levels of one network, for anytime prediction.

    python -m paradis_tf.train --config=paradis_tf/configs/cifar10_anytime.py --workdir=runs/cifar10_anytime \
        --data_dir=FOLDER_WITH_cifar10.npz

Method: a reconstruction of the sparse network of Slicing Networks Vertically (Lee & Shin 2018).
`--config.connectivity=diagonal` trains levels whose slices run on a device each.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import cifar10_mobilenet_v1


def get_config(method: str = "anytime") -> ConfigDict:
    return cifar10_mobilenet_v1.get_config(method)
