"""Keeps a second training out of a run folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusion.base.program import UserError


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Holds the lock of a run folder, the file `lock` in it; the kernel frees it with the process, however that ends.

    Raises:
      UserError: another process holds it, or the file cannot be made.
    """
    try:
        # Not by `open`, which would wait for ever where somebody has put a pipe.
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"{lock} cannot be written: {error.strerror}.") from None
    try:
        # Whoever asks whether a training is here, as benchmarks.runs does, holds the lock for a moment.
        for patience in (0.0, 0.1, 0.2, 0.4):
            time.sleep(patience)
            if _taken(file):
                break
        else:
            raise UserError(f"--workdir={lock.parent} is in use by another training; wait or stop it.")
        yield
    finally:
        os.close(file)


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
