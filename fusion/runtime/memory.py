"""How much memory this machine has left, and how much a model takes."""

from __future__ import annotations

import re
from pathlib import Path

from ..base.program import UserError

# What an interpreter takes beside its file and its activations.
_SPARE_BYTES = 4 << 20


def needed(file_bytes: int, arena_bytes: int) -> int:
    """Bytes that a model takes at most while it runs, from the size of its file and of its activations.

    The file is there as it was read and, where XNNPACK runs it, once more with its weights laid out anew.
    """
    return 2 * file_bytes + arena_bytes + _SPARE_BYTES


def available(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may still take without swapping; None where the system does not tell.

    The less of what Linux counts as available and of what the process's control group, of version 2, has left.
    """
    limits = []
    try:
        line = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="utf-8"), re.MULTILINE)
        limits += [int(line[1]) * 1024] if line else []
    except OSError:
        pass
    try:
        limit, used = ((cgroup / name).read_text(encoding="utf-8").strip() for name in ("memory.max", "memory.current"))
        limits += [max(0, int(limit) - int(used))] if limit.isdigit() else []
    except (OSError, ValueError):
        pass
    return min(limits, default=None)


def require(size: int, what: str) -> None:
    """Raises `UserError` if `what` takes more bytes than are available; does nothing where that is not known."""
    left = available()
    if left is not None and left < size:
        raise UserError(
            f"{what} takes about {size / 1e6:.0f} MB of memory, and {left / 1e6:.0f} MB are available; serve fewer "
            "or narrower slices, or end other programs."
        )


def peak(status: Path = Path("/proc/self/status")) -> int | None:
    """Bytes of memory that this process has had at most; None where the system does not tell."""
    try:
        line = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(line[1]) * 1024 if line else None
