"""Weight normalization with private gains against sums in NumPy and the stock layer."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest

from paradis_tf.operations import SwitchableWeightNormConv2D
from paradis_tf.switches import Switch, parse_switches

IN, OUT = 8, 12
CUTS = [cut for switch in parse_switches(("1.0", "0.5+0.25+0.25")) for cut in switch.cuts]
# Of each device, counted by hand: its input and output channels, and its segment of gains and biases.
DEVICES = [
    ("1.0", 0, (0, 8), (0, 12), (0, 12)),
    ("0.5+0.25+0.25", 0, (0, 4), (0, 6), (12, 18)),
    ("0.5+0.25+0.25", 1, (4, 6), (6, 9), (18, 21)),
    ("0.5+0.25+0.25", 2, (6, 8), (9, 12), (21, 24)),
]


def built(**options: Any) -> SwitchableWeightNormConv2D:
    """A layer with random directions, gains and biases."""
    given: dict[str, Any] = dict(in_channels=IN, filters=OUT, kernel_size=3, cuts=CUTS, name="mix")
    layer = SwitchableWeightNormConv2D(**(given | options))
    layer.build()
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def images(channels: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(2, 6, 5, channels)).astype(np.float32)


def stock(inputs: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    layer = keras.layers.Conv2D(kernel.shape[3], kernel.shape[0], padding="same")
    layer.build(inputs.shape)
    layer.set_weights([kernel, bias])
    return layer(inputs).numpy()


@pytest.mark.parametrize(("text", "device", "ins", "outs", "segment"), DEVICES)
def test_a_device_normalizes_its_own_block(text: str, device: int, ins: tuple, outs: tuple, segment: tuple) -> None:
    layer = built()
    assert layer.bias is not None
    block = layer.kernel.numpy()[:, :, slice(*ins), slice(*outs)].astype(np.float64)
    gain, bias = layer.gain.numpy()[slice(*segment)], layer.bias.numpy()[slice(*segment)]
    kernel = np.stack([gain[o] * block[..., o] / np.linalg.norm(block[..., o]) for o in range(len(gain))], axis=-1)
    inputs = images(ins[1] - ins[0])
    found = layer(inputs, cut=Switch.parse(text).cut(device))
    np.testing.assert_allclose(found, stock(inputs, kernel, bias), rtol=1e-4, atol=1e-5)
    for weight, wanted in zip(layer.static_weights(Switch.parse(text).cut(device)), (kernel, bias), strict=True):
        np.testing.assert_allclose(weight, wanted, rtol=1e-5)


def test_a_layer_starts_with_slices_of_full_size_outputs() -> None:
    """Of white noise each output channel of any slice has the variance gain squared."""
    layer = SwitchableWeightNormConv2D(IN, OUT, 3, CUTS, gain=2.0, name="mix")
    layer.build()
    for text, device, *_ in DEVICES:
        kernel, bias = layer.static_weights(Switch.parse(text).cut(device))
        np.testing.assert_allclose((kernel.astype(np.float64) ** 2).sum(axis=(0, 1, 2)), 4.0, rtol=1e-5)
        assert not bias.any()


def test_partial_outputs_have_gains_for_every_output() -> None:
    layer = built(slice_outputs=False, use_bias=False)
    assert layer.gain.shape == (4 * OUT,)
    assert layer.bias is None
    last = layer.gain.numpy()[3 * OUT :]
    block = layer.kernel.numpy()[:, :, 6:8]
    kernel = last * block / np.sqrt((block**2).sum(axis=(0, 1, 2)))
    (found,) = layer.static_weights(Switch.parse("0.5+0.25+0.25").cut(2))
    np.testing.assert_allclose(found, kernel, rtol=1e-5)


def test_it_comes_back_from_its_config() -> None:
    layer = built(gain=0.5, slice_inputs=False)
    again = SwitchableWeightNormConv2D.from_config(json.loads(json.dumps(layer.get_config())))
    again.build()
    again.set_weights(layer.get_weights())
    inputs = images(IN)
    for text, device, *_ in DEVICES:
        found, wanted = (one(inputs, cut=Switch.parse(text).cut(device)) for one in (again, layer))
        np.testing.assert_array_equal(found, wanted)
    assert again.initial_gain == 0.5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gain": 0.0}, "gain is 0.0"),
        ({"gain": float("inf")}, "gain is inf"),
        ({"slice_outputs": False}, "take no private bias"),
        ({"cuts": []}, "layer 'mix' gets no cuts"),
        ({"filters": 10}, "layer 'mix'|'mix' has 10 channels"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        built(**options)


def test_unknown_devices_and_wrong_inputs_are_named() -> None:
    layer = built()
    with pytest.raises(ValueError, match=r"no weights for device 0 of switch '0\.5'; it has those of 1\.0/0"):
        layer(images(4), cut=Switch.parse("0.5").cut(0))
    with pytest.raises(ValueError, match="got 8 input channels"):
        layer(images(8), cut=Switch.parse("0.5+0.25+0.25").cut(1))
