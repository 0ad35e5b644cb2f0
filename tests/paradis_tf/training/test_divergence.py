"""The step and switch of the first loss that is not finite."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.methods import Paradis
from paradis_tf.supernet import Supernet
from paradis_tf.training.divergence import DivergenceCheck, FirstNonFinite


def test_the_first_one_is_kept() -> None:
    watch = FirstNonFinite()
    assert watch.result().numpy().tolist() == [0, -1, -1]
    switches = tf.constant([2, 0, 1])
    losses = [[1, 2, 3], [1, np.inf, 3], [np.nan] * 3, [1, 2, 3]]
    found = []
    for step in losses:
        watch.update_state(tf.constant(step, tf.float32), switches)
        found.append(watch.result().numpy().tolist())
    assert found == [[1, -1, -1], [2, 2, 0], [3, 2, 0], [4, 2, 0]]
    watch.reset_state()
    assert watch.result().numpy().tolist() == [0, -1, -1]


@pytest.mark.parametrize(("broken_step", "stopped_after"), [(1, 50), (51, 60)])
def test_training_stops_soon_and_names_it(
    tiny_net: Callable[..., Supernet], batch: tuple, broken_step: int, stopped_after: int
) -> None:
    """Images of NaN give losses of NaN in every pass; the widest switch's, the second here, comes first."""
    model = tiny_net(("0.5+0.5", "1.0"))
    model.compile(keras.optimizers.SGD(0.01), method=Paradis())
    images, labels = np.repeat(batch[0], 15, axis=0).astype(np.float32), np.repeat(batch[1], 15)
    images[4 * (broken_step - 1)] = np.nan
    done = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: done.append(batch))
    with pytest.raises(UserError, match=rf"loss of switch 1.0 was not finite in step {broken_step} of epoch 4\."):
        model.fit(
            images,
            labels,
            batch_size=4,
            initial_epoch=3,
            epochs=5,
            shuffle=False,
            verbose=0,
            callbacks=[count, DivergenceCheck()],
        )
    assert len(done) == stopped_after
