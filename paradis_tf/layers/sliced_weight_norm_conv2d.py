"""Weight-normalized convolution over a slice of its channels."""

from __future__ import annotations

from typing import Any

import keras

from paradis_tf.layers.sliced_conv2d import SlicedConv2D


def normalized(direction: Any, gain: Any) -> Any:
    """The kernel (side, side, inputs, outputs) of a direction: of unit length per output, times `gain`."""
    squares = keras.ops.sum(keras.ops.square(direction), axis=(0, 1, 2))
    return direction * (gain * keras.ops.rsqrt(squares))


@keras.saving.register_keras_serializable(package="paradis_tf")
class SlicedWeightNormConv2D(SlicedConv2D):
    """2D convolution with stride 1 and bias whose kernel is a direction, normalized, times a gain.

    The effective kernel of output channel `o` is `gain[o] * kernel[..., o] / norm(kernel[..., o])`, the Euclidean norm
    being over the window and **all** input channels. It is formed at full width and then sliced, so each slice computes
    with the very weights that the full width has.

    Args:
      in_channels: channels of the whole input, at full width.
      filters: channels of the whole output, at full width.
      kernel_size: side of the square window, in pixels, at least 1; padding is "same".
      use_bias: false for a layer whose bias is added elsewhere, such as after a sum over the devices.
      slice_inputs: false for a layer that reads the image or an unsliced tensor.
      slice_outputs: false for a layer whose partial outputs are summed over the devices.
      gain: what every channel's gain starts from, a finite number other than 0.
      kernel_initializer: of the direction, whose scale says how fast training turns it.

    Call arguments, returned values and errors are those of `SlicedConv2D`; directions, norms and gains are kept in the
    variables' own precision under a mixed-precision policy.

    Source: weight normalization of Salimans & Kingma 2016; normalizing before slicing is ours, in the reconstruction of
    ParaDiS.
    """

    # Half precision is too coarse for the sum of squares, so the cast comes after the norm.
    _autocasts_kernel = False

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel_size: int,
        use_bias: bool = True,
        slice_inputs: bool = True,
        slice_outputs: bool = True,
        gain: float = 1.0,
        kernel_initializer: Any = "lecun_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            filters,
            kernel_size,
            use_bias=use_bias,
            slice_inputs=slice_inputs,
            slice_outputs=slice_outputs,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )
        if not (isinstance(gain, int | float) and 0 < abs(gain) < float("inf")):
            raise ValueError(f"layer {self.name!r}: gain is {gain!r}; it is a finite number other than 0.")
        self.initial_gain = float(gain)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        self.gain = self.add_weight(
            name="gain",
            shape=(self.out_channels,),
            initializer=keras.initializers.Constant(self.initial_gain),
            autocast=False,
        )

    def _effective_kernel(self) -> Any:
        return keras.ops.cast(normalized(self.kernel, self.gain), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        # Of its parent, and always 1 and "same" here.
        del config["strides"], config["padding"]
        config.update(gain=self.initial_gain)
        return config
