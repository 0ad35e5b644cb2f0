"""What a training says while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paradis_tf.records import training_progress as module
from paradis_tf.records.training_progress import Speed, TrainingProgress
from paradis_tf.supernet import Supernet

LOGS = {"loss": 2.5, "accuracy/1.0": 0.3, "val_accuracy/1.0": 0.5, "val_accuracy/0.5+0.5": 0.25, "val_loss": 3.0}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_line_an_epoch_and_one_a_minute(
    clock: Clock, tiny_net: Callable[..., Supernet], capsys: pytest.CaptureFixture[str]
) -> None:
    speed = Speed(100)
    progress = TrainingProgress(speed)
    callbacks = (speed, progress)

    def call(name: str, *args: Any) -> None:
        for callback in callbacks:
            getattr(callback, name)(*args)

    for callback in callbacks:
        callback.set_model(tiny_net(("1.0", "0.5+0.5")))
        callback.set_params({"epochs": 4, "steps": 5})
    call("on_train_begin")
    # Resumed after the first epoch: 20 s of tracing, 25 s a step, 30 s of validation.
    for epoch in (1, 2):
        call("on_epoch_begin", epoch)
        for step in range(5):
            clock.now += 20 if (epoch, step) == (1, 0) else 25
            call("on_train_batch_end", step, LOGS)
        clock.now += 30
        call("on_epoch_end", epoch, LOGS)
    assert capsys.readouterr().out.splitlines() == [
        "traced in 20 s",
        "epoch 2: step 4/5, loss 2.5000",
        "epoch 2/4  loss 2.5000  validation: 1.0 50.0 %  0.5+0.5 25.0 %  4 images/s  4:20 left",
        "epoch 3: step 3/5, loss 2.5000",
        "epoch 3/4  loss 2.5000  validation: 1.0 50.0 %  0.5+0.5 25.0 %  4 images/s  2:22 left",
    ]
