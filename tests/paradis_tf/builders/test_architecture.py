"""Architectures read in pieces: what is read, what is handed on, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from paradis_tf import models
from paradis_tf.builders.architecture import FUSION, Outputs, Reading, has_tail, read
from paradis_tf.builders.shared import create_layers
from paradis_tf.cuts import SwitchError
from paradis_tf.operations import Add, Relu
from paradis_tf.operations.operation import Operation
from paradis_tf.switches import Switch


class Sums(Reading[np.ndarray]):
    """Runs the operations on NumPy arrays and keeps their names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, operation: Operation, *tensors: np.ndarray, name: str) -> np.ndarray:
        self.names.append(name)
        return np.maximum(tensors[0], 0) if isinstance(operation, Relu) else tensors[0] + tensors[1]


@dataclass(frozen=True)
class Stages:
    """Three stages with boundaries between them; the second hands two tensors on."""

    name: ClassVar[str] = "stages"
    task: ClassVar[str] = "classification"
    image_shape: tuple[int, int, int] = (1, 1, 3)

    def __call__(self, net: Reading, image: Any) -> Outputs:
        (x,) = net.boundary("first", net(Relu(), image, name="a"))
        x, y = net.boundary(FUSION, net(Add(), x, x, name="b"), x)
        return Outputs(net(Add(), x, y, name="c"), y)

    def get_config(self) -> dict[str, Any]:
        return {}


IMAGE = np.array([-1.0, 2.0, 3.0])


def test_pieces_give_what_the_whole_gives() -> None:
    whole, *pieces = (Sums() for _ in range(4))
    expected = read(Stages(), whole, IMAGE)
    handed = read(Stages(), pieces[0], IMAGE, end="first")
    middle = read(Stages(), pieces[1], IMAGE, begin="first", handed=handed, end=FUSION)
    found = read(Stages(), pieces[2], IMAGE, begin=FUSION, handed=middle)
    np.testing.assert_array_equal(expected[0], [0, 6, 9])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.names == ["a", "b", "c"]
    assert [piece.names for piece in pieces] == [["a"], ["b"], ["c"]]


def test_unknown_boundaries_and_wrong_tensors_are_named() -> None:
    for options in ({"end": "last"}, {"begin": "last", "handed": (IMAGE,)}, {"begin": FUSION, "end": "first"}):
        with pytest.raises(ValueError, match="architecture 'stages' has no boundary '(last|first)'|hands on 2 tensors"):
            read(Stages(), Sums(), IMAGE, **options)
    with pytest.raises(ValueError, match="boundary 'fusion' hands on 2 tensors, and gets 1"):
        read(Stages(), Sums(), IMAGE, begin=FUSION, handed=(IMAGE,))


def test_super_resolution_alone_has_a_tail() -> None:
    classifier = models.create("mobilenet_v1", image_shape=(32, 32, 3), classes=10, form="32")
    upscaler = models.create("wdsr", image_shape=(8, 8, 3), scale=2, blocks=1, filters=8)
    assert (has_tail(classifier), has_tail(upscaler)) == (False, True)


def test_a_switch_that_does_not_fit_is_named_with_the_layer() -> None:
    architecture = models.create("mobilenet_v1", image_shape=(32, 32, 3), classes=10, width_multiplier=0.3)
    with pytest.raises(SwitchError, match="switch '4x0.25' does not fit: layer 'stem_conv' has 10 channels"):
        create_layers(architecture, [Switch.parse("1.0"), Switch.parse("4x0.25")])
