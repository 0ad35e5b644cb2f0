"""Universally slimmable networks (US-Net): any width of the grid, by the sandwich rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from fusion.base.program import UserError
from paradis_tf.cuts import Path
from paradis_tf.methods.checks import widest_first
from paradis_tf.methods.passes import Draw, Entry, Method, Pass, SoftLabels, Teacher


@keras.saving.register_keras_serializable(package="paradis_tf")
class USSlimmable(Method):
    """Sandwich rule with in-place distillation: the widest on hard labels, then randomly drawn widths and the narrowest
    on the widest one's detached prediction, without hard labels.

    Its switches have one device each and are the widths that can be drawn; the reference draws from a continuous
    range. Batch norm shares scale and shift (`normalization="shared_affine"`), and its statistics are recomputed after
    training.

    Args:
      random_widths: how many widths between the widest and the narrowest are drawn in each step, each independently,
        0 or more.

    Raises:
      UserError: an option out of range, or fewer than two widths.

    Source: universally slimmable networks (Yu & Huang 2019, algorithm 1; 2 random widths as in the released code).
    """

    recalibrates = True

    def __init__(self, random_widths: int = 2) -> None:
        if not isinstance(random_widths, int) or not 0 <= random_widths <= 16:
            raise UserError(f"us_slimmable: random_widths is {random_widths!r}; it is a whole number from 0 to 16.")
        self.random_widths = random_widths

    def passes(self, paths: Sequence[Path], widest: Path) -> tuple[Entry, ...]:
        first, *between = widest_first("us_slimmable", paths)
        if not between:
            raise UserError(f"us_slimmable: '{first}' is the only switch; it takes two widths or more.")
        last = between.pop()
        taught = [Pass(switch, (SoftLabels(1.0, Teacher(first)),)) for switch in (*between, last)]
        draws = [Draw(tuple(taught[:-1]))] * self.random_widths if between else []
        return (Pass(first), *draws, taught[-1])

    def get_config(self) -> dict[str, Any]:
        return {"random_widths": self.random_widths}
