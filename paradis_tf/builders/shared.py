"""The shared interpretation: layers that own full-size weights, and their application to one slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from paradis_tf.builders.operations import PIXEL_OFFSET, PIXEL_SCALE, Architecture, Operations, Outputs, apply_tail
from paradis_tf.layers import (
    ChannelBias,
    DepthToSpace,
    SlicedConv2D,
    SlicedDense,
    SlicedDepthwiseConv2D,
    SlicedWeightNormConv2D,
    SwitchableBatchNormalization,
    SwitchableWeightNormConv2D,
)
from paradis_tf.switches import Switch


def create_layers(
    architecture: Architecture, switches: Sequence[Switch], grid: int, dtype: Any, affine: str = "private"
) -> dict[str, keras.layers.Layer]:
    """Makes and builds the full-size layers of an architecture, by name.

    Args:
      architecture: what is read.
      switches: the switches that batch norm keeps statistics for.
      grid: the grid of the switches.
      dtype: dtype policy of the layers.
      affine: "private" gives each device of each switch a scale and shift of its own in batch norm, a gain and bias in
        weight normalization; "shared" has one of each at full width, of which a device takes its slice.

    Raises:
      SwitchError: a switch cuts inside a channel of a layer; the layer is named.
    """
    creator = _Creator(switches, grid, dtype, affine)
    channels = architecture.image_shape[-1]
    apply_tail(architecture, creator, channels, architecture(creator, channels).prediction)
    for switch in switches:
        switch.validate(creator.sliced_channels)
    for name, layer in creator.layers.items():
        layer.build(creator.input_shapes[name])
    return creator.layers


class _Creator(Operations[int]):
    """Makes the layers; a "tensor" is its number of channels at full width."""

    def __init__(self, switches: Sequence[Switch], grid: int, dtype: Any, affine: str) -> None:
        self.switches = switches
        self.grid = grid
        self.dtype = dtype
        self.affine = affine
        self.layers: dict[str, keras.layers.Layer] = {}
        self.sliced_channels: dict[str, int] = {}
        self.input_shapes: dict[str, tuple[int | None, ...]] = {}

    def _add(self, layer: keras.layers.Layer, *input_shape: int | None) -> None:
        if layer.name in self.layers:
            raise ValueError(f"the architecture names two layers {layer.name!r}; names are unique.")
        self.layers[layer.name] = layer
        self.input_shapes[layer.name] = input_shape

    def normalize(self, image: int) -> int:
        return image

    def conv(
        self,
        x: int,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        strides: int = 1,
        slice_inputs: bool = True,
    ) -> int:
        layer = SlicedConv2D(x, filters, kernel_size, strides, slice_inputs=slice_inputs, name=name, dtype=self.dtype)
        self._add(layer, None, None, None, x)
        self.sliced_channels[name] = filters
        return filters

    def weight_norm_conv(
        self,
        x: int,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        gain: float = 1.0,
        use_bias: bool = True,
        slice_inputs: bool = True,
        slice_outputs: bool = True,
    ) -> int:
        options: dict[str, Any] = dict(use_bias=use_bias, slice_inputs=slice_inputs, slice_outputs=slice_outputs)
        options.update(gain=gain, name=name, dtype=self.dtype)
        sliced = slice_inputs or slice_outputs
        layer = (
            SwitchableWeightNormConv2D(x, filters, kernel_size, self.switches, self.grid, **options)
            if sliced and self.affine == "private"
            else SlicedWeightNormConv2D(x, filters, kernel_size, **options)
        )
        self._add(layer, None, None, None, x)
        if slice_outputs:
            self.sliced_channels[name] = filters
        return filters

    def bias(self, x: int, *, name: str) -> int:
        self._add(ChannelBias(x, name=name, dtype=self.dtype), None, None, None, x)
        return x

    def depthwise_conv(self, x: int, kernel_size: int, *, name: str, strides: int = 1) -> int:
        layer = SlicedDepthwiseConv2D(x, kernel_size, strides, name=name, dtype=self.dtype)
        self._add(layer, None, None, None, x)
        self.sliced_channels[name] = x
        return x

    def batch_norm(self, x: int, *, name: str) -> int:
        layer = SwitchableBatchNormalization(
            x, self.switches, self.grid, affine=self.affine, name=name, dtype=self.dtype
        )
        self._add(layer, None, None, None, x)
        return x

    def relu6(self, x: int, *, name: str) -> int:
        return x

    def relu(self, x: int, *, name: str) -> int:
        return x

    def add(self, x: int, y: int, *, name: str) -> int:
        if x != y:
            raise ValueError(f"addition {name!r} gets {x} and {y} channels; it takes two inputs of one shape.")
        return x

    def max_pool(self, x: int, pool_size: int, *, name: str, strides: int) -> int:
        return x

    def depth_to_space(self, x: int, block_size: int, *, name: str) -> int:
        self._add(DepthToSpace(block_size, name=name, dtype=self.dtype), None, None, None, x)
        return x // block_size**2

    def denormalize(self, x: int, *, name: str) -> int:
        return x

    def global_average_pool(self, x: int, *, name: str) -> int:
        return x

    def classifier(self, x: int, classes: int, *, name: str) -> int:
        self._add(SlicedDense(x, classes, name=name, dtype=self.dtype), None, x)
        return classes


class SharedOperations(Operations[Any]):
    """Applies the shared layers to one slice of a switch.

    Args:
      layers: the layers of `create_layers`.
      switch: the switch to run.
      device: index of the device whose slice to run.
      training: whether batch norm uses and collects the batch's statistics.
    """

    def __init__(self, layers: Mapping[str, keras.layers.Layer], switch: Switch, device: int, training: bool) -> None:
        self.layers = layers
        self.switch = switch
        self.device = device
        self.slice = switch.slices[device]
        self.training = training

    def normalize(self, image: Any) -> Any:
        pixels = keras.ops.cast(image, next(iter(self.layers.values())).compute_dtype)
        return pixels * PIXEL_SCALE + PIXEL_OFFSET

    def conv(
        self,
        x: Any,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        strides: int = 1,
        slice_inputs: bool = True,
    ) -> Any:
        return self.layers[name](x, slice=self.slice)

    def weight_norm_conv(
        self,
        x: Any,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        gain: float = 1.0,
        use_bias: bool = True,
        slice_inputs: bool = True,
        slice_outputs: bool = True,
    ) -> Any:
        layer = self.layers[name]
        if isinstance(layer, SwitchableWeightNormConv2D):
            return layer(x, switch=self.switch, device=self.device)
        return layer(x, slice=self.slice)

    def bias(self, x: Any, *, name: str) -> Any:
        return self.layers[name](x)

    def depthwise_conv(self, x: Any, kernel_size: int, *, name: str, strides: int = 1) -> Any:
        return self.layers[name](x, slice=self.slice)

    def batch_norm(self, x: Any, *, name: str) -> Any:
        return self.layers[name](x, switch=self.switch, device=self.device, training=self.training)

    def relu6(self, x: Any, *, name: str) -> Any:
        return keras.ops.relu6(x)

    def relu(self, x: Any, *, name: str) -> Any:
        return keras.ops.relu(x)

    def add(self, x: Any, y: Any, *, name: str) -> Any:
        return keras.ops.add(x, y)

    def max_pool(self, x: Any, pool_size: int, *, name: str, strides: int) -> Any:
        return keras.ops.max_pool(x, pool_size, strides, padding="same", data_format="channels_last")

    def depth_to_space(self, x: Any, block_size: int, *, name: str) -> Any:
        return self.layers[name](x)

    def denormalize(self, x: Any, *, name: str) -> Any:
        return (x - PIXEL_OFFSET) / PIXEL_SCALE

    def global_average_pool(self, x: Any, *, name: str) -> Any:
        return keras.ops.mean(x, axis=(1, 2))

    def classifier(self, x: Any, classes: int, *, name: str) -> Any:
        return self.layers[name](x, slice=self.slice)


def fuse(parts: Sequence[Outputs[Any]]) -> Outputs[Any]:
    """The outputs of a whole switch: partial predictions are summed, features concatenated in channel order."""
    if len(parts) == 1:
        return parts[0]
    prediction = parts[0].prediction
    for part in parts[1:]:
        prediction = prediction + part.prediction
    return Outputs(prediction, keras.ops.concatenate([part.features for part in parts], axis=-1))
