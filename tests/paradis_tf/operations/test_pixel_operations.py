"""The layers behind the fusion of super-resolution against NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from paradis_tf.operations import ChannelBias, PixelShuffle


@pytest.mark.parametrize("block", [2, 3])
def test_depth_to_space_equals_the_loop(block: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3 * block**2)).astype(np.float32)
    expected = np.zeros((2, 4 * block, 5 * block, 3), np.float32)
    for row in range(4 * block):
        for column in range(5 * block):
            place = (row % block) * block + column % block
            expected[:, row, column] = x[:, row // block, column // block, 3 * place : 3 * place + 3]
    layer = PixelShuffle(block)
    np.testing.assert_array_equal(layer(x), expected)
    assert layer.compute_output_shape((None, 4, None, 3 * block**2)) == (None, 4 * block, None, 3)
    assert layer(keras.Input((None, 5, 3 * block**2))).shape == (None, None, 5 * block, 3)


def test_channel_bias_adds_a_value_to_each_channel() -> None:
    layer = ChannelBias(3)
    layer.build()
    layer.set_weights([np.array([1, -2, 4])])
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(x), x + np.array([1, -2, 4], np.float32))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PixelShuffle(1, name="pixels"), "layer 'pixels': block_size is 1; it takes an int of at least 2"),
        (lambda: ChannelBias(0, name="bias"), "layer 'bias': channels is 0; it takes an int of at least 1"),
    ],
)
def test_bad_options_are_refused(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("layer", [PixelShuffle(3, name="pixels"), ChannelBias(4, name="bias")])
def test_config_round_trip(layer: keras.layers.Layer) -> None:
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
