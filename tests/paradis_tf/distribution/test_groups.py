"""Whether a checkpoint can be gone on with."""

from __future__ import annotations

from collections.abc import Callable

import keras

from paradis_tf.distribution.groups import fits
from paradis_tf.methods import Individual
from paradis_tf.supernet import Supernet


def test_a_second_optimizer_of_a_process_fits_the_first_one(tiny_net: Callable[..., Supernet]) -> None:
    models = [tiny_net(("1.0",)) for _ in range(3)]
    optimizers = (keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1), keras.optimizers.Adam(0.1))
    for model, optimizer in zip(models, optimizers, strict=True):
        model.compile(optimizer, method=Individual())
    one, other, adam = models
    # Keras names what a process makes apart.
    assert one.optimizer.name != other.optimizer.name
    assert fits(one, other)
    assert not fits(one, adam)
