"""Calibrated early answers in the manifest of their bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.bundles import manifest_update
from export.conversion.older import OlderBundle
from export.early.tables import CalibratedSwitch
from fusion.bundle.contents import Bundle


def has_calibration(folder: Path) -> bool:
    """Whether a folder holds a bundle of which early answers were calibrated."""
    return any(entry.get("early") for entry in OlderBundle(folder).switches.values())


def write(bundle: Bundle, before: bytes, precision: str, max_drop: float, switches: Sequence[CalibratedSwitch]) -> None:
    """Adds the calibration to the manifest as `early` of each switch, in place of an older one of this precision.

    Args:
      bundle: what was calibrated.
      before: its manifest then.
      precision: of the files that were calibrated.
      max_drop: what early answers were allowed to lose, 0..1.
      switches: the calibrated ones.

    Raises:
      UserError: the manifest is another by now, since the files may be, or cannot be written.
    """
    with manifest_update.updated(bundle, before, "calibrate") as manifest:
        for switch in switches:
            entry = next(entry for entry in manifest["switches"] if entry["switch"] == switch.switch)
            sets = sorted(switch.margins, key=lambda arrived: (len(arrived), sorted(arrived)))
            entry["early"] = (entry.get("early") or {}) | {
                precision: {
                    # What tells that it is of these very files.
                    "files": [slice_["files"][precision]["sha256"] for slice_ in entry["slices"]],
                    "part": "validation",
                    "images": len(switch.validation.full),
                    "max_drop": max_drop,
                    "margins": [{"devices": sorted(arrived), "margin": switch.margins[arrived]} for arrived in sets],
                }
            }
