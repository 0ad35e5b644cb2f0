"""ParaDiS on WDSR-A (8 blocks, 16 filters) and images enlarged twice: T91 and 199 images of BSDS500 for training, Set5
and Set14 for test.

    python -m paradis_tf.train --config=paradis_tf/configs/wdsr_x2.py --workdir=runs/wdsr_x2 \
        --data_dir=FOLDER_WITH_sr

Method: a reconstruction of Ozerov, Lambert, Kumaraswamy 2021, in which all switches learn from the truth with one
weight; in trials of 1,500 steps that beat learning from the widest switch's image. The learning rate is ten times the
published one of WDSR, for so short a training. Time: 5,000 steps of about 0.6 s on one core without a GPU, an hour.
Expected (PSNR-Y, seed 0): on Set5 37.00, 36.99, 36.98 and 36.78 dB for 1.0, 0.5+0.5, 0.5+0.25+0.25 and 4x0.25, on Set14
32.68, 32.63, 32.63 and 32.52; bicubic has 33.68 and 30.33, `:individual` 37.02 and 32.68 for 1.0.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import defaults


def get_config(method: str = "paradis") -> ConfigDict:
    config = defaults.get_super_resolution_config(method)
    config.epochs = 20
    config.batch_size = 16
    config.dataset.train = ("sr/train/T91", "sr/train/BSDS200")
    config.dataset.test = ("sr/test/Set5/HR", "sr/test/Set14/HR")
    config.dataset.patch_size = 32
    config.dataset.patches_per_epoch = 4000
    config.model.blocks = 8
    config.model.filters = 16
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_epochs = 0.5
    if method == "paradis":
        config.method.update(hard_weight=1.0, soft_weight=0.0, feature_weight=0.0, final_student_weight=1.0)
    return config
