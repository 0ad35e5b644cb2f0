"""Losses and metric of super-resolution, against NumPy."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf import tasks
from paradis_tf.tasks.image_quality import luma, psnr, to_8_bits

RNG = np.random.default_rng(2)
TRUTH = RNG.integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
FOUND = (TRUTH + RNG.normal(0, [[[[3]]], [[[9]]], [[[40]]]], TRUTH.shape)).astype(np.float32)


def test_the_loss_is_the_mean_absolute_error_over_the_range() -> None:
    expected = np.abs(TRUTH.astype(np.float64) - FOUND).mean() / 255
    task = tasks.create("super_resolution")
    assert float(task.loss(TRUTH, FOUND)) == pytest.approx(expected, rel=1e-5)
    assert float(task.distillation_loss(FOUND, TRUTH.astype(np.float32), 4.0)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("border", [0, 2, 4])
def test_the_metric_is_the_mean_over_images_of_the_psnr_of_y(border: int) -> None:
    metric = tasks.create("super_resolution", border=border).new_metric("psnr_y/1.0")
    metric.update_state(TRUTH[:2], FOUND[:2])
    metric.update_state(TRUTH[2:], FOUND[2:])
    expected = [psnr(luma(truth), luma(to_8_bits(found)), border) for truth, found in zip(TRUTH, FOUND, strict=True)]
    assert max(expected) - min(expected) > 15
    assert metric.name == "psnr_y/1.0"
    assert float(metric.result()) == pytest.approx(np.mean(expected), abs=1e-3)


def test_equal_images_have_100_db_and_no_infinity() -> None:
    metric = tasks.create("super_resolution").new_metric("psnr_y")
    metric.update_state(TRUTH, TRUTH.astype(np.float32) + 0.3)
    assert float(metric.result()) == pytest.approx(100, abs=1e-3)


def test_no_gradient_flows_into_a_detached_teacher() -> None:
    student, teacher = tf.Variable(FOUND), tf.Variable(TRUTH.astype(np.float32))
    with tf.GradientTape() as tape:
        loss = tasks.create("super_resolution").distillation_loss(student, tf.stop_gradient(teacher))
    gradients = tape.gradient(loss, [student, teacher])
    assert gradients[1] is None
    assert np.abs(gradients[0]).max() == pytest.approx(1 / 255 / FOUND.size)


def test_the_metric_is_saved_with_its_border() -> None:
    metric = tasks.create("super_resolution", border=3).new_metric("psnr_y/1.0")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(metric)))
    again = keras.saving.deserialize_keras_object(config)
    assert (again.border, again.name) == (3, "psnr_y/1.0")


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match="super_resolution: border is -1"):
        tasks.create("super_resolution", border=-1)
    with pytest.raises(UserError, match="'label_smoothing'; it has border"):
        tasks.create("super_resolution", label_smoothing=0.1)
