"""ParaDiS: all switches trained together, the widest one teaching the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from fusion.base.program import UserError
from paradis_tf.cuts import Path
from paradis_tf.methods.checks import check_weights, switches_of
from paradis_tf.methods.passes import (
    Features,
    HardLabels,
    LiveSets,
    Method,
    Objective,
    Pass,
    Teacher,
    TeacherSource,
    distillation,
)
from paradis_tf.switches import WHOLE_SWITCH, Switch

_SOURCES: tuple[TeacherSource, ...] = ("in_place", "average")


@keras.saving.register_keras_serializable(package="paradis_tf")
class Paradis(Method):
    """The widest switch on hard labels, every other one on its prediction, its features and the hard labels.

    With a teacher from an earlier training, all switches learn from that.

    Args:
      hard_weight: weight of the loss against the true targets in every switch but the widest, 0 or more.
      soft_weight: weight of the loss against the widest switch's prediction, 0 or more.
      feature_weight: weight of the mean-squared error of the concatenated pooled features to the widest switch's
        ones, 0 or more.
      student_weight: what the whole loss of every switch but the widest is multiplied by at first, above 0. All
        switches share the widest one's weights, and this says how much of a say they have in them.
      final_student_weight: what it is multiplied by at the end of the training, 0 or more; linear in between.
      temperature: softens the predictions on both sides of the soft loss, above 0.
      live_weight: weight of what sets of live devices learn, 0 or more; 0: no set is drawn. In each step of each switch
        of several devices, some are drawn to be missing, and the sum of the others alone learns from labels and teacher
        with `hard_weight` and `soft_weight` (the widest switch from labels, with a weight of 1). The switch's loss is
        the weighted mean of this one and of what all devices together learn, whose weight is 1.
      final_live_weight: what that weight is at the end of the training, 0 or more; linear in between.
      live_sets: sets drawn for each switch in a step, 1 to 16.
      most_missing: devices that a set lacks at most, less than the switch with most devices has; 0: all but one.
      teacher: whose outputs are learnt from: `in_place`, those of the widest switch's own pass, detached; `average`,
        those of the widest switch on the moving average of the weights (`optimizer.average_decay` above 0); otherwise
        the run folder of a finished training of the same architecture, whose switch 1.0 teaches all switches, the
        widest too, with the three weights.

    The three weights give the ablation: none (1, 0, 0), softmax (0, 1, 0), softmax and features (0, 1, 1), each with
    hard labels added or not.

    Raises:
      UserError: an option out of range, or all three weights 0; from `passes`, live devices to draw of switches that
        have one device each, or more missing than a switch can lack.

    Source: a reconstruction following the abstract of ParaDiS and the training code of US-Nets. The sets of live
    devices are this project's own.
    """

    def __init__(
        self,
        hard_weight: float = 1.0,
        soft_weight: float = 1.0,
        feature_weight: float = 0.0,
        student_weight: float = 1.0,
        final_student_weight: float = 0.1,
        temperature: float = 1.0,
        live_weight: float = 1.0,
        final_live_weight: float = 1.0,
        live_sets: int = 4,
        most_missing: int = 0,
        teacher: str = "in_place",
    ) -> None:
        check_weights(
            "paradis",
            hard_weight=hard_weight,
            soft_weight=soft_weight,
            feature_weight=feature_weight,
            final_student_weight=final_student_weight,
            live_weight=live_weight,
            final_live_weight=final_live_weight,
        )
        if not hard_weight + soft_weight + feature_weight > 0:
            raise UserError("paradis: hard_weight, soft_weight and feature_weight are all 0; one is above 0.")
        for name, value in (("student_weight", student_weight), ("temperature", temperature)):
            if not 0 < value < float("inf"):
                raise UserError(f"paradis: {name} is {value!r}; it is above 0.")
        draws_live = live_weight + final_live_weight > 0
        if draws_live and not hard_weight + soft_weight > 0:
            raise UserError(
                f"paradis: live_weight is {live_weight!r}, and live devices learn with hard_weight and soft_weight, "
                "which are 0; set one above 0, or live_weight and final_live_weight to 0."
            )
        if not isinstance(live_sets, int) or not 1 <= live_sets <= 16:
            raise UserError(f"paradis: live_sets is {live_sets!r}; it is a whole number from 1 to 16.")
        if not isinstance(most_missing, int) or most_missing < 0:
            raise UserError(f"paradis: most_missing is {most_missing!r}; it is a whole number of 0 or more.")
        if not teacher:
            raise UserError(f"paradis: teacher is {teacher!r}; it is {', '.join(_SOURCES)} or a run folder.")
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.feature_weight = feature_weight
        self.student_weight = student_weight
        self.final_student_weight = final_student_weight
        self.temperature = temperature
        self.live_weight = live_weight
        self.final_live_weight = final_live_weight
        self.live_sets = live_sets
        self.most_missing = most_missing
        self.teacher = teacher
        self.teacher_run = "" if teacher in _SOURCES else teacher
        self.learns_features = feature_weight > 0
        self._draws_live = draws_live

    def passes(self, paths: Sequence[Path], widest: Path) -> tuple[Pass, ...]:
        switches = switches_of("paradis", paths)
        if self.teacher_run:
            teacher = Teacher(WHOLE_SWITCH, "fixed")
        else:
            teacher = Teacher(widest, "average" if self.teacher == "average" else "in_place")
        self._check_live(switches)
        objectives = distillation(teacher, self.hard_weight, self.soft_weight, self.feature_weight, self.temperature)
        factor = self.student_weight, self.final_student_weight
        first = objectives if self.teacher_run else (HardLabels(),)
        others = (switch for switch in switches if switch != widest)
        return (
            Pass(widest, first, live=self._live(widest, first)),
            *(Pass(switch, objectives, factor, self._live(switch, objectives)) for switch in others),
        )

    def _check_live(self, switches: Sequence[Switch]) -> None:
        """Raises UserError where sets of live devices are asked for that no switch has."""
        if not self._draws_live:
            return
        most = max(switch.devices for switch in switches)
        if most == 1:
            raise UserError(
                f"paradis: every switch has one device, {', '.join(map(str, switches))}, so none can be missing; set "
                "live_weight and final_live_weight to 0."
            )
        if self.most_missing >= most:
            raise UserError(
                f"paradis: most_missing is {self.most_missing}, and no switch has more than {most} devices, of which "
                f"one answers; it is 1 to {most - 1}, or 0 for all but one."
            )

    def _live(self, switch: Path, objectives: Sequence[Objective]) -> LiveSets | None:
        """What sets of a switch's devices learn: what the switch does, but for features, which missing devices lack."""
        kept = tuple(objective for objective in objectives if not isinstance(objective, Features))
        if switch.devices == 1 or not self._draws_live:
            return None
        most = self.most_missing or switch.devices - 1
        return LiveSets(kept, self.live_sets, most, (self.live_weight, self.final_live_weight))

    def get_config(self) -> dict[str, Any]:
        return {
            "hard_weight": self.hard_weight,
            "soft_weight": self.soft_weight,
            "feature_weight": self.feature_weight,
            "student_weight": self.student_weight,
            "final_student_weight": self.final_student_weight,
            "temperature": self.temperature,
            "live_weight": self.live_weight,
            "final_live_weight": self.final_live_weight,
            "live_sets": self.live_sets,
            "most_missing": self.most_missing,
            "teacher": self.teacher,
        }
