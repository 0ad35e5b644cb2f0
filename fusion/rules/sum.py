"""The rule `sum`: the slices' outputs are dequantized and added in slice order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bundle.contents import TensorInfo


class Sum:
    """From what slices store to what the answer is made of."""

    def contribution(self, output: TensorInfo, stored: np.ndarray) -> np.ndarray:
        """A slice's share, float64 (N, ...), of its stored output."""
        return dequantize(stored, output.scale, output.zero_point)

    def fuse(self, contributions: Sequence[np.ndarray]) -> np.ndarray:
        """See `fuse`."""
        return fuse(contributions)

    def bounds(self, output: TensorInfo) -> tuple[float, float] | None:
        """The least and the largest value of a contribution; None for float32, which has no such range."""
        if output.dtype == "float32":
            return None
        stored = np.iinfo(output.dtype)
        low, high = self.contribution(output, np.array([stored.min, stored.max]))
        return float(low), float(high)


def dequantize(stored: np.ndarray, scale: float | None, zero_point: int | None) -> np.ndarray:
    """The real values of a stored tensor of any shape: scale * (stored - zero_point), float64.

    A float tensor has neither (both None) and is only widened. Source: the TFLite quantization
    scheme.
    """
    real = stored.astype(np.float64)
    if scale is None or zero_point is None:
        return real
    return (real - zero_point) * scale


def fuse(partial: Sequence[np.ndarray]) -> np.ndarray:
    """The sum, float32 (N, ...), of one float64 (N, ...) per slice: partial logits, or partial residual images.

    Adds in float64 and in the order given, so that the same answers always give the same bits.
    """
    total = np.zeros_like(partial[0])
    for outputs in partial:
        total = total + outputs
    return total.astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """The confidences, float64 (..., K), summing to 1 over the last axis, of logits (..., K)."""
    shifted = logits.astype(np.float64)
    powers = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
