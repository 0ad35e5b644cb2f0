"""Ranges of int8 tensors: which there are, that they are the network's, and that sums keep off the halves."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from export.conversion.ranges import calibrate
from export.tflite.halves import distance
from paradis_tf.builders.architecture import Architecture
from paradis_tf.builders.static import extract
from paradis_tf.supernet import Supernet
from tests.conftest import TINY_NETS, narrow_resnet, randomize

IMAGES = np.random.default_rng(4).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def network(architecture: Architecture, levels: int = 4) -> Supernet:
    keras.utils.set_random_seed(3)
    return randomize(Supernet(architecture, levels=levels, connectivity="triangular"), seed=11)


def test_ranges_are_from_the_least_to_the_largest_value() -> None:
    model = network(TINY_NETS["plain"])
    ranges = calibrate(model, IMAGES)
    # What a ReLU follows has none, and each head has its own.
    heads = [f"logits/level_{level}" for level in (1, 2, 3, 4)]
    assert sorted(ranges) == sorted(["stem_relu", "depthwise_relu", "pointwise_relu", "features", *heads])
    static = extract(model, model.paths[-1].cuts[0])
    for name in ("stem_relu", "depthwise_relu", "pointwise_relu", "features"):
        layer = keras.Model(static.inputs[0], static.get_layer(name).output)
        assert ranges[name] == pytest.approx((0, np.max(layer(IMAGES.astype(np.float32)))), rel=1e-5)
    for level, head in zip(model.paths, heads, strict=True):
        logits = model(IMAGES, path=level)["prediction"].numpy()
        assert ranges[head] == pytest.approx((min(0, logits.min()), max(0, logits.max())), rel=1e-5)


def test_pooling_keeps_the_range_and_projections_have_one() -> None:
    ranges = calibrate(network(narrow_resnet(14, (32, 32, 3), 5, "224"), 1), np.repeat(IMAGES, 4, 1).repeat(4, 2))
    assert "stem_relu" in ranges and "stem_pool" not in ranges
    assert "stage_1_block_1_shortcut_norm" in ranges and "stage_1_block_1_shortcut_conv" not in ranges
    assert ranges["stage_1_block_1_expand_norm"][0] < 0
    # The ReLU is in the addition.
    assert "stage_1_block_1_relu" in ranges and "stage_1_block_1_add" not in ranges


def test_sums_keep_off_the_halves() -> None:
    ranges = calibrate(network(TINY_NETS["basic blocks"], 1), IMAGES)
    before = "stem_relu"
    for stage in (1, 2, 3, 4):
        block = f"stage_{stage}_block_1"
        shortcut = f"{block}_shortcut_norm" if stage > 1 else before
        scales, zero_points = zip(*map(quantization, [ranges[f"{block}_second_norm"], ranges[shortcut]]), strict=True)
        assert distance(scales, zero_points, *quantization(ranges[f"{block}_relu"])) > 1e-5


def quantization(wanted: tuple[float, float]) -> tuple[float, int]:
    scale = (wanted[1] - wanted[0]) / 255
    return float(np.float32(scale)), round(-128 - wanted[0] / scale)


def test_what_is_always_zero_has_a_range() -> None:
    model = network(TINY_NETS["plain"])
    for layer in model.shared_layers:
        if layer.name == "depthwise_norm":
            layer.gamma.assign(np.zeros(8))
            layer.beta.assign(np.full(8, -1.0))
    assert calibrate(model, IMAGES)["depthwise_relu"] == pytest.approx((0.0, 1e-3))
