"""The run's metrics as event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.records.workdir import Workdir

# Of the metrics' columns those that are no curve.
_LEFT_OUT = ("epoch", "seconds")
_VALIDATION = "val_"


class EventWriter(keras.callbacks.Callback):
    """Writes `tensorboard/train` and `tensorboard/validation` of a run's folder, a point per epoch.

    Both use the same tags, such as `accuracy/0.5+0.5`, so that TensorBoard draws training and validation in one chart;
    `learning_rate` and `images_per_second` are in `train`. What is written is the run's metrics: a training that starts
    writes the rows of the epochs before it anew, so no epoch is there twice, however the earlier ones ended.

    Args:
      workdir: the run's folder; its rows are written before this callback is called.

    Raises:
      UserError: a file that cannot be written.
    """

    def __init__(self, workdir: Workdir) -> None:
        super().__init__()
        self.workdir = workdir

    def on_train_begin(self, logs: Any = None) -> None:
        folder = self.workdir.path / "tensorboard"
        try:
            for part in ("train", "validation"):
                for file in (folder / part).glob("events.out.tfevents.*"):
                    file.unlink()
            self.writers = {part: _writer(folder / part) for part in ("train", "validation")}
            for row in self.workdir.metrics.rows():
                self._write(row)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(f"{folder} cannot be written: {getattr(error, 'message', error)}.") from None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        try:
            self._write(self.workdir.metrics.rows()[-1])
        except tf.errors.OpError as error:
            raise UserError(f"{self.workdir.path / 'tensorboard'} cannot be written: {error.message}.") from None

    def on_train_end(self, logs: Any = None) -> None:
        for writer in self.writers.values():
            writer.close()

    def _write(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name not in _LEFT_OUT:
                part = "validation" if name.startswith(_VALIDATION) else "train"
                with self.writers[part].as_default():
                    tf.summary.write(
                        name.removeprefix(_VALIDATION),
                        tf.constant(value, tf.float32),
                        step=int(row["epoch"]),
                        # Makes it a scalar's curve; what tf.summary.scalar does, which needs the tensorboard package.
                        metadata=tf.compat.v1.SummaryMetadata(
                            plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
                        ),
                    )
        for writer in self.writers.values():
            writer.flush()


def _writer(folder: Path) -> tf.summary.SummaryWriter:
    return tf.summary.create_file_writer(str(folder))
