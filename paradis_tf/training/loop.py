"""The training loop, one for a single device, several devices and several machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from paradis_tf.distribution.groups import Group
from paradis_tf.methods.passes import Joint, Pass
from paradis_tf.training.step import TrainableSupernet


def fit(
    model: TrainableSupernet,
    group: Group,
    batches: tf.data.Dataset,
    validation: tf.data.Dataset,
    *,
    steps: int,
    validation_steps: int,
    first_epoch: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains as `keras.Model.fit` does, on all replicas of a group; every worker calls it.

    `fit` itself fails across machines (Keras 3.15), and a loop of its own for each kind of training would let their
    results drift apart. Metrics in the logs of an epoch are those of the global batches; the logs of a step hold the
    first local replica's, as tensors, so that nobody has to wait for a step who does not look.

    Args:
      model: compiled under the group's strategy.
      group: the replicas.
      batches: this worker's part of the training batches, from `first_epoch` on and up to the last epoch's end.
      validation: this worker's part of the validation images.
      steps: batches per epoch.
      validation_steps: batches of this worker's validation part.
      first_epoch: number of the first epoch, from 0.
      epochs: number after the last one.
      callbacks: Keras callbacks, of this worker; `model.stop_training` counts on the chief.
    """
    train_step = _training_function(model, group)
    test_step = _function(group, model.test_step)
    train_iterator = group.iterator(batches)
    validation_iterator = group.iterator(validation.repeat(epochs - first_epoch))
    all_callbacks = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=epochs, steps=steps)
    model.stop_training = False
    all_callbacks.on_train_begin()
    logs: dict[str, float] = {}
    for epoch in range(first_epoch, epochs):
        model.reset_metrics()
        all_callbacks.on_epoch_begin(epoch)
        for step in range(steps):
            all_callbacks.on_train_batch_begin(step)
            all_callbacks.on_train_batch_end(step, train_step(train_iterator))
        logs = _results(model)
        model.reset_metrics()
        all_callbacks.on_test_begin()
        for step in range(validation_steps):
            all_callbacks.on_test_batch_begin(step)
            all_callbacks.on_test_batch_end(step, test_step(validation_iterator))
        found = _results(model)
        all_callbacks.on_test_end(found)
        logs = {**logs, **{f"val_{name}": value for name, value in found.items()}}
        all_callbacks.on_epoch_end(epoch, logs)
        if group.from_chief([np.array(bool(model.stop_training))])[0]:
            break
    all_callbacks.on_train_end(logs)


def _results(model: TrainableSupernet) -> dict[str, float]:
    # Read outside of a replica a metric is the sum over the replicas, so all workers read the same ones in this order.
    return {metric.name: float(metric.result()) for metric in model.metrics}


def _function(group: Group, step: Callable[..., dict[str, tf.Tensor]], **options: Any) -> Callable[[Any], Any]:
    strategy = group.strategy

    @tf.function(autograph=False)
    def run(iterator: Any) -> dict[str, tf.Tensor]:
        logs = strategy.run(step, args=(next(iterator),), kwargs=options)
        return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

    return run


def _training_function(model: TrainableSupernet, group: Group) -> Callable[[Any], Any]:
    if group.replicas == 1 or not model.draws:
        return _function(group, model.train_step)
    # Replicas cannot exchange anything within a branch, so the passes are drawn here, and each choice of them is traced
    # when it comes up first.
    functions: dict[tuple[Pass | Joint, ...], Callable[[Any], Any]] = {}

    def run(iterator: Any) -> dict[str, tf.Tensor]:
        entries = model.drawn_entries()
        if entries not in functions:
            functions[entries] = _function(group, model.train_step, entries=entries)
        return functions[entries](iterator)

    return run
