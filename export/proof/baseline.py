"""Holds a verification against an earlier one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.proof.records import ROUNDING, SwitchCheck
from fusion.base.files import text_of
from fusion.base.program import UserError
from fusion.bundle.contents import Bundle

# The version in a runtime's name: another one is still held to the earlier scores.
_VERSION = re.compile(r" [0-9][^ ,]*")
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Baseline:
    """An earlier verification.

    Attributes:
      path: its file.
      images: how many each switch was judged by.
      scores: by switch, precision and runtime (without its version), the metric of the fused answers.
    """

    path: str
    images: int
    scores: Mapping[Key, float]

    def require_images(self, count: int) -> None:
        """Raises UserError unless it is of so many images."""
        if self.images != count:
            raise UserError(
                f"--baseline={self.path} is of {self.images:,} images, and this verification of {count:,}; verify both "
                "with the same --limit."
            )


def read(path: str, bundle: Bundle) -> Baseline:
    """The JSON file of an earlier verification.

    Raises:
      UserError: it cannot be read, is no such JSON, or of none of the bundle's switches and precisions.
    """
    try:
        earlier = json.loads(text_of(Path(path).read_bytes(), f"--baseline={path}"))
    except OSError as error:
        raise UserError(f"--baseline={path} cannot be read: {error.strerror}.") from None
    except UserError:
        raise
    except (ValueError, RecursionError):
        raise UserError(f"--baseline={path} is not JSON; write one with --json.") from None
    try:
        scores = {
            (check["switch"], check["precision"], _unversioned(check["runtime"])): float(check["score"])
            for check in earlier["switches"]
        }
        images = max((int(check["images"]) for check in earlier["switches"]), default=0)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"--baseline={path} is not the JSON of a verification; write one with --json.") from error
    if not all(map(math.isfinite, scores.values())):
        raise UserError(
            f"--baseline={path} is not the JSON of a verification: it has scores that are no finite numbers."
        )
    in_bundle = {(entry.switch, precision) for entry in bundle.switches for precision in bundle.precisions}
    if not any((switch, precision) in in_bundle for switch, precision, _ in scores):
        raise UserError(
            f"--baseline={path} has no switch and precision of bundle {bundle.folder}; give one of this network."
        )
    return Baseline(path, images, scores)


def regressions(
    checks: Sequence[SwitchCheck], baseline: Baseline, max_drop: float, per_unit: float, unit: str
) -> list[str]:
    """A sentence for each switch that has lost more than `max_drop` since an earlier verification, or is not there.

    Args:
      checks: the fused switches of the verification.
      baseline: the scores of the earlier one.
      max_drop: as of `export.proof.checks.verify`.
      per_unit, unit: of the judge.
    """
    now = {(check.switch, check.precision, _unversioned(check.runtime)): check for check in checks}
    verified = {(check.switch, check.precision) for check in checks}
    gone = sorted({key[:2] for key in baseline.scores} - verified)
    faults = [
        f"switch '{switch}', {precision}: verified earlier, and not in this bundle." for switch, precision in gone
    ]
    for key, earlier in baseline.scores.items():
        check = now.get(key)
        # A runtime that is not installed now says nothing; the reference always is.
        if check is not None and not earlier - check.score <= max_drop + ROUNDING:
            faults.append(
                f"switch '{check.switch}', {check.precision} on {check.runtime}: {per_unit * check.score:.2f}, and "
                f"{per_unit * earlier:.2f} earlier; it may lose {per_unit * max_drop:g} {unit}."
            )
    return faults


def _unversioned(runtime: str) -> str:
    return _VERSION.sub("", runtime, count=1)
