"""The dense layer, and the classifier that is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from paradis_tf.cuts import Cut
from paradis_tf.layers.segments import Segments
from paradis_tf.layers.sliced_layer import SlicedLayer
from paradis_tf.operations.operation import Build, Operation, Setting, Shape, connections


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


@keras.saving.register_keras_serializable(package="paradis_tf")
class SwitchableDense(SlicedDense):
    """Dense layer whose outputs are not sliced, with a kernel and a bias of its own for each head.

    A head's kernel has rows for the features that its cuts have together. The rows of all heads are one matrix, in the
    order of the cuts, and their biases another, (heads, units).

    Args:
      in_channels: features of the whole input, at full width.
      units: features of the output.
      cuts: the cuts that it keeps weights for, such as `Level.cuts` of several levels; `Cut.head_key` names the head.
      kernel_initializer: of each head's kernel.

    Call arguments, returned values and errors are those of `SlicedDense`, and ValueError for a cut of another head.

    Source: a head for each sub-network is of Lee & Shin 2018 (the authors' code); rows per device are of the
    reconstruction of ParaDiS.
    """

    def __init__(self, in_channels: int, units: int, cuts: Sequence[Cut], **kwargs: Any) -> None:
        super().__init__(in_channels, units, **kwargs)
        self.cuts = tuple(cuts)

    def build(self, input_shape: Any = None) -> None:
        heads = Segments(self.name, self.cuts, lambda cut: self._bounds(cut)[0], lambda cut: cut.head_key)

        def kernels(shape: Any, dtype: Any) -> Any:
            # Initializers look at the shape, and each head is a layer of its own.
            of_heads = [self.kernel_initializer.clone()((rows, self.out_channels), dtype) for rows in heads.sizes]
            return keras.ops.concatenate(of_heads)

        self._heads = heads
        self.kernel = self.add_weight(name="kernel", shape=(heads.total, self.out_channels), initializer=kernels)
        shape = (len(heads.keys), self.out_channels)
        self.bias = self.add_weight(name="bias", shape=shape, initializer="zeros") if self.use_bias else None
        self.built = True

    def _cut_kernel(self, cut: Cut) -> Any:
        return self.kernel[slice(*self._heads.bounds(cut))]

    def _cut_bias(self, cut: Cut) -> Any:
        if self.bias is None or not cut.owns_bias:
            return None
        return self.bias[self._heads.keys.index(cut.head_key)]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["slice_outputs"]
        return {**config, "cuts": [keras.saving.serialize_keras_object(cut) for cut in self.cuts]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SwitchableDense:
        cuts = [keras.saving.deserialize_keras_object(cut) for cut in config["cuts"]]
        return cls(**{**config, "cuts": cuts})


@dataclass(frozen=True)
class Classifier(Operation):
    """Dense layer to partial logits (batch, classes): inputs are sliced, outputs are not.

    It is a head: cuts with heads of their own have each a kernel and a bias of it.

    Args:
      classes: number of classes.
      slice_inputs: false where the features are not sliced.
    """

    kind: ClassVar[str] = "dense"
    is_head: ClassVar[bool] = True

    classes: int
    slice_inputs: bool = True

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> SlicedDense:
        options: dict[str, Any] = dict(slice_inputs=self.slice_inputs, name=name, dtype=setting.dtype)
        if any(cut.head_key for cut in setting.cuts):
            return SwitchableDense(channels[0], self.classes, setting.cuts, **options)
        return SlicedDense(channels[0], self.classes, **options)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        stock = build.layers.Dense(self.classes, use_bias=build.cut.owns_bias, name=name)
        return build.stock(stock, *tensors, weights=build.weights(name))

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        return Shape((1, 1), self.classes, self.classes)

    def weights(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> int:
        return connections(cut, name, inputs[0].channels, self.classes, self.slice_inputs, slice_outputs=False)

    def parameters(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> tuple[int, int]:
        bias = self.classes if cut.owns_bias else 0
        return self.weights(*inputs, result=result, cut=cut, name=name) + bias, 0
