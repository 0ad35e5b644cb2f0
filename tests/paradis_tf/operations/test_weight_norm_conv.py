"""Weight-normalized sliced convolution against a loop in NumPy and the stock layer."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.cuts import WHOLE, Slice, SliceCut
from paradis_tf.operations import SlicedWeightNormConv2D
from paradis_tf.switches import Switch

IN, OUT = 8, 12


def cut(start: Fraction, stop: Fraction) -> SliceCut:
    return SliceCut("a", 0, Slice(start, stop))


# A cut and, counted by hand, its input and output channels.
CUTS = [
    (WHOLE, (0, 8), (0, 12)),
    (cut(Fraction(0), Fraction(1, 2)), (0, 4), (0, 6)),
    (cut(Fraction(1, 4), Fraction(1, 2)), (2, 4), (3, 6)),
    (cut(Fraction(3, 4), Fraction(1)), (6, 8), (9, 12)),
]


def built(seed: int = 1, **options: Any) -> SlicedWeightNormConv2D:
    """A layer with random directions, gains and biases."""
    layer = SlicedWeightNormConv2D(**{"in_channels": IN, "filters": OUT, "kernel_size": 3, "name": "mix", **options})
    layer.build()
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def effective(layer: SlicedWeightNormConv2D) -> np.ndarray:
    """Each output channel's direction, divided by its length, times its gain."""
    kernel, gain = layer.kernel.numpy().astype(np.float64), layer.gain.numpy()
    return np.stack(
        [gain[o] * kernel[..., o] / np.sqrt((kernel[..., o] ** 2).sum()) for o in range(kernel.shape[3])], axis=-1
    )


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The sum over the window at each pixel, zeros outside."""
    pad = kernel.shape[0] // 2
    padded = np.pad(image.astype(np.float64), [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    outputs = np.zeros((*image.shape[:3], kernel.shape[3]))
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            window = padded[:, row : row + kernel.shape[0], column : column + kernel.shape[1]]
            outputs[:, row, column] = np.einsum("bhwi,hwio->bo", window, kernel)
    return outputs


def images(channels: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(2, 6, 5, channels)).astype(np.float32)


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize(("slice_inputs", "slice_outputs"), [(True, True), (False, True), (True, False)])
def test_equals_the_loop(side: int, slice_inputs: bool, slice_outputs: bool) -> None:
    layer = built(kernel_size=side, slice_inputs=slice_inputs, slice_outputs=slice_outputs)
    whole, bias = effective(layer), np.asarray(layer.bias)
    for taken, ins, outs in CUTS:
        first, last = ins if slice_inputs else (0, IN)
        left, right = outs if slice_outputs else (0, OUT)
        x = images(last - first)
        expected = convolve(x, whole[:, :, first:last, left:right])
        if slice_outputs or taken.slice.start == 0:
            expected = expected + bias[left:right]
        np.testing.assert_allclose(layer(x, cut=taken), expected, atol=1e-5)


def test_partial_outputs_sum_to_the_whole() -> None:
    layer = built(slice_outputs=False, use_bias=False)
    x = images(IN)
    parts = [layer(x[..., 2 * i : 2 * i + 2], cut=taken) for i, taken in enumerate(Switch.parse("4x0.25").cuts)]
    np.testing.assert_allclose(sum(np.asarray(taken) for taken in parts), layer(x), atol=1e-5)


def test_the_scale_of_the_direction_does_not_matter() -> None:
    layer = built()
    x = images(IN)
    before = layer(x).numpy()
    layer.kernel.assign(layer.kernel.numpy() * np.linspace(0.1, 50, OUT, dtype=np.float32))
    np.testing.assert_allclose(layer(x), before, atol=1e-5)


def test_a_slice_trains_the_whole_direction_through_the_norm() -> None:
    """The norm spans all inputs, so a slice's gradient reaches its own outputs' directions on foreign inputs too."""
    layer = built()
    taken, ins, outs = CUTS[2]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(images(2), cut=taken) ** 2)
    kernel, gain = tape.gradient(loss, [layer.kernel.value, layer.gain.value])
    own = np.zeros(OUT, bool)
    own[outs[0] : outs[1]] = True
    assert (np.abs(gain.numpy()[own]) > 0).all() and not gain.numpy()[~own].any()
    assert not kernel.numpy()[..., ~own].any()
    assert (np.abs(kernel.numpy()[:, :, : ins[0], own]) > 0).all()


@pytest.mark.parametrize("text", ["1.0", "0.5+0.5", "4x0.25"])
def test_static_weights_make_the_stock_layer_answer_alike(text: str) -> None:
    layer, switch = built(), Switch.parse(text)
    for taken in switch.cuts:
        first, last = taken.slice.channels(IN, "mix")
        left, right = taken.slice.channels(OUT, "mix")
        stock = keras.layers.Conv2D(right - left, 3, padding="same")
        x = images(last - first)
        stock(x)
        stock.set_weights(layer.static_weights(taken))
        np.testing.assert_allclose(stock(x), layer(x, cut=taken), atol=1e-5)


def test_gains_start_where_they_are_told() -> None:
    layer = SlicedWeightNormConv2D(IN, OUT, 3, gain=0.25)
    layer.build()
    np.testing.assert_array_equal(layer.gain.numpy(), np.full(OUT, 0.25, np.float32))
    norms = np.sqrt((layer.static_weights(WHOLE)[0] ** 2).sum(axis=(0, 1, 2)))
    np.testing.assert_allclose(norms, 0.25, rtol=1e-5)


def test_half_precision_keeps_the_norm_in_float32() -> None:
    layer = built(dtype="mixed_float16")
    layer.kernel.assign(layer.kernel.numpy() * 1e4)
    found = layer(images(IN))
    assert found.dtype == tf.float16
    np.testing.assert_allclose(found, convolve(images(IN), effective(layer)) + np.asarray(layer.bias), atol=2e-2)


def test_config_round_trip() -> None:
    layer = built(gain=2.0, use_bias=False, slice_outputs=False)
    config = json.loads(json.dumps(layer.get_config()))
    assert SlicedWeightNormConv2D.from_config(config).get_config() == layer.get_config()


@pytest.mark.parametrize("gain", [0, float("inf"), float("nan"), "1"])
def test_a_gain_that_is_none_is_refused(gain: Any) -> None:
    with pytest.raises(ValueError, match="layer 'mix': gain is"):
        SlicedWeightNormConv2D(IN, OUT, 3, gain=gain, name="mix")
