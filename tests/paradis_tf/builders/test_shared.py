"""The operations without weights against NumPy, and what an architecture must not do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from paradis_tf.builders.cost import slice_cost
from paradis_tf.builders.operations import Operations, Outputs
from paradis_tf.builders.shared import SharedOperations, create_layers
from paradis_tf.switches import FULL, Switch

WHOLE = Switch.parse("1.0")
OPS = SharedOperations({}, WHOLE, 0, training=False)


def numbers(size: tuple[int, int], seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 4, (2, *size, 3)).astype(np.float32)


def largest_of_windows(x: np.ndarray, side: int, strides: int) -> np.ndarray:
    """The largest value inside the image of each window; "same" puts the odd pixel of padding after."""
    befores, counts = [], []
    for size in x.shape[1:3]:
        count = -(-size // strides)
        befores.append(max((count - 1) * strides + side - size, 0) // 2)
        counts.append(count)
    found = np.zeros((len(x), *counts, x.shape[3]), np.float32)
    for i in range(counts[0]):
        for j in range(counts[1]):
            top, left = i * strides - befores[0], j * strides - befores[1]
            window = x[:, max(top, 0) : top + side, max(left, 0) : left + side]
            found[:, i, j] = window.max(axis=(1, 2))
    return found


@pytest.mark.parametrize("size", [(7, 6), (6, 7), (3, 8), (1, 1)])
@pytest.mark.parametrize(("side", "strides"), [(3, 2), (2, 2), (3, 1)])
def test_max_pool(size: tuple[int, int], side: int, strides: int) -> None:
    x = numbers(size) - 20  # all negative: zero padding would show
    found = OPS.max_pool(x, side, strides=strides, name="pool")
    np.testing.assert_array_equal(found, largest_of_windows(x, side, strides))


def test_rectifiers_and_addition() -> None:
    x, y = numbers((5, 4)), numbers((5, 4), seed=5)
    np.testing.assert_array_equal(OPS.relu(x, name="relu"), np.maximum(x, 0))
    np.testing.assert_array_equal(OPS.relu6(x, name="relu6"), np.clip(x, 0, 6))
    np.testing.assert_array_equal(OPS.add(x, y, name="add"), x + y)


@dataclass(frozen=True)
class Unfit:
    """An architecture that adds 8 channels to 16."""

    name: ClassVar[str] = "unfit"
    task: ClassVar[str] = "classification"
    image_shape: tuple[int, int, int] = (8, 8, 3)
    classes: int = 5

    def __call__(self, ops: Operations, image: Any) -> Outputs:
        x = ops.conv(image, 8, 3, slice_inputs=False, name="narrow")
        y = ops.conv(image, 16, 3, slice_inputs=False, name="wide")
        features = ops.global_average_pool(ops.add(x, y, name="sum"), name="features")
        return Outputs(ops.classifier(features, self.classes, name="logits"), features)

    def get_config(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    "read", [lambda net: create_layers(net, [WHOLE], 4, "float32"), lambda net: slice_cost(net, FULL)]
)
def test_an_addition_of_unlike_shapes_is_named(read: Callable[[Unfit], Any]) -> None:
    with pytest.raises(ValueError, match="addition 'sum' gets .* two inputs of one shape"):
        read(Unfit())
