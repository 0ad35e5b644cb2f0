"""How good the fused outputs of a switch are on a part of a dataset, and how near to those of Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fusion.bundle.contents import Bundle
from fusion.images.tiles import Tiles
from fusion.runtime import choosing as runtime
from fusion.runtime.interpreters import TailInterpreter
from paradis_tf.data.parts import ImagePairs, Part
from paradis_tf.tasks.image_quality import luma, psnr

# Pixels that tiles of a test image overlap by: the answers of the outermost are thrown away.
OVERLAP = 8


class Judge(Protocol):
    """Judges what slices give for the images it has.

    Attributes:
      images: what every slice takes, uint8 (n, height, width, 3).
      count: how many images of the dataset these are.
      metric: what `score` gives, by its name in a manifest; `unit` is for people. Larger is better.
      per_unit: how many of the unit are 1 of the metric.
      most_lost: what quantized files may lose of the metric, unless a user says otherwise.
    """

    images: np.ndarray
    count: int
    metric: str
    unit: str
    per_unit: float
    agreement_unit: str
    most_lost: float

    def answers(self, summed: np.ndarray) -> Any:
        """The answers that sums of the slices' outputs, (n, *output), are; for `score` and `agreement`."""

    def score(self, answers: Any) -> float:
        """How good answers are, in the metric."""

    def agreement(self, answers: Any, expected: Any) -> float:
        """How near answers are to others, in `agreement_unit`."""


class ClassifierJudge:
    """Accuracy, 0..1, and how many images in per cent are of the same class."""

    metric, unit, per_unit, agreement_unit = "accuracy", "percentage points", 100.0, "same class (%)"
    most_lost = 0.01

    def __init__(self, part: Part) -> None:
        self.images, self._labels = part.images[:], part.labels
        self.count = len(self.images)

    def answers(self, summed: np.ndarray) -> np.ndarray:
        """The classes, (n,)."""
        return summed.argmax(axis=1)

    def score(self, answers: np.ndarray) -> float:
        return float((answers == self._labels).mean())

    def agreement(self, answers: np.ndarray, expected: np.ndarray) -> float:
        return 100 * float((answers == expected).mean())


class UpscalerJudge:
    """Mean PSNR-Y in dB over the images, each cut in tiles, and that between one answer and the other.

    The tail runs here, on the sums, on tflite-runtime.
    """

    metric, unit, per_unit, agreement_unit = "psnr_y", "dB", 1.0, "PSNR-Y to Keras (dB)"
    most_lost = 0.1

    def __init__(self, pairs: ImagePairs, bundle: Bundle) -> None:
        self._pairs = pairs
        self._tiles = Tiles(bundle.shape[:2], OVERLAP, pairs.scale)
        self._cut = [self._tiles.cut(low) for low in pairs.low]
        self.images = np.concatenate(self._cut)
        self.count = len(pairs)
        self._tail = TailInterpreter(bundle, runtime.choose("tflite_runtime"), 1)

    def answers(self, summed: np.ndarray) -> list[np.ndarray]:
        """The images, uint8, that the tail makes of the sums of their tiles."""
        pixels = [self._tail(image, maps) for image, maps in zip(self.images, summed, strict=True)]
        ends = np.cumsum([len(tiles) for tiles in self._cut])
        groups = [pixels[end - len(tiles) : end] for tiles, end in zip(self._cut, ends, strict=True)]
        return [self._tiles.join(group, low.shape[:2]) for group, low in zip(groups, self._pairs.low, strict=True)]

    def score(self, answers: Sequence[np.ndarray]) -> float:
        return self._mean(self._pairs.high, answers)

    def agreement(self, answers: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
        return self._mean(expected, answers)

    def _mean(self, truths: Sequence[np.ndarray], answers: Sequence[np.ndarray]) -> float:
        border = self._pairs.scale
        values = [psnr(luma(truth), luma(answer), border) for truth, answer in zip(truths, answers, strict=True)]
        return float(np.mean(values))


def of(bundle: Bundle, part: Any) -> Judge:
    """What judges a bundle by a part of the dataset of its run."""
    return UpscalerJudge(part, bundle) if isinstance(part, ImagePairs) else ClassifierJudge(part)
