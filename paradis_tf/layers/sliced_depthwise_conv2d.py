"""Depthwise convolution over a slice of its channels."""

from __future__ import annotations

from typing import Any

import keras

from paradis_tf.layers.sliced_layer import SlicedLayer
from paradis_tf.layers.windows import check_positions, check_window


@keras.saving.register_keras_serializable(package="paradis_tf")
class SlicedDepthwiseConv2D(SlicedLayer):
    """2D depthwise convolution (depth multiplier 1, no bias); a slice uses `kernel[:, :, channels, :]`.

    At slice `[0, 1)` it equals `keras.layers.DepthwiseConv2D` with the same weights.

    Args:
      in_channels: channels of the whole input and output, at full width.
      kernel_size: side of the square window, in pixels, at least 1.
      strides: step of the window in both directions, at least 1.
      padding: "same" or "valid".
      kernel_initializer: a Keras initializer, its name or its config.

    Call arguments:
      inputs: float tensor (batch, height, width, channels of the slice).
      slice: a `Slice`, by keyword; the full width if left out.

    Returns:
      float tensor (batch, new height, new width, channels of the slice).

    Raises:
      ValueError: an argument out of range, or inputs with another number of channels than the slice has.
      SwitchError: the slice cuts inside a channel of this layer.

    Source: ours (reconstruction of ParaDiS, distributed depthwise convolution).
    """

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

    def _cut(self, kernel: Any, ins: tuple[int, int], outs: tuple[int, int]) -> Any:
        return kernel[:, :, ins[0] : ins[1], :]

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
