"""What slices buy: the time, the file and the memory of each switch's largest slice, alone on one thread."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from fusion.base import columns
from fusion.base.program import UserError
from fusion.bundle.contents import Bundle, SliceModel

# The switches take turns, so that whatever else the machine does meets them all alike.
_RUNS = 30


def measure(bundle: Bundle, precision: str, runtime: str) -> list[dict[str, Any]]:
    """A row for each switch of a bundle; `speedup` is against the switch with the largest slice.

    Each slice has a process of its own that holds nothing but the runtime. Raises `UserError` when one of them ends.
    """
    largest = {entry.switch: max(entry.slices, key=lambda slice_: slice_.madds) for entry in bundle.switches}
    with contextlib.ExitStack() as stack:
        processes = {
            switch: stack.enter_context(_alone(bundle, switch, slice_, precision, runtime))
            for switch, slice_ in largest.items()
        }
        memory = {switch: _read(process) for switch, process in processes.items()}
        times: dict[str, list[float]] = {switch: [] for switch in processes}
        for _ in range(_RUNS):
            for switch, process in processes.items():
                print(file=process.stdin, flush=True)
                times[switch].append(_read(process))
    rows: list[dict[str, Any]] = [
        {
            "switch": entry.switch,
            "devices": len(entry.slices),
            "madds_largest": largest[entry.switch].madds,
            "bytes_largest": largest[entry.switch].files[precision].bytes,
            "memory_bytes": memory[entry.switch],
            "slice_ms": statistics.median(times[entry.switch]),
        }
        for entry in bundle.switches
    ]
    whole_ms = max(rows, key=lambda row: row["madds_largest"])["slice_ms"]
    return [row | {"speedup": whole_ms / row["slice_ms"]} for row in rows]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for the terminal."""
    header = ("switch", "devices", "largest slice (M)", "its file (MB)", "memory (MB)", "alone (ms)", "speed-up")
    lines = [
        (
            row["switch"],
            row["devices"],
            f"{row['madds_largest'] / 1e6:.0f}",
            f"{row['bytes_largest'] / 1e6:.1f}",
            "?" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:.1f}",
            f"{row['slice_ms']:.1f}",
            f"{row['speedup']:.1f}x",
        )
        for row in rows
    ]
    return columns.render(header, lines)


@contextlib.contextmanager
def _alone(
    bundle: Bundle, switch: str, slice_: SliceModel, precision: str, runtime: str
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "export.demo.alone", str(bundle.folder), switch, str(slice_.device)]
    pipe = subprocess.PIPE
    # The runtime's own remarks on standard error are a line or two.
    process = subprocess.Popen(
        [*command, precision, runtime], stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace"
    )
    with process:
        yield process


def _read(process: subprocess.Popen[str]) -> Any:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        remarks = process.stderr.read().split("\n") if process.stderr else []
        last = next((remark for remark in reversed(remarks) if remark), "it gave no reason.")
        raise UserError(f"a process that times a slice has ended: {last}")
    return json.loads(line)
