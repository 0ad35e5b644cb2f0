"""Individual networks: one switch alone, the reference that switches trained together are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from fusion.base.program import UserError
from paradis_tf.cuts import Path
from paradis_tf.methods.checks import check_weights, switches_of
from paradis_tf.methods.passes import Method, Pass, Teacher, distillation
from paradis_tf.switches import WHOLE_SWITCH


@keras.saving.register_keras_serializable(package="paradis_tf")
class Individual(Method):
    """One switch trained alone on hard labels and, if a teacher is named, on the prediction of a fixed wide network.

    Args:
      teacher: run folder of a finished training of the same architecture, whose switch 1.0 teaches; empty for hard
        labels alone.
      hard_weight: weight of the loss against the true targets, 0 or more; used only with a teacher.
      soft_weight: weight of the loss against the teacher's prediction, 0 or more.
      feature_weight: weight of the mean-squared error to the teacher's features, 0 or more.

    Raises:
      UserError: an option out of range, or more than one switch.

    Source: the individual models of ParaDiS (Ozerov et al. 2021, abstract); the form with a teacher is ours.
    """

    def __init__(
        self, teacher: str = "", hard_weight: float = 1.0, soft_weight: float = 1.0, feature_weight: float = 0.0
    ) -> None:
        check_weights("individual", hard_weight=hard_weight, soft_weight=soft_weight, feature_weight=feature_weight)
        if not hard_weight + soft_weight + feature_weight > 0:
            raise UserError("individual: hard_weight, soft_weight and feature_weight are all 0; one is above 0.")
        self.teacher = self.teacher_run = teacher
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.feature_weight = feature_weight
        self.learns_features = feature_weight > 0

    def passes(self, paths: Sequence[Path], widest: Path) -> tuple[Pass, ...]:
        switches = switches_of("individual", paths)
        if len(switches) > 1:
            raise UserError(
                f"individual: there are {len(switches)} switches, {', '.join(map(str, switches))}; it takes one."
            )
        if not self.teacher:
            return (Pass(widest),)
        teacher = Teacher(WHOLE_SWITCH, "fixed")
        return (Pass(widest, distillation(teacher, self.hard_weight, self.soft_weight, self.feature_weight)),)

    def get_config(self) -> dict[str, Any]:
        return {
            "teacher": self.teacher,
            "hard_weight": self.hard_weight,
            "soft_weight": self.soft_weight,
            "feature_weight": self.feature_weight,
        }
