"""Weight-normalized convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from paradis_tf.cuts import Cut
from paradis_tf.layers.segments import Segments
from paradis_tf.operations.conv import SlicedConv2D
from paradis_tf.operations.operation import Build, Operation, Setting, Shape, connections


def normalized(direction: Any, gain: Any) -> Any:
    """The kernel (side, side, inputs, outputs) of a direction: of unit length per output, times `gain`."""
    squares = keras.ops.sum(keras.ops.square(direction), axis=(0, 1, 2))
    return direction * (gain * keras.ops.rsqrt(squares))


@keras.saving.register_keras_serializable(package="paradis_tf")
class SlicedWeightNormConv2D(SlicedConv2D):
    """2D convolution with stride 1 and bias whose kernel is a direction, normalized, times a gain.

    The effective kernel of output channel `o` is `gain[o] * kernel[..., o] / norm(kernel[..., o])`, the Euclidean norm
    being over the window and **all** input channels. It is formed at full width and then cut, so each cut computes with
    the very weights that the full width has.

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

    Source: weight normalization of Salimans & Kingma 2016; normalizing before slicing is of the reconstruction of
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

    def _cut_kernel(self, cut: Cut) -> Any:
        return self._cut_of(normalized(self.kernel, self.gain), cut)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        # Of its parent, and always 1 and "same" here.
        del config["strides"], config["padding"]
        config.update(gain=self.initial_gain)
        return config


@keras.saving.register_keras_serializable(package="paradis_tf")
class SwitchableWeightNormConv2D(SlicedWeightNormConv2D):
    """2D convolution with stride 1 whose kernel is a shared direction, cut, normalized, times a gain of one's own.

    What switchable batch norm is to a convolution without weight normalization: the kernel block of a cut is taken
    from the shared full-size direction first and normalized over **its own** input channels, so that a narrow slice's
    outputs are as large as the full width's; gain and bias are private to each cut. Each of the two is one vector, a
    segment of it for each cut, in their order.

    Args:
      in_channels: channels of the whole input, at full width.
      filters: channels of the whole output, at full width.
      kernel_size: side of the square window, in pixels, at least 1; padding is "same".
      cuts: the cuts that it keeps gains for, such as `Switch.cuts` of several switches.
      **kwargs: the other arguments of `SlicedWeightNormConv2D`; `use_bias` has to be false where outputs are not
        sliced.

    Call arguments, returned values and errors are those of `SlicedConv2D`, and ValueError for a cut that this layer has
    no gains for.

    Source: weight normalization of Salimans & Kingma 2016; private gains are of the reconstruction of ParaDiS.
    """

    def __init__(self, in_channels: int, filters: int, kernel_size: int, cuts: Sequence[Cut], **kwargs: Any) -> None:
        super().__init__(in_channels, filters, kernel_size, **kwargs)
        if self.use_bias and not self.slice_outputs:
            raise ValueError(f"layer {self.name!r}: outputs that are summed over the devices take no private bias.")
        self.cuts = tuple(cuts)

    def build(self, input_shape: Any = None) -> None:
        self._segments = Segments(self.name, self.cuts, lambda cut: self._bounds(cut)[1])
        size = self._segments.total
        self.kernel = self.add_weight(
            name="kernel", shape=self.kernel_shape, initializer=self.kernel_initializer, autocast=False
        )
        self.gain = self.add_weight(
            name="gain", shape=(size,), initializer=keras.initializers.Constant(self.initial_gain), autocast=False
        )
        self.bias = self.add_weight(name="bias", shape=(size,), initializer="zeros") if self.use_bias else None
        self.built = True

    def _cut_kernel(self, cut: Cut) -> Any:
        return normalized(self._cut_of(self.kernel, cut), self.gain[self._segment(cut)])

    def _cut_bias(self, cut: Cut) -> Any:
        return None if self.bias is None else self.bias[self._segment(cut)]

    def _segment(self, cut: Cut) -> slice:
        return slice(*self._segments.bounds(cut))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cuts": [keras.saving.serialize_keras_object(cut) for cut in self.cuts]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SwitchableWeightNormConv2D:
        cuts = [keras.saving.deserialize_keras_object(cut) for cut in config["cuts"]]
        return cls(**{**config, "cuts": cuts})


@dataclass(frozen=True)
class WeightNormConv(Operation):
    """Weight-normalized convolution, stride 1, padding "same".

    Args:
      filters: channels that come out, at full width.
      kernel_size: side of the square window, in pixels.
      gain: what the gains start from.
      use_bias: whether it has a bias.
      slice_inputs: false where the input is not sliced.
      slice_outputs: false where its partial outputs are summed over the devices; `Bias` adds its bias after that.
    """

    kind: ClassVar[str] = "conv"

    filters: int
    kernel_size: int
    gain: float = 1.0
    use_bias: bool = True
    slice_inputs: bool = True
    slice_outputs: bool = True

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> SlicedWeightNormConv2D:
        options: dict[str, Any] = dict(
            gain=self.gain,
            use_bias=self.use_bias,
            slice_inputs=self.slice_inputs,
            slice_outputs=self.slice_outputs,
            name=name,
            dtype=setting.dtype,
        )
        sliced = self.slice_inputs or self.slice_outputs
        if sliced and setting.normalization == "private":
            return SwitchableWeightNormConv2D(channels[0], self.filters, self.kernel_size, setting.cuts, **options)
        return SlicedWeightNormConv2D(channels[0], self.filters, self.kernel_size, **options)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        first, last = self._outputs(build.cut, name)
        biased = self._has_bias(build.cut)
        stock = build.layers.Conv2D(last - first, self.kernel_size, padding="same", use_bias=biased, name=name)
        return build.stock(stock, *tensors, weights=build.weights(name))

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        return inputs[0].window(self.filters, self._outputs(cut, name))

    @property
    def mixes(self) -> bool:
        return self.slice_inputs

    def weights(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> int:
        slices = self.slice_inputs, self.slice_outputs
        return self.kernel_size**2 * connections(cut, name, inputs[0].channels, self.filters, *slices)

    def parameters(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> tuple[int, int]:
        kernel = self.weights(*inputs, result=result, cut=cut, name=name)
        return kernel + result.taken * (1 + self._has_bias(cut)), 0

    def _outputs(self, cut: Cut, name: str) -> tuple[int, int]:
        return cut.outputs(name, self.filters) if self.slice_outputs else (0, self.filters)

    def _has_bias(self, cut: Cut) -> bool:
        return self.use_bias and (self.slice_outputs or cut.owns_bias)
