"""What a process holds, second by second: memory, descriptors, threads."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """Of a process, `at` seconds from the start: bytes of memory it resides in, open descriptors, threads."""

    at: float
    memory: int
    descriptors: int
    threads: int


class Watch:
    """Samples a process once a second while the block runs; `samples` grows.

    Args:
      pid: the process.
      began: `time.perf_counter()` of the start.
    """

    def __init__(self, pid: int, began: float) -> None:
        self._pid, self._began = pid, began
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
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


def take(pid: int, began: float) -> Sample | None:
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
    return Sample(time.perf_counter() - began, int(memory[1]) * 1024, descriptors, int(threads[1]))
