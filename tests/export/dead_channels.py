"""A network of which two channels died in training."""

from __future__ import annotations

from typing import Any

import numpy as np

from paradis_tf.supernet import Supernet
from tests.conftest import TinyNet, randomize


def dead_net(gain: float, steady: float, **network: Any) -> Supernet:
    """The tiny network, of one switch if nothing else is asked for, with two channels that died.

    Channel 3 before the depthwise convolution is always 0, channel 6 always `steady`; the batch norm behind it divides
    by next to nothing. `gain` is the largest weight of both before that.
    """
    model = randomize(Supernet(TinyNet(), **(network or {"switches": ("1.0",)})))
    layers = {layer.name: layer for layer in model.shared_layers}

    def put(name: str, weight: str, channels: list[int], values: Any) -> None:
        variable = getattr(layers[name], weight)
        array = variable.numpy()
        array[..., channels] = values
        variable.assign(array)

    put("stem_norm", "gamma", [3, 6], 0)
    put("stem_norm", "beta", [3, 6], [-1, steady])
    kernel = layers["depthwise_conv"].kernel.numpy()
    kernel[:, :, 3, 0] = gain * np.array([[0.3, -1, 0.5], [1, -0.7, 0.2], [-0.4, 0.9, 0.1]])
    # Of one weight, so that the edges of the image give what its middle does.
    kernel[:, :, 6, 0] = gain * np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    layers["depthwise_conv"].kernel.assign(kernel)
    put("depthwise_norm", "gamma", [3, 6], 1)
    put("depthwise_norm", "beta", [3, 6], [0.12, 0.4])
    put("depthwise_norm", "moving_mean", [3, 6], [0, gain * steady])
    put("depthwise_norm", "moving_variance", [3, 6], 0)
    return model
