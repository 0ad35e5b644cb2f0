"""Addition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from paradis_tf.cuts import Cut
from paradis_tf.operations.operation import Build, CutCall, Operation, Rounding, Shape


@dataclass(frozen=True)
class Add(Operation):
    """x + y, of one shape. Both hold the cut's channels, so each device adds its own."""

    kind: ClassVar[str] = "add"
    rounding: ClassVar[Rounding] = Rounding.SUM

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return keras.ops.add(*tensors)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        return build.stock(build.layers.Add(name=name), list(tensors))

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        x, y = inputs
        if x != y:
            raise ValueError(f"addition {name!r} gets {x} and {y}; it takes two inputs of one shape.")
        return x
