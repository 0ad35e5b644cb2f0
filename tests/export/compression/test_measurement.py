import numpy as np
import pytest
import tensorflow as tf

from export.compression.measurement import measure


def _file(kernels: list[np.ndarray]) -> bytes:
    """Convolutions one after the other, the kernels (height, width, inputs, outputs), in float32."""

    def serve(image: tf.Tensor) -> tf.Tensor:
        for kernel in kernels:
            image = tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME"))
        return image

    spec = tf.TensorSpec((1, 4, 4, kernels[0].shape[2]), tf.float32)
    function = tf.function(serve, input_signature=[spec], autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    return bytes(converter.convert())


@pytest.mark.filterwarnings("ignore")
def test_zeros_and_values_of_all_convolutions_but_the_first() -> None:
    first = np.random.default_rng(0).normal(0, 1, (3, 3, 3, 2)).astype(np.float32)
    second = np.array([[[[0, 1, 2, 0], [0, 0, 1, 0]]]], np.float32)  # 5 zeros of 8, values 0, 1, 2
    third = np.array([[[[1], [2], [3], [0.5]]]], np.float32)  # no zeros of 4, 4 values
    data = _file([first, second, third])
    found = measure(data)
    assert (found.sparsity, found.clusters) == (5 / 12, 4)
    alone = measure(_file([first]))
    assert (alone.sparsity, alone.clusters) == (0, 0)
