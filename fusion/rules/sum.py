"""The rule `sum`: the slices' outputs are dequantized and added in slice order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bundle.contents import TensorInfo


class Sum:
    """What a slice contributes to the answer, and what all contributions together are."""

    def contribution(self, output: TensorInfo, stored: np.ndarray) -> np.ndarray:
        """A slice's share, float64, of its stored output of any shape: scale * (stored - zero_point); that of a float
        output, which has neither, is only widened. Source: the TFLite quantization scheme."""
        real = stored.astype(np.float64)
        if output.scale is None or output.zero_point is None:
            return real
        return (real - output.zero_point) * output.scale

    def fuse(self, contributions: Sequence[np.ndarray]) -> np.ndarray:
        """The sum, float32 (N, ...), of the slices' contributions, float64 (N, ...): partial logits or residual images.

        Adds in float64 and in their order, so that the same answers always give the same bits.
        """
        total = np.zeros_like(contributions[0])
        for contribution in contributions:
            total = total + contribution
        return total.astype(np.float32)

    def bounds(self, output: TensorInfo) -> tuple[float, float] | None:
        """The least and the largest value of a contribution; None for float32, which has no such range."""
        if output.dtype == "float32":
            return None
        stored = np.iinfo(output.dtype)
        low, high = self.contribution(output, np.array([stored.min, stored.max]))
        return float(low), float(high)


def softmax(logits: np.ndarray) -> np.ndarray:
    """The confidences, float64 (..., K), summing to 1 over the last axis, of logits (..., K)."""
    shifted = logits.astype(np.float64)
    powers = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
