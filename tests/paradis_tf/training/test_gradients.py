"""What the optimizer is given, against NumPy; over replicas too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.methods import Paradis
from paradis_tf.supernet import Supernet
from paradis_tf.training.gradients import combine


@pytest.mark.parametrize("clip_norm", [0.0, 1.5, 100.0])
@pytest.mark.parametrize("scaled", [False, True])
def test_clipped_then_decayed(clip_norm: float, scaled: bool) -> None:
    rng = np.random.default_rng(0)
    weights = [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 2), (4,), (2,))]
    optimizer: keras.optimizers.Optimizer = keras.optimizers.SGD(1.0)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(weights)
    # The middle variable has no gradient.
    gradients = {2: rng.normal(size=2), 0: rng.normal(size=(3, 2))}
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    assert 1.5 < norm < 100
    factor = min(1, clip_norm / norm) if clip_norm else 1
    before = [weight.numpy() for weight in weights]
    given = {index: tf.constant(value * optimizer.scale_loss(1.0), tf.float32) for index, value in gradients.items()}
    optimizer.apply(*combine(given, weights, optimizer, clip_norm=clip_norm, weight_decay=0.1, decayed={0, 1}))
    expected = [before[0] - factor * gradients[0] - 0.1 * before[0], before[1], before[2] - factor * gradients[2]]
    for weight, wanted in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_gradient_that_is_not_finite_is_not_clipped_away(bad: float) -> None:
    weight = keras.Variable(np.ones(2, np.float32))
    optimizer = keras.optimizers.SGD(1.0)
    found, _ = combine(
        {0: tf.constant([bad, 1.0])}, [weight], optimizer, clip_norm=1.0, weight_decay=0.0, decayed=set()
    )
    assert np.isnan(found[0]).all()


def test_decay_of_all_weights_and_the_clipping_reach_the_step(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net(("1.0", "0.5+0.5"))
    start = [weight.numpy() for weight in model.weights]

    def changes(**options: Any) -> list[np.ndarray]:
        for weight, value in zip(model.weights, start, strict=True):
            weight.assign(value)
        model.compile(keras.optimizers.SGD(1.0), method=Paradis(), **options)
        model.train_on_batch(*batch)
        return [
            weight.numpy() - value
            for weight, value in zip(model.weights, start, strict=True)
            if any(weight is one for one in model.trainable_variables)
        ]

    trained = [v for w, v in zip(model.weights, start, strict=True) if any(w is t for t in model.trainable_variables)]
    plain = changes()
    for found, before, value in zip(changes(weight_decay=0.1, decay_all=True), plain, trained, strict=True):
        np.testing.assert_allclose(found, before - 0.1 * value, atol=1e-5)
    norm = np.sqrt(sum((change**2).sum() for change in plain))
    for found, before in zip(changes(clip_norm=norm / 2), plain, strict=True):
        np.testing.assert_allclose(found, before / 2, atol=1e-5)


REPLICAS = """
import keras, numpy as np, tensorflow as tf
from paradis_tf.training.divergence import FirstNonFinite
from paradis_tf.training.gradients import combine

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
parts = [np.array([3.0, 1.0], np.float32), np.array([5.0, -2.0], np.float32)]
for clip, scaled in ((0.0, False), (2.0, False), (0.0, True), (2.0, True)):
    with strategy.scope():
        weight = keras.Variable(np.array([1.0, 2.0], np.float32))
        optimizer = keras.optimizers.SGD(1.0)
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0)
        optimizer.build([weight])
        watch = FirstNonFinite()

    @tf.function
    def step(values, losses):
        def replica(gradient, loss):
            given = {0: optimizer.scale_loss(gradient)}
            rule = dict(clip_norm=clip, weight_decay=0.1, decayed={0})
            optimizer.apply(*combine(given, [weight], optimizer, **rule))
            watch.update_state(loss, tf.constant([4, 7]))
        strategy.run(replica, args=(values, losses))

    def spread(values):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[context.replica_id_in_sync_group])
        )

    mean = (parts[0] + parts[1]) / 2
    factor = min(1, clip / np.linalg.norm(mean)) if clip else 1
    before = np.array([1.0, 2.0])
    step(spread(parts), spread(np.zeros((2, 2), np.float32)))
    np.testing.assert_allclose(np.array(weight.value), before - factor * mean - 0.1 * before, rtol=1e-6)
    assert np.array(watch.result()).tolist() == [1, -1, -1]
    if scaled:
        kept = np.array(weight.value)
        bad = [parts[0], np.array([np.inf, 0.0], np.float32)]
        step(spread(bad), spread(np.array([[0, 0], [0, np.nan]], np.float32)))
        np.testing.assert_array_equal(np.array(weight.value), kept)
        assert np.array(watch.result()).tolist() == [2, 2, 7]
        assert np.array(optimizer.dynamic_scale.value) == 2.0
"""


def test_replicas_apply_the_mean_and_skip_together() -> None:
    done = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
