"""Switchable batch normalization against NumPy and the stock layer, and how private its weights are."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.cuts import SwitchError
from paradis_tf.operations import SwitchableBatchNormalization
from paradis_tf.switches import Switch, parse_switches

CHANNELS = 8
TEXTS = ("1.0", "0.5+0.25+0.25", "4x0.25", "0.5")


def cuts_of(*texts: str, grid: int = 4) -> list[Any]:
    return [cut for switch in parse_switches(texts, grid) for cut in switch.cuts]


CUTS = cuts_of(*TEXTS)
# Each device's segment of the four weights, counted by hand.
SEGMENTS = {
    ("1.0", 0): (0, 8),
    ("0.5+0.25+0.25", 0): (8, 12),
    ("0.5+0.25+0.25", 1): (12, 14),
    ("0.5+0.25+0.25", 2): (14, 16),
    ("4x0.25", 0): (16, 18),
    ("4x0.25", 1): (18, 20),
    ("4x0.25", 2): (20, 22),
    ("4x0.25", 3): (22, 24),
    ("0.5", 0): (24, 28),
}
SIZE = 28
EACH = pytest.mark.parametrize(("text", "device"), SEGMENTS)


def built(seed: int = 1, **options: Any) -> SwitchableBatchNormalization:
    """A layer with random weights: gamma, beta, moving mean and variance, in this order."""
    layer = SwitchableBatchNormalization(**{"channels": CHANNELS, "cuts": CUTS, "name": "norm", **options})
    layer.build()
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(0.5, 2, weight.shape) for weight in weights_of(layer)])
    return layer


def weights_of(layer: SwitchableBatchNormalization) -> list[keras.Variable]:
    return [layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance]


def images(channels: int, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, (4, 3, 5, channels)).astype(np.float32)


def values(layer: SwitchableBatchNormalization) -> list[np.ndarray]:
    return [weight.numpy().copy() for weight in weights_of(layer)]


@EACH
def test_inference_uses_the_moving_statistics(text: str, device: int) -> None:
    layer = built(epsilon=0.01)
    before = values(layer)
    first, last = SEGMENTS[text, device]
    gamma, beta, mean, variance = (value[first:last].astype(np.float64) for value in before)
    x = images(last - first)
    expected = (x - mean) / np.sqrt(variance + 0.01) * gamma + beta
    cut = Switch.parse(text).cut(device)
    np.testing.assert_allclose(layer(x, cut=cut), expected, atol=1e-5)
    np.testing.assert_allclose(layer(x, cut=cut, training=False), expected, atol=1e-5)
    for old, new in zip(before, values(layer), strict=True):
        np.testing.assert_array_equal(new, old)


@EACH
def test_training_uses_the_batch_and_collects_it(text: str, device: int) -> None:
    layer = built(momentum=0.8, epsilon=0.01)
    first, last = SEGMENTS[text, device]
    gamma, beta, mean, variance = (value[first:last].astype(np.float64) for value in values(layer))
    for step in range(3):
        x = images(last - first, seed=step)
        flat = x.reshape(-1, last - first).astype(np.float64)
        biased = flat.var(axis=0)
        expected = (x - flat.mean(axis=0)) / np.sqrt(biased + 0.01) * gamma + beta
        found = layer(x, cut=Switch.parse(text).cut(device), training=True)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        mean = 0.8 * mean + 0.2 * flat.mean(axis=0)
        variance = 0.8 * variance + 0.2 * biased * len(flat) / (len(flat) - 1)
        np.testing.assert_allclose(layer.moving_mean[first:last], mean, rtol=1e-5)
        np.testing.assert_allclose(layer.moving_variance[first:last], variance, rtol=1e-5)


def test_full_width_equals_the_stock_layer() -> None:
    layer = built(cuts=cuts_of("1.0"), momentum=0.8, epsilon=0.01)
    stock = keras.layers.BatchNormalization(momentum=0.8, epsilon=0.01)
    x, (full,) = images(CHANNELS), cuts_of("1.0")
    stock.build(x.shape)
    stock.set_weights(values(layer))
    np.testing.assert_allclose(layer(x, cut=full), stock(x, training=False), atol=1e-5)
    old = layer.moving_variance.numpy()
    np.testing.assert_allclose(layer(x, cut=full, training=True), stock(x, training=True), atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, stock.moving_mean, rtol=1e-5)
    # The stock layer collects the biased variance.
    count = x.size // CHANNELS
    collected = (layer.moving_variance - 0.8 * old) * (count - 1) / count
    np.testing.assert_allclose(collected, stock.moving_variance - 0.8 * old, rtol=1e-4)


@EACH
def test_static_weights_are_those_of_a_stock_layer(text: str, device: int) -> None:
    layer, cut = built(epsilon=0.01), Switch.parse(text).cut(device)
    first, last = SEGMENTS[text, device]
    weights = layer.static_weights(cut)
    x = images(last - first)
    stock = keras.layers.BatchNormalization(epsilon=0.01)
    stock.build(x.shape)
    stock.set_weights(weights)
    np.testing.assert_allclose(stock(x), layer(x, cut=cut), atol=1e-5)


@EACH
def test_training_a_device_leaves_every_other_segment(text: str, device: int) -> None:
    layer = built()
    first, last = SEGMENTS[text, device]
    before = values(layer)
    with tf.GradientTape() as tape:
        outputs = layer(images(last - first), cut=Switch.parse(text).cut(device), training=True)
        loss = tf.reduce_sum(outputs**3)
    trained = [layer.gamma, layer.beta]
    gradients = tape.gradient(loss, [weight.value for weight in trained])
    keras.optimizers.SGD(0.1, momentum=0.9).apply(gradients, trained)
    mine = np.zeros(SIZE, bool)
    mine[first:last] = True
    for gradient in gradients:
        assert (gradient.numpy()[~mine] == 0).all()
    for old, new in zip(before, values(layer), strict=True):
        assert new[~mine].tobytes() == old[~mine].tobytes()
        assert (new[mine] != old[mine]).all()


# Each device's channels of a shared scale and shift, counted by hand.
SHARED = {
    ("1.0", 0): (0, 8),
    ("0.5+0.25+0.25", 0): (0, 4),
    ("0.5+0.25+0.25", 1): (4, 6),
    ("0.5+0.25+0.25", 2): (6, 8),
    ("4x0.25", 0): (0, 2),
    ("4x0.25", 1): (2, 4),
    ("4x0.25", 2): (4, 6),
    ("4x0.25", 3): (6, 8),
    ("0.5", 0): (0, 4),
}


@EACH
def test_shared_affine_slices_one_scale_and_shift(text: str, device: int) -> None:
    layer, cut = built(affine="shared", epsilon=0.01), Switch.parse(text).cut(device)
    assert [weight.shape for weight in layer.weights] == [(CHANNELS,), (CHANNELS,), (SIZE,), (SIZE,)]
    before = values(layer)
    (first, last), (low, high) = SEGMENTS[text, device], SHARED[text, device]
    gamma, beta = before[0][low:high], before[1][low:high]
    mean, variance = before[2][first:last], before[3][first:last]
    for found, wanted in zip(layer.static_weights(cut), (gamma, beta, mean, variance), strict=True):
        np.testing.assert_array_equal(found, wanted)
    x = images(last - first)
    np.testing.assert_allclose(layer(x, cut=cut), (x - mean) / np.sqrt(variance + 0.01) * gamma + beta, atol=1e-5)
    flat = x.reshape(-1, last - first)
    with tf.GradientTape() as tape:
        found = layer(x, cut=cut, training=True)
        gradient = tape.gradient(tf.reduce_sum(found**3), layer.gamma.value).numpy()
    expected = (x - flat.mean(axis=0)) / np.sqrt(flat.var(axis=0) + 0.01) * gamma + beta
    np.testing.assert_allclose(found, expected, atol=1e-5)
    own = np.isin(np.arange(CHANNELS), np.arange(low, high))
    assert (gradient[~own] == 0).all() and (gradient[own] != 0).all()
    mine = np.isin(np.arange(SIZE), np.arange(first, last))
    for old, new in zip(before[2:], values(layer)[2:], strict=True):
        assert new[~mine].tobytes() == old[~mine].tobytes()
        assert (new[mine] != old[mine]).all()


def test_training_in_a_graph_collects_too() -> None:
    eager, graph = built(), built()
    cut = Switch.parse("4x0.25").cut(2)
    step = tf.function(lambda x: graph(x, cut=cut, training=True))
    for seed in range(2):
        expected = eager(images(2, seed), cut=cut, training=True)
        np.testing.assert_allclose(step(images(2, seed)), expected, atol=1e-6)
    for found, wanted in zip(values(graph), values(eager), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_weights_after_build() -> None:
    layer = SwitchableBatchNormalization(CHANNELS, CUTS)
    layer(images(2), cut=Switch.parse("4x0.25").cut(1))
    assert [weight.shape for weight in layer.weights] == [(SIZE,)] * 4
    assert {weight.name for weight in layer.trainable_weights} == {"gamma", "beta"}
    assert {weight.name for weight in layer.non_trainable_weights} == {"moving_mean", "moving_variance"}
    for weight, value in zip(weights_of(layer), (1, 0, 0, 1), strict=True):
        np.testing.assert_array_equal(weight, np.full(SIZE, value, np.float32))


def test_symbolic_call() -> None:
    layer, cut = built(), Switch.parse("0.5+0.25+0.25").cut(2)
    found = layer(keras.KerasTensor((None, 7, 6, 2)), cut=cut)
    assert found.shape == (None, 7, 6, 2)
    assert layer.compute_output_shape((None, None, None, 4)) == (None, None, None, 4)
    inputs = keras.Input((3, 5, 2))
    model = keras.Model(inputs, layer(inputs, cut=cut))
    np.testing.assert_allclose(model(images(2)), layer(images(2), cut=cut), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels": 6, "cuts": cuts_of("3x1/3", "2/3", grid=3), "momentum": 0.5, "epsilon": 0.1},
        {"cuts": cuts_of("0.375+0.125", grid=8), "trainable": False},
        {"affine": "shared"},
    ],
    ids=["defaults", "thirds", "frozen", "shared"],
)
def test_config_round_trips(options: dict[str, Any]) -> None:
    layer = built(**options)
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    copy = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(copy) is SwitchableBatchNormalization
    assert copy.get_config() == layer.get_config()
    assert set(options) <= set(copy.get_config())
    assert copy.cuts == layer.cuts
    copy.set_weights(layer.get_weights())
    cut = layer.cuts[0]
    first, last = cut.outputs("x", layer.channels)
    x = images(last - first)
    for training in (False, True, False):
        found, expected = (each(x, cut=cut, training=training) for each in (copy, layer))
        np.testing.assert_array_equal(found, expected)


def test_mixed_precision_keeps_the_statistics_in_single() -> None:
    layer = built(dtype="mixed_float16")
    outputs = layer(images(8), cut=Switch.parse("1.0").cut(0), training=True)
    assert outputs.dtype == "float16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}


@pytest.mark.parametrize("text", ["0.25+0.25", "0.75"])
@pytest.mark.parametrize("training", [False, True])
def test_an_unknown_cut_is_refused(text: str, training: bool) -> None:
    layer, cut = built(), Switch.parse(text).cut(0)
    for x in (images(2), keras.KerasTensor((None, 3, 5, 2))):
        with pytest.raises(ValueError, match=r"'norm' has no weights for device 0 of switch") as error:
            layer(x, cut=cut, training=training)
        message = str(error.value)
        assert f"'{text}'" in message and all(f"{known}/0" in message for known in TEXTS)
    with pytest.raises(ValueError, match=r"'norm' has no weights for"):
        layer.static_weights(cut)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_wrong_channels_are_refused(channels: int, training: bool) -> None:
    layer = SwitchableBatchNormalization(CHANNELS, CUTS, name="norm")
    cut = Switch.parse("0.5+0.25+0.25").cut(0)
    for x in (keras.KerasTensor((None, 3, 5, channels)), images(channels)):
        with pytest.raises(
            ValueError, match=rf"'norm' got {channels} channels; device 0 of switch '0\.5\+0\.25\+0\.25' takes 4"
        ):
            layer(x, cut=cut, training=training)


def test_a_switch_that_cuts_a_channel_is_refused() -> None:
    with pytest.raises(SwitchError, match=r"'norm' has 6 channels.*multiple of 4"):
        built(channels=6)


@pytest.mark.parametrize(("cuts", "fault"), [(CUTS[:2] * 2, "gets the cut 1.0/0 twice"), ([], "gets no cuts")])
def test_illegal_cuts_are_refused(cuts: list[Any], fault: str) -> None:
    with pytest.raises(ValueError, match=f"layer 'norm' {fault}"):
        built(cuts=cuts)


@pytest.mark.parametrize(
    ("options", "legal"),
    [
        *(({"momentum": value}, r"\[0, 1\)") for value in (-0.1, 1, 1.5, float("nan"))),
        *(({"epsilon": value}, r"at least 1\.001e-05") for value in (0, 1e-5, -1, float("nan"))),
        *(({"channels": value}, "at least 1") for value in (0, -4, 2.5, "8", None)),
        *(({"affine": value}, "'private' or 'shared'") for value in ("shared_affine", None)),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options: dict[str, Any], legal: str) -> None:
    with pytest.raises(ValueError, match=rf"layer 'norm': \w+ is .*{legal}") as error:
        built(**options)
    assert repr(next(iter(options.values()))) in str(error.value)
