"""Pooling over windows and over the whole image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from paradis_tf.cuts import Cut
from paradis_tf.operations.operation import Build, CutCall, Operation, Rounding, Shape


@dataclass(frozen=True)
class Pool(Operation):
    """One value of each window of each channel, padding "same".

    Args:
      pool_size: side of the square window, in pixels.
      strides: step of the window in both directions.
    """

    rounding: ClassVar[Rounding] = Rounding.KEPT

    pool_size: int
    strides: int

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        return inputs[0].window(inputs[0].channels, (0, inputs[0].taken), self.pool_size, self.strides)


@dataclass(frozen=True)
class MaxPool(Pool):
    """Largest value of each window, padding "same"; arguments as of `Pool`."""

    kind: ClassVar[str] = "max_pool"

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return keras.ops.max_pool(*tensors, self.pool_size, self.strides, padding="same", data_format="channels_last")

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        stock = build.layers.MaxPooling2D(self.pool_size, self.strides, padding="same", name=name)
        return build.stock(stock, *tensors)


@dataclass(frozen=True)
class AveragePool(Pool):
    """Mean of each window, padding "same", whose pixels beyond the image do not count; arguments as of `Pool`."""

    kind: ClassVar[str] = "average_pool"

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return tf.nn.avg_pool2d(*tensors, self.pool_size, self.strides, "SAME")

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        stock = build.layers.AveragePooling2D(self.pool_size, self.strides, padding="same", name=name)
        return build.stock(stock, *tensors)


@dataclass(frozen=True)
class GlobalAveragePool(Operation):
    """Mean over height and width: (batch, height, width, channels) to (batch, channels)."""

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return keras.ops.mean(*tensors, axis=(1, 2))

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        return build.stock(build.layers.GlobalAveragePooling2D(name=name), *tensors)

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        return Shape((1, 1), inputs[0].channels, inputs[0].taken)
