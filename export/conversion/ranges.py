"""Ranges of the tensors of int8 files: calibrated once for a network, and pinned in each of its files."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from export.conversion.job import Range, Ranges
from export.tflite import halves
from paradis_tf.builders.architecture import FUSION, Architecture, Reading, read
from paradis_tf.builders.static import Pin, extract
from paradis_tf.cuts import Cut
from paradis_tf.operations.operation import Operation, Rounding
from paradis_tf.operations.pixels import PIXEL_OFFSET, PIXEL_SCALE
from paradis_tf.supernet import Supernet

# The narrowest range: with the steps of a narrower one, such as of zeros alone, biases would leave 32 bits.
_LEAST_RANGE = 1e-3
_BATCH = 16
_STEPS = 255
_LEAST_CODE = -128


def pin(architecture: Architecture, cut: Cut, ranges: Ranges) -> Pin:
    """What gives the tensors of a static model of a cut their ranges, as fake quantization, which the converter takes.

    Args:
      architecture: what the model is read from.
      cut: what it takes.
      ranges: from `calibrate`.
    """
    layout, count = _Layout(architecture), itertools.count()

    def pinned(name: str, tensor: Any) -> Any:
        key = layout.key(name, cut)
        # Keras would count the layers of the process, and files have their names.
        return tensor if key is None else _FakeQuantization(*ranges[key], name=f"range_{next(count)}")(tensor)

    return pinned


def calibrate(network: Supernet, images: np.ndarray) -> Ranges:
    """The ranges of a network's tensors over images, the same for all its levels.

    A step adds slice k of a tensor to slices 1 to k - 1, which other files made, and goes on with all of them: only
    with one range for all slices are they one tensor.

    Args:
      network: a network of triangular levels, in which a channel is the same at each level that has it.
      images: representative images, uint8 (n, height, width, 3).

    Returns:
      from the least to the largest value of each tensor, 0 among them. A sum has the range a little wider, by a
      hundredth at most, with which no sum of two int8 values lies near a half; see `halves.round_additions_alike`.
    """
    layout = _Layout(network.architecture)
    ranges: dict[str, Range] = {}
    # The widest level has all that the others have, but for their heads.
    for path in reversed(network.paths):
        ranges |= _extremes(network, layout, path.cuts[0], images, ranges)
    for name, addends in layout.sums.items():
        ranges[name] = _away_from_halves(ranges[name], [ranges[addend] for addend in addends])
    return ranges


def _extremes(network: Supernet, layout: _Layout, cut: Cut, images: np.ndarray, known: Ranges) -> Ranges:
    """The least and the largest value, 0 among them, of each tensor of a cut that is not known."""
    tensors: dict[str, Any] = {}

    def tap(name: str, tensor: Any) -> Any:
        key = layout.key(name, cut)
        if key is not None and key not in known:
            tensors[key] = tensor
        return tensor

    _, height, width, channels = images.shape
    slice_model = extract(network, cut, keras, True, (height, width, channels), pin=tap)
    model = keras.Model(slice_model.inputs[0], tensors)
    low, high = np.zeros(len(tensors)), np.full(len(tensors), _LEAST_RANGE)
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH] * np.float32(PIXEL_SCALE) + np.float32(PIXEL_OFFSET)
        values = model(batch, training=False)
        low = np.minimum(low, [np.min(values[key]) for key in tensors])
        high = np.maximum(high, [np.max(values[key]) for key in tensors])
    return {key: (float(least), float(most)) for key, least, most in zip(tensors, low, high, strict=True)}


def _away_from_halves(wanted: Range, addends: list[Range]) -> Range:
    scales, zero_points = zip(*map(_quantization, addends), strict=True)
    factor = halves.best_factor(scales, zero_points, *_quantization(wanted))
    low, high = wanted
    return factor * low, factor * high


def _quantization(wanted: Range) -> tuple[float, int]:
    """Scale and zero point that the converter gives a range."""
    low, high = wanted
    scale = (high - low) / _STEPS
    return scale, round(_LEAST_CODE - low / scale)


class _Layout:
    """Which operations of an architecture make a tensor of their own in an int8 file, and whose range it has.

    Attributes:
      sums: by the owner of a sum's range, the owners of what is added.
    """

    def __init__(self, architecture: Architecture) -> None:
        nodes = _Nodes()
        read(architecture, nodes, "", end=FUSION)
        self._operations = nodes.operations
        self._owners: dict[str, str] = {"": ""}
        self.sums: dict[str, list[str]] = {}
        for name, (operation, inputs) in nodes.operations.items():
            readers = nodes.readers.get(name, [])
            if len(readers) == 1 and nodes.operations[readers[0]][0].rounding is Rounding.FOLDED:
                continue
            kept = operation.rounding is Rounding.KEPT
            self._owners[name] = self._owners[inputs[0]] if kept else name
            first, of_first = nodes.unfolded(name)
            if first.rounding is Rounding.SUM:
                self.sums[name] = [self._owners[one] for one in of_first]

    def key(self, name: str, cut: Cut) -> str | None:
        """The key of an operation's range, of a head that of the cut's; None where the file has no tensor of it."""
        owner = self._owners.get(name)
        if not owner:
            return None
        return f"{owner}/{cut.head_key}" if self._operations[owner][0].is_head else owner


class _Nodes(Reading[str]):
    """An architecture's operations with what they read; a "tensor" is the name of what made it, of the image empty."""

    def __init__(self) -> None:
        self.operations: dict[str, tuple[Operation, tuple[str, ...]]] = {}
        self.readers: dict[str, list[str]] = {}

    def __call__(self, operation: Operation, *tensors: str, name: str) -> str:
        self.operations[name] = operation, tensors
        for tensor in tensors:
            self.readers.setdefault(tensor, []).append(name)
        return name

    def unfolded(self, name: str) -> tuple[Operation, tuple[str, ...]]:
        """The operation that an operator of a file begins with, by the last one that is folded into it."""
        operation, inputs = self.operations[name]
        while operation.rounding is Rounding.FOLDED:
            operation, inputs = self.operations[inputs[0]]
        return operation, inputs


class _FakeQuantization(keras.layers.Layer):
    """Rounds to the 256 values of an int8 tensor of a range."""

    def __init__(self, low: float, high: float, name: str) -> None:
        super().__init__(name=name)
        self.low, self.high = low, high

    def call(self, inputs: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_args(inputs, min=self.low, max=self.high, num_bits=8)
