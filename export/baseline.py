"""Holds a verification against an earlier one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export.fusion.bundle import Bundle
from export.fusion.program import UserError

if TYPE_CHECKING:
    from export.verification import SwitchCheck

# Of accuracies that are whole images the difference itself is not exact.
ROUNDING = 1e-9
# By switch, precision and runtime, the metric of the fused answers.
Scores = Mapping[tuple[str, str, str], float]


def read(path: str, bundle: Bundle) -> Scores:
    """The metric of fused switches in the JSON file of an earlier verification.

    Raises:
      UserError: it cannot be read, is no such JSON, or of none of the bundle's switches and precisions.
    """
    try:
        earlier = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--baseline={path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise UserError(f"--baseline={path} is not JSON; write one with --json.") from None
    try:
        scores = {(one["switch"], one["precision"], one["runtime"]): float(one["score"]) for one in earlier["switches"]}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"--baseline={path} is not the JSON of a verification; write one with --json.") from error
    if not all(map(math.isfinite, scores.values())):
        raise UserError(
            f"--baseline={path} is not the JSON of a verification: it has scores that are no finite numbers."
        )
    held = {(entry.switch, precision) for entry in bundle.switches for precision in bundle.precisions}
    if not any((switch, precision) in held for switch, precision, _ in scores):
        raise UserError(
            f"--baseline={path} has no switch and precision of bundle {bundle.folder}; give one of this network."
        )
    return scores


def regressions(found: Sequence[SwitchCheck], before: Scores, max_drop: float, per_unit: float, unit: str) -> list[str]:
    """A sentence for each switch that has lost more than `max_drop` since an earlier verification.

    Args:
      found: the fused switches of the verification.
      before: the scores of the earlier one.
      max_drop: as of `export.verification.verify`.
      per_unit, unit: of the judge.
    """
    return [
        f"switch '{one.switch}', {one.precision} on {one.runtime}: {per_unit * one.score:.2f}, and "
        f"{per_unit * before[one.switch, one.precision, one.runtime]:.2f} earlier; it may lose "
        f"{per_unit * max_drop:g} {unit}."
        for one in found
        if before.get((one.switch, one.precision, one.runtime), one.score) - one.score > max_drop + ROUNDING
    ]
