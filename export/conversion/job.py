"""What a process of a conversion has to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from export.compression.settings import Compression
from paradis_tf.levels import StepCut
from paradis_tf.switches import Switch

Range = tuple[float, float]
# By tensor of an int8 file, its least and its largest value; see `export.conversion.ranges`.
Ranges = Mapping[str, Range]


@dataclass(frozen=True)
class SliceFile:
    """A file to make: a device of a switch at a precision; with `float_output` an int8 file gives float32."""

    switch: Switch
    device: int
    precision: str
    float_output: bool = False

    def __str__(self) -> str:
        return f"switch '{self.switch}', device {self.device}, {self.precision}"


@dataclass(frozen=True)
class StepFile:
    """A file to make: a step of a triangular network; as of `SliceFile`."""

    step: StepCut
    precision: str
    float_output: bool = False

    def __str__(self) -> str:
        return f"{self.step}, {self.precision}"


@dataclass(frozen=True)
class CompressionJob:
    """A switch to compress."""

    switch: Switch
    compression: Compression

    def __str__(self) -> str:
        return f"switch '{self.switch}'"


@dataclass(frozen=True, eq=False)
class ConversionJob:
    """A file to convert, and the weights that its slice was compressed to, both None if it was not."""

    file: SliceFile
    compression: Compression | None = None
    weights: dict[str, np.ndarray] | None = None

    def __str__(self) -> str:
        return str(self.file)
