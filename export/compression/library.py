"""tensorflow-model-optimization, imported without what its import leaves behind."""

from __future__ import annotations

import os
import warnings

_SWITCH = "TF_USE_LEGACY_KERAS"

_before = os.environ.get(_SWITCH)
with warnings.catch_warnings():
    # It asks for its TensorFlow's version in an outdated way.
    warnings.simplefilter("ignore")
    import tensorflow_model_optimization as tfmot
# It would have every process started from this one take another Keras for `tf.keras`.
if _before is None:
    os.environ.pop(_SWITCH, None)
else:
    os.environ[_SWITCH] = _before

__all__ = ["tfmot"]
