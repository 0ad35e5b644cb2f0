"""Channels of zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from paradis_tf.cuts import Cut
from paradis_tf.operations.operation import Build, CutCall, Operation, Rounding, Shape


@dataclass(frozen=True)
class AppendChannels(Operation):
    """Channels of zeros behind those of a tensor that is not sliced: (..., channels) to (..., channels + count).

    Args:
      count: how many.
    """

    kind: ClassVar[str] = "append_channels"
    rounding: ClassVar[Rounding] = Rounding.KEPT

    count: int

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return keras.ops.pad(tensors[0], self._padding)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        if build.keras is keras:
            return keras.ops.pad(tensors[0], self._padding)
        return tf.pad(tensors[0], self._padding, name=name)

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        channels = inputs[0].channels + self.count
        return Shape(inputs[0].size, channels, channels)

    @property
    def _padding(self) -> tuple[tuple[int, int], ...]:
        return ((0, 0), (0, 0), (0, 0), (0, self.count))
