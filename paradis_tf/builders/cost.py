"""The cost interpretation: multiply-adds, parameters and activation bytes, from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paradis_tf.builders.operations import Architecture, Operations, Tailed
from paradis_tf.layers.windows import output_size
from paradis_tf.switches import FULL, Slice, Switch


@dataclass(frozen=True)
class LayerCost:
    """What one layer of one slice costs for one image.

    Attributes:
      name: the layer's name in the architecture.
      kind: `conv`, `depthwise_conv`, `batch_norm`, `add`, `max_pool`, `bias`, `depth_to_space` or `dense`.
      madds: multiply-adds; 0 for batch norm, which folds into its convolution, for additions and for pooling.
      kernel_parameters: weights of the kernel and the bias, and the gains of weight normalization.
      norm_parameters: scales and shifts of batch norm.
      activation_bytes: bytes of the output at one byte a value (int8).
    """

    name: str
    kind: str
    madds: int
    kernel_parameters: int
    norm_parameters: int
    activation_bytes: int


@dataclass(frozen=True)
class Cost:
    """Sums over the layers of one slice; the attributes are those of `LayerCost`."""

    layers: tuple[LayerCost, ...]

    @property
    def madds(self) -> int:
        return sum(layer.madds for layer in self.layers)

    @property
    def kernel_parameters(self) -> int:
        return sum(layer.kernel_parameters for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Kernels, biases, and the scales and shifts of batch norm."""
        return self.kernel_parameters + sum(layer.norm_parameters for layer in self.layers)

    @property
    def largest_activation_bytes(self) -> int:
        return max((layer.activation_bytes for layer in self.layers), default=0)


def slice_cost(architecture: Architecture, slice: Slice) -> Cost:
    """The cost of one slice of an architecture, per image.

    Raises:
      SwitchError: the slice cuts inside a channel of a layer; the layer is named.
    """
    counter = _Counter(slice)
    architecture(counter, _image(architecture))
    return Cost(tuple(counter.rows))


def tail_cost(architecture: Architecture) -> Cost:
    """What is done once where the slices' predictions are added, per image; nothing, for a classifier."""
    if not isinstance(architecture, Tailed):
        return Cost(())
    summed = architecture(_Counter(FULL), _image(architecture)).prediction
    counter = _Counter(FULL)
    architecture.tail(counter, _image(architecture), summed)
    return Cost(tuple(counter.rows))


def summed_channels(architecture: Architecture) -> int:
    """Channels of the prediction that is summed over the slices."""
    return architecture(_Counter(FULL), _image(architecture)).prediction.channels


def switch_costs(architecture: Architecture, switch: Switch) -> Sequence[Cost]:
    """The cost of each device of a switch, in device order."""
    return [slice_cost(architecture, slice) for slice in switch.slices]


def _image(architecture: Architecture) -> _Shape:
    height, width, channels = architecture.image_shape
    return _Shape((height, width), channels, channels)


@dataclass(frozen=True)
class _Shape:
    """A tensor's size, its channels at full width and those of the slice."""

    size: tuple[int, int]
    channels: int
    sliced: int

    @property
    def positions(self) -> int:
        return self.size[0] * self.size[1]


class _Counter(Operations[_Shape]):
    def __init__(self, slice: Slice) -> None:
        self.slice = slice
        self.rows: list[LayerCost] = []

    def _shape(self, x: _Shape, channels: int, kernel_size: int, strides: int, name: str) -> _Shape:
        height, width = (output_size(side, kernel_size, strides, "same") or 0 for side in x.size)
        first, last = self.slice.channels(channels, name)
        return _Shape((height, width), channels, last - first)

    def normalize(self, image: _Shape) -> _Shape:
        return image

    def conv(
        self,
        x: _Shape,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        strides: int = 1,
        slice_inputs: bool = True,
    ) -> _Shape:
        y = self._shape(x, filters, kernel_size, strides, name)
        inputs = x.sliced if slice_inputs else x.channels
        weights = kernel_size**2 * inputs * y.sliced
        values = y.positions * y.sliced
        self.rows.append(LayerCost(name, "conv", weights * y.positions, weights, 0, values))
        return y

    def weight_norm_conv(
        self,
        x: _Shape,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        gain: float = 1.0,
        use_bias: bool = True,
        slice_inputs: bool = True,
        slice_outputs: bool = True,
    ) -> _Shape:
        y = self._shape(x, filters, kernel_size, 1, name) if slice_outputs else _Shape(x.size, filters, filters)
        weights = kernel_size**2 * (x.sliced if slice_inputs else x.channels) * y.sliced
        biased = use_bias and (slice_outputs or self.slice.start == 0)
        values = y.positions * y.sliced
        learnt = weights + y.sliced * (1 + biased)
        self.rows.append(LayerCost(name, "conv", weights * y.positions, learnt, 0, values))
        return y

    def bias(self, x: _Shape, *, name: str) -> _Shape:
        self.rows.append(LayerCost(name, "bias", 0, x.channels, 0, x.positions * x.channels))
        return x

    def depthwise_conv(self, x: _Shape, kernel_size: int, *, name: str, strides: int = 1) -> _Shape:
        y = self._shape(x, x.channels, kernel_size, strides, name)
        weights = kernel_size**2 * y.sliced
        values = y.positions * y.sliced
        self.rows.append(LayerCost(name, "depthwise_conv", weights * y.positions, weights, 0, values))
        return y

    def batch_norm(self, x: _Shape, *, name: str) -> _Shape:
        self.rows.append(LayerCost(name, "batch_norm", 0, 0, 2 * x.sliced, x.positions * x.sliced))
        return x

    def relu6(self, x: _Shape, *, name: str) -> _Shape:
        return x

    def relu(self, x: _Shape, *, name: str) -> _Shape:
        return x

    def add(self, x: _Shape, y: _Shape, *, name: str) -> _Shape:
        if x != y:
            raise ValueError(f"addition {name!r} gets {x} and {y}; it takes two inputs of one shape.")
        self.rows.append(LayerCost(name, "add", 0, 0, 0, x.positions * x.sliced))
        return x

    def max_pool(self, x: _Shape, pool_size: int, *, name: str, strides: int) -> _Shape:
        y = self._shape(x, x.channels, pool_size, strides, name)
        self.rows.append(LayerCost(name, "max_pool", 0, 0, 0, y.positions * y.sliced))
        return y

    def depth_to_space(self, x: _Shape, block_size: int, *, name: str) -> _Shape:
        height, width = x.size
        channels = x.channels // block_size**2
        self.rows.append(LayerCost(name, "depth_to_space", 0, 0, 0, x.positions * x.channels))
        return _Shape((height * block_size, width * block_size), channels, channels)

    def denormalize(self, x: _Shape, *, name: str) -> _Shape:
        return x

    def global_average_pool(self, x: _Shape, *, name: str) -> _Shape:
        return _Shape((1, 1), x.channels, x.sliced)

    def classifier(self, x: _Shape, classes: int, *, name: str) -> _Shape:
        weights = x.sliced * classes
        bias = classes if self.slice.start == 0 else 0
        self.rows.append(LayerCost(name, "dense", weights, weights + bias, 0, classes))
        return _Shape((1, 1), classes, classes)
