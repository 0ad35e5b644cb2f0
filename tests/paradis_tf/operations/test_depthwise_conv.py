"""Sliced depthwise convolution against a loop in NumPy and the stock layer."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.cuts import WHOLE, Slice, SliceCut, SwitchError
from paradis_tf.operations import SlicedDepthwiseConv2D
from paradis_tf.switches import Switch

CHANNELS = 8


def cut(start: Fraction, stop: Fraction) -> SliceCut:
    return SliceCut("a", 0, Slice(start, stop))


# A cut and, counted by hand, its channels.
CUTS = [
    (WHOLE, 0, 8),
    (cut(Fraction(0), Fraction(1, 2)), 0, 4),
    (cut(Fraction(1, 2), Fraction(1)), 4, 8),
    (cut(Fraction(1, 4), Fraction(1, 2)), 2, 4),
    (cut(Fraction(3, 4), Fraction(1)), 6, 8),
]
HALF = CUTS[1][0]
QUARTER = CUTS[3][0]
SIZES = [(7, 6), (6, 7), (3, 8)]


def convolve(image: np.ndarray, kernel: np.ndarray, strides: int, padding: str) -> np.ndarray:
    """Each channel with its own window; "same" puts the odd pixel of padding after."""
    image = image.astype(np.float64)
    side = kernel.shape[0]
    if padding == "same":
        pads = []
        for size in image.shape[1:3]:
            total = max((-(-size // strides) - 1) * strides + side - size, 0)
            pads.append((total // 2, total - total // 2))
        image = np.pad(image, [(0, 0), *pads, (0, 0)])
    rows = range(0, image.shape[1] - side + 1, strides)
    columns = range(0, image.shape[2] - side + 1, strides)
    outputs = np.zeros((len(image), len(rows), len(columns), image.shape[3]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            for channel in range(image.shape[3]):
                window = image[:, row : row + side, column : column + side, channel]
                outputs[:, i, j, channel] = (window * kernel[:, :, channel, 0]).sum(axis=(1, 2))
    return outputs


def built(seed: int = 1, **options: Any) -> SlicedDepthwiseConv2D:
    """A layer with random weights."""
    layer = SlicedDepthwiseConv2D(**{"in_channels": CHANNELS, "kernel_size": 3, "name": "deep", **options})
    layer.build()
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def images(channels: int, size: tuple[int, int] = (7, 6), seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, *size, channels)).astype(np.float32)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_equals_the_loop(side: int, strides: int, padding: str) -> None:
    layer = built(kernel_size=side, strides=strides, padding=padding)
    (kernel,) = layer.get_weights()
    for size in SIZES:
        for taken, first, last in CUTS:
            x = images(last - first, size)
            expected = convolve(x, kernel[:, :, first:last], strides, padding)
            np.testing.assert_allclose(layer(x, cut=taken), expected, atol=2e-5)
            assert layer.compute_output_shape(x.shape, taken) == expected.shape


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
def test_full_width_equals_the_stock_layer(strides: int, padding: str) -> None:
    layer = built(strides=strides, padding=padding)
    stock = keras.layers.DepthwiseConv2D(3, strides=strides, padding=padding, use_bias=False)
    x = images(CHANNELS)
    stock.build(x.shape)
    stock.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(x), stock(x), atol=1e-6)
    np.testing.assert_allclose(layer(x, cut=WHOLE), stock(x), atol=1e-6)


@pytest.mark.parametrize("text", ["1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25", "0.5"])
def test_static_weights_are_those_of_a_stock_layer(text: str) -> None:
    layer, switch = built(), Switch.parse(text)
    for taken in switch.cuts:
        weights = layer.static_weights(taken)
        x = images(weights[0].shape[2])
        stock = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)
        stock.build(x.shape)
        stock.set_weights(weights)
        np.testing.assert_allclose(stock(x), layer(x, cut=taken), atol=1e-5)


def test_a_switch_is_the_full_layer_cut_apart() -> None:
    layer, x = built(strides=2), images(CHANNELS)
    parts = [layer(x[..., first:last], cut=taken) for taken, first, last in (CUTS[1], CUTS[2])]
    np.testing.assert_allclose(np.concatenate(parts, axis=-1), layer(x), atol=1e-6)


def test_weights_are_full_size_whatever_slice_comes_first() -> None:
    layer = SlicedDepthwiseConv2D(CHANNELS, 3)
    layer(images(2), cut=QUARTER)
    layer(images(4), cut=HALF)
    assert [weight.shape for weight in layer.trainable_weights] == [(3, 3, CHANNELS, 1)]
    assert layer.count_params() == 9 * CHANNELS


def test_gradient_is_zero_outside_the_block() -> None:
    layer = built()
    for taken, first, last in CUTS[1:]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(images(last - first), cut=taken) ** 2)
        gradient = tape.gradient(loss, layer.kernel.value).numpy()
        inside = np.zeros(gradient.shape, bool)
        inside[:, :, first:last] = True
        assert (gradient[~inside] == 0).all()
        assert (gradient[inside] != 0).all()


def test_symbolic_call() -> None:
    layer = SlicedDepthwiseConv2D(CHANNELS, 3, strides=2, padding="valid")
    assert layer(keras.KerasTensor((None, 8, 7, 2)), cut=QUARTER).shape == (None, 3, 3, 2)
    assert layer(keras.KerasTensor((None, None, None, 8))).shape == (None, None, None, 8)
    inputs = keras.Input((7, 6, 4))
    model = keras.Model(inputs, layer(inputs, cut=HALF))
    np.testing.assert_allclose(model(images(4)), layer(images(4), cut=HALF), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "kernel_size": 2,
            "strides": 2,
            "padding": "valid",
            "kernel_initializer": keras.initializers.RandomUniform(-0.1, 0.1, seed=4),
        },
        {"trainable": False},
    ],
    ids=["defaults", "all", "frozen"],
)
def test_config_round_trips(options: dict[str, Any]) -> None:
    layer = built(**options)
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    copy = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(copy) is SlicedDepthwiseConv2D
    assert copy.get_config() == layer.get_config()
    assert set(options) <= set(copy.get_config())
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(images(4), cut=HALF), layer(images(4), cut=HALF))


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_wrong_channels_are_refused(channels: int) -> None:
    for x in (images(channels), keras.KerasTensor((None, 5, 5, channels))):
        with pytest.raises(
            ValueError, match=rf"'deep' got {channels} input channels; device 0 of switch 'a' takes 4 of its 8"
        ):
            built()(x, cut=HALF)


def test_an_image_smaller_than_the_window_is_refused() -> None:
    layer = built(padding="valid")
    fault = "'deep': a window of 3 with padding 'valid' does not fit an image of "
    for x in (images(4, (2, 5)), keras.KerasTensor((None, 2, 5, 4))):
        with pytest.raises(ValueError, match=fault + "2x5"):
            layer(x, cut=HALF)
    with pytest.raises(ValueError, match=fault + "Nonex1"):
        layer.compute_output_shape((None, None, 1, 4), HALF)


def test_a_slice_that_cuts_a_channel_is_refused() -> None:
    with pytest.raises(SwitchError, match=r"'deep' has 6 channels.*\[0.25, 0.5\).*multiple of 4"):
        built(in_channels=6)(images(2), cut=QUARTER)


@pytest.mark.parametrize(
    ("options", "legal"),
    [
        *(({"in_channels": value}, "at least 1") for value in (0, -4, 2.5, "8", None)),
        *(({name: value}, "at least 1") for name in ("kernel_size", "strides") for value in (0, -1, 1.5, (3, 3))),
        *(({"padding": value}, "same, valid") for value in ("SAME", "full", "", None)),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options: dict[str, Any], legal: str) -> None:
    with pytest.raises(ValueError, match=r"layer 'deep': \w+ is ") as error:
        SlicedDepthwiseConv2D(**{"in_channels": CHANNELS, "kernel_size": 3, "name": "deep", **options})
    assert f"is {next(iter(options.values()))!r};" in str(error.value)
    assert legal in str(error.value)
