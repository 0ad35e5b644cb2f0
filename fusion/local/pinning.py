"""Keeps a thread, and the processes that it starts, on chosen processor cores."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from ..base.program import UserError


@contextlib.contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """The calling thread runs on these cores alone inside the block; what it starts there stays on them.

    Args:
      cores: numbers of cores that this process may use; none leaves everything as it is.

    Raises `UserError` where the system cannot do that, and for a core that this process may not use.
    """
    if not cores:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("processes can be pinned to cores on Linux alone.")
    before = os.sched_getaffinity(0)
    foreign = sorted(set(cores) - before)
    if foreign:
        raise UserError(f"core {foreign[0]} is not for this process; legal: {', '.join(map(str, sorted(before)))}.")
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
