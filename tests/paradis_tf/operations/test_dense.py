"""Sliced dense layer against a matrix product in NumPy and the stock layer."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.cuts import WHOLE, Slice, SliceCut, SwitchError
from paradis_tf.operations import SlicedDense
from paradis_tf.switches import Switch

IN, OUT = 8, 12


def cut(start: Fraction, stop: Fraction) -> SliceCut:
    return SliceCut("a", 0, Slice(start, stop))


# A cut and, counted by hand, its input and output features.
CUTS = [
    (WHOLE, (0, 8), (0, 12)),
    (cut(Fraction(0), Fraction(1, 2)), (0, 4), (0, 6)),
    (cut(Fraction(1, 2), Fraction(1)), (4, 8), (6, 12)),
    (cut(Fraction(1, 4), Fraction(1, 2)), (2, 4), (3, 6)),
    (cut(Fraction(3, 4), Fraction(1)), (6, 8), (9, 12)),
]
HALF = CUTS[1][0]
QUARTER = CUTS[3][0]
SPLITS = ["0.5+0.5", "0.5+0.25+0.25", "4x0.25"]


def built(seed: int = 1, **options: Any) -> SlicedDense:
    """A layer with random weights, its bias too."""
    layer = SlicedDense(**{"in_channels": IN, "units": OUT, "name": "logits", **options})
    layer.build()
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def features(count: int, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(5, count)).astype(np.float32)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("slice_outputs", [False, True])
@pytest.mark.parametrize("slice_inputs", [False, True])
def test_equals_the_product(slice_inputs: bool, slice_outputs: bool, use_bias: bool) -> None:
    layer = built(slice_inputs=slice_inputs, slice_outputs=slice_outputs, use_bias=use_bias)
    kernel, bias = [*layer.get_weights(), np.zeros(OUT)][:2]
    for taken, ins, outs in CUTS:
        first, last = ins if slice_inputs else (0, IN)
        left, right = outs if slice_outputs else (0, OUT)
        x = features(last - first)
        expected = x.astype(np.float64) @ kernel[first:last, left:right]
        if slice_outputs or taken.slice.start == 0:
            expected = expected + bias[left:right]
        np.testing.assert_allclose(layer(x, cut=taken), expected, atol=1e-5)
        assert layer.compute_output_shape(x.shape, taken) == expected.shape


def test_full_width_equals_the_stock_layer() -> None:
    layer, stock, x = built(), keras.layers.Dense(OUT), features(IN)
    stock.build(x.shape)
    stock.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(x), stock(x), atol=1e-6)
    np.testing.assert_allclose(layer(x, cut=WHOLE), stock(x), atol=1e-6)


@pytest.mark.parametrize("text", SPLITS)
def test_partial_logits_add_up_with_the_bias_once(text: str) -> None:
    layer, x = built(), features(IN)
    kernel, bias = layer.get_weights()
    parts = [layer(x[:, slice(*taken.slice.channels(IN, "x"))], cut=taken) for taken in Switch.parse(text).cuts]
    np.testing.assert_allclose(np.sum(parts, axis=0), x @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("slice_outputs", [False, True])
@pytest.mark.parametrize("text", ["1.0", *SPLITS, "0.5"])
def test_static_weights_are_those_of_a_stock_layer(text: str, slice_outputs: bool) -> None:
    layer, switch = built(slice_outputs=slice_outputs), Switch.parse(text)
    for taken in switch.cuts:
        weights = layer.static_weights(taken)
        assert len(weights) == (2 if slice_outputs or taken.device == 0 else 1)
        x = features(len(weights[0]))
        stock = keras.layers.Dense(weights[0].shape[1], use_bias=len(weights) == 2)
        stock.build(x.shape)
        stock.set_weights(weights)
        np.testing.assert_allclose(stock(x), layer(x, cut=taken), atol=1e-5)


@pytest.mark.parametrize("use_bias", [False, True])
def test_weights_are_full_size_whatever_slice_comes_first(use_bias: bool) -> None:
    layer = SlicedDense(IN, OUT, use_bias=use_bias)
    layer(features(2), cut=QUARTER)
    layer(features(4), cut=HALF)
    assert [weight.shape for weight in layer.trainable_weights] == [(IN, OUT), (OUT,)][: 1 + use_bias]
    assert layer.count_params() == IN * OUT + (OUT if use_bias else 0)


@pytest.mark.parametrize("slice_outputs", [False, True])
def test_gradient_is_zero_outside_the_block(slice_outputs: bool) -> None:
    layer = built(slice_outputs=slice_outputs)
    assert layer.bias is not None
    for taken, ins, outs in CUTS[1:]:
        outs = outs if slice_outputs else (0, OUT)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(features(ins[1] - ins[0]), cut=taken) ** 2)
        kernel, bias = tape.gradient(loss, [layer.kernel.value, layer.bias.value])
        inside = np.zeros((IN, OUT), bool)
        inside[ins[0] : ins[1], outs[0] : outs[1]] = True
        assert (kernel.numpy()[~inside] == 0).all()
        assert (kernel.numpy()[inside] != 0).all()
        # Of unsliced outputs only the first slice reads the bias.
        if slice_outputs or taken.slice.start == 0:
            assert set(np.flatnonzero(bias)) == set(range(*outs))
        else:
            assert bias is None


def test_symbolic_call() -> None:
    layer = SlicedDense(IN, OUT, slice_outputs=True)
    assert layer(keras.KerasTensor((None, 2)), cut=QUARTER).shape == (None, 3)
    assert SlicedDense(IN, 10)(keras.KerasTensor((None, 2)), cut=QUARTER).shape == (None, 10)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layer(inputs, cut=HALF))
    np.testing.assert_allclose(model(features(4)), layer(features(4), cut=HALF), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_bias": False, "slice_outputs": True, "kernel_initializer": keras.initializers.RandomUniform(seed=4)},
        {"in_channels": 4, "slice_inputs": False, "trainable": False},
    ],
    ids=["defaults", "all", "unsliced"],
)
def test_config_round_trips(options: dict[str, Any]) -> None:
    layer = built(**options)
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    copy = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(copy) is SlicedDense
    assert copy.get_config() == layer.get_config()
    assert set(options) <= set(copy.get_config())
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(features(4), cut=HALF), layer(features(4), cut=HALF))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_wrong_features_are_refused(count: int) -> None:
    for x in (features(count), keras.KerasTensor((None, count))):
        with pytest.raises(
            ValueError, match=rf"'logits' got {count} input channels; device 0 of switch 'a' takes 4 of its 8"
        ):
            built()(x, cut=HALF)


def test_a_slice_that_cuts_a_feature_is_refused() -> None:
    with pytest.raises(SwitchError, match=r"'logits' has 6 channels.*\[0.25, 0.5\).*multiple of 4"):
        built(in_channels=6)(features(2), cut=QUARTER)
    with pytest.raises(SwitchError, match=r"'logits' has 10 channels.*\[0.25, 0.5\).*multiple of 4"):
        built(units=10, slice_outputs=True)(features(2), cut=QUARTER)


@pytest.mark.parametrize("value", [0, -4, 2.5, "8", None], ids=repr)
@pytest.mark.parametrize("name", ["in_channels", "units"])
def test_bad_arguments_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"layer 'logits': \w+ is .* at least 1") as error:
        SlicedDense(**{"in_channels": IN, "units": OUT, "name": "logits", name: value})
    assert f"is {value!r};" in str(error.value)
