"""Between raw pixels and what networks compute with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from paradis_tf.operations.operation import Build, CutCall, Operation, Rounding

# A raw pixel p enters a network as (p - 128) / 128: with this scale and offset the uint8 image is already the
# quantized input (scale 1/128, zero point 128), and an int8 file needs no arithmetic on it, only a moved zero point.
PIXEL_SCALE = 1 / 128
PIXEL_OFFSET = -1.0
NORMALIZED_RANGE = (PIXEL_OFFSET, 255 * PIXEL_SCALE + PIXEL_OFFSET)


@dataclass(frozen=True)
class Normalize(Operation):
    """Raw pixels 0..255, of any number type, to [-1, 1): (pixel - 128) / 128."""

    rounding: ClassVar[Rounding] = Rounding.KEPT

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return keras.ops.cast(*tensors, call.dtype) * PIXEL_SCALE + PIXEL_OFFSET

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        if build.normalized_input:
            return tensors[0]
        return build.stock(build.layers.Rescaling(PIXEL_SCALE, PIXEL_OFFSET, name=name), *tensors)


@dataclass(frozen=True)
class Denormalize(Operation):
    """The inverse of `Normalize`: 128 x + 128, float pixels, not clipped to 0..255."""

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return (tensors[0] - PIXEL_OFFSET) / PIXEL_SCALE

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        stock = build.layers.Rescaling(1 / PIXEL_SCALE, -PIXEL_OFFSET / PIXEL_SCALE, name=name)
        return build.stock(stock, *tensors)
