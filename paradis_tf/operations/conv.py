"""Convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from paradis_tf.cuts import Cut
from paradis_tf.layers.sliced_layer import SlicedLayer
from paradis_tf.layers.windows import check_positions, check_window
from paradis_tf.operations.operation import Build, Operation, Setting, Shape, connections


@keras.saving.register_keras_serializable(package="paradis_tf")
class SlicedConv2D(SlicedLayer):
    """2D convolution whose kernel block for a cut is `kernel[:, :, ins, outs]`.

    As a whole it equals `keras.layers.Conv2D` with the same weights; padding "same" pads as TensorFlow
    does (the odd pixel goes after), also at stride 2.

    Args:
      in_channels: channels of the whole input, at full width.
      filters: channels of the whole output, at full width.
      kernel_size: side of the square window, in pixels, at least 1.
      strides: step of the window in both directions, at least 1.
      padding: "same" or "valid".
      use_bias: whether there is a bias of `filters` values.
      slice_inputs: false for a layer that reads the image or an unsliced tensor.
      slice_outputs: false for a layer whose partial outputs are summed over the devices.
      kernel_initializer: a Keras initializer, its name or its config.

    Call arguments:
      inputs: float tensor (batch, height, width, channels of the cut).
      cut: a `Cut`, by keyword; the whole layer if left out.

    Returns:
      float tensor (batch, new height, new width, output channels of the cut).

    Raises:
      ValueError: an argument out of range, or inputs with another number of channels than the cut has.
      SwitchError: the cut falls inside a channel of this layer.

    Source: the distributed convolution of the reconstruction of ParaDiS.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: str = "same",
        use_bias: bool = False,
        slice_inputs: bool = True,
        slice_outputs: bool = True,
        kernel_initializer: Any = "he_normal",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            filters,
            use_bias=use_bias,
            slice_inputs=slice_inputs,
            slice_outputs=slice_outputs,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )
        check_window(self.name, kernel_size, strides, padding)
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return (self.kernel_size, self.kernel_size, self.in_channels, self.out_channels)

    def _block(self, kernel: Any, ins: tuple[int, int], outs: tuple[int, int]) -> Any:
        return kernel[:, :, ins[0] : ins[1], outs[0] : outs[1]]

    def _apply(self, inputs: Any, kernel: Any) -> Any:
        strides = self.strides
        if self.kernel_size == 1 and strides > 1:
            # The pixels that a strided 1x1 window reads, picked beforehand: oneDNN's gradient of such a kernel writes
            # past its buffer where there are fewer input channels than SIMD lanes (its issue 6035): wrong or a crash.
            inputs, strides = inputs[:, ::strides, ::strides], 1
        return keras.ops.conv(inputs, kernel, strides=strides, padding=self.padding, data_format="channels_last")

    def _spatial_shape(self, input_shape: tuple) -> tuple:
        return check_positions(self.name, input_shape, self.kernel_size, self.strides, self.padding)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            filters=self.out_channels,
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            use_bias=self.use_bias,
            slice_inputs=self.slice_inputs,
            slice_outputs=self.slice_outputs,
        )
        return config


@dataclass(frozen=True)
class Conv(Operation):
    """Convolution without bias, padding "same": (batch, height, width, channels) to the cut's of `filters`.

    Args:
      filters: channels that come out, at full width.
      kernel_size: side of the square window, in pixels.
      strides: step of the window in both directions.
      slice_inputs: false where the input is the image, or another tensor that is not sliced.
      slice_outputs: false where the cut gives a part of every output: what all cuts give is added.
    """

    kind: ClassVar[str] = "conv"

    filters: int
    kernel_size: int
    strides: int = 1
    slice_inputs: bool = True
    slice_outputs: bool = True

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> SlicedConv2D:
        return SlicedConv2D(
            channels[0],
            self.filters,
            self.kernel_size,
            self.strides,
            slice_inputs=self.slice_inputs,
            slice_outputs=self.slice_outputs,
            name=name,
            dtype=setting.dtype,
        )

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        first, last = self._outputs(build.cut, name)
        stock = build.layers.Conv2D(
            last - first, self.kernel_size, self.strides, padding="same", use_bias=False, name=name
        )
        return build.stock(stock, *tensors, weights=build.weights(name))

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        return inputs[0].window(self.filters, self._outputs(cut, name), self.kernel_size, self.strides)

    @property
    def mixes(self) -> bool:
        return self.slice_inputs

    def weights(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> int:
        slices = self.slice_inputs, self.slice_outputs
        return self.kernel_size**2 * connections(cut, name, inputs[0].channels, self.filters, *slices)

    def _outputs(self, cut: Cut, name: str) -> tuple[int, int]:
        return cut.outputs(name, self.filters) if self.slice_outputs else (0, self.filters)
