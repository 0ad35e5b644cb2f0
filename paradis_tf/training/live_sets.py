"""Sets of live devices in a training step: which they are, and what they give without the others."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from paradis_tf.builders.architecture import Outputs
from paradis_tf.methods.passes import LiveSets


def draw_live_sets(live: LiveSets, devices: int, seed: tf.Tensor) -> list[tf.Tensor]:
    """The sets of a step, each float32 (devices,): 1 for a device that answers, 0 for one that is missing.

    All are of one shape, whatever is drawn: no set has a graph of its own.

    Args:
      live: how many sets, and how many devices they may lack.
      devices: of the path, at least 2.
      seed: int32 (2,), of the step and the pass.
    """
    most = min(live.most_missing, devices - 1)
    # One row for each set: how many are missing, then the order in which they go missing.
    draws = tf.random.stateless_uniform([live.sets, devices + 1], seed)
    # The draws lie below 1; their products, rounded, need not.
    missing = 1 + tf.minimum(tf.cast(draws[:, :1] * most, tf.int32), most - 1)
    places = tf.argsort(tf.argsort(draws[:, 1:], axis=1), axis=1)
    return tf.unstack(tf.cast(places >= missing, tf.float32))


def scaled_by(partial: Sequence[Outputs[tf.Tensor]], weights: tf.Tensor) -> list[Outputs[tf.Tensor]]:
    """Each device's outputs times its weight, so that those of weight 0 neither add to the sum nor learn from it."""
    scaled = []
    for outputs, weight in zip(partial, tf.unstack(weights), strict=True):
        tensors = (outputs.prediction, outputs.features)
        scaled.append(Outputs(*(tensor * tf.cast(weight, tensor.dtype) for tensor in tensors)))
    return scaled
