"""Channels to pixels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from paradis_tf.switches import Switch


@keras.saving.register_keras_serializable(package="paradis_tf")
class DepthToSpace(keras.layers.Layer):
    """Pixel shuffle: each pixel's channels become a square of `block_size` x `block_size` pixels.

    Channel `(row * block_size + column) * c + k` of a pixel becomes channel `k`, of `c`, of the pixel at (row, column)
    in its square: TensorFlow's order, which TFLite has as one operator. The published networks order channels
    otherwise, which amounts to a renumbering of the filters before it.

    Args:
      block_size: side of the square, at least 2.

    Call arguments:
      inputs: tensor (batch, height, width, channels), channels a multiple of block_size squared.

    Returns:
      tensor (batch, height * block_size, width * block_size, channels / block_size squared).

    Source: Shi et al. 2016 (sub-pixel convolution).
    """

    def __init__(self, block_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(block_size, int) or isinstance(block_size, bool) or block_size < 2:
            raise ValueError(f"layer {self.name!r}: block_size is {block_size!r}; it takes an int of at least 2.")
        self.block_size = block_size

    def call(self, inputs: Any) -> Any:
        return tf.nn.depth_to_space(inputs, self.block_size)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, height, width, channels = input_shape
        sides = (side and side * self.block_size for side in (height, width))
        return (batch, *sides, channels // self.block_size**2)

    def static_weights(self, switch: Switch, device: int) -> list[np.ndarray]:
        """None: it has no weights."""
        return []

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "block_size": self.block_size}
