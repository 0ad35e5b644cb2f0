"""A cluster whose workers run on emulated boards, and one of them killed while requests run.

The workers are the bundle's own, as on boards that it was copied to; the coordinator is a process of this machine.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from export.emulation.boards import Board
from fusion.bench.load import Attempt, Target
from fusion.bundle.contents import Bundle
from fusion.local.cluster import LocalCluster, Python
from fusion.security.credentials import Credentials

KILLED = "worker-0"
"""The device that is killed."""
# Long enough for boards that are emulated beside other work.
_DEADLINE_MS = 10_000
# Requests on their way at any time; how many are answered before the kill, and how many that are sent after it.
_CONNECTIONS, _BEFORE, _AFTER = 4, 20, 60


@dataclass(frozen=True)
class Trial:
    """What became of a cluster of boards.

    Attributes:
      boards: by device, the name of its board.
      own_slices: whether each device serves its own slice alone.
      calm: the requests that were sent one after the other while all boards were there.
      busy: the other requests, `_CONNECTIONS` at a time.
      killed_at: when the board was killed, as the requests' times.
    """

    boards: dict[str, str]
    own_slices: bool
    calm: Sequence[Attempt]
    busy: Sequence[Attempt]
    killed_at: float

    @property
    def attempts(self) -> Sequence[Attempt]:
        """All requests."""
        return [*self.calm, *self.busy]

    @property
    def shared(self) -> Sequence[Attempt]:
        """The answers that all devices have a part in."""
        return [attempt for attempt in self.calm if len({*devices_of(attempt)} - {""}) == len(self.boards)]

    @property
    def under_way(self) -> Sequence[Attempt]:
        """The requests that were running when the board was killed."""
        return [attempt for attempt in self.busy if attempt.started <= self.killed_at < attempt.ended]

    @property
    def after(self) -> Sequence[Attempt]:
        """The requests that were sent after it."""
        return [attempt for attempt in self.busy if attempt.started > self.killed_at]

    @property
    def known_at(self) -> float:
        """When the coordinator knew of it at the latest, as the requests' times; infinite where nobody can tell.

        That is when the first answer came to what was sent after it: the requests that were under way, and that one,
        have found the board gone.
        """
        return min((attempt.ended for attempt in self.after if attempt.status == 200), default=math.inf)


def devices_of(attempt: Attempt) -> Sequence[str]:
    """The devices that an answer claims, in slice order; "" for a slice that is missing."""
    return str(attempt.parameters.get("devices", "")).split(",")


def run_trial(
    bundle: Bundle,
    switch: str,
    precision: str,
    boards: Sequence[Board],
    own_slices: bool,
    images: np.ndarray,
    say: Callable[[str], None],
) -> Trial:
    """Starts a worker on each board, asks for all images, and kills one worker while more requests run.

    Args:
      bundle: whose workers.
      switch: the one that is run, of as many slices as there are boards.
      precision: one of the bundle's precisions.
      boards: `worker-0` runs on the first, and so on; one board may come several times.
      own_slices: whether worker i serves slice i alone, so that nobody takes its place; else any serves any slice.
      images: uint8 (N, *`Bundle.shape`).
      say: is told how far it is.

    Raises:
      UserError: the cluster does not come up.
    """
    runtime = "tflite_runtime"
    options = [f"--deadline_ms={_DEADLINE_MS}", f"--request_timeout_s={2 * _DEADLINE_MS / 1e3:g}"]
    cluster = LocalCluster(
        bundle,
        switch,
        precision,
        runtime,
        workers=None if own_slices else len(boards),
        worker_pythons=[Python(board.command([]), board.environment(), bundle.folder) for board in boards],
        coordinator_options=[*options, f"--runtime={runtime}"],
    )
    names = {f"worker-{number}": board.name for number, board in enumerate(boards)}
    served = "its own slice" if own_slices else "any slice"
    say(f"starting {', '.join(f'{device} on {board}' for device, board in names.items())}; each serves {served}")
    with cluster:
        calm, busy, killed_at = asyncio.run(_ask_all(cluster, images, say))
    return Trial(names, own_slices, calm, busy, killed_at)


async def _ask_all(
    cluster: LocalCluster, images: np.ndarray, say: Callable[[str], None]
) -> tuple[list[Attempt], list[Attempt], float]:
    async with Target(cluster.url, Credentials()).asking(images, {}) as ask:
        say(f"asking for {len(images)} images, one after the other")
        calm = [await ask(number) for number in range(len(images))]
        say(f"asking for {_CONNECTIONS} images at a time")
        busy: list[Attempt] = []
        numbers, killed_at = itertools.count(), 0.0

        async def client() -> None:
            nonlocal killed_at
            while sum(attempt.started > killed_at > 0 for attempt in busy) < _AFTER:
                busy.append(await ask(next(numbers)))
                # The others wait for their answers now.
                if len(busy) >= _BEFORE and not killed_at:
                    cluster.signal(0, signal.SIGKILL)
                    killed_at = time.perf_counter()
                    say(f"{KILLED} is killed")

        await asyncio.gather(*(client() for _ in range(_CONNECTIONS)))
    return calm, busy, killed_at
