"""Passes that also learn to answer without some of their devices."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from fusion.bundle.contents import TensorInfo
from fusion.rules.sum import Sum
from paradis_tf.builders.static import extract, extract_tail
from paradis_tf.methods.paradis import Paradis
from paradis_tf.methods.passes import HardLabels, LiveSets, Pass, Teacher
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch
from paradis_tf.training.live_sets import draw_live_sets, scaled_by
from tests.conftest import TINY_NETS

SPLIT = Switch.parse("4x0.25")
LABELS = (HardLabels(),)


def drawn(live: LiveSets, devices: int, seed: tuple[int, int]) -> list[tuple[int, ...]]:
    """The devices that answer, in each set."""
    return [tuple(np.flatnonzero(weights)) for weights in draw_live_sets(live, devices, tf.constant(seed))]


def test_every_number_of_missing_devices_is_as_likely_and_every_device_too() -> None:
    live = LiveSets(LABELS, sets=3000, most_missing=3)
    sets = Counter(drawn(live, 4, (7, 1)))
    # A set of k missing devices is one of 4 over k: 4, 6 and 4 of them. Five standard deviations off.
    assert sets.keys() == {devices for count in (1, 2, 3) for devices in itertools.combinations(range(4), count)}
    for devices, count in sets.items():
        expected = 3000 / 3 / {1: 4, 2: 6, 3: 4}[len(devices)]
        assert abs(count - expected) < 5 * expected**0.5


@pytest.mark.parametrize(("devices", "most", "fewest"), [(4, 1, 3), (4, 2, 2), (2, 5, 1), (3, 3, 1)])
def test_no_more_are_missing_than_may_be_and_never_all(devices: int, most: int, fewest: int) -> None:
    lengths = {len(devices) for devices in drawn(LiveSets(LABELS, 500, most), devices, (0, 0))}
    assert lengths == set(range(fewest, devices))


def test_sets_are_a_function_of_step_and_pass() -> None:
    live = LiveSets(LABELS, sets=8, most_missing=3)
    first = drawn(live, 4, (3, 2))
    assert drawn(live, 4, (3, 2)) == first
    assert drawn(live, 4, (4, 2)) != first != drawn(live, 4, (3, 3))


def summed_by_the_runner(model: Supernet, images: np.ndarray, live: tuple[int, ...]) -> np.ndarray:
    """What a coordinator makes of the slice models that answer."""
    rule, output = Sum(), TensorInfo("output", "float32", None, None)
    stored = [extract(model, SPLIT.cut(device))(images).numpy() for device in live]
    return rule.fuse([rule.contribution(output, one) for one in stored])


@pytest.mark.parametrize("tiny_net", TINY_NETS, indirect=True)
@pytest.mark.parametrize("live", [(0,), (1, 3), (0, 1, 2)])
def test_what_live_devices_give_in_training_is_what_evaluation_and_the_runner_fuse(
    tiny_net: Callable[..., Supernet], batch: tuple, live: tuple[int, ...]
) -> None:
    model = tiny_net(("4x0.25",))
    partial = [model.call_cut(batch[0], cut) for cut in SPLIT.cuts]
    weights = tf.constant([float(device in live) for device in range(4)])
    fused = model.fuse(batch[0], scaled_by(partial, weights))
    expected = model(batch[0], path=SPLIT, devices=live)
    np.testing.assert_allclose(fused["prediction"], expected["prediction"], rtol=1e-5, atol=1e-5)
    ran = summed_by_the_runner(model, batch[0], live)
    assert ran.dtype == np.float32
    np.testing.assert_allclose(fused["prediction"], ran, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("live", [(0,), (1, 3)])
def test_of_super_resolution_the_tail_runs_on_what_live_devices_give(live: tuple[int, ...]) -> None:
    keras.utils.set_random_seed(5)
    model = Supernet({"name": "wdsr", "image_shape": (7, 6, 3), "scale": 2, "blocks": 1, "filters": 8}, ("4x0.25",))
    images = np.random.default_rng(1).integers(0, 256, (2, 7, 6, 3), dtype=np.uint8)
    partial = [model.call_cut(images, cut) for cut in SPLIT.cuts]
    weights = tf.constant([float(device in live) for device in range(4)])
    fused = model.fuse(images, scaled_by(partial, weights))["prediction"]
    expected = model(images, path=SPLIT, devices=live)["prediction"]
    np.testing.assert_allclose(fused, expected, rtol=1e-5, atol=1e-3)
    ran = extract_tail(model)([images, summed_by_the_runner(model, images, live)])
    np.testing.assert_allclose(fused, ran, rtol=1e-5, atol=1e-3)
    assert np.abs(expected - model(images, path=SPLIT)["prediction"]).max() > 0.1


@pytest.mark.parametrize("live", [(0, 2), (1,), (1, 2, 3)])
def test_live_devices_are_the_full_network_without_the_blocks_of_the_others(
    tiny_net: Callable[..., Supernet], batch: tuple, live: tuple[int, ...]
) -> None:
    """The oracle of a switch: one network of full width with block-diagonal kernels."""
    distributed, full = tiny_net(("4x0.25",)), tiny_net(("1.0",))
    for mine, theirs in zip(full.shared_layers, distributed.shared_layers, strict=True):
        mine.set_weights(theirs.get_weights())
        if hasattr(mine, "kernel"):
            mine.kernel.assign(theirs.kernel.numpy() * quarters(theirs, live))
    if 0 not in live:
        full.shared_layers[-1].bias.assign(np.zeros(full.shared_layers[-1].bias.shape))
    partial = [distributed.call_cut(batch[0], cut) for cut in SPLIT.cuts]
    weights = tf.constant([float(device in live) for device in range(4)])
    fused = distributed.fuse(batch[0], scaled_by(partial, weights))
    np.testing.assert_allclose(fused["prediction"], full(batch[0])["prediction"], rtol=1e-5, atol=1e-5)


def quarters(layer: keras.Layer, devices: tuple[int, ...]) -> np.ndarray:
    """1 in the blocks of a kernel that these quarters own, 0 elsewhere."""
    mask = np.zeros(layer.kernel.shape, np.float32)
    for device in devices:
        ins, outs = (slice(device * count // 4, (device + 1) * count // 4) for count in layer.kernel.shape[-2:])
        # Of a depthwise kernel the last axis is no channel.
        outs = outs if layer.slice_outputs and layer.kernel.shape[-1] > 1 else slice(None)
        mask[..., ins if layer.slice_inputs else slice(None), outs] = 1
    return mask


def test_missing_devices_learn_nothing(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net(("4x0.25",))
    weights = tf.constant([1.0, 0.0, 1.0, 0.0])
    layers = [layer for layer in model.shared_layers if hasattr(layer, "kernel")]
    with tf.GradientTape() as tape:
        partial = [model.call_cut(batch[0], cut, training=True) for cut in SPLIT.cuts]
        fused = model.fuse(batch[0], scaled_by(partial, weights))
        loss = model.task.loss(batch[1], fused["prediction"])
    for layer, found in zip(layers, tape.gradient(loss, [layer.kernel.value for layer in layers]), strict=True):
        gradient = tf.convert_to_tensor(found).numpy()
        assert not gradient[quarters(layer, (0, 2)) == 0].any()
        assert gradient[quarters(layer, (0,)) == 1].any() and gradient[quarters(layer, (2,)) == 1].any()


class Alone(Paradis):
    """The split switch alone, on hard labels."""

    def __init__(self, live: LiveSets | None) -> None:
        super().__init__()
        self.live = live

    def passes(self, switches: object, widest: object) -> tuple[Pass, ...]:
        return (Pass(SPLIT, live=self.live),)


def test_a_step_learns_from_the_switch_and_from_its_sets(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    """A step of stochastic gradient descent goes by the weighted mean of both gradients."""
    live = LiveSets(LABELS, 1, 3, (0.5, 0.5))
    whole: list[np.ndarray] = []
    both: list[np.ndarray] = []
    for changes, method in ((whole, Alone(None)), (both, Alone(live))):
        model = tiny_net(("4x0.25",))
        model.compile(keras.optimizers.SGD(1.0), method=method, seed=3)
        before = [value.numpy() for value in model.trainable_variables]
        model.train_on_batch(*batch)
        changes += [new.numpy() - old for new, old in zip(model.trainable_variables, before, strict=True)]
    (devices,) = drawn(live, 4, (0, 3))
    model = tiny_net(("4x0.25",))
    with tf.GradientTape() as tape:
        fused = model.fuse(batch[0], [model.call_cut(batch[0], SPLIT.cuts[i], training=True) for i in devices])
        loss = model.task.loss(batch[1], fused["prediction"])
    gradients = tape.gradient(loss, [value.value for value in model.trainable_variables], unconnected_gradients="zero")
    for alone, together, gradient in zip(whole, both, gradients, strict=True):
        np.testing.assert_allclose(together, (alone - 0.5 * gradient.numpy()) / 1.5, rtol=1e-3, atol=1e-5)


def test_the_graph_does_not_grow_with_the_sets_that_may_be_drawn(
    tiny_net: Callable[..., Supernet], batch: tuple
) -> None:
    sizes = []
    for most in (1, 3):
        model = tiny_net(("1.0", "4x0.25"))
        model.compile(keras.optimizers.SGD(0.1), method=Paradis(live_weight=1.0, most_missing=most))
        graph = tf.function(model.train_step).get_concrete_function(tuple(map(tf.constant, batch))).graph
        sizes.append(len(graph.get_operations()))
    assert sizes[0] == sizes[1]


def test_a_teacher_may_be_the_switch_itself() -> None:
    live = LiveSets((HardLabels(), HardLabels(1.0, Teacher(SPLIT))))
    assert Pass(SPLIT, live=live).teachers == set()
