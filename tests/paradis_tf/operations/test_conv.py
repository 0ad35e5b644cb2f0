"""Sliced convolution against a loop in NumPy and the stock layer."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.cuts import WHOLE, Slice, SliceCut, SwitchError
from paradis_tf.operations import SlicedConv2D
from paradis_tf.switches import Switch

IN, OUT = 8, 12


def cut(start: Fraction, stop: Fraction) -> SliceCut:
    return SliceCut("a", 0, Slice(start, stop))


# A cut and, counted by hand, its input and output channels.
CUTS = [
    (WHOLE, (0, 8), (0, 12)),
    (cut(Fraction(0), Fraction(1, 2)), (0, 4), (0, 6)),
    (cut(Fraction(1, 2), Fraction(1)), (4, 8), (6, 12)),
    (cut(Fraction(1, 4), Fraction(1, 2)), (2, 4), (3, 6)),
    (cut(Fraction(3, 4), Fraction(1)), (6, 8), (9, 12)),
]
HALF = CUTS[1][0]
QUARTER = CUTS[3][0]
SIZES = [(7, 6), (6, 7), (3, 8)]


def convolve(image: np.ndarray, kernel: np.ndarray, strides: int, padding: str) -> np.ndarray:
    """The sum over the window at each position; "same" puts the odd pixel of padding after."""
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
    outputs = np.zeros((len(image), len(rows), len(columns), kernel.shape[3]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = image[:, row : row + side, column : column + side]
            outputs[:, i, j] = np.einsum("bhwi,hwio->bo", window, kernel)
    return outputs


def built(seed: int = 1, **options: Any) -> SlicedConv2D:
    """A layer with random weights, its bias too."""
    layer = SlicedConv2D(**{"in_channels": IN, "filters": OUT, "kernel_size": 3, "name": "mix", **options})
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
    layer = built(kernel_size=side, strides=strides, padding=padding, use_bias=True)
    kernel, bias = layer.get_weights()
    for size in SIZES:
        for taken, ins, outs in CUTS:
            x = images(ins[1] - ins[0], size)
            block = kernel[:, :, ins[0] : ins[1], outs[0] : outs[1]]
            expected = convolve(x, block, strides, padding) + bias[outs[0] : outs[1]]
            found = layer(x, cut=taken)
            np.testing.assert_allclose(found, expected, atol=2e-5)
            assert layer.compute_output_shape(x.shape, taken) == expected.shape


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
def test_full_width_equals_the_stock_layer(strides: int, padding: str) -> None:
    layer = built(strides=strides, padding=padding, use_bias=True)
    stock = keras.layers.Conv2D(OUT, 3, strides=strides, padding=padding)
    x = images(IN)
    stock.build(x.shape)
    stock.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(x), stock(x), atol=1e-6)
    np.testing.assert_allclose(layer(x, cut=WHOLE), stock(x), atol=1e-6)


@pytest.mark.parametrize("text", ["1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25", "0.5"])
def test_static_weights_are_those_of_a_stock_layer(text: str) -> None:
    layer, switch = built(use_bias=True), Switch.parse(text)
    for taken in switch.cuts:
        weights = layer.static_weights(taken)
        x = images(weights[0].shape[2])
        stock = keras.layers.Conv2D(weights[0].shape[3], 3, padding="same")
        stock.build(x.shape)
        stock.set_weights(weights)
        np.testing.assert_allclose(stock(x), layer(x, cut=taken), atol=1e-5)


def test_unsliced_inputs_are_read_whole() -> None:
    layer = built(in_channels=3, slice_inputs=False, use_bias=True)
    kernel, bias = layer.get_weights()
    x = images(3)
    for taken, _, (first, last) in CUTS:
        expected = convolve(x, kernel[..., first:last], 1, "same") + bias[first:last]
        np.testing.assert_allclose(layer(x, cut=taken), expected, atol=2e-5)


@pytest.mark.parametrize("text", ["0.5+0.5", "0.5+0.25+0.25", "4x0.25"])
def test_partial_outputs_add_up_with_the_bias_once(text: str) -> None:
    layer, switch = built(filters=5, slice_outputs=False, use_bias=True), Switch.parse(text)
    kernel, bias = layer.get_weights()
    x = images(IN)
    total = np.zeros((*x.shape[:3], 5))
    for taken in switch.cuts:
        first, last = taken.slice.channels(IN, "x")
        found = layer(x[..., first:last], cut=taken).numpy()
        partial = convolve(x[..., first:last], kernel[:, :, first:last], 1, "same")
        np.testing.assert_allclose(found, partial + (bias if taken.device == 0 else 0), atol=2e-5)
        assert len(layer.static_weights(taken)) == (2 if taken.device == 0 else 1)
        total += found
    np.testing.assert_allclose(total, convolve(x, kernel, 1, "same") + bias, atol=1e-4)


@pytest.mark.parametrize("use_bias", [False, True])
def test_weights_are_full_size_whatever_slice_comes_first(use_bias: bool) -> None:
    layer = SlicedConv2D(IN, OUT, 3, use_bias=use_bias)
    layer(images(2), cut=QUARTER)
    assert [weight.shape for weight in layer.weights] == [(3, 3, IN, OUT), (OUT,)][: 1 + use_bias]
    assert layer.count_params() == 9 * IN * OUT + (OUT if use_bias else 0)
    assert len(layer.trainable_weights) == len(layer.weights)
    layer(images(4), cut=HALF)
    assert len(layer.weights) == 1 + use_bias


@pytest.mark.parametrize("options", [{}, {"slice_inputs": False}, {"slice_outputs": False}], ids=str)
def test_gradient_is_zero_outside_the_block(options: dict[str, bool]) -> None:
    layer = built(use_bias=True, **options)
    for taken, ins, outs in CUTS[1:]:
        ins = ins if layer.slice_inputs else (0, IN)
        outs = outs if layer.slice_outputs else (0, OUT)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(images(ins[1] - ins[0]), cut=taken) ** 2)
        gradient = tape.gradient(loss, layer.kernel.value).numpy()
        inside = np.zeros(gradient.shape, bool)
        inside[:, :, ins[0] : ins[1], outs[0] : outs[1]] = True
        assert (gradient[~inside] == 0).all()
        assert (gradient[inside] != 0).all()


# Prints the largest error of the gradient of a strided 1x1 kernel; paradis_tf is imported first, as programs do.
POINTWISE_GRADIENT = """
import paradis_tf
import numpy as np
import tensorflow as tf
from paradis_tf.operations import SlicedConv2D
from paradis_tf.cuts import WHOLE, Slice, SliceCut, SwitchError
from paradis_tf.switches import Switch

