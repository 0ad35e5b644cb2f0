"""WDSR against published counts, and its three readings against each other."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from fusion.base.program import UserError
from paradis_tf import models
from paradis_tf.builders.cost import path_costs, tail_cost
from paradis_tf.builders.static import extract, extract_tail
from paradis_tf.cuts import SwitchError
from paradis_tf.models.wdsr import WDSR
from paradis_tf.operations import SlicedConv2D
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

SWITCHES = ("1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25")
SPLITS = SWITCHES[1:]
IMAGES = np.random.default_rng(3).integers(0, 256, (2, 7, 6, 3), dtype=np.uint8)

# The published count of the small model at each scale, and a width scan at x2: parameters with gains, and million
# multiply-adds per low-resolution pixel.
SCALES = {2: 1_190_100, 3: 1_195_605, 4: 1_203_312}
WIDTHS = {8: (77_052, 0.076), 16: (300_612, 0.298), 24: (671_628, 0.668), 32: (1_190_100, 1.185)}


def randomized(model: Supernet) -> Supernet:
    rng = np.random.default_rng(7)
    for layer in model.shared_layers:
        for weight in layer.weights:
            value = rng.normal(0, 0.3, weight.shape) + (1.0 if weight.name == "gain" else 0.0)
            weight.assign(value.astype(np.float32))
    return model


def make(switches: tuple[str, ...] = SWITCHES, normalization: str = "private", **options: Any) -> Supernet:
    table = {"image_shape": (7, 6, 3), "scale": 2, "blocks": 2, "filters": 8, **options}
    return randomized(Supernet({"name": "wdsr", **table}, switches, normalization=normalization))


@pytest.fixture(scope="module")
def wdsr() -> Supernet:
    return make()


@pytest.mark.parametrize(("scale", "count"), SCALES.items())
def test_the_small_model_has_the_published_parameters(scale: int, count: int) -> None:
    architecture = WDSR((48, 48, 3), scale)
    (cost,) = path_costs(architecture, Switch.parse("1.0"))
    assert cost.parameters + tail_cost(architecture).parameters == count


@pytest.mark.parametrize(("switches", "normalization"), [(SWITCHES, "shared_affine"), (("1.0",), "private")])
def test_the_supernet_has_them_too(switches: tuple[str, ...], normalization: str) -> None:
    model = Supernet({"name": "wdsr", "image_shape": (48, 48, 3), "scale": 2}, switches, normalization=normalization)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == SCALES[2]


@pytest.mark.parametrize(("filters", "expected"), WIDTHS.items())
def test_the_width_scan(filters: int, expected: tuple[int, float]) -> None:
    architecture = WDSR((48, 32, 3), 2, filters=filters)
    (cost,) = path_costs(architecture, Switch.parse("1.0"))
    tail = tail_cost(architecture)
    madds = (cost.madds + tail.madds) / (48 * 32) / 1e6
    assert (cost.parameters + tail.parameters, round(madds, 3)) == expected


def test_a_hand_counted_slice_and_tail() -> None:
    architecture = WDSR((10, 20, 3), 3, blocks=1, filters=16)
    first, second = path_costs(architecture, Switch.parse("0.5+0.5"))
    rows = {row.name: row for row in second.layers}
    assert rows["head_conv"].madds == 200 * 27 * 8
    assert rows["block_1_wide_conv"].kernel_parameters == 9 * 8 * 32 + 2 * 32
    assert rows["block_1_conv"].madds == 200 * 9 * 32 * 8
    assert rows["tail_conv"].kernel_parameters == 9 * 8 * 27 + 27
    assert first == second
    rows = {row.name: row for row in tail_cost(architecture).layers}
    assert rows["skip_conv"].madds == 200 * 75 * 27
    assert rows["tail_bias"].kernel_parameters == 27
    assert rows["pixels"].activation_bytes == 30 * 60 * 3


def test_variant_b_by_hand() -> None:
    exact = WDSR((48, 48, 3), 2, blocks=1, filters=32, variant="b", linear_multiple=1)
    (cost,) = path_costs(exact, Switch.parse("1.0"))
    counts = {row.name: row.kernel_parameters for row in cost.layers}
    # int(0.8 * 32) = 25 channels between the linear convolutions.
    assert counts["block_1_wide_conv"] == 32 * 192 + 2 * 192
    assert counts["block_1_linear_conv"] == 192 * 25 + 2 * 25
    assert counts["block_1_conv"] == 9 * 25 * 32 + 2 * 32
    with pytest.raises(SwitchError, match="layer 'block_1_linear_conv' has 25 channels"):
        path_costs(exact, Switch.parse("4x0.25"))
    assert WDSR((48, 48, 3), 2, filters=32, variant="b").linear_width == 24
    assert WDSR((48, 48, 3), 2, filters=16, variant="b").linear_width == 12
    assert len(path_costs(WDSR((48, 48, 3), 2, variant="b"), Switch.parse("4x0.25"))) == 4


def test_gains_start_as_published() -> None:
    model = Supernet({"name": "wdsr", "image_shape": (8, 8, 3), "scale": 2, "blocks": 16, "filters": 4}, ("1.0",))
    gains = {layer.name: layer.gain.numpy() for layer in model.shared_layers if hasattr(layer, "gain")}
    for name, expected in (("head", 1), ("block_1_wide", 2), ("block_16", 0.25), ("tail", 1), ("skip", 1)):
        np.testing.assert_array_equal(gains[f"{name}_conv"], np.float32(expected))


def test_the_answer_equals_a_network_written_out_in_numpy() -> None:
    model = make(("1.0",), blocks=1)
    layers = {layer.name: layer for layer in model.shared_layers}

    def conv(x: np.ndarray, name: str) -> np.ndarray:
        kernel = layers[name].kernel.numpy().astype(np.float64)
        kernel = layers[name].gain.numpy() * kernel / np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
        pad = kernel.shape[0] // 2
        padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (1, 2))  # type: ignore[call-overload]
        y = np.einsum("bhwiyx,yxio->bhwo", windows, kernel)
        return y + layers[name].bias.numpy() if layers[name].bias is not None else y

    image = (IMAGES.astype(np.float64) - 128) / 128
    x = conv(image, "head_conv")
    x = x + conv(np.maximum(conv(x, "block_1_wide_conv"), 0), "block_1_conv")
    maps = conv(x, "tail_conv") + layers["tail_bias"].bias.numpy() + conv(image, "skip_conv")
    pixels = maps.reshape(2, 7, 6, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 14, 12, 3) * 128 + 128
    found = model(IMAGES)
    np.testing.assert_allclose(found["prediction"], pixels, rtol=1e-4, atol=5e-3)
    np.testing.assert_allclose(found["features"], x, atol=1e-4)


@pytest.mark.parametrize("normalization", ["private", "shared_affine"])
@pytest.mark.parametrize("text", SPLITS)
def test_a_distributed_switch_is_a_full_network_with_block_diagonal_kernels(text: str, normalization: str) -> None:
    model = make(normalization=normalization)
    switch = Switch.parse(text)
    full = make(("1.0",), normalization="shared_affine")
    layer_of = {layer.name: layer for layer in model.shared_layers}
    for layer in full.shared_layers:
        own = layer_of[layer.name]
        if not isinstance(layer, SlicedConv2D) or layer.name == "skip_conv":
            layer.set_weights(own.get_weights())
            continue
        kernel = np.zeros(layer.kernel.shape, np.float32)
        for device, part in enumerate(switch.slices):
            ins = slice(*part.channels(kernel.shape[2], "")) if layer.slice_inputs else slice(None)
            outs = slice(*part.channels(kernel.shape[3], "")) if layer.slice_outputs else slice(None)
            block, *bias = own.static_weights(switch.cut(device))
            kernel[:, :, ins, outs] = block
            if bias:
                assert layer.bias is not None
                layer.bias.assign(np.concatenate([own.static_weights(cut)[1] for cut in switch.cuts]))
        layer.kernel.assign(kernel)
        layer.gain.assign(np.sqrt((kernel**2).sum(axis=(0, 1, 2))))
    found, expected = model(IMAGES, path=switch), full(IMAGES)
    np.testing.assert_allclose(found["prediction"], expected["prediction"], rtol=1e-4, atol=5e-3)
    np.testing.assert_allclose(found["features"], expected["features"], atol=1e-4)
    assert np.abs(model(IMAGES)["prediction"] - found["prediction"]).max() > 1


@pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("variant", ["a", "b"])
def test_static_slices_and_tail_equal_the_switch(module: Any, variant: str) -> None:
    model = make(variant=variant, blocks=1)
    images = IMAGES.astype(np.float32)
    tail = extract_tail(model, module)
    for switch in model.switches:
        parts = [extract(model, switch.cut(device), module) for device in range(switch.devices)]
        outputs = [np.asarray(part(images)) for part in parts]
        for device, output in enumerate(outputs):
            expected = model.call_cut(IMAGES, switch.cut(device)).prediction
            np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)
        found = tail([images, sum(outputs)])
        np.testing.assert_allclose(found, model(IMAGES, path=switch)["prediction"], rtol=1e-4, atol=5e-3)


def test_the_tail_takes_images_of_any_size_and_normalized_ones(wdsr: Supernet) -> None:
    summed = np.random.default_rng(0).normal(size=(1, 5, 9, 12)).astype(np.float32)
    image = np.random.default_rng(1).integers(0, 256, (1, 5, 9, 3)).astype(np.float32)
    raw = extract_tail(wdsr, image_shape=(None, None, 3))([image, summed])
    normalized = extract_tail(wdsr, image_shape=(5, 9, 3), normalized_input=True)([(image - 128) / 128, summed])
    assert raw.shape == (1, 10, 18, 3)
    np.testing.assert_allclose(raw, normalized, atol=2e-3)


def test_a_classifier_has_no_tail(mobilenet: Supernet) -> None:
    assert tail_cost(mobilenet.architecture).madds == tail_cost(mobilenet.architecture).largest_activation_bytes == 0
    with pytest.raises(ValueError, match="'mobilenet_v1' has no tail"):
        extract_tail(mobilenet)


def test_a_missing_device_costs_its_maps_and_not_the_skip(wdsr: Supernet) -> None:
    switch = Switch.parse("4x0.25")
    parts = [wdsr.call_cut(IMAGES, switch.cut(device)) for device in range(4)]
    live = wdsr(IMAGES, path=switch, devices=(1, 3))
    summed = np.asarray(parts[1].prediction + parts[3].prediction)
    expected = extract_tail(wdsr)([IMAGES.astype(np.float32), summed])
    np.testing.assert_allclose(live["prediction"], expected, rtol=1e-4, atol=5e-3)
    np.testing.assert_array_equal(live["prediction"], wdsr.fuse(IMAGES, [parts[1], parts[3]])["prediction"])
    assert live["features"].shape[-1] == 4
    # Without any residual the skip alone is left.
    silent = wdsr.fuse(IMAGES, parts)["prediction"] - live["prediction"]
    maps = (parts[0].prediction + parts[2].prediction) * 128
    np.testing.assert_allclose(silent, tf.nn.depth_to_space(maps, 2), rtol=1e-3, atol=1e-2)


def test_no_live_device_is_refused(wdsr: Supernet) -> None:
    with pytest.raises(ValueError, match="nothing to fuse"):
        wdsr(IMAGES, path="0.5+0.5", devices=())
    with pytest.raises(SwitchError, match="device 2 is not in switch"):
        wdsr(IMAGES, path="0.5+0.5", devices=(2,))


def test_a_saved_network_answers_alike(wdsr: Supernet, tmp_path: Any) -> None:
    wdsr.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.model_id() == wdsr.model_id()
    found = again(IMAGES, path="4x0.25")["prediction"]
    np.testing.assert_array_equal(found, wdsr(IMAGES, path="4x0.25")["prediction"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scale": 5}, "scale is 5; it is a whole number from 2 to 4"),
        ({"scale": 2, "blocks": 0}, "blocks is 0; it is a whole number from 1 to 128"),
        ({"scale": 2, "variant": "c"}, "variant is 'c'; it is one of a, b"),
        ({"scale": 2, "filters": 16.0}, "filters is 16.0"),
    ],
)
def test_options_are_checked(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        models.create("wdsr", image_shape=(8, 8, 3), **options)
