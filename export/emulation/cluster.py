"""A cluster whose workers run on emulated boards, and one of them killed while requests run.

The workers are the bundle's own, as on boards that it was copied to; the coordinator is a process of this machine.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from export.emulation.boards import Board
from fusion.bench.load import Ask, Attempt, Target
from fusion.bundle.contents import Bundle
from fusion.local.cluster import LocalCluster, Python
from fusion.security.credentials import Credentials

KILLED = "worker-0"
"""The device that is killed."""
# Long enough for boards that are emulated beside other work.
_DEADLINE_MS = 10_000
# How often each image is asked for at most, until all devices have shared it.
_ROUNDS = 10
# Requests on their way at any time; how many are answered before the kill, and how many that are sent after it.
_CONNECTIONS, _BEFORE, _AFTER = 4, 20, 60


@dataclass(frozen=True)
class Trial:
    """What became of a cluster of boards.

    Attributes:
      boards: by device, the name of its board.
      calm: the requests that were sent one after the other while all boards were there.
      busy: the other requests, `_CONNECTIONS` at a time.
      killed_at: when the board was killed, as the requests' times.
    """

    boards: dict[str, str]
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
        return [attempt for attempt in self.calm if _is_shared(attempt, len(self.boards))]

    @property
    def under_way(self) -> Sequence[Attempt]:
        """The requests that were running when the board was killed."""
        return [attempt for attempt in self.busy if attempt.started <= self.killed_at < attempt.ended]

    @property
    def after(self) -> Sequence[Attempt]:
        """The requests that were sent after it."""
        return [attempt for attempt in self.busy if attempt.started > self.killed_at]


def run_trial(
    bundle: Bundle,
    switch: str,
    precision: str,
    boards: Sequence[Board],
    images: np.ndarray,
    say: Callable[[str], None],
) -> Trial:
    """Starts a worker on each board, asks for all images, and kills one worker while more requests run.

    Args:
      bundle: whose workers; any of them serves any slice.
      switch: the one that is run, of as many slices as there are boards.
      precision: one of the bundle's precisions.
      boards: `worker-0` runs on the first, and so on; one board may come several times.
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
        workers=len(boards),
        worker_pythons=[Python(board.command([]), board.environment(), bundle.folder) for board in boards],
        coordinator_options=[*options, f"--runtime={runtime}"],
    )
    names = {f"worker-{number}": board.name for number, board in enumerate(boards)}
    say("starting " + ", ".join(f"{device} on {board}" for device, board in names.items()))
    with cluster:
        target = Target(cluster.url, Credentials())
        return asyncio.run(_ask_all(cluster, target, names, images, say))


async def _ask_all(
    cluster: LocalCluster, target: Target, boards: dict[str, str], images: np.ndarray, say: Callable[[str], None]
) -> Trial:
    async with target.asking(images, {}) as ask:
        say(f"asking for {len(images)} images, one after the other")
        calm = await _ask_calmly(ask, len(images), len(boards))
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
    return Trial(boards, calm, busy, killed_at)


async def _ask_calmly(ask: Ask, images: int, devices: int) -> list[Attempt]:
    """Asks for each image until all devices have shared one of its answers."""
    attempts, left = [], set(range(images))
    for number in range(_ROUNDS * images):
        if number % images in left:
            attempts.append(await ask(number))
            if _is_shared(attempts[-1], devices):
                left.remove(number % images)
    return attempts


def _is_shared(attempt: Attempt, devices: int) -> bool:
    named = str(attempt.parameters.get("devices", "")).split(",")
    return len(set(filter(None, named))) == devices
