"""The measurements of `bench`: requests one at a time, from several clients, and more than can be served.

Each gives rows of figures; `report` says what they are called in the tables.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.program import UserError
from ..bundle.contents import Bundle, SwitchEntry
from ..local.cores import ANYWHERE, Placement, pinned
from ..runtime.choosing import Runtime
from ..runtime.interpreters import SliceInterpreter
from .load import Attempt, Target, ask_all
from .phases import median_phases, slowest_invoke_ms

Row = dict[str, Any]

# Requests in a row before the others' turn: a cluster that serves one switch has its weights in the caches.
_BLOCK = 10
# What a network may add to a deadline before an answer counts as late.
LATE_MS = 50.0
_MOST_CONNECTIONS = 64
_ROUNDS = 3


class Alone:
    """The interpreters of a switch's slices in this process, without HTTP and coordinator, one thread each.

    Args:
      bundle, entry, precision: whose slices.
      runtime: from `runtime.choose`; every invocation has one thread.
      cores: slice i runs on core `cores[i % len(cores)]`; none leaves the threads free.

    Raises `UserError` as `SliceInterpreter` does.
    """

    def __init__(
        self, bundle: Bundle, entry: SwitchEntry, precision: str, runtime: Runtime, cores: Sequence[int]
    ) -> None:
        files = [slice_.files[precision] for slice_ in entry.slices]
        self._interpreters = [SliceInterpreter(bundle, file, runtime, 1) for file in files]
        self._cores = [[cores[i % len(cores)]] if cores else [] for i in range(len(files))]

    def invoke(self, image: np.ndarray) -> float:
        """Seconds of one invocation of the first slice, on its core, for an image, uint8 of the bundle's shape."""
        with pinned(self._cores[0]):
            began = time.perf_counter()
            self._interpreters[0](image)
            return time.perf_counter() - began

    def rate(self, images: np.ndarray, seconds: float) -> float:
        """Images per second where every slice does nothing but invoke, all at once, for so many seconds: those of the
        slowest slice, since an image takes all of them."""
        slices = len(self._interpreters)
        start = threading.Barrier(slices)

        def run(place: int) -> float:
            with pinned(self._cores[place]):
                start.wait()
                began, count = time.perf_counter(), 0
                while time.perf_counter() < began + seconds:
                    self._interpreters[place](images[count % len(images)])
                    count += 1
                return count / (time.perf_counter() - began)

        with ThreadPoolExecutor(slices) as threads:
            return min(threads.map(run, range(slices)))


@dataclass(frozen=True)
class Side:
    """A coordinator to measure: the switch and the precision that it runs, where its processes run, and the switch's
    interpreters alone, None where the bundle is not here."""

    switch: str
    precision: str
    target: Target
    placement: Placement = ANYWHERE
    alone: Alone | None = None

    def row(self, measured: str, **figures: Any) -> Row:
        """Figures of this side."""
        about = {"precision": self.precision, "switch": self.switch, "measured": measured}
        return {**about, **figures, "placement": self.placement.words}

    def on_client_cores(self) -> AbstractContextManager[None]:
        """Keeps the client on its cores."""
        return pinned(self.placement.client)

    def outcomes(self, attempts: Sequence[Attempt]) -> str:
        """How many requests became what."""
        counts = Counter(outcome(attempt, self.target.deadline_ms) for attempt in attempts)
        return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def outcome(attempt: Attempt, deadline_ms: float | None) -> str:
    """What became of an attempt, one of: `whole`, `early` or `degraded`, as a coordinator's metrics count answers;
    `late` (any answer after the deadline that does not say so); `refused` (503), `timed out` (504), `lost` (no answer)
    or `failed NNN`."""
    if attempt.status == 200:
        if deadline_ms is not None and attempt.ms > deadline_ms + LATE_MS:
            return "late"
        return next((kind for kind in ("early", "degraded") if attempt.parameters.get(kind) is True), "whole")
    return {0: "lost", 503: "refused", 504: "timed out"}.get(attempt.status, f"failed {attempt.status}")


def progress(text: str) -> None:
    """Says how far it is."""
    print(text, file=sys.stderr, flush=True)


