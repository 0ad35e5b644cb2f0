"""A pass: one path run once in a training step, and what it learns from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import keras

from paradis_tf.cuts import Path
from paradis_tf.tasks.task import Task

if TYPE_CHECKING:
    from paradis_tf.supernet import Supernet

TeacherSource = Literal["in_place", "average", "fixed"]


@dataclass(frozen=True)
class Teacher:
    """A path whose detached outputs others learn from.

    Attributes:
      path: the path to run.
      source: whose weights it runs on: `in_place`, those being trained, as an earlier pass of the same step left its
        outputs; `average`, the moving average of the weights, without a pass of its own; `fixed`, another trained
        network (`Method.teacher_run`).
    """

    path: Path
    source: TeacherSource = "in_place"


@dataclass(frozen=True)
class Objective(ABC):
    """One thing that a pass learns from.

    Attributes:
      weight: of its loss in that of the pass, above 0.
      teacher: whose outputs it compares with; None where the true targets are compared with.
    """

    weight: float = 1.0
    teacher: Teacher | None = None

    @abstractmethod
    def loss(self, task: Task, targets: Any, outputs: Mapping[str, Any], taught: Mapping[str, Any]) -> Any:
        """The mean loss over the batch, before the weight, a float32 scalar.

        Args:
          task: gives the loss against targets and against a teacher's prediction.
          targets: the true targets of the batch, as the task takes them.
          outputs: the pass's `prediction` and `features` (batch, ..., channels).
          taught: the teacher's outputs, detached; nothing without a teacher.
        """


@dataclass(frozen=True)
class HardLabels(Objective):
    """The true targets; it has no teacher."""

    def loss(self, task: Task, targets: Any, outputs: Mapping[str, Any], taught: Mapping[str, Any]) -> Any:
        return task.loss(targets, outputs["prediction"])


@dataclass(frozen=True)
class SoftLabels(Objective):
    """A teacher's prediction.

    Attributes:
      temperature: softens both predictions, above 0.

    Source: in-place distillation of US-Nets (Yu & Huang 2019, section 3.3).
    """

    temperature: float = 1.0

    def loss(self, task: Task, targets: Any, outputs: Mapping[str, Any], taught: Mapping[str, Any]) -> Any:
        return task.distillation_loss(outputs["prediction"], taught["prediction"], self.temperature)


@dataclass(frozen=True)
class Features(Objective):
    """A teacher's features, by the mean-squared error over channels and batch.

    The teacher may have more channels; then its first ones are compared, which are the same channels.

    Source: a reconstruction of ParaDiS.
    """

    def loss(self, task: Task, targets: Any, outputs: Mapping[str, Any], taught: Mapping[str, Any]) -> Any:
        features = keras.ops.cast(outputs["features"], "float32")
        aim = keras.ops.cast(taught["features"], "float32")[..., : features.shape[-1]]
        return keras.ops.mean(keras.ops.square(features - aim))


@dataclass(frozen=True)
class LiveSets:
    """Sets of the devices of a pass's path that answer without the others, drawn anew in each step.

    How many devices are missing is drawn first, each number as likely as the others, then which. What the live ones
    give is fused as the runner fuses it: nothing stands for the missing ones, which learn nothing from it.

    Attributes:
      objectives: what the fused outputs of each set learn from, at least one. The pass's own path may teach.
      sets: how many sets are drawn in a step, at least 1; their losses are averaged.
      most_missing: so many devices are missing at most, at least 1; never all of them.
      weight: of their loss in its weighted mean with that of all devices, whose weight is 1: in the first step of a
        training and, changing linearly, after the last one; 0 or more.
    """

    objectives: tuple[Objective, ...]
    sets: int = 1
    most_missing: int = 1
    weight: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Pass:
    """One path run once, with one loss: the weighted sum of its objectives.

    Attributes:
      path: the path to run.
      objectives: what it learns from, at least one.
      factor: what the whole loss is multiplied by in the first step of a training and, changing linearly, after the
        last one; above 0, and 0 or more.
      live: what it learns of sets of its devices, from the same run of each; None where all devices always answer.
    """

    path: Path
    objectives: tuple[Objective, ...] = (HardLabels(),)
    factor: tuple[float, float] = (1.0, 1.0)
    live: LiveSets | None = None

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Itself."""
        return (self,)

    @property
    def teachers(self) -> set[Teacher]:
        """Whose outputs it learns from, but for its own."""
        objectives = self.objectives + (self.live.objectives if self.live else ())
        teachers = {objective.teacher for objective in objectives if objective.teacher is not None}
        return teachers - {Teacher(self.path)}

    def loss(
        self,
        task: Task,
        targets: Any,
        outputs: Mapping[str, Any],
        taught: Mapping[Teacher, Mapping[str, Any]],
        objectives: Sequence[Objective] | None = None,
    ) -> Any:
        """The mean loss over the batch, before `factor`, a float32 scalar; arguments as of `Objective.loss`.

        Args:
          taught: by teacher, its outputs, detached.
          objectives: what is learnt from; the pass's own if left out.

        Raises:
          ValueError: the outputs of a teacher are not given.
        """
        total = 0.0
        for objective in self.objectives if objectives is None else objectives:
            teacher = objective.teacher
            if teacher is not None and teacher not in taught:
                who = f"{self.path.kind} '{self.path}'"
                raise ValueError(f"{who} learns from '{teacher.path}', which has not run before it.")
            of_teacher = taught[teacher] if teacher is not None else {}
            total += objective.weight * objective.loss(task, targets, outputs, of_teacher)
        return total


