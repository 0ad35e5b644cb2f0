"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

SCHEDULES = ("cosine", "linear", "steps", "constant")


@keras.saving.register_keras_serializable(package="paradis_tf")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly for the first steps, then follows one of four shapes.

    With w = `warmup_steps`, the rate of step s (from 0) is `learning_rate * (1 + (w - 1) * s / w) / w` below w. From
    there on, with p = (s - w) / (total_steps - w), it is `learning_rate` times: for "cosine" (1 + cos(pi * p)) / 2, for
    "linear" 1 - p, both 0 from `total_steps` on; for "steps" `drop_factor` to the power of how many of `drop_steps` are
    at or below s; for "constant" 1.

    Args:
      shape: one of `SCHEDULES`.
      learning_rate: the highest rate, above 0.
      total_steps: steps of the whole training, at least 1.
      warmup_steps: steps of the rise, 0 to below `total_steps`.
      drop_steps: the steps at which the rate drops, for "steps"; counted from the start of the training.
      drop_factor: what the rate is multiplied by at each drop, in (0, 1].

    Call arguments:
      step: int scalar, steps done so far.

    Returns:
      float32 scalar.

    Raises:
      ValueError: an unknown shape, or steps out of range.

    Source: cosine annealing without restarts from Loshchilov & Hutter 2017, gradual warm-up from Goyal et al. 2017.
    """

    def __init__(
        self,
        shape: str,
        learning_rate: float,
        total_steps: int,
        warmup_steps: int = 0,
        drop_steps: Sequence[int] = (),
        drop_factor: float = 0.1,
    ) -> None:
        if shape not in SCHEDULES:
            raise ValueError(f"shape is {shape!r}; it is one of {', '.join(SCHEDULES)}.")
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"warmup_steps is {warmup_steps!r}; it is 0 to below total_steps, {total_steps!r}.")
        self.shape = shape
        self.learning_rate = learning_rate
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.drop_steps = tuple(drop_steps)
        self.drop_factor = drop_factor

    def __call__(self, step: Any) -> Any:
        ops = keras.ops
        done = ops.cast(step, "float32")
        warmup = self.warmup_steps
        factor = self._shape(done)
        if warmup:
            factor = ops.where(done < warmup, (1.0 + (warmup - 1) * done / warmup) / warmup, factor)
        return self.learning_rate * factor

    def _shape(self, done: Any) -> Any:
        ops = keras.ops
        progress = ops.clip((done - self.warmup_steps) / (self.total_steps - self.warmup_steps), 0.0, 1.0)
        if self.shape == "cosine":
            return 0.5 * (1.0 + ops.cos(math.pi * progress))
        if self.shape == "linear":
            return 1.0 - progress
        factor = ops.ones_like(done)
        if self.shape == "steps":
            for drop in self.drop_steps:
                factor = ops.where(done >= drop, factor * self.drop_factor, factor)
        return factor

    def get_config(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "learning_rate": self.learning_rate,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "drop_steps": list(self.drop_steps),
            "drop_factor": self.drop_factor,
        }
