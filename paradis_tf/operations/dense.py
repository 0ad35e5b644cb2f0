"""The dense layer, and the classifier that is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from paradis_tf.cuts import Cut
from paradis_tf.layers.sliced_layer import SlicedLayer
from paradis_tf.operations.operation import Build, Operation, Setting, Shape


@keras.saving.register_keras_serializable(package="paradis_tf")
class SlicedDense(SlicedLayer):
    """Dense layer whose kernel block for a cut is `kernel[ins, outs]`.

    As a classifier (`slice_outputs=False`) each cut gives partial values for every unit; their sum over the devices is
    the full layer, the bias being in one cut alone. As a whole it equals `keras.layers.Dense` with the same weights.

    Args:
      in_channels: features of the whole input, at full width.
      units: features of the whole output, at full width.
      use_bias: whether there is a bias of `units` values.
      slice_inputs: whether the input holds only the cut's features.
      slice_outputs: whether the output holds only the cut's units.
      kernel_initializer: a Keras initializer, its name or its config.

    Call arguments:
      inputs: float tensor (batch, features of the cut).
      cut: a `Cut`, by keyword; the whole layer if left out.

    Returns:
      float tensor (batch, units, or the cut's units).

    Raises:
      ValueError: an argument out of range, or inputs with another number of features than the cut has.
      SwitchError: the cut falls inside a feature of this layer.

    Source: the reconstruction of ParaDiS, where partial logits are summed and the bias is added once.
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

    def _block(self, kernel: Any, ins: tuple[int, int], outs: tuple[int, int]) -> Any:
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


@dataclass(frozen=True)
class Classifier(Operation):
    """Dense layer to partial logits (batch, classes): inputs are sliced, outputs are not.

    Args:
      classes: number of classes.
    """

    kind: ClassVar[str] = "dense"

    classes: int

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> SlicedDense:
        return SlicedDense(channels[0], self.classes, name=name, dtype=setting.dtype)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        stock = build.layers.Dense(self.classes, use_bias=build.cut.owns_bias, name=name)
        return build.stock(stock, *tensors, weights=build.weights(name))

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        return Shape((1, 1), self.classes, self.classes)

    def weights(self, *inputs: Shape, result: Shape) -> int:
        return inputs[0].taken * self.classes

    def parameters(self, *inputs: Shape, result: Shape, cut: Cut) -> tuple[int, int]:
        return self.weights(*inputs, result=result) + (self.classes if cut.owns_bias else 0), 0
