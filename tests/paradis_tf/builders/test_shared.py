"""The operations without weights against NumPy, and what an architecture must not do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from paradis_tf.builders.architecture import FUSION, Outputs, Reading
from paradis_tf.builders.cost import cut_cost
from paradis_tf.builders.shared import Applied, create_layers
from paradis_tf.cuts import WHOLE
from paradis_tf.operations import (
    Add,
    AppendChannels,
    AveragePool,
    Classifier,
    Conv,
    GlobalAveragePool,
    MaxPool,
    Relu,
    Relu6,
)
from paradis_tf.operations.operation import CutCall
from paradis_tf.switches import WHOLE_SWITCH

NET = Applied({}, CutCall(WHOLE, "float32"))


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
    found = NET(MaxPool(side, strides), x, name="pool")
    np.testing.assert_array_equal(found, largest_of_windows(x, side, strides))


@pytest.mark.parametrize("size", [(6, 8), (7, 6), (1, 1)])
def test_average_pool(size: tuple[int, int]) -> None:
    x = numbers(size)
    found = NET(AveragePool(2, 2), x, name="pool")
    # The odd row and column are pooled alone: pixels beyond the image do not count.
    expected = np.stack(
        [
            np.stack([x[:, i : i + 2, j : j + 2].mean(axis=(1, 2)) for j in range(0, size[1], 2)], axis=1)
            for i in range(0, size[0], 2)
        ],
        axis=1,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_channels_of_zeros_are_appended() -> None:
    x = numbers((3, 2))
    found = np.asarray(NET(AppendChannels(2), x, name="append"))
    np.testing.assert_array_equal(found, np.concatenate([x, np.zeros((2, 3, 2, 2))], axis=-1))


def test_rectifiers_and_addition() -> None:
    x, y = numbers((5, 4)), numbers((5, 4), seed=5)
    np.testing.assert_array_equal(NET(Relu(), x, name="relu"), np.maximum(x, 0))
    np.testing.assert_array_equal(NET(Relu6(), x, name="relu6"), np.clip(x, 0, 6))
    np.testing.assert_array_equal(NET(Add(), x, y, name="add"), x + y)


@dataclass(frozen=True)
class Unfit:
    """An architecture that adds 8 channels to 16."""

    name: ClassVar[str] = "unfit"
    task: ClassVar[str] = "classification"
    image_shape: tuple[int, int, int] = (8, 8, 3)
    classes: int = 5

    def __call__(self, net: Reading, image: Any) -> Outputs:
        x = net(Conv(8, 3, slice_inputs=False), image, name="narrow")
        y = net(Conv(16, 3, slice_inputs=False), image, name="wide")
        features = net(GlobalAveragePool(), net(Add(), x, y, name="sum"), name="features")
        logits = net(Classifier(self.classes), features, name="logits")
        return Outputs(*net.boundary(FUSION, logits, features))

    def get_config(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("read", [lambda net: create_layers(net, [WHOLE_SWITCH]), lambda net: cut_cost(net, WHOLE)])
def test_an_addition_of_unlike_shapes_is_named(read: Callable[[Unfit], Any]) -> None:
    with pytest.raises(ValueError, match="addition 'sum' gets .* two inputs of one shape"):
        read(Unfit())
