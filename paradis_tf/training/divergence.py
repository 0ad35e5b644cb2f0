"""Finds the step and the path at which training diverged, without slowing the steps."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fusion.base.program import UserError

_CHECK_EVERY = 50


class FirstNonFinite(keras.metrics.Metric):
    """Where a loss was first not finite: kept on the device, so that a step waits for nothing.

    `result()` is (steps counted, step, path), int64: the step, from 1, and the index of the path of the first loss
    that was NaN or infinite; both -1 while there was none.
    """

    def __init__(self, name: str = "first_non_finite") -> None:
        super().__init__(name=name)
        self.first = self.add_variable(
            (3,), lambda shape, dtype: tf.constant([0, -1, -1], dtype), "int64", "only_first_replica", "first"
        )

    def update_state(self, losses: Any, paths: Any) -> None:
        """Counts a step.

        Args:
          losses: float vector, one for each pass in order.
          paths: int vector of the same length, the index of each pass's path.
        """
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            # A sum is finite only if its terms are.
            losses = context.all_reduce("sum", losses)
        broken = tf.logical_not(tf.math.is_finite(losses))
        step, known = self.first[0] + 1, self.first[1:]
        here = tf.stack([step, tf.cast(tf.gather(paths, tf.argmax(broken)), "int64")])
        begins = tf.logical_and(known[0] < 0, tf.reduce_any(broken))
        self.first.assign(tf.concat([[step], tf.where(begins, here, known)], axis=0))

    def result(self) -> Any:
        return keras.ops.convert_to_tensor(self.first)

    def reset_state(self) -> None:
        self.first.assign([0, -1, -1])


class DivergenceCheck(keras.callbacks.Callback):
    """Stops the training of a `Supernet` within 50 steps of a loss that is not finite.

    Raises:
      UserError: names epoch, step and path.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.model.first_non_finite.reset_state()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (batch + 1) % _CHECK_EVERY == 0:
            self._check()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check()

    def _check(self) -> None:
        _, step, index = (int(value) for value in keras.ops.convert_to_numpy(self.model.first_non_finite.result()))
        if step >= 0:
            raise UserError(
                f"training has diverged: the loss of {self.model.paths[index].title} was not finite in step {step} "
                f"of epoch {self.epoch + 1}. The epochs before are kept; lower optimizer.learning_rate or set "
                "optimizer.clip_norm, in a new workdir."
            )
