"""What the sliced convolution, depthwise convolution and dense layer have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras
import numpy as np

from paradis_tf.cuts import WHOLE, Cut, SliceCut
from paradis_tf.levels import LevelCut

for _kind in (SliceCut, LevelCut):
    keras.saving.register_keras_serializable(package="paradis_tf")(_kind)


class SlicedLayer(keras.layers.Layer):
    """A layer with a full-size kernel, called with a cut of it.

    The weights are made at full width whatever cut comes first, and cut with Python ints, so each cut traces to static
    shapes. A bias on outputs that are not sliced belongs to one cut alone: the partial outputs of the devices are
    added later, and the bias must be added once.

    Args:
      in_channels: channels of the whole input, at full width.
      out_channels: channels of the whole output, at full width.
      use_bias: whether there is a bias of `out_channels` values.
      slice_inputs: whether the input holds only the cut's channels (false for an image).
      slice_outputs: whether the output holds only the cut's channels (false for a classifier).
      kernel_initializer: a Keras initializer, its name or its config.

    Source: the slicing of each kind of layer follows the reconstruction of ParaDiS.
    """

    # Whether the kernel is read in the computation's precision.
    _autocasts_kernel: bool = True
    # Whether weight decay is meant for the kernel.
    decays_kernel: bool = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        use_bias: bool,
        slice_inputs: bool,
        slice_outputs: bool,
        kernel_initializer: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"layer {self.name!r}: {name} is {value!r}; it takes an int of at least 1.")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.use_bias = use_bias
        self.slice_inputs = slice_inputs
        self.slice_outputs = slice_outputs
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    @property
    @abstractmethod
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the full-size kernel."""

    @abstractmethod
    def _block(self, kernel: Any, ins: tuple[int, int], outs: tuple[int, int]) -> Any:
        """The kernel's block for these input and output channels."""

    @abstractmethod
    def _apply(self, inputs: Any, kernel: Any) -> Any:
        """The layer's linear map, without bias."""

    def _cut_kernel(self, cut: Cut) -> Any:
        """The kernel that a cut computes with."""
        return self._cut_of(self.kernel, cut)

    def _cut_of(self, kernel: Any, cut: Cut) -> Any:
        """A cut's block of something of the kernel's shape, 0 where the cut connects no channels."""
        block = self._block(kernel, *self._bounds(cut))
        mask = self._mask(cut)
        return block if mask is None else keras.ops.multiply(block, keras.ops.cast(mask, block.dtype))

    def _mask(self, cut: Cut) -> np.ndarray | None:
        """The cut's mask, (inputs, outputs), as the last axes of kernels are; None where there is none."""
        if not (self.slice_inputs and self.slice_outputs):
            return None
        return cut.mask(self.name, self.in_channels, self.out_channels)

    def _cut_bias(self, cut: Cut) -> Any:
        """The bias that a cut adds, or None."""
        if self.bias is None or not (self.slice_outputs or cut.owns_bias):
            return None
        return self.bias[slice(*self._bounds(cut)[1])]

    def build(self, input_shape: Any = None) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=self.kernel_shape,
            initializer=self.kernel_initializer,
            autocast=self._autocasts_kernel,
        )
        self.bias = (
            self.add_weight(name="bias", shape=(self.out_channels,), initializer="zeros") if self.use_bias else None
        )
        self.built = True

    def call(self, inputs: Any, *, cut: Cut = WHOLE) -> Any:
        self._check_inputs(tuple(inputs.shape), cut)
        outputs = self._apply(inputs, keras.ops.cast(self._cut_kernel(cut), self.compute_dtype))
        bias = self._cut_bias(cut)
        return outputs if bias is None else keras.ops.add(outputs, bias)

    def static_weights(self, cut: Cut) -> list[np.ndarray]:
        """The cut's weights, in the order the stock Keras layer of the same kind keeps them."""
        weights = [self._cut_kernel(cut), self._cut_bias(cut)]
        return [keras.ops.convert_to_numpy(weight) for weight in weights if weight is not None]

    def compute_output_spec(self, inputs: Any, cut: Cut = WHOLE) -> keras.KerasTensor:
        self._check_inputs(inputs.shape, cut)
        shape = self.compute_output_shape(inputs.shape, cut)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple, cut: Cut = WHOLE) -> tuple:
        first, last = self._bounds(cut)[1]
        return (*self._spatial_shape(input_shape), last - first)

    def _check_inputs(self, shape: tuple, cut: Cut) -> None:
        first, last = self._bounds(cut)[0]
        if shape[-1] != last - first:
            raise ValueError(
                f"layer {self.name!r} got {shape[-1]} input channels; {cut} takes {last - first} of its "
                f"{self.in_channels}."
            )
        self._spatial_shape(shape)

    def _spatial_shape(self, input_shape: tuple) -> tuple:
        return tuple(input_shape[:-1])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            in_channels=self.in_channels,
            kernel_initializer=keras.initializers.serialize(self.kernel_initializer),
        )
        return config

    def _bounds(self, cut: Cut) -> tuple[tuple[int, int], tuple[int, int]]:
        ins = cut.inputs(self.name, self.in_channels) if self.slice_inputs else (0, self.in_channels)
        outs = cut.outputs(self.name, self.out_channels) if self.slice_outputs else (0, self.out_channels)
        return ins, outs
