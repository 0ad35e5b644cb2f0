"""Depthwise convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from paradis_tf.cuts import Cut
from paradis_tf.layers.sliced_layer import SlicedLayer
from paradis_tf.layers.windows import check_positions, check_window
from paradis_tf.operations.operation import Build, Operation, Setting, Shape


@keras.saving.register_keras_serializable(package="paradis_tf")
class SlicedDepthwiseConv2D(SlicedLayer):
    """2D depthwise convolution (depth multiplier 1, no bias); a cut uses `kernel[:, :, channels, :]`.

    As a whole it equals `keras.layers.DepthwiseConv2D` with the same weights.

    Args:
      in_channels: channels of the whole input and output, at full width.
      kernel_size: side of the square window, in pixels, at least 1.
      strides: step of the window in both directions, at least 1.
      padding: "same" or "valid".
      kernel_initializer: a Keras initializer, its name or its config.

    Call arguments:
      inputs: float tensor (batch, height, width, channels of the cut).
      cut: a `Cut`, by keyword; the whole layer if left out.

    Returns:
      float tensor (batch, new height, new width, channels of the cut).

    Raises:
      ValueError: an argument out of range, or inputs with another number of channels than the cut has.
      SwitchError: the cut falls inside a channel of this layer.

    Source: the distributed depthwise convolution of the reconstruction of ParaDiS.
    """

    # Yu et al. 2019 do not decay depthwise kernels.
    decays_kernel = False

    def __init__(
        self,
        in_channels: int,
        kernel_size: int,
        strides: int = 1,
        padding: str = "same",
        kernel_initializer: Any = "he_normal",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            in_channels,
            use_bias=False,
            slice_inputs=True,
            slice_outputs=True,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )
        check_window(self.name, kernel_size, strides, padding)
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return (self.kernel_size, self.kernel_size, self.in_channels, 1)

    def _block(self, kernel: Any, ins: tuple[int, int], outs: tuple[int, int]) -> Any:
        return kernel[:, :, ins[0] : ins[1], :]

    def _bounds(self, cut: Cut) -> tuple[tuple[int, int], tuple[int, int]]:
        own = cut.outputs(self.name, self.in_channels)
        return own, own

    def _mask(self, cut: Cut) -> None:
        return None

    def _apply(self, inputs: Any, kernel: Any) -> Any:
        return keras.ops.depthwise_conv(
            inputs, kernel, strides=self.strides, padding=self.padding, data_format="channels_last"
        )

    def _spatial_shape(self, input_shape: tuple) -> tuple:
        return check_positions(self.name, input_shape, self.kernel_size, self.strides, self.padding)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(kernel_size=self.kernel_size, strides=self.strides, padding=self.padding)
        return config


@dataclass(frozen=True)
class DepthwiseConv(Operation):
    """Depthwise convolution without bias, padding "same", of the cut's channels.

    Args:
      kernel_size: side of the square window, in pixels.
      strides: step of the window in both directions.
    """

    kind: ClassVar[str] = "depthwise_conv"

    kernel_size: int
    strides: int = 1

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> SlicedDepthwiseConv2D:
        return SlicedDepthwiseConv2D(channels[0], self.kernel_size, self.strides, name=name, dtype=setting.dtype)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        stock = build.layers.DepthwiseConv2D(self.kernel_size, self.strides, padding="same", use_bias=False, name=name)
        return build.stock(stock, *tensors, weights=build.weights(name))

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        channels = inputs[0].channels
        return inputs[0].window(channels, cut.outputs(name, channels), self.kernel_size, self.strides)

    def weights(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> int:
        return self.kernel_size**2 * result.taken
