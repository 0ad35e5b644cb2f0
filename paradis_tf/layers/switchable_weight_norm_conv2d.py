"""Weight-normalized convolution with private gains and biases for each device of each switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from paradis_tf.layers.segments import Segments, layer_switches
from paradis_tf.layers.sliced_weight_norm_conv2d import SlicedWeightNormConv2D, normalized
from paradis_tf.switches import Switch


@keras.saving.register_keras_serializable(package="paradis_tf")
class SwitchableWeightNormConv2D(SlicedWeightNormConv2D):
    """2D convolution with stride 1 whose kernel is a shared direction, cut, normalized, times a gain of one's own.

    What switchable batch norm is to a convolution without weight normalization: the kernel block of a slice is cut
    from the shared full-size direction first and normalized over **its own** input channels, so that a narrow slice's
    outputs are as large as the full width's; gain and bias are private to each (switch, device). Each of the two is one
    vector, a segment of it for each device of each switch, in that order.

    Args:
      in_channels: channels of the whole input, at full width.
      filters: channels of the whole output, at full width.
      kernel_size: side of the square window, in pixels, at least 1; padding is "same".
      switches: the switches, as `Switch` or in text form as multiples of 1/`grid`.
      grid: the grid of the text form.
      use_bias: false for a layer whose bias is added elsewhere; it has to be where outputs are not sliced.
      slice_inputs: false for a layer that reads the image or an unsliced tensor.
      slice_outputs: false for a layer whose partial outputs are summed over the devices.
      gain: what every gain starts from, a finite number other than 0.
      kernel_initializer: of the direction, whose scale says how fast training turns it.

    Call arguments:
      inputs: float tensor (batch, height, width, channels of the slice).
      switch: the `Switch` whose gains to use, by keyword.
      device: index of the device in the switch, by keyword.

    Returns:
      float tensor (batch, height, width, output channels of the slice).

    Raises:
      ValueError: an argument out of range, a switch or device that this layer has no gains for, or inputs with another
        number of channels than the device has.
      SwitchError: a switch cuts inside a channel of this layer.

    Directions, norms and gains are kept in the variables' own precision under a mixed-precision policy.

    Source: weight normalization of Salimans & Kingma 2016; private gains are ours, in the reconstruction of ParaDiS.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel_size: int,
        switches: Sequence[Switch | str],
        grid: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, filters, kernel_size, **kwargs)
        if self.use_bias and not self.slice_outputs:
            raise ValueError(f"layer {self.name!r}: outputs that are summed over the devices take no private bias.")
        self.switches = layer_switches(self.name, switches, grid)
        self.grid = grid

    def build(self, input_shape: Any = None) -> None:
        self._segments = Segments(self.name, self.switches, lambda own: len(range(*self._bounds(own)[1])))
        size = self._segments.total
        self.kernel = self.add_weight(
            name="kernel", shape=self.kernel_shape, initializer=self.kernel_initializer, autocast=False
        )
        self.gain = self.add_weight(
            name="gain", shape=(size,), initializer=keras.initializers.Constant(self.initial_gain), autocast=False
        )
        self.bias = self.add_weight(name="bias", shape=(size,), initializer="zeros") if self.use_bias else None
        self.built = True

    # Its gains are found by switch and device, of which a slice alone tells nothing.
    def call(self, inputs: Any, *, switch: Switch, device: int) -> Any:  # type: ignore[override]
        segment = self._segment(switch, device)
        self._check_inputs(tuple(inputs.shape), switch.slices[device])
        outputs = self._apply(inputs, keras.ops.cast(self._block(switch, device), self.compute_dtype))
        if self.bias is not None:
            outputs = keras.ops.add(outputs, self.bias[segment])
        return outputs

    def static_weights(self, switch: Switch, device: int) -> list[np.ndarray]:
        """The slice's kernel and bias, in the order the stock Keras layer keeps them."""
        weights = [keras.ops.convert_to_numpy(self._block(switch, device))]
        if self.bias is not None:
            weights.append(keras.ops.convert_to_numpy(self.bias)[self._segment(switch, device)])
        return weights

    def _block(self, switch: Switch, device: int) -> Any:
        """The effective kernel of a device, in the variables' precision."""
        segment = self._segment(switch, device)
        direction = self._cut(self.kernel, *self._bounds(switch.slices[device]))
        return normalized(direction, self.gain[segment])

    def _segment(self, switch: Switch, device: int) -> slice:
        return slice(*self._segments.bounds(switch, device))

    def compute_output_spec(  # type: ignore[override]
        self, inputs: Any, switch: Switch, device: int
    ) -> keras.KerasTensor:
        return super().compute_output_spec(inputs, switch.slices[device])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(switches=[str(switch) for switch in self.switches], grid=self.grid)
        return config
