"""Optimizers of a config: their steps against NumPy, and what they refuse."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from fusion.base.program import UserError
from paradis_tf.configs import defaults
from paradis_tf.training import optimizers

EPOCHS, STEPS = 4, 3


def table(**changes: Any) -> Any:
    config = defaults.get_config()
    config.optimizer.update(changes)
    return config.optimizer


def walk(made: keras.optimizers.Optimizer, gradients: np.ndarray) -> np.ndarray:
    weight = keras.Variable(np.float32(1))
    made.build([weight])
    found = []
    for gradient in gradients:
        made.apply([keras.ops.convert_to_tensor(np.float32(gradient))], [weight])
        found.append(float(weight))
    return np.array(found)


def rates(rate: float) -> np.ndarray:
    """Linear down to 0 after a warm-up of one epoch and a half, which is rounded to 4 steps."""
    warmup = 4
    down = [rate * (1 - (step - warmup) / (EPOCHS * STEPS - warmup)) for step in range(warmup, EPOCHS * STEPS)]
    return np.array([*np.linspace(rate / warmup, rate, warmup, endpoint=False), *down])


def test_sgd_takes_nesterovs_steps() -> None:
    gradients = np.random.default_rng(0).normal(size=EPOCHS * STEPS)
    made = optimizers.create(table(schedule="linear", warmup_epochs=1.5, momentum=0.8), EPOCHS, STEPS)
    weight, velocity, expected = 1.0, 0.0, []
    for rate, gradient in zip(rates(0.1), gradients, strict=True):
        velocity = 0.8 * velocity - rate * gradient
        weight += 0.8 * velocity - rate * gradient
        expected.append(weight)
    np.testing.assert_allclose(walk(made, gradients), expected, atol=1e-5)
    assert float(made.learning_rate) == 0


def test_adam_takes_its_steps() -> None:
    gradients = np.random.default_rng(0).normal(size=EPOCHS * STEPS)
    changes = dict(name="adam", schedule="linear", warmup_epochs=1.5, momentum=0.7, learning_rate=0.01)
    made = optimizers.create(table(**changes), EPOCHS, STEPS)
    weight, first, second, expected = 1.0, 0.0, 0.0, []
    for step, (rate, gradient) in enumerate(zip(rates(0.01), gradients, strict=True), 1):
        first = 0.7 * first + 0.3 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight -= rate * (first / (1 - 0.7**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-7)
        expected.append(weight)
    np.testing.assert_allclose(walk(made, gradients), expected, atol=1e-5)


def test_the_rate_drops_at_the_epochs_of_the_config() -> None:
    made = optimizers.create(table(schedule="steps", warmup_epochs=0.0, step_epochs=(1, 2.5)), EPOCHS, STEPS)
    schedule = made._learning_rate
    found = [float(schedule(step)) for step in range(EPOCHS * STEPS)]
    np.testing.assert_allclose(found, [0.1] * 3 + [0.01] * 5 + [0.001] * 4, rtol=1e-6)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": "lion"}, "config.optimizer.name is 'lion'; it is one of sgd, adam"),
    "schedule": ({"schedule": "wave"}, "config.optimizer.schedule is 'wave'; it is one of cosine, linear, steps"),
    "rate": ({"learning_rate": float("nan")}, "config.optimizer.learning_rate is nan; it is above 0"),
    "infinite rate": ({"learning_rate": float("inf")}, "config.optimizer.learning_rate is inf"),
    "momentum": ({"momentum": 1.0}, "config.optimizer.momentum is 1.0; it is in [0, 1)"),
    "average": ({"average_decay": -0.5}, "config.optimizer.average_decay is -0.5"),
    "decay": ({"weight_decay": -1.0}, "config.optimizer.weight_decay is -1.0; it is 0 or more"),
    "clip": ({"clip_norm": -1.0}, "config.optimizer.clip_norm is -1.0; it is 0 or more"),
    "warm-up": ({"warmup_epochs": 30.0}, "config.optimizer.warmup_epochs is 30.0; it is 0 or more and below"),
    "order": ({"step_epochs": (2, 2)}, "config.optimizer.step_epochs is (2, 2); it is a list of rising numbers"),
    "no numbers": ({"step_epochs": ("a",)}, "config.optimizer.step_epochs is ('a',); it is a list of numbers"),
    "no drops": ({"schedule": "steps"}, "config.optimizer.step_epochs is (); it is where the rate drops"),
    "factor": ({"step_factor": 0.0}, "config.optimizer.step_factor is 0.0; it is in (0, 1]"),
}


@pytest.mark.parametrize(("changes", "sentence"), BAD.values(), ids=BAD.keys())
def test_what_is_out_of_range_is_named(changes: dict[str, Any], sentence: str) -> None:
    config = defaults.get_config()
    optimizers.check(config)
    config.optimizer.update(changes)
    with pytest.raises(UserError) as caught:
        optimizers.check(config)
    assert sentence in str(caught.value)


def test_an_unknown_precision_is_named() -> None:
    config = defaults.get_config()
    config.precision = "float16"
    with pytest.raises(UserError, match="config.precision is 'float16'; it is one of float32, mixed_float16"):
        optimizers.check(config)
