"""What a training leaves in its run folder after each epoch."""

from __future__ import annotations

import time
from typing import Any

import keras

from fusion.base.program import UserError
from paradis_tf.records.selection import best_first
from paradis_tf.records.training_progress import Speed
from paradis_tf.records.workdir import Workdir

# The columns of an epoch's row that are no metrics.
_MEASURED = ("epoch", "seconds", "images_per_second", "learning_rate")


class RunRecorder(keras.callbacks.Callback):
    """Appends each epoch's row to the run's metrics, then writes its checkpoint.

    In this order a process that dies between the two repeats the epoch and rewrites its row.

    Args:
      workdir: the run's folder.
      speed: the images per second; it comes before this one in the list of callbacks.
      keep: "best" if the best epoch's checkpoint is to stay, or "last".

    Raises:
      UserError: before the first epoch, the run's rows have other columns; or a weight is not finite, and the epoch
        leaves nothing then.
    """

    def __init__(self, workdir: Workdir, speed: Speed, keep: str) -> None:
        super().__init__()
        self.workdir = workdir
        self.speed = speed
        self.keep = keep

    def on_train_begin(self, logs: Any = None) -> None:
        names = [metric.name for metric in self.model.metrics]
        self.workdir.metrics.check((*_MEASURED, *names, *(f"val_{name}" for name in names)))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        done = epoch + 1
        broken = self.model.first_weight_not_finite()
        if broken:
            raise UserError(
                f"training has diverged: weight {broken} is not finite after epoch {done}. The epochs before are "
                "kept; lower optimizer.learning_rate or set optimizer.clip_norm, in a new workdir."
            )
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        seconds = round(time.monotonic() - self.started, 3)
        measured = (done, seconds, round(self.speed.images_per_second, 1), rate)
        row = dict(zip(_MEASURED, measured, strict=True))
        self.workdir.metrics.append({**row, **{name: float(value) for name, value in (logs or {}).items()}})
        kept = None
        if self.keep == "best":
            checkpoints = {done, *self.workdir.checkpoint_files()}
            kept = best_first(self.workdir.metrics.rows(), self.model.task.metric, checkpoints)[0]
        self.workdir.save_checkpoint(self.model, done, kept)
