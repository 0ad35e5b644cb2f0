"""Which processor cores the processes of a bench run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Cores of the workers (worker i is pinned to one of them), the coordinator and the client; the latter two are the
    same where there are not enough, and `words` say that."""

    workers: tuple[int, ...]
    coordinator: tuple[int, ...]
    client: tuple[int, ...]
    words: str


def place(cores: Sequence[int], workers: int) -> Placement:
    """Gives each worker a core of its own, as far as they go, and the rest to coordinator and client.

    Args:
      cores: those that there are, one or more.
      workers: how many workers, 1 or more.
    """
    ordered = sorted(cores)
    mine, rest = tuple(ordered[:workers]), tuple(ordered[workers:])
    if len(rest) >= 2:
        client = rest[len(rest) // 2 :]
        return Placement(mine, rest[: len(rest) // 2], client, "coordinator and client on cores of their own")
    if rest:
        return Placement(mine, rest, rest, "coordinator and client share one core")
    words = f"fewer cores than workers, coordinator and client: the latter share the workers' {len(mine)}"
    return Placement(mine, tuple(ordered), tuple(ordered), words)
