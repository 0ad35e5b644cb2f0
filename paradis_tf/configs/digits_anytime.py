"""MobileNet v1 (32x32 form, base width 0.5) and scikit-learn's handwritten digits: four levels, in minutes.

    python -m paradis_tf.train --config=paradis_tf/configs/digits_anytime.py --workdir=runs/digits_anytime

Method: a reconstruction of the sparse network of Slicing Networks Vertically (Lee & Shin 2018).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from paradis_tf.configs import digits_mobilenet_v1


def get_config(method: str = "anytime") -> ConfigDict:
    return digits_mobilenet_v1.get_config(method)
