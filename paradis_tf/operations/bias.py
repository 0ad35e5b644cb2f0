"""A bias on the channels of a tensor that no single layer made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from paradis_tf.cuts import Cut
from paradis_tf.operations.operation import Build, CutCall, Operation, Setting, Shape


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

    def static_weights(self, cut: Cut) -> list[np.ndarray]:
        """The bias, whatever the cut."""
        return [keras.ops.convert_to_numpy(self.bias)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}


@dataclass(frozen=True)
class Bias(Operation):
    """One learnt value added to each channel, of a tensor that is not sliced."""

    kind: ClassVar[str] = "bias"

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> ChannelBias:
        return ChannelBias(channels[0], name=name, dtype=setting.dtype)

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return layer(*tensors)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        # No stock layer keeps a bias alone.
        (offset,) = build.weights(name)
        return build.stock(build.layers.Rescaling(1.0, offset.tolist(), name=name), *tensors)

    def parameters(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> tuple[int, int]:
        return result.channels, 0
