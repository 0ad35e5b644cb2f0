"""The losses of classification, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.base.program import UserError
from paradis_tf import tasks

RNG = np.random.default_rng(2)
LABELS = np.array([0, 2, 1, 2])
LOGITS = RNG.normal(size=(4, 3)).astype(np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_spreads_the_label(smoothing: float) -> None:
    wanted = np.eye(3)[LABELS] * (1 - smoothing) + smoothing / 3
    log_probabilities = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    expected = -(wanted * log_probabilities).sum(axis=1).mean()
    found = tasks.create("classification", label_smoothing=smoothing).loss(LABELS, LOGITS)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_metric_is_top_1() -> None:
    metric = tasks.create("classification").new_metric("accuracy/1.0")
    metric.update_state(LABELS, np.eye(3, dtype=np.float32)[[0, 2, 2, 2]])
    assert metric.name == "accuracy/1.0"
    assert float(metric.result()) == 0.75


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match="label_smoothing is 1; it lies in"):
        tasks.create("classification", label_smoothing=1)
    with pytest.raises(UserError, match="'smooth'; it has label_smoothing"):
        tasks.create("classification", smooth=1)
    with pytest.raises(UserError, match="task 'detection' is unknown; known are classification, super_resolution"):
        tasks.create("detection")
