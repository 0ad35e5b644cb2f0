"""Slimmable networks (S-Net): a short list of widths, all trained in every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from paradis_tf.cuts import Path
from paradis_tf.methods.checks import widest_first
from paradis_tf.methods.passes import Method, Pass


@keras.saving.register_keras_serializable(package="paradis_tf")
class Slimmable(Method):
    """Every width on hard labels, from the widest to the narrowest.

    Its switches have one device each: `1.0`, `0.75`, `0.5`, `0.25`.

    Source: slimmable networks (Yu et al. 2019, algorithm 1).
    """

    def passes(self, paths: Sequence[Path], widest: Path) -> tuple[Pass, ...]:
        return tuple(Pass(switch) for switch in widest_first("slimmable", paths))

    def get_config(self) -> dict[str, Any]:
        return {}
