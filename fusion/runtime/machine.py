"""What this machine is, and on a Raspberry Pi how hot it is and whether it is throttled."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from .choosing import available_cores

# What the bits of the Pi firmware's word say, from 0 of what holds now, from 16 of what has held since the start.
_THROTTLED = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")


@dataclass(frozen=True)
class Machine:
    """The model's name, the instruction set as Python calls it, and the cores of this process.

    `celsius` and `throttling`, what the firmware says in words, are None where the system does not tell.
    """

    model: str
    architecture: str
    python: str
    cores: int
    celsius: float | None
    throttling: tuple[str, ...] | None


def describe(root: Path = Path("/")) -> Machine:
    """This machine, from the files of Linux below `root`."""
    return Machine(
        model=_model(root),
        architecture=platform.machine(),
        python=platform.python_version(),
        cores=available_cores(),
        celsius=_celsius(root),
        throttling=_throttling(root),
    )


def _model(root: Path) -> str:
    board = _read(root / "proc/device-tree/model")
    if board:
        return board.rstrip("\0")
    name = re.search(r"^model name\s*:\s*(.+)$", _read(root / "proc/cpuinfo") or "", re.MULTILINE)
    return name[1].strip() if name else platform.system()


def _celsius(root: Path) -> float | None:
    text = _read(root / "sys/class/thermal/thermal_zone0/temp")
    return int(text) / 1000 if text and re.fullmatch(r"-?\d+", text) else None


def _throttling(root: Path) -> tuple[str, ...] | None:
    text = _read(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if not text or not re.fullmatch(r"(0x)?[0-9a-fA-F]+", text):
        return None
    word = int(text, 16)
    now = [text for bit, text in enumerate(_THROTTLED) if word >> bit & 1]
    return (*now, *(f"{text} earlier" for bit, text in enumerate(_THROTTLED, 16) if word >> bit & 1))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
