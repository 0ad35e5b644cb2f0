"""Anytime networks: all levels from one forward run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from paradis_tf.cuts import Path
from paradis_tf.methods.checks import check_weights, levels_of
from paradis_tf.methods.passes import Joint, Method, Pass, Teacher, distillation


@keras.saving.register_keras_serializable(package="paradis_tf")
class Anytime(Method):
    """All levels of a triangular or diagonal network in one pass, each on the hard labels with a weight of 1.

    Args:
      soft_weight: weight, in every level but the last, of the loss against the last one's detached prediction, 0 or
        more.

    Raises:
      UserError: an option out of range; from `passes`, a network of switches or of dense levels, which share no run.

    Source: a reconstruction of the joint training of Slicing Networks Vertically (Lee & Shin 2018), whose sum of losses
    with equal weights is that of the authors' code; learning from the last level is ours.
    """

    def __init__(self, soft_weight: float = 0.0) -> None:
        check_weights("anytime", soft_weight=soft_weight)
        self.soft_weight = soft_weight

    def passes(self, paths: Sequence[Path], widest: Path) -> tuple[Joint, ...]:
        levels = levels_of("anytime", paths, ("triangular", "diagonal"))
        taught = distillation(Teacher(widest), 1.0, self.soft_weight, 0.0)
        return (Joint(tuple(Pass(level) if level == widest else Pass(level, taught) for level in levels)),)

    def get_config(self) -> dict[str, Any]:
        return {"soft_weight": self.soft_weight}