async def latencies(sides: Sequence[Side], full: Alone | None, images: np.ndarray, runs: int) -> list[Row]:
    """Asks each side for `runs` images, one at a time, in turns of a few, and has the full model invoked in turn.

    Args:
      sides: whom to ask.
      full: the switch of one device in this process, or None.
      images: uint8 (N, height, width, channels).
      runs: how many images of each, 1 or more.

    Raises `UserError` where a request fails.
    """
    attempts: list[list[Attempt]] = [[] for _ in sides]
    full_s: list[float] = []
    async with AsyncExitStack() as stack:
        asks = [await stack.enter_async_context(side.target.asking(images, {"timeline": True})) for side in sides]
        for first in range(0, runs, _BLOCK):
            block = range(first, min(runs, first + _BLOCK))
            if full is not None:
                # The first of a turn finds cold caches.
                full.invoke(images[0])
                full_s += [full.invoke(images[i % len(images)]) for i in block]
            for side, ask, answered in zip(sides, asks, attempts, strict=True):
                with side.on_client_cores():
                    await ask(0)
                    for i in block:
                        answered.append(await ask(i))
                        if answered[-1].status != 200:
                            why = f"{answered[-1].status}: {answered[-1].error}"
                            raise UserError(f"switch {side.switch}: a request was answered {why}")
            progress(f"latency: {block[-1] + 1}/{runs} images")
    full_ms = statistics.median_low(full_s) * 1e3 if full_s else None
    return [_latency(side, answered, full_ms) for side, answered in zip(sides, attempts, strict=True)]


async def throughput(side: Side, images: np.ndarray, clients: int, seconds: float) -> Row:
    """`clients` clients for so many seconds, in turns with the interpreters alone."""
    attempts: list[Attempt] = []
    rates, alone = [], []
    async with side.target.asking(images, {}) as ask:
        for _ in range(_ROUNDS):
            with side.on_client_cores():
                # Opens the connections.
                await asyncio.gather(*(ask(i) for i in range(clients)))
                round_ = await ask_all(ask, clients, seconds / _ROUNDS)
            attempts += round_
            rates.append(_answered_per_s(round_))
            if side.alone is not None:
                alone.append(side.alone.rate(images, seconds / _ROUNDS))
    return side.row(
        "throughput",
        clients=clients,
        images_per_s=statistics.fmean(rates),
        alone_images_per_s=statistics.fmean(alone) if alone else None,
        **_times([attempt for attempt in attempts if attempt.status == 200]),
        outcomes=side.outcomes(attempts),
    )


async def overload(side: Side, images: np.ndarray, rate: float, seconds: float) -> Row:
    """Requests at `rate` per second for so many seconds, whatever becomes of them."""
    async with side.target.asking(images, {}) as ask:
        with side.on_client_cores():
            attempts = await ask_all(ask, _MOST_CONNECTIONS, seconds, rate)
    started = [attempt.started for attempt in attempts]
    return side.row(
        "overload",
        offered_per_s=len(attempts) / max(max(started) - min(started), 1e-9),
        images_per_s=_answered_per_s(attempts),
        outcomes=side.outcomes(attempts),
    )


def _latency(side: Side, attempts: Sequence[Attempt], full_ms: float | None) -> Row:
    times = _times(attempts)
    invoke_ms = statistics.median_low([slowest_invoke_ms(attempt) for attempt in attempts])
    return side.row(
        "latency",
        clients=1,
        **times,
        full_p50_ms=full_ms,
        speed_up=None if full_ms is None else full_ms / times["p50_ms"],
        invoke_p50_ms=invoke_ms,
        overhead_ms=times["p50_ms"] - invoke_ms,
        **{f"{phase}_ms": ms for phase, ms in median_phases(attempts).items()},
        sent_bytes=attempts[-1].sent_bytes,
        received_bytes=attempts[-1].received_bytes,
    )


def _times(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Percentiles (nearest rank) of what the attempts took; none where there are none."""
    ms = [attempt.ms for attempt in attempts]
    percents = (50, 95, 99) if ms else ()
    return {f"p{percent}_ms": float(np.percentile(ms, percent, method="inverted_cdf")) for percent in percents}


def _answered_per_s(attempts: Sequence[Attempt]) -> float:
    spent = max(attempt.ended for attempt in attempts) - min(attempt.started for attempt in attempts)
    return sum(attempt.status == 200 for attempt in attempts) / spent
