"""What a process holds, second by second: memory, descriptors, threads; and whether that grows."""

from __future__ import annotations

import os
import re
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_GROWTH = 10 << 20
_MOST_DESCRIPTORS = 16
_MOST_THREADS = 4


@dataclass(frozen=True)
class ResourceSample:
    """Of a process, `at` seconds from the start: bytes of memory it resides in, open descriptors, threads."""

    at: float
    memory: int
    descriptors: int
    threads: int


class ResourceWatch:
    """Samples a process once a second while the block runs; `samples` grows.

    Args:
      pid: the process.
      began: `time.perf_counter()` of the start.
    """

    def __init__(self, pid: int, began: float) -> None:
        self._pid, self._began = pid, began
        self.samples: list[ResourceSample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ResourceWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            sample = take(self._pid, self._began)
            if sample is not None:
                self.samples.append(sample)


def take(pid: int, began: float) -> ResourceSample | None:
    """A sample of a process now; None where it has ended."""
    folder = Path("/proc") / str(pid)
    try:
        status = (folder / "status").read_text()
        descriptors = len(os.listdir(folder / "fd"))
    except OSError:
        return None
    memory, threads = (re.search(rf"^{key}:\s+(\d+)", status, re.MULTILINE) for key in ("VmRSS", "Threads"))
    if memory is None or threads is None:
        return None
    return ResourceSample(time.perf_counter() - began, int(memory[1]) * 1024, descriptors, int(threads[1]))


@dataclass(frozen=True)
class Resources:
    """What the coordinator held after warming up and at the end, in medians of some samples, and what grew too much."""

    memory: tuple[int, int]
    descriptors: tuple[int, int]
    threads: tuple[int, int]
    faults: tuple[str, ...]


def compare(samples: Sequence[ResourceSample], warm_s: float, quiet_s: float) -> Resources:
    """Compares the samples of the 5 s after `warm_s` with those from `quiet_s` on, when nothing is asked any more."""
    first = [sample for sample in samples if warm_s <= sample.at <= warm_s + 5] or list(samples[:1])
    last = [sample for sample in samples if sample.at >= quiet_s] or list(samples[-1:])
    pairs = {
        key: (_median([getattr(s, key) for s in first]), _median([getattr(s, key) for s in last]))
        for key in ("memory", "descriptors", "threads")
    }
    faults = []
    for key, most in (("memory", MOST_GROWTH), ("descriptors", _MOST_DESCRIPTORS), ("threads", _MOST_THREADS)):
        before, after = pairs[key]
        if after - before >= most:
            faults.append(f"the coordinator's {key} grew from {before:,} to {after:,}; legal: by less than {most:,}")
    return Resources(pairs["memory"], pairs["descriptors"], pairs["threads"], tuple(faults))


def _median(values: Sequence[int]) -> int:
    return int(statistics.median(values))
