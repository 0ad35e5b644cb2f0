"""ParaDiS on MobileNet v1 and scikit-learn's handwritten digits: the demonstration.

python -m paradis_tf.train --config=paradis_tf/configs/digits_mobilenet_v1.py --workdir=runs/digits
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.epochs = 60
    config.batch_size = 64
    config.dataset.name = "digits"
    config.augmentation.crop_padding = 2
    config.model.width_multiplier = 0.5
    config.model.form = "32"
    config.optimizer.learning_rate = 0.1
    return config
