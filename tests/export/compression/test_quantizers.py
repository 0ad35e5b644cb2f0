from typing import Any

import numpy as np
import pytest
import tf_keras

from export.compression.quantizers import KernelQuantizer


def _built(quantizer: KernelQuantizer, kernel: np.ndarray) -> tuple[Any, dict[str, Any]]:
    layer = tf_keras.layers.Layer()
    return layer.add_weight("kernel", kernel.shape, initializer=lambda *_, **__: kernel), quantizer.build(
        kernel.shape, "kernel", layer
    )


@pytest.mark.parametrize(("shape", "axis"), [((3, 3, 4, 6), 3), ((3, 3, 5, 1), 2), ((7, 4), -1)])
def test_weights_are_rounded_to_127_steps_of_each_outputs_largest(shape: tuple[int, ...], axis: int) -> None:
    kernel = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    quantizer = KernelQuantizer(axis)
    variable, weights = _built(quantizer, kernel)
    found = quantizer(variable, True, weights).numpy()
    others = tuple(one for one in range(len(shape)) if one != axis)
    most = np.abs(kernel).max(axis=others, keepdims=True)
    np.testing.assert_allclose(found, np.rint(kernel / most * 127) * most / 127, atol=1e-5)
    np.testing.assert_allclose(weights["max"].numpy(), most.squeeze() if axis >= 0 else most.item(), rtol=1e-6)
    # The same ranges are kept where nothing is trained.
    np.testing.assert_array_equal(quantizer(variable, False, weights).numpy(), found)


def test_zeros_are_kept() -> None:
    kernel = np.array([[[[0.5, -1.0], [0.25, 2.0]]]], np.float32)
    quantizer = KernelQuantizer(3, keeps_zeros=True)
    variable, weights = _built(quantizer, kernel)
    weights["mask"].assign([[[[1.0, 1.0], [0.0, 0.0]]]])
    np.testing.assert_allclose(
        quantizer(variable, True, weights).numpy(), np.array([[[[0.5, -1.0], [0, 0]]]]), atol=1e-6
    )
    np.testing.assert_allclose(weights["max"].numpy(), [0.5, 1.0])
