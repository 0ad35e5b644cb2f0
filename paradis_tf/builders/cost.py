"""The cost reading: multiply-adds, parameters and activation bytes, from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paradis_tf.builders.architecture import FUSION, Architecture, Reading, read
from paradis_tf.cuts import WHOLE, Cut, Path
from paradis_tf.operations.operation import LayerCost, Operation, Shape


@dataclass(frozen=True)
class Cost:
    """Sums over the layers of one cut; the attributes are those of `LayerCost`."""

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


def cut_cost(architecture: Architecture, cut: Cut) -> Cost:
    """The cost of one cut of an architecture, per image.

    Raises:
      SwitchError: the cut falls inside a channel of a layer; the layer is named.
    """
    counter = _Counter(cut)
    read(architecture, counter, _image(architecture), end=FUSION)
    return Cost(tuple(counter.rows))


def tail_cost(architecture: Architecture) -> Cost:
    """What is done once where the devices' predictions are added, per image; nothing, for a classifier."""
    handed = read(architecture, _Counter(WHOLE), _image(architecture), end=FUSION)
    counter = _Counter(WHOLE)
    read(architecture, counter, _image(architecture), begin=FUSION, handed=handed)
    return Cost(tuple(counter.rows))


def summed_channels(architecture: Architecture) -> int:
    """Channels of the prediction that is summed over the devices."""
    prediction, _ = read(architecture, _Counter(WHOLE), _image(architecture), end=FUSION)
    return prediction.channels


def path_costs(architecture: Architecture, path: Path) -> Sequence[Cost]:
    """The cost of each device of a path, in device order."""
    return [cut_cost(architecture, cut) for cut in path.cuts]


def _image(architecture: Architecture) -> Shape:
    height, width, channels = architecture.image_shape
    return Shape((height, width), channels, channels)


class _Counter(Reading[Shape]):
    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.rows: list[LayerCost] = []

    def __call__(self, operation: Operation, *tensors: Shape, name: str) -> Shape:
        result = operation.shape(*tensors, cut=self.cut, name=name)
        if operation.kind:
            self.rows.append(operation.cost(*tensors, result=result, cut=self.cut, name=name))
        return result
