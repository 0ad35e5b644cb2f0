"""ParaDiS: all switches trained together, the widest one teaching the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from export.fusion.program import UserError
from paradis_tf.methods.passes import Method, Pass
from paradis_tf.switches import Switch


@keras.saving.register_keras_serializable(package="paradis_tf")
class Paradis(Method):
    """The widest switch on hard labels, every other one on its detached softmax and features.

    Args:
      feature_weight: weight of the mean-squared error of the concatenated pooled features to the widest switch's
        detached ones, 0 or more; 0 leaves the softmax alone.

    Raises:
      UserError: a negative weight.

    Source: a reconstruction following the abstract of ParaDiS and the training code of US-Nets.
    """

    def __init__(self, feature_weight: float = 1.0) -> None:
        if not feature_weight >= 0:
            raise UserError(f"paradis: feature_weight is {feature_weight!r}; it is 0 or more.")
        self.feature_weight = feature_weight

    def passes(self, switches: Sequence[Switch], widest: Switch) -> tuple[Pass, ...]:
        students = [switch for switch in switches if switch != widest]
        return (Pass(widest), *(Pass(s, widest, self.feature_weight) for s in students))

    def get_config(self) -> dict[str, Any]:
        return {"feature_weight": self.feature_weight}
