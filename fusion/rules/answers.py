"""From what the slices contributed to the answer of a bundle, as the tensors that a coordinator gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bundle.contents import Bundle
from ..protocol.oip import TensorSpec
from ..runtime.choosing import Runtime, choose
from ..runtime.interpreters import TailInterpreter
from .sum import Sum


class Classes:
    """Of a classifier: `logits` FP32 (N, K), their `class` INT64 (N,) and its `label` BYTES (N,)."""

    def __init__(self, bundle: Bundle, rule: Sum) -> None:
        self.outputs = (
            TensorSpec("logits", "FP32", (-1, len(bundle.labels))),
            TensorSpec("class", "INT64", (-1,)),
            TensorSpec("label", "BYTES", (-1,)),
        )
        self._labels, self._rule = np.array([label.encode() for label in bundle.labels], object), rule

    def __call__(self, images: np.ndarray, contributions: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        logits = self._rule.fuse(contributions)
        classes = logits.argmax(axis=-1).astype(np.int64)
        return logits, classes, self._labels[classes]


class Pixels:
    """Of super-resolution: `pixels` UINT8 (N, height * scale, width * scale, 3), what the tail makes of the sum."""

    def __init__(self, bundle: Bundle, rule: Sum, runtime: Runtime, threads: int) -> None:
        height, width, channels = bundle.shape
        self.outputs = (TensorSpec("pixels", "UINT8", (-1, height * bundle.scale, width * bundle.scale, channels)),)
        self._tail, self._rule = TailInterpreter(bundle, runtime, threads), rule

    def __call__(self, images: np.ndarray, contributions: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        summed = self._rule.fuse(contributions)
        return (np.stack([self._tail(image, sum_) for image, sum_ in zip(images, summed, strict=True)]),)


Answers = Classes | Pixels
"""Makes the answer of the images, uint8 (N, *`Bundle.shape`), and the contributions of some slices in their order,
float64 (N, *`Bundle.output_shape`): one array for each of `outputs`. Not thread-safe."""


def of(bundle: Bundle, runtime: str, threads: int) -> Answers:
    """What makes the answers of a bundle. `runtime` and `threads` run its tail, if it has one, as of `runtime.choose`.

    Raises `UserError` when the tail cannot be run.
    """
    return Classes(bundle, Sum()) if bundle.task.has_classes else Pixels(bundle, Sum(), choose(runtime), threads)
