"""I-ResNeXt of half width and one block a stage, and CIFAR-10: four nested levels, for anytime prediction.

    python -m paradis_tf.train --config=paradis_tf/configs/cifar10_i_resnext.py --workdir=runs/cifar10_i_resnext \
        --data_dir=FOLDER_WITH_cifar10.npz

Method: a re-implementation of the authors' published code of Lee & Shin 2018, with its recipe in a tenth of its epochs
or less and in a smaller network; theirs is `--config.model.width_multiplier=1 --config.model.blocks=7
--config.levels=8 --config.epochs=300 --config.optimizer.step_epochs='(150,225)'`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import defaults


def get_config(method: str = "nested") -> ConfigDict:
    config = defaults.get_config(method)
    config.epochs = 25
    config.batch_size = 64
    config.dataset.name = "cifar10"
    config.augmentation.flip = True
    config.augmentation.crop_padding = 4
    with config.unlocked():
        config.model = ConfigDict({"name": "i_resnext", "width_multiplier": 0.5, "blocks": 1})
    config.optimizer.update(learning_rate=0.1, warmup_epochs=0.0, schedule="steps", step_epochs=(12, 19))
    config.optimizer.update(weight_decay=1e-4, decay_all=True)
    return config