layer = SlicedConv2D(16, 32, 1, strides=2)
layer.build()
rng = np.random.default_rng(3)
x = rng.normal(size=(32, 32, 32, 4)).astype(np.float32)
upstream = rng.normal(size=(32, 16, 16, 8)).astype(np.float32)
expected = np.einsum("bhwi,bhwo->io", x[:, ::2, ::2].astype(np.float64), upstream)
errors = []
for _ in range(20):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, cut=Switch.parse("4x0.25").cuts[1]) * upstream)
    gradient = tape.gradient(loss, layer.kernel.value).numpy()[0, 0, 4:8, 8:16]
    errors.append(np.abs(gradient - expected).max())
print(max(errors))
"""


def test_gradient_of_a_strided_pointwise_kernel_is_right_for_few_channels() -> None:
    """The shape of a projection shortcut; oneDNN's own gradient of it is wrong or a crash (its issue 6035)."""
    done = subprocess.run([sys.executable, "-c", POINTWISE_GRADIENT], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-2


def test_symbolic_call() -> None:
    layer = SlicedConv2D(IN, OUT, 3, strides=2)
    found = layer(keras.KerasTensor((None, 7, 6, 2)), cut=QUARTER)
    assert found.shape == (None, 4, 3, 3)
    assert layer(keras.KerasTensor((None, None, None, 8))).shape == (None, None, None, 12)
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
            "use_bias": True,
            "slice_outputs": False,
            "kernel_initializer": keras.initializers.RandomUniform(-0.1, 0.1, seed=4),
        },
        {"in_channels": 3, "slice_inputs": False, "dtype": "mixed_float16", "trainable": False},
    ],
    ids=["defaults", "all", "image"],
)
def test_config_round_trips(options: dict[str, Any]) -> None:
    layer = built(**options)
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    copy = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(copy) is SlicedConv2D
    assert copy.get_config() == layer.get_config()
    assert set(options) <= set(copy.get_config())
    copy.set_weights(layer.get_weights())
    x = images(4 if layer.slice_inputs else 3)
    np.testing.assert_array_equal(copy(x, cut=HALF), layer(x, cut=HALF))


def test_mixed_precision_computes_in_half() -> None:
    layer = SlicedConv2D(IN, OUT, 1, use_bias=True, dtype="mixed_float16")
    assert layer(images(4), cut=HALF).dtype == "float16"
    assert layer.kernel.dtype == "float32"


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_wrong_channels_are_refused(channels: int) -> None:
    for x in (images(channels), keras.KerasTensor((None, 5, 5, channels))):
        with pytest.raises(
            ValueError, match=rf"'mix' got {channels} input channels; device 0 of switch 'a' takes 4 of its 8"
        ):
            built()(x, cut=HALF)


def test_an_image_smaller_than_the_window_is_refused() -> None:
    layer = built(padding="valid")
    fault = "'mix': a window of 3 with padding 'valid' does not fit an image of "
    for x in (images(4, (2, 5)), keras.KerasTensor((None, 2, 5, 4))):
        with pytest.raises(ValueError, match=fault + "2x5"):
            layer(x, cut=HALF)
    with pytest.raises(ValueError, match=fault + "Nonex1"):
        layer.compute_output_shape((None, None, 1, 4), HALF)


def test_a_slice_that_cuts_a_channel_is_refused() -> None:
    with pytest.raises(SwitchError, match=r"'mix' has 6 channels.*\[0.25, 0.5\).*multiple of 4"):
        built(filters=6)(images(2), cut=QUARTER)


@pytest.mark.parametrize(
    ("options", "legal"),
    [
        *(({name: value}, "at least 1") for name in ("in_channels", "filters") for value in (0, -4, 2.5, "8", None)),
        *(({name: value}, "at least 1") for name in ("kernel_size", "strides") for value in (0, -1, 1.5, (3, 3))),
        *(({"padding": value}, "same, valid") for value in ("SAME", "full", "", None)),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options: dict[str, Any], legal: str) -> None:
    with pytest.raises(ValueError, match=r"layer 'mix': \w+ is ") as error:
        SlicedConv2D(**{"in_channels": IN, "filters": OUT, "kernel_size": 3, "name": "mix", **options})
    assert f"is {next(iter(options.values()))!r};" in str(error.value)
    assert legal in str(error.value)
