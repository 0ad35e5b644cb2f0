"""What a training tells its terminal: one line per epoch, and signs of life in between."""

from __future__ import annotations

import sys
import time
from typing import Any

import keras

from fusion.base.streams import say
from paradis_tf.base.progress import duration

# Seconds between two lines within an epoch: on a terminal one line is written over, elsewhere each stays.
_TERMINAL_EVERY = 0.2
_LOG_EVERY = 60.0


class Speed(keras.callbacks.Callback):
    """Measures the images per second of each epoch's training steps, without validation and tracing.

    Args:
      batch_size: images per step.

    Attributes:
      images_per_second: of the epoch that has ended; NaN for a first epoch of a single step.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.images_per_second = float("nan")
        self._traced = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = self._ended = time.monotonic()
        self._steps = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._ended = time.monotonic()
        if not self._traced:
            # The first step of a process is its tracing.
            self._traced = True
            self._began = self._ended
        else:
            self._steps += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = self._ended - self._began
        self.images_per_second = self._steps * self.batch_size / seconds if seconds else float("nan")


class TrainingProgress(keras.callbacks.Callback):
    """One line per epoch: loss, metric of each switch on the validation part, images per second, time left.

    Within an epoch the step is shown, on a terminal in one line that is written over, elsewhere once a minute.

    Args:
      speed: the images per second; it comes before this one in the list of callbacks.
    """

    def __init__(self, speed: Speed) -> None:
        super().__init__()
        self.speed = speed

    def on_train_begin(self, logs: Any = None) -> None:
        self.first: int | None = None
        self.began = self.printed = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        if self.first is None:
            self.first = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if batch == 0 and self.epoch == self.first:
            # Tracing is over; counting it in would spoil the estimate of the time left.
            say(f"traced in {now - self.began:.0f} s")
            self.began = self.printed = now
        terminal = sys.stdout.isatty()
        # Not at every step: to read the loss is to wait for the device.
        if now - self.printed > (_TERMINAL_EVERY if terminal else _LOG_EVERY):
            self.printed = now
            loss = float((logs or {})["loss"])
            line = f"epoch {self.epoch + 1}: step {batch + 1}/{self.params['steps']}, loss {loss:.4f}"
            say(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = logs or {}
        now = self.printed = time.monotonic()
        epochs = self.params["epochs"]
        left = (now - self.began) / (epoch + 1 - (self.first or 0)) * (epochs - epoch - 1)
        task = self.model.task
        prefix = f"val_{task.metric}/"
        scores = "  ".join(
            f"{path} {task.text(float(logs[prefix + str(path)]))}"
            for path in self.model.paths
            if prefix + str(path) in logs
        )
        line = f"epoch {epoch + 1}/{epochs}  loss {float(logs['loss']):.4f}  validation: {scores}"
        clear = "\r\x1b[K" if sys.stdout.isatty() else ""
        say(f"{clear}{line}  {self.speed.images_per_second:.0f} images/s  {duration(left)} left")


class WorkerProgress(keras.callbacks.Callback):
    """One line per epoch for the terminals of all workers but worker 0, which tells the rest."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        say(f"epoch {epoch + 1}/{self.params['epochs']}  loss {float((logs or {})['loss']):.4f}")
