"""ParaDiS on WDSR-A and images enlarged twice: T91 and 199 images of BSDS500 for training, Set5 and Set14 for test.

    python -m paradis_tf.train --config=paradis_tf/configs/wdsr_x2.py --workdir=runs/wdsr_x2 \
        --data_dir=FOLDER_WITH_sr
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import defaults


def get_config(method: str = "paradis") -> ConfigDict:
    config = defaults.get_super_resolution_config(method)
    config.epochs = 30
    config.batch_size = 16
    config.dataset.train = ("sr/train/T91", "sr/train/BSDS200")
    config.dataset.test = ("sr/test/Set5/HR", "sr/test/Set14/HR")
    config.dataset.patch_size = 32
    config.dataset.patches_per_epoch = 8000
    config.model.blocks = 8
    config.model.filters = 16
    return config
