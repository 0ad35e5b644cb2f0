"""Activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from paradis_tf.operations.operation import Build, CutCall, Operation, Rounding


@dataclass(frozen=True)
class Relu(Operation):
    """max(x, 0)."""

    rounding: ClassVar[Rounding] = Rounding.FOLDED

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return keras.ops.relu(*tensors)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        return build.stock(build.layers.ReLU(name=name), *tensors)


@dataclass(frozen=True)
class Relu6(Operation):
    """min(max(x, 0), 6)."""

    rounding: ClassVar[Rounding] = Rounding.FOLDED

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return keras.ops.relu6(*tensors)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        return build.stock(build.layers.ReLU(6.0, name=name), *tensors)
