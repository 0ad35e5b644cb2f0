"""What an operation is: a layer, its application to a cut, its static form and its cost, side by side in one class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from paradis_tf.cuts import Cut
from paradis_tf.layers.windows import output_size

# Of normalization: whether each cut has a scale and shift (or gain and bias) of its own, or takes its slice of one.
NORMALIZATIONS = ("private", "shared_affine")


@dataclass(frozen=True)
class Shape:
    """A tensor of one image: its size, its channels at full width and how many of them the cut has.

    Attributes:
      size: (height, width); (1, 1) of features and logits.
      channels: at full width.
      taken: of the cut.
    """

    size: tuple[int, int]
    channels: int
    taken: int

    @property
    def positions(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def values(self) -> int:
        """Values of the cut's tensor."""
        return self.positions * self.taken

    def window(self, channels: int, taken: tuple[int, int], kernel_size: int = 1, strides: int = 1) -> Shape:
        """What a window with padding "same" makes of it: so many channels, of which the cut has `taken`."""
        height, width = (output_size(side, kernel_size, strides, "same") or 0 for side in self.size)
        return Shape((height, width), channels, taken[1] - taken[0])


@dataclass(frozen=True)
class LayerCost:
    """What one layer of one cut costs for one image.

    Attributes:
      name: the layer's name in the architecture.
      kind: the operation's `kind`.
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
class Setting:
    """What a network gives to the layers it makes.

    Attributes:
      cuts: the cuts that layers keep private weights for, in their order.
      dtype: Keras' dtype policy.
      normalization: one of `NORMALIZATIONS`.
    """

    cuts: tuple[Cut, ...]
    dtype: Any = "float32"
    normalization: str = "private"


@dataclass(frozen=True)
class CutCall:
    """A call of the shared layers on one cut.

    Attributes:
      cut: what is taken of each layer.
      dtype: what is computed in.
      training: whether batch norm uses and collects the batch's statistics.
      statistics: where batch norm leaves the batch's mean and variance by its name, in place of collecting them; or
        None.
    """

    cut: Cut
    dtype: str
    training: bool = False
    statistics: dict[str, list[Any]] | None = None


@dataclass(frozen=True)
class Build:
    """How a static model is made.

    Attributes:
      keras: `keras` or `tf_keras`.
      cut: what the model takes of each layer.
      weights: the cut's weights of the shared layer of that name, in the order its stock layer keeps them.
      normalized_input: whether the image comes in normalized.
    """

    keras: ModuleType
    cut: Cut
    weights: Callable[[str], Sequence[np.ndarray]]
    normalized_input: bool = False
    layers: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", self.keras.layers)

    def stock(self, layer: Any, *tensors: Any, weights: Sequence[np.ndarray] = ()) -> Any:
        """Calls a stock layer, and gives it its weights."""
        result = layer(*tensors)
        if weights:
            layer.set_weights(weights)
        return result


class Rounding(Enum):
    """What the int8 file of a network makes of an operation's output."""

    # A tensor with a range of its own.
    OWN = "own"
    # Likewise, and the operation adds int8 tensors, which runtimes round differently near a half.
    SUM = "sum"
    # The operator that makes the input has it folded in, if nothing else reads that.
    FOLDED = "folded"
    # A tensor of the input's values, in its range.
    KEPT = "kept"


class Operation(ABC):
    """One operation that architectures are written in; subclasses are frozen dataclasses of its options.

    `layer` makes the full-size weights, `apply` computes with a cut of them, `static` makes the same of stock layers,
    `shape` and `cost` count it. A new operation is one class; `tests/paradis_tf/operations/check.py` checks them all.

    Attributes:
      kind: what tables of costs call it; operations without one have no row there.
      is_head: whether it answers: a network of levels keeps weights of it for each head (`Cut.head_key`).
      rounding: what int8 files make of its output.
    """

    kind: ClassVar[str] = ""
    is_head: ClassVar[bool] = False
    rounding: ClassVar[Rounding] = Rounding.OWN

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> Any:
        """The Keras layer that owns the full-size weights, not yet built, or None where there are no weights.

        Args:
          channels: of each input, at full width.
          setting: what the network gives to its layers.
          name: the layer's, unique in the architecture.
        """
        return None

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        """What one device computes, with the layer that `layer` made."""
        return layer(*tensors, cut=call.cut)

    @abstractmethod
    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        """The same of stock layers, on symbolic tensors; the layer that has the weights bears the name."""

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        """The shape that comes out; raises `SwitchError`, naming the layer, where the cut falls inside a channel."""
        return inputs[0]

    @property
    def mixes(self) -> bool:
        """Whether a channel that comes out depends on several sliced ones that go in."""
        return self.is_head

    def weights(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> int:
        """How many values the cut has of the kernel, those that its mask makes 0 left out."""
        return 0

    def parameters(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> tuple[int, int]:
        """How many values the cut has of kernel and bias, and of scale and shift."""
        return self.weights(*inputs, result=result, cut=cut, name=name), 0

    def madds(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> int:
        """Multiply-adds for one image: each weight takes part once at each position that comes out."""
        return self.weights(*inputs, result=result, cut=cut, name=name) * result.positions

    def cost(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> LayerCost:
        """Its row in a table of costs."""
        madds = self.madds(*inputs, result=result, cut=cut, name=name)
        kernel, norm = self.parameters(*inputs, result=result, cut=cut, name=name)
        return LayerCost(name, self.kind, madds, kernel, norm, result.values)


def connections(
    cut: Cut, name: str, inputs: int, outputs: int, slice_inputs: bool = True, slice_outputs: bool = True
) -> int:
    """Pairs of an input and an output channel that a cut connects in a layer of so many, at full width."""
    if slice_inputs and slice_outputs and (mask := cut.mask(name, inputs, outputs)) is not None:
        return int(mask.sum())
    first, last = cut.inputs(name, inputs) if slice_inputs else (0, inputs)
    begin, end = cut.outputs(name, outputs) if slice_outputs else (0, outputs)
    return (last - first) * (end - begin)
