"""A bias on the channels of a tensor that no single layer made."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from paradis_tf.switches import Switch


@keras.saving.register_keras_serializable(package="paradis_tf")
class ChannelBias(keras.layers.Layer):
    """Adds one value to each channel: the bias of a convolution whose partial outputs several devices made.

    Args:
      channels: channels of the input, at least 1; they are never sliced.

    Call arguments:
      inputs: float tensor (..., channels).

    Returns:
      a tensor of the same shape.
    """

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
            raise ValueError(f"layer {self.name!r}: channels is {channels!r}; it takes an int of at least 1.")
        self.channels = channels

    def build(self, input_shape: Any = None) -> None:
        self.bias = self.add_weight(name="bias", shape=(self.channels,), initializer="zeros")
        self.built = True

    def call(self, inputs: Any) -> Any:
        return keras.ops.add(inputs, self.bias)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return tuple(input_shape)

    def static_weights(self, switch: Switch, device: int) -> list[np.ndarray]:
        """The bias, whatever the slice."""
        return [keras.ops.convert_to_numpy(self.bias)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}
