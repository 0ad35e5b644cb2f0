"""Which processor cores threads and processes run on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Cores of the workers (worker i is pinned to one of them), the coordinator and the client; the latter two are the
    same where there are not enough, and `words` say that."""

    workers: tuple[int, ...]
    coordinator: tuple[int, ...]
    client: tuple[int, ...]
    words: str


ANYWHERE = Placement((), (), (), "")
"""Nothing is pinned."""


def place(cores: Sequence[int], workers: int) -> Placement:
    """Gives each of some workers a core of its own, as far as they go, and the rest to coordinator and client; without
    any cores all run anywhere."""
    if not cores:
        return ANYWHERE
    ordered = sorted(cores)
    own, rest = tuple(ordered[:workers]), tuple(ordered[workers:])
    if len(rest) >= 2:
        half = len(rest) // 2
        return Placement(own, rest[:half], rest[half:], "coordinator and client on cores of their own")
    if rest:
        return Placement(own, rest, rest, "coordinator and client share one core")
    words = f"fewer cores than workers, coordinator and client: the latter share the workers' {len(own)}"
    return Placement(own, tuple(ordered), tuple(ordered), words)


@contextlib.contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """The calling thread runs on these cores alone inside the block; what it starts there stays on them.

    Args:
      cores: some of `os.sched_getaffinity(0)`, which only Linux has; none leaves everything as it is.
    """
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
