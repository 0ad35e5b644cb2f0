"""The optimizer of a config, and the checks of what a config says about the optimization."""

from __future__ import annotations

from typing import Any

import keras

from fusion.base.program import UserError
from paradis_tf.training.schedules import SCHEDULES, WarmupSchedule

OPTIMIZERS = ("sgd", "adam")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")

_INFINITY = float("inf")


def check(config: Any) -> None:
    """Raises UserError, naming the key, for a value of `precision` or of the table `optimizer` that is not legal."""
    table = config["optimizer"]
    epochs = config["epochs"]
    drops = [0.0, *table["step_epochs"]]
    if not all(isinstance(drop, int | float) for drop in drops):
        raise UserError(f"config.optimizer.step_epochs is {table['step_epochs']!r}; it is a list of numbers.")
    for key, legal, good in (
        ("name", f"one of {', '.join(OPTIMIZERS)}", table["name"] in OPTIMIZERS),
        ("schedule", f"one of {', '.join(SCHEDULES)}", table["schedule"] in SCHEDULES),
        ("learning_rate", "above 0", 0 < table["learning_rate"] < _INFINITY),
        ("momentum", "in [0, 1)", 0 <= table["momentum"] < 1),
        ("average_decay", "in [0, 1)", 0 <= table["average_decay"] < 1),
        ("weight_decay", "0 or more", 0 <= table["weight_decay"] < _INFINITY),
        ("clip_norm", "0 or more", 0 <= table["clip_norm"] < _INFINITY),
        (
            "warmup_epochs",
            f"0 or more and below config.epochs, {epochs} (--config.optimizer.warmup_epochs=0 for none)",
            0 <= table["warmup_epochs"] < max(1, epochs),
        ),
        (
            "step_epochs",
            "a list of rising numbers above 0",
            all(before < after < _INFINITY for before, after in zip(drops, drops[1:], strict=False)),
        ),
        (
            "step_epochs",
            "where the rate drops, at least one number for schedule 'steps'",
            table["schedule"] != "steps" or len(drops) > 1,
        ),
        ("step_factor", "in (0, 1]", 0 < table["step_factor"] <= 1),
    ):
        if not good:
            raise UserError(f"config.optimizer.{key} is {table[key]!r}; it is {legal}.")
    if config["precision"] not in PRECISIONS:
        raise UserError(f"config.precision is {config['precision']!r}; it is one of {', '.join(PRECISIONS)}.")


def create(table: Any, epochs: int, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer of the table `optimizer` of a checked config, with its schedule.

    Args:
      table: the table; `momentum` is the momentum of SGD, in Nesterov's form, and the first beta of Adam.
      epochs: epochs of the whole training.
      steps_per_epoch: optimizer steps of an epoch.

    Source: SGD as in Yu et al. 2019; Adam from Kingma & Ba 2015, with Keras' other values.
    """
    total = epochs * steps_per_epoch
    schedule = WarmupSchedule(
        table["schedule"],
        table["learning_rate"],
        total,
        min(round(table["warmup_epochs"] * steps_per_epoch), total - 1),
        [round(epoch * steps_per_epoch) for epoch in table["step_epochs"]],
        table["step_factor"],
    )
    momentum = table["momentum"]
    if table["name"] == "adam":
        return keras.optimizers.Adam(schedule, beta_1=momentum)
    return keras.optimizers.SGD(schedule, momentum=momentum, nesterov=momentum > 0)
