"""The rule `sum`."""

import numpy as np

from fusion.bundle.contents import TensorInfo
from fusion.rules.sum import Sum, softmax


def test_dequantizes_and_sums():
    stored = np.array([[-128, 127]], np.int8)
    contribution = Sum().contribution(TensorInfo("logits", "int8", 0.5, 127), stored)
    np.testing.assert_array_equal(contribution, [[-127.5, 0]])
    plain = TensorInfo("logits", "float32", None, None)
    np.testing.assert_array_equal(Sum().contribution(plain, np.array([[1.5]], np.float32)), [[1.5]])
    fused = Sum().fuse([np.array([[1e-9, 1.0]]), np.array([[1.0, -0.25]])])
    assert fused.dtype == np.float32
    np.testing.assert_array_equal(fused, [[1.0, 0.75]])


def test_softmax():
    confidences = softmax(np.array([[0, np.log(3)], [1e4, -1e4]], np.float32))
    np.testing.assert_allclose(confidences, [[0.25, 0.75], [1.0, 0.0]], rtol=1e-6)
