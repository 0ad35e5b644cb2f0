"""The loss of a pass, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from paradis_tf import tasks
from paradis_tf.methods.passes import Features, HardLabels, Pass, SoftLabels, Teacher, distillation
from paradis_tf.switches import Switch

WIDE, SPLIT, HALF = Switch.parse("1.0"), Switch.parse("4x0.25"), Switch.parse("0.5")
RNG = np.random.default_rng(1)
LABELS = RNG.integers(0, 3, 6)
STUDENT = {"prediction": RNG.normal(size=(6, 3)), "features": RNG.normal(size=(6, 8))}
TAUGHT = {"prediction": RNG.normal(size=(6, 3)), "features": RNG.normal(size=(6, 8))}
TASK = tasks.create("classification")


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def test_hard_labels() -> None:
    expected = -log_softmax(STUDENT["prediction"])[np.arange(6), LABELS].mean()
    assert float(Pass(WIDE).loss(TASK, LABELS, STUDENT, {})) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("hard", "soft", "feature", "temperature"), [(0, 1, 0, 1), (0.5, 2, 0.5, 1), (1, 1, 10, 4), (0, 0, 1, 1)]
)
def test_the_weighted_terms_add_up(hard: float, soft: float, feature: float, temperature: float) -> None:
    target = np.exp(log_softmax(TAUGHT["prediction"] / temperature))
    cross = -(target * log_softmax(STUDENT["prediction"] / temperature)).sum(axis=1).mean() * temperature**2
    expected = soft * cross + feature * ((STUDENT["features"] - TAUGHT["features"]) ** 2).mean()
    expected -= hard * log_softmax(STUDENT["prediction"])[np.arange(6), LABELS].mean()
    one = Pass(SPLIT, distillation(Teacher(WIDE), hard, soft, feature, temperature))
    assert float(one.loss(TASK, LABELS, STUDENT, {Teacher(WIDE): TAUGHT})) == pytest.approx(expected, rel=1e-5)


def test_a_narrower_switch_compares_the_channels_it_owns() -> None:
    narrow = {"prediction": STUDENT["prediction"], "features": STUDENT["features"][:, :4]}
    expected = ((narrow["features"] - TAUGHT["features"][:, :4]) ** 2).mean()
    one = Pass(HALF, (Features(1.0, Teacher(WIDE)),))
    assert float(one.loss(TASK, LABELS, narrow, {Teacher(WIDE): TAUGHT})) == pytest.approx(expected, rel=1e-4)


def test_a_teacher_that_has_not_run_is_named() -> None:
    with pytest.raises(ValueError, match="'4x0.25' learns from '1.0', which has not run"):
        Pass(SPLIT, (HardLabels(), SoftLabels(1.0, Teacher(WIDE)))).loss(TASK, LABELS, STUDENT, {})
