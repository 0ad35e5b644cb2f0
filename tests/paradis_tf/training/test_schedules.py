"""The rate of every step, against NumPy in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from paradis_tf.training.schedules import WarmupSchedule

RATE, TOTAL, WARMUP, DROPS, FACTOR = 0.3, 40, 6, (5, 15, 30), 0.2


def expected(shape: str, warmup: int) -> np.ndarray:
    rates = np.zeros(TOTAL + 3)
    for step in range(TOTAL + 3):
        progress = min(1, (step - warmup) / (TOTAL - warmup))
        if step < warmup:
            rates[step] = np.interp(step, [0, warmup], [RATE / warmup, RATE])
        else:
            rates[step] = RATE * {
                "cosine": 0.5 + 0.5 * np.cos(np.pi * progress),
                "linear": 1 - progress,
                "steps": FACTOR ** np.searchsorted(DROPS, step, side="right"),
                "constant": 1,
            }.get(shape, np.nan)
    return rates


@pytest.mark.parametrize("warmup", [0, 1, WARMUP])
@pytest.mark.parametrize("shape", ["cosine", "linear", "steps", "constant"])
def test_every_step_and_after_saving(shape: str, warmup: int) -> None:
    made = WarmupSchedule(shape, RATE, TOTAL, warmup, DROPS, FACTOR)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
    for schedule in (made, again):
        found = np.array([float(schedule(step)) for step in range(TOTAL + 3)])
        np.testing.assert_allclose(found, expected(shape, warmup), rtol=1e-5, atol=1e-7)
    if shape in ("cosine", "linear"):
        assert float(made(TOTAL)) == 0
        assert float(made(TOTAL - 1)) > 0


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="shape is 'square'; it is one of cosine, linear, steps, constant"):
        WarmupSchedule("square", RATE, TOTAL)
    with pytest.raises(ValueError, match="warmup_steps is 40; it is 0 to below total_steps, 40"):
        WarmupSchedule("linear", RATE, TOTAL, TOTAL)
