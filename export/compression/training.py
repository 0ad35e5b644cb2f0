"""Trains the slices of a switch together, by what the float network makes of the same images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from export.compression.settings import Compression
from fusion.base.program import UserError
from paradis_tf.base.progress import duration
from paradis_tf.operations.pixels import PIXEL_OFFSET, PIXEL_SCALE
from paradis_tf.tasks.task import Task

_REPORT_EVERY_S = 10.0
# A reported loss is the mean over so many steps.
_MEAN_OVER = 20


def train(
    students: Sequence[Any],
    teachers: Sequence[Any],
    task: Task,
    compression: Compression,
    images: np.ndarray,
    stage: str,
    what: str,
    report: Callable[[str], None],
) -> list[float]:
    """Trains slice models until their sum is that of the float ones.

    The loss is, of classification, the Kullback-Leibler divergence of the softmax of the summed logits from the
    teachers'; of super-resolution, the mean absolute difference of the summed residual maps, in units of 128 pixel
    values. Adam trains all slices at once; the fused output is what a user gets, so one slice may make up for another.

    Args:
      students: a model for each device, float32 images in [-1, 1) -> partial prediction; their weights are changed.
      teachers: the float models, in any order.
      task: of the network.
      compression: steps, batch size, learning rate of the stage, and seed.
      images: uint8 (n, height, width, 3), n at least 1.
      stage: of `compression.stages`.
      what: what is trained, for reports and errors.
      report: is told how far the training is, every ten seconds and at the end.

    Returns:
      the loss of each step.

    Raises:
      UserError: a loss that is not finite; names what is trained, stage and step.

    Source: distillation from Hinton et al. 2015; on the fused output, ours.
    """
    rate = tf_keras.optimizers.schedules.CosineDecay(compression.start_rate(stage), compression.steps)
    step = _training_step(students, teachers, task, rate)
    name = f"{what}, {stage}"
    losses: list[float] = []
    began = last = time.monotonic()
    for batch in batches(images, compression):
        losses.append(float(step(batch)))
        if len(losses) == 1:
            # The first step traces the graph, which says nothing about the others.
            began = last = time.monotonic()
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"{name}: the loss was not finite in step {len(losses)} of {compression.steps}; "
                f"lower the learning rate, {compression.learning_rate:g}."
            )
        now = time.monotonic()
        if now - last >= _REPORT_EVERY_S or len(losses) == compression.steps:
            last = now
            left = (now - began) / max(1, len(losses) - 1) * (compression.steps - len(losses))
            mean = np.mean(losses[-_MEAN_OVER:])
            report(f"{name}: step {len(losses):,}/{compression.steps:,}, loss {mean:.3g}, {duration(left)} left")
    return losses


def _training_step(
    students: Sequence[Any], teachers: Sequence[Any], task: Task, rate: Any
) -> Callable[[np.ndarray], Any]:
    variables = list({v.ref(): v for student in students for v in student.trainable_variables}.values())
    optimizer = tf_keras.optimizers.Adam(rate)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(batch: tf.Tensor) -> tf.Tensor:
        image = tf.cast(batch, tf.float32) * PIXEL_SCALE + PIXEL_OFFSET
        taught = tf.add_n([teacher(image, training=False) for teacher in teachers])
        with tf.GradientTape() as tape:
            prediction = tf.add_n([student(image, training=True) for student in students])
            loss = task.sum_distance(prediction, taught)
        pairs = zip(tape.gradient(loss, variables), variables, strict=True)
        # A kernel that is made of centroids takes no part itself.
        optimizer.apply_gradients([(gradient, variable) for gradient, variable in pairs if gradient is not None])
        return loss

    return step


def batches(images: np.ndarray, compression: Compression) -> Iterator[np.ndarray]:
    """A batch for each step: the images in random order, all of them before any comes again."""
    rng = np.random.default_rng(compression.seed)
    order = np.empty(0, np.int64)
    for _ in range(compression.steps):
        while len(order) < compression.batch_size:
            order = np.concatenate([order, rng.permutation(len(images))])
        chosen, order = np.split(order, [compression.batch_size])
        yield images[chosen]
