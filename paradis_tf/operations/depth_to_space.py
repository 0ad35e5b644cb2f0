"""Channels to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from paradis_tf.cuts import Cut
from paradis_tf.operations.operation import Build, CutCall, Operation, Rounding, Shape


@keras.saving.register_keras_serializable(package="paradis_tf")
class PixelShuffle(keras.layers.Layer):
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

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "block_size": self.block_size}


@dataclass(frozen=True)
class DepthToSpace(Operation):
    """Pixel shuffle, as `PixelShuffle`, of a tensor that is not sliced.

    Args:
      block_size: side of a pixel's square.
    """

    kind: ClassVar[str] = "depth_to_space"
    rounding: ClassVar[Rounding] = Rounding.KEPT

    block_size: int

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return tf.nn.depth_to_space(*tensors, self.block_size)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        if build.keras is keras:
            return build.stock(PixelShuffle(self.block_size, name=name), *tensors)
        return tf.nn.depth_to_space(*tensors, self.block_size, name=name)

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        height, width = inputs[0].size
        channels = inputs[0].channels // self.block_size**2
        return Shape((height * self.block_size, width * self.block_size), channels, channels)
