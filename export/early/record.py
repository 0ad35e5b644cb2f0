"""Writes calibrated early answers into the manifest of their bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from export.bundles import manifest_update
from export.early.tables import Calibrated
from fusion.bundle.contents import Bundle


def calibrated(folder: Path) -> bool:
    """Whether a folder holds a bundle of which early answers were calibrated."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return any(entry.get("early") for entry in manifest["switches"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def write(bundle: Bundle, before: bytes, precision: str, max_drop: float, found: Sequence[Calibrated]) -> None:
    """Adds the calibration to the manifest as `early` of each switch, in place of an older one of this precision.

    Args:
      bundle: what was calibrated.
      before: its manifest then.
      precision: of the files that were calibrated.
      max_drop: what early answers were allowed to lose, 0..1.
      found: the switches.

    Raises:
      UserError: the manifest is another by now, since the files may be, or cannot be written.
    """
    with manifest_update.updated(bundle, before, "calibrate") as written:
        for one in found:
            entry = next(entry for entry in written["switches"] if entry["switch"] == one.switch)
            entry["early"] = (entry.get("early") or {}) | {
                precision: {
                    # What tells that it is of these very files.
                    "files": [part["files"][precision]["sha256"] for part in entry["slices"]],
                    "part": "validation",
                    "images": len(one.validation.full),
                    "max_drop": max_drop,
                    "margins": [{"devices": sorted(arrived), "margin": one.margins[arrived]} for arrived in one.sets()],
                }
            }
