"""The loop reads what it uses, and nothing beyond it."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.data.pipeline import read_ahead
from paradis_tf.distribution.groups import Group
from paradis_tf.methods import Individual
from paradis_tf.supernet import Supernet
from paradis_tf.training import loop

Batch = tuple[np.ndarray, np.ndarray]


def counted(batch: Batch, batches: int) -> tuple[tf.data.Dataset, tf.Variable]:
    """So many batches that are read ahead, and how many were read."""
    count = tf.Variable(0)
    images, labels = map(tf.constant, batch)

    def read(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([count.assign_add(1)]):
            return tf.identity(images), labels

    return read_ahead(tf.data.Dataset.range(batches).map(read), 4), count


@pytest.mark.parametrize(("first_epoch", "epochs"), [(0, 1), (0, 3), (2, 3), (3, 3)])
def test_nothing_is_read_beyond_the_last_batch(
    tiny_net: Callable[..., Supernet], batch: Batch, first_epoch: int, epochs: int
) -> None:
    model = tiny_net(("1.0",))
    model.compile(keras.optimizers.SGD(0.01), method=Individual())
    left = epochs - first_epoch
    training, trained = counted(batch, 5 * left)
    validation, validated = counted(batch, 2)
    epochs_seen: list[int] = []
    loop.fit(
        model,
        Group(tf.distribute.get_strategy()),
        training,
        validation,
        steps=5,
        validation_steps=2,
        first_epoch=first_epoch,
        epochs=epochs,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs_seen.append(epoch))],
    )
    assert epochs_seen == list(range(first_epoch, epochs))
    assert (int(trained), int(validated)) == (5 * left, 2 * left)


def test_whoever_asks_for_more_gets_an_error(batch: Batch) -> None:
    batches, _ = counted(batch, 2)
    iterator = Group(tf.distribute.get_strategy()).iterator(batches)
    next(iterator), next(iterator)
    with pytest.raises(tf.errors.FailedPreconditionError):
        next(iterator)
