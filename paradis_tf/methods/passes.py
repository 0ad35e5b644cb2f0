"""A pass: one switch run once in a training step, and what it learns from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import keras

from paradis_tf.switches import Switch
from paradis_tf.tasks.task import Task

if TYPE_CHECKING:
    from paradis_tf.supernet import Supernet

Source = Literal["in_place", "average", "fixed"]
SOURCES: tuple[Source, ...] = ("in_place", "average", "fixed")


@dataclass(frozen=True)
class Teacher:
    """A switch whose detached outputs others learn from.

    Attributes:
      switch: the switch to run.
      source: whose weights it runs on: `in_place`, those being trained, as an earlier pass of the same step left its
        outputs; `average`, the moving average of the weights, without a pass of its own; `fixed`, another trained
        network of the same architecture (`Method.fixed_teacher`).
    """

    switch: Switch
    source: Source = "in_place"


@dataclass(frozen=True)
class Pass:
    """One switch run once, with one loss: the weighted sum of what it learns from.

    Attributes:
      switch: the switch to run.
      teacher: whose outputs it learns from; `None` for hard labels alone.
      hard_weight: weight of the loss against the true targets, 0 or more.
      soft_weight: weight of the loss against the teacher's prediction, 0 or more.
      feature_weight: weight of the mean-squared error to the teacher's features, 0 or more.
      temperature: softens both sides of the loss against the teacher's prediction, above 0.
      factor: what the whole loss is multiplied by in the first step of a training and, changing linearly, after the
        last one; above 0, and 0 or more.
    """

    switch: Switch
    teacher: Teacher | None = None
    hard_weight: float = 1.0
    soft_weight: float = 0.0
    feature_weight: float = 0.0
    temperature: float = 1.0
    factor: tuple[float, float] = (1.0, 1.0)

    def loss(self, task: Task, targets: Any, outputs: Mapping[str, Any], taught: Mapping[str, Any] | None) -> Any:
        """The mean loss over the batch, before `factor`, a float32 scalar.

        Args:
          task: gives the loss against targets and against a teacher's prediction.
          targets: the true targets of the batch, as the task takes them.
          outputs: this pass's `prediction` and `features` (batch, ..., channels).
          taught: the teacher's outputs, detached; its features may have more channels than the switch owns,
            then the first ones are compared, which are the same channels.

        Source: in-place distillation of US-Nets (Yu & Huang 2019, section 3.3); the feature term is the mean over
        channels and batch, a reconstruction of ParaDiS.

        Raises:
          ValueError: the pass has a teacher and its outputs are not given.
        """
        total = 0.0
        if self.hard_weight:
            total += self.hard_weight * task.loss(targets, outputs["prediction"])
        if self.teacher is None:
            return total
        if taught is None:
            raise ValueError(
                f"switch '{self.switch}' learns from '{self.teacher.switch}', which has not run before it."
            )
        if self.soft_weight:
            soft = task.distillation_loss(outputs["prediction"], taught["prediction"], self.temperature)
            total += self.soft_weight * soft
        if self.feature_weight:
            features = keras.ops.cast(outputs["features"], "float32")
            wanted = keras.ops.cast(taught["features"], "float32")[..., : features.shape[-1]]
            total += self.feature_weight * keras.ops.mean(keras.ops.square(features - wanted))
        return total


@dataclass(frozen=True)
class Draw:
    """One of several passes, drawn anew in each step, each as likely as the others.

    Attributes:
      passes: the passes to draw from, at least one.
    """

    passes: tuple[Pass, ...]


class Method(ABC):
    """A training method. Subclasses are registered Keras serializables, and every option has a default.

    Attributes:
      recalibrates: whether the statistics of batch norm are recomputed after training (post-statistics).
    """

    recalibrates: bool = False

    @abstractmethod
    def passes(self, switches: Sequence[Switch], widest: Switch) -> tuple[Pass | Draw, ...]:
        """The passes of one step, in order; a teacher comes before those it teaches.

        Args:
          switches: the supernet's switches.
          widest: the one that owns most channels on fewest devices.

        Raises:
          UserError: switches that the method cannot train.
        """

    def fixed_teacher(self) -> Supernet | None:
        """The trained network behind teachers whose source is `fixed`; `None` if the method has no such teacher.

        Raises:
          UserError: it cannot be loaded.
        """
        return None

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The options that make it again."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Method:
        return cls(**config)
