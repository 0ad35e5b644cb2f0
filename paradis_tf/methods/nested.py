"""Nested networks: levels that share kernels and no activations, each run in every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from paradis_tf.cuts import Path
from paradis_tf.methods.checks import levels_of
from paradis_tf.methods.passes import Method, Pass


@keras.saving.register_keras_serializable(package="paradis_tf")
class Nested(Method):
    """Every level of a dense network on hard labels, from the thinnest to the widest.

    Raises:
      UserError: from `passes`, a network of switches, or levels that one forward run gives (see `Anytime`).

    Source: Lee & Shin 2018, from the authors' code of I-ResNeXt.
    """

    def passes(self, paths: Sequence[Path], widest: Path) -> tuple[Pass, ...]:
        return tuple(Pass(level) for level in levels_of("nested", paths, ("dense",)))

    def get_config(self) -> dict[str, Any]:
        return {}
