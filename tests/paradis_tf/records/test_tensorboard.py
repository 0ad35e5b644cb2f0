"""Event files, read without TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from fusion.base.program import UserError
from paradis_tf.records.tensorboard import EventWriter
from paradis_tf.records.workdir import Workdir


def points(folder: Path) -> dict[tuple[str, int], list[float]]:
    """Values by (tag, step)."""
    found: dict[tuple[str, int], list[float]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found.setdefault((value.tag, event.step), []).append(float(tf.make_ndarray(value.tensor)))
    return found


def row(epoch: int) -> dict[str, float]:
    return {
        "epoch": epoch,
        "seconds": 3.5,
        "images_per_second": 100.0,
        "learning_rate": 0.5 / epoch,
        "accuracy/0.5+0.5": 0.25 * epoch,
        "val_accuracy/0.5+0.5": 0.125 * epoch,
    }


def train(workdir: Workdir, first: int, last: int, end: bool = True) -> None:
    workdir.metrics.truncate(first - 1)
    writer = EventWriter(workdir)
    writer.on_train_begin()
    for epoch in range(first, last + 1):
        workdir.metrics.append(row(epoch))
        writer.on_epoch_end(epoch - 1)
    if end:
        writer.on_train_end()


def test_every_epoch_is_there_once_however_often_it_was_begun(tmp_path: Path) -> None:
    workdir = Workdir.create(tmp_path / "run", ConfigDict({"epochs": 4}))
    # Killed after the third epoch's row, before its checkpoint.
    train(workdir, 1, 3, end=False)
    (workdir.path / "tensorboard" / "train" / "notes.txt").write_text("mine")
    train(workdir, 3, 4)
    epochs = range(1, 5)
    assert points(workdir.path / "tensorboard" / "train") == {
        **{("images_per_second", epoch): [100.0] for epoch in epochs},
        **{("learning_rate", epoch): [pytest.approx(0.5 / epoch)] for epoch in epochs},
        **{("accuracy/0.5+0.5", epoch): [0.25 * epoch] for epoch in epochs},
    }
    assert points(workdir.path / "tensorboard" / "validation") == {
        ("accuracy/0.5+0.5", epoch): [0.125 * epoch] for epoch in epochs
    }
    assert (workdir.path / "tensorboard" / "train" / "notes.txt").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    workdir = Workdir.create(tmp_path / "run", ConfigDict({"epochs": 4}))
    (workdir.path / "tensorboard").write_text("a file")
    with pytest.raises(UserError, match="tensorboard cannot be written"):
        EventWriter(workdir).on_train_begin()
