"""Dense layer over a slice of its features."""

from __future__ import annotations

from typing import Any

import keras

from paradis_tf.layers.sliced_layer import SlicedLayer


@keras.saving.register_keras_serializable(package="paradis_tf")
class SlicedDense(SlicedLayer):
    """Dense layer whose kernel block for a slice is `kernel[ins, outs]`.

    As a classifier (`slice_outputs=False`) each slice gives partial values for every unit; their sum over
    the slices is the full layer, the bias being in the first slice. At slice `[0, 1)` it equals
    `keras.layers.Dense` with the same weights.

    Args:
      in_channels: features of the whole input, at full width.
      units: features of the whole output, at full width.
      use_bias: whether there is a bias of `units` values.
      slice_inputs: whether the input holds only the slice's features.
      slice_outputs: whether the output holds only the slice's units.
      kernel_initializer: a Keras initializer, its name or its config.

    Call arguments:
      inputs: float tensor (batch, features of the slice).
      slice: a `Slice`, by keyword; the full width if left out.

    Returns:
      float tensor (batch, units, or the slice's units).

    Raises:
      ValueError: an argument out of range, or inputs with another number of features than the slice has.
      SwitchError: the slice cuts inside a feature of this layer.

    Source: ours (reconstruction of ParaDiS: partial logits are summed, the bias is added once).
    """

    def __init__(
        self,
        in_channels: int,
        units: int,
        use_bias: bool = True,
        slice_inputs: bool = True,
        slice_outputs: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            units,
            use_bias=use_bias,
            slice_inputs=slice_inputs,
            slice_outputs=slice_outputs,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels)

    def _cut(self, kernel: Any, ins: tuple[int, int], outs: tuple[int, int]) -> Any:
        return kernel[ins[0] : ins[1], outs[0] : outs[1]]

    def _apply(self, inputs: Any, kernel: Any) -> Any:
        return keras.ops.matmul(inputs, kernel)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            units=self.out_channels,
            use_bias=self.use_bias,
            slice_inputs=self.slice_inputs,
            slice_outputs=self.slice_outputs,
        )
        return config