@dataclass(frozen=True)
class Joint:
    """Several passes from one forward run of what their paths share, under one tape; each may teach the others.

    Attributes:
      passes: the passes, at least one, of different paths.
    """

    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Draw:
    """One of several passes, drawn anew in each step, each as likely as the others.

    Attributes:
      passes: the passes to draw from, at least one.
    """

    passes: tuple[Pass, ...]


# What a step is a list of.
Entry = Pass | Joint | Draw


class Method(ABC):
    """A training method. Subclasses are registered Keras serializables, and every option has a default.

    A method says what is learnt from what; it reads and writes no files.

    Attributes:
      recalibrates: whether the statistics of batch norm are recomputed after training (post-statistics).
      teacher_run: the run folder of the finished training whose network stands behind teachers of the source `fixed`;
        empty without such teachers. Whoever trains hands the network to `use_teacher`.
      learns_features: whether a fixed teacher's features are learnt from, too.
    """

    recalibrates: bool = False
    teacher_run: str = ""
    learns_features: bool = False
    fixed_teacher: Supernet | None = None

    @abstractmethod
    def passes(self, paths: Sequence[Path], widest: Path) -> tuple[Entry, ...]:
        """The entries of one step, in order; a teacher comes before those it teaches, or with them in a `Joint`.

        Args:
          paths: the supernet's paths.
          widest: the one that owns most channels on fewest devices.

        Raises:
          UserError: paths that the method cannot train.
        """

    def use_teacher(self, network: Supernet) -> None:
        """Takes the trained network behind teachers of the source `fixed`."""
        self.fixed_teacher = network

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The options that make it again."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Method:
        return cls(**config)


def distillation(
    teacher: Teacher, hard_weight: float, soft_weight: float, feature_weight: float, temperature: float = 1.0
) -> tuple[Objective, ...]:
    """Hard labels, a teacher's prediction and its features, those whose weight is above 0."""
    objectives: list[Objective] = []
    if hard_weight:
        objectives.append(HardLabels(hard_weight))
    if soft_weight:
        objectives.append(SoftLabels(soft_weight, teacher, temperature))
    if feature_weight:
        objectives.append(Features(feature_weight, teacher))
    return tuple(objectives)
