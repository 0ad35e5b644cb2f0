"""Grouped convolution against NumPy and against a convolution for each group."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.cuts import SwitchError
from paradis_tf.levels import Level
from paradis_tf.operations import SlicedGroupedConv2D
from paradis_tf.operations.grouped_conv import whole_groups
from paradis_tf.switches import Switch

RNG = np.random.default_rng(5)


def grouped(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Padding "same", an odd window: each channel that comes out reads the channels of its own group."""
    side, _, size, outputs = kernel.shape
    border = side // 2
    padded = np.pad(x.astype(np.float64), [(0, 0), (border, border), (border, border), (0, 0)])
    found = np.zeros((*x.shape[:3], outputs))
    for out in range(outputs):
        group = padded[..., out // size * size : out // size * size + size]
        for i in range(side):
            for j in range(side):
                window = group[:, i : i + x.shape[1], j : j + x.shape[2]]
                found[..., out] += window @ kernel[i, j, :, out]
    return found


def layer_of(channels: int, groups: int, side: int = 3) -> SlicedGroupedConv2D:
    layer = SlicedGroupedConv2D(channels, side, groups, name="middle_conv")
    layer.build()
    return layer


@pytest.mark.parametrize(("channels", "groups", "side"), [(16, 8, 3), (12, 4, 1), (6, 1, 3), (8, 8, 5)])
def test_each_group_sees_itself(channels: int, groups: int, side: int) -> None:
    layer = layer_of(channels, groups, side)
    x = RNG.normal(size=(2, 5, 6, channels)).astype(np.float32)
    np.testing.assert_allclose(layer(x), grouped(x, layer.kernel.numpy()), atol=1e-4)


def test_a_cut_takes_whole_groups() -> None:
    layer = layer_of(16, 4)
    kernel = layer.kernel.numpy()
    for cut in (*Switch.parse("0.5+0.25+0.25").cuts, Level(3, 4, "dense").cuts[0], Level(2, 2, "triangular").cuts[0]):
        first, last = cut.outputs("middle_conv", 16)
        x = RNG.normal(size=(2, 4, 4, last - first)).astype(np.float32)
        np.testing.assert_allclose(layer(x, cut=cut), grouped(x, kernel[..., first:last]), atol=1e-4)


def test_gradients_are_those_of_a_convolution_for_each_group() -> None:
    layer = layer_of(16, 4)
    x = tf.constant(RNG.normal(size=(2, 5, 5, 16)), tf.float32)
    weight = tf.constant(RNG.normal(size=(2, 5, 5, 16)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = tf.reduce_sum(weight * layer(x))
    mine = tape.gradient(found, [x, layer.kernel.value])
    kernel = tf.Variable(layer.kernel.numpy())
    with tf.GradientTape() as tape:
        tape.watch(x)
        parts = zip(tf.split(x, 4, axis=-1), tf.split(kernel, 4, axis=-1), strict=True)
        apart = tf.concat([tf.nn.conv2d(part, block, 1, "SAME") for part, block in parts], axis=-1)
        expected = tf.reduce_sum(weight * apart)
    for one, other in zip(mine, tape.gradient(expected, [x, kernel]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_cut_inside_a_group_is_named() -> None:
    for cut in (Level(1, 8, "dense").cuts[0], Switch.parse("0.125", grid=8).cut(0)):
        with pytest.raises(
            SwitchError, match="layer 'middle_conv' has 4 branches of 4 channels, and .* whole branches"
        ):
            layer_of(16, 4)(RNG.normal(size=(1, 4, 4, 2)), cut=cut)
    assert whole_groups(Level(1, 4, "dense").cuts[0], "middle_conv", 16, 4) == (0, 4)


@pytest.mark.parametrize("groups", [0, -1, 3, 2.0, True])
def test_groups_that_do_not_divide_the_channels_are_named(groups: object) -> None:
    with pytest.raises(ValueError, match=f"layer 'odd': groups is {groups!r}; it divides 16 channels"):
        SlicedGroupedConv2D(16, 3, groups, name="odd")  # type: ignore[arg-type]
