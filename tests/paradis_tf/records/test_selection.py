"""The best epoch: by hand-made metrics, and in runs that are killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from ml_collections import ConfigDict

from fusion.base.program import UserError
from paradis_tf import models
from paradis_tf.methods import Paradis
from paradis_tf.records.recording import RunRecorder
from paradis_tf.records.selection import best_first, finished_network
from paradis_tf.records.training_progress import Speed
from paradis_tf.records.workdir import Workdir
from paradis_tf.supernet import Supernet

# Means over the switches: 0.5, 0.7, 0.7, 0.6.
SCORES = {1: (0.5, 0.5), 2: (0.6, 0.8), 3: (0.9, 0.5), 4: (0.6, 0.6)}


def row(epoch: int, wide: float, split: float) -> dict[str, float]:
    noise = {"accuracy/1.0": 1.0 - epoch / 10, "val_loss/1.0": 9.0 * epoch}
    return {"epoch": epoch, **noise, "val_accuracy/1.0": wide, "val_accuracy/0.5+0.5": split}


def test_the_highest_mean_and_of_equals_the_later() -> None:
    rows = [row(epoch, *scores) for epoch, scores in SCORES.items()]
    assert best_first(rows, "accuracy", range(1, 5)) == [3, 2, 4, 1]
    assert best_first(rows, "accuracy", {1, 2, 4}) == [2, 4, 1]
    rows.append(row(5, float("nan"), 1.0))
    assert best_first(rows, "accuracy", range(1, 6)) == [3, 2, 4, 1, 5]
    assert best_first(rows, "psnr", range(1, 6)) == [5, 4, 3, 2, 1]
    assert best_first([], "accuracy", range(1, 6)) == []


class Run:
    """A run whose epochs set the bias to the epoch's number instead of training."""

    def __init__(self, workdir: Workdir, model: Supernet) -> None:
        self.workdir, self.model = workdir, model

    def epochs(self, first: int, last: int) -> None:
        speed = Speed(8)
        recorder = RunRecorder(self.workdir, speed, "best")
        self.workdir.metrics.truncate(first - 1)
        for callback in (speed, recorder):
            callback.set_model(self.model)
        for epoch in range(first - 1, last):
            for callback in (speed, recorder):
                callback.on_epoch_begin(epoch)
            self.model.shared_layers[-1].bias.assign(np.full(5, epoch + 1.0))
            logs = row(epoch + 1, *SCORES[epoch + 1])
            del logs["epoch"]
            for callback in (speed, recorder):
                callback.on_epoch_end(epoch, logs)

    def check(self, file: Path, kept: Supernet) -> None:
        if kept.switches != self.model.switches:
            raise UserError("other switches")

    def finished_bias(self, keep: str) -> float:
        network = finished_network(self.workdir, self.model, keep, self.check)
        return float(network.shared_layers[-1].bias.numpy()[0])

    def checkpoints(self) -> list[int]:
        return sorted(self.workdir.checkpoint_files())


@pytest.fixture
def run(tmp_path: Path, tiny_net: Callable[..., Supernet], monkeypatch: pytest.MonkeyPatch) -> Run:
    model = tiny_net(("1.0", "0.5+0.5"))
    monkeypatch.setitem(models.ARCHITECTURES, "tiny", type(model.architecture))
    model.compile(keras.optimizers.SGD(0.1), method=Paradis())
    return Run(Workdir.create(tmp_path / "run", ConfigDict({"epochs": 4})), model)


def test_the_best_epochs_checkpoint_stays_and_becomes_the_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, 1, (1.0, 1.0))
    run.epochs(1, 4)
    assert run.checkpoints() == [1, 3, 4]
    assert run.finished_bias("best") == 1
    assert run.finished_bias("last") == 4
    (run.workdir.checkpoints / "epoch_0001.keras").write_bytes(b"damaged")
    assert run.finished_bias("best") == 3


def test_a_checkpoint_of_another_network_is_passed_over(
    run: Run, tiny_net: Callable[..., Supernet], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SCORES, 1, (1.0, 1.0))
    run.epochs(1, 4)
    tiny_net(("1.0",)).save(run.workdir.checkpoints / "epoch_0001.keras")
    assert run.finished_bias("best") == 3
    assert "epoch_0001.keras: other switches" in capsys.readouterr().out


def test_a_better_epoch_takes_its_place(run: Run) -> None:
    run.epochs(1, 2)
    assert run.checkpoints() == [1, 2]
    run.epochs(3, 4)
    assert run.checkpoints() == [3, 4]
    assert run.finished_bias("best") == 3


def test_a_kill_between_row_and_checkpoint_costs_no_best(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, 1, (0.8, 0.8))
    monkeypatch.setitem(SCORES, 4, (1.0, 1.0))
    run.epochs(1, 3)

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Workdir, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            run.epochs(4, 4)
    # The row of an epoch that was better than all, and is gone.
    assert len(run.workdir.metrics.rows()) == 4
    done, _ = run.workdir.restore()
    assert done == 3
    monkeypatch.setitem(SCORES, 4, (0.1, 0.1))
    run.epochs(4, 4)
    assert run.checkpoints() == [1, 3, 4]
    assert run.finished_bias("best") == 1
