"""The result of a verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.proof import engines

# Of accuracies that are whole images the difference itself is not exact.
ROUNDING = 1e-9


@dataclass(frozen=True)
class SliceCheck:
    """One slice file on one runtime.

    Attributes:
      delegates: whether XNNPACK might take part.
      error: largest absolute difference of an output from Keras.
      spread: largest minus smallest output of Keras.
      quanta: the error in steps of the file's output (None where it is float32).
      runtime_quanta: largest difference from the reference runtime, in steps (quantized) or as a value (float).
      operators: the operators of the file, as `NAME version`.
    """

    switch: str
    device: int
    precision: str
    runtime: str
    delegates: bool
    error: float
    spread: float
    quanta: float | None
    runtime_quanta: float
    operators: tuple[str, ...]


@dataclass(frozen=True)
class SwitchCheck:
    """One fused switch on one runtime.

    Attributes:
      metric: `accuracy`, 0..1, or `psnr_y`, in dB.
      agreement: how near the answers are to those of Keras, in the judge's unit.
      float_score: the metric of Keras.
      score: the metric of the files.
    """

    switch: str
    precision: str
    runtime: str
    delegates: bool
    images: int
    metric: str
    agreement: float
    float_score: float
    score: float


@dataclass(frozen=True)
class Verification:
    """All checks of a bundle, and what is wrong with it, one sentence each.

    Attributes:
      live: by switch, for each set of devices that may answer: `devices`, `float`, and `exported` by precision, the
        metric of Keras and of the files on the reference runtime.
    """

    slices: tuple[SliceCheck, ...]
    switches: tuple[SwitchCheck, ...]
    live: Mapping[str, list[dict[str, Any]]]
    faults: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it; null for a number that is not finite."""
        return {
            "slices": [_finite(asdict(check)) for check in self.slices],
            "switches": [_finite(asdict(check)) for check in self.switches],
            "live_subsets": self.live,
            "faults": list(self.faults),
        }

    def accuracies(self, part: str) -> dict[str, dict[str, Any]]:
        """The manifest's `accuracy` of each switch, from the reference runtime."""
        accuracies: dict[str, dict[str, Any]] = {}
        for check in self.switches:
            if check.runtime.startswith(engines.REFERENCE.runtime):
                entry = accuracies.setdefault(
                    check.switch,
                    {
                        "part": part,
                        "images": check.images,
                        "metric": check.metric,
                        "float": check.float_score,
                        "exported": {},
                        "live_subsets": self.live[check.switch],
                    },
                )
                entry["exported"][check.precision] = check.score
        return accuracies


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()}
