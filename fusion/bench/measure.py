"""The measurements of `bench`: requests one at a time, from several clients, and more than can be served.

Each is a record of figures; `report` says what they are called in the tables.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.program import UserError
from ..local.pinning import pinned
from ..runtime import timing
from .cores import Placement
from .load import Asker, Attempt, Target, closed_loops, open_loop
from .phases import median_phases, slowest_invoke_ms
from .reference import Alone

Record = dict[str, Any]

# Requests in a row before the others' turn: a cluster that serves one switch has its weights in the caches.
_BLOCK = 10
# What a network may add to a deadline before an answer counts as late.
LATE_MS = 50.0
_MOST_CONNECTIONS = 64
_ROUNDS = 3


@dataclass(frozen=True)
class Side:
    """A coordinator to measure, its switch's name, where its processes run, and its switch's interpreters alone, None
    where the bundle is not here."""

    name: str
    target: Target
    placement: Placement | None
    alone: Alone | None

    @property
    def client_cores(self) -> Sequence[int]:
        return self.placement.client if self.placement else ()


def outcome(attempt: Attempt, deadline_ms: float | None) -> str:
    """What became of a request, one of: `whole`, `early` or `degraded`, as a coordinator's metrics count answers;
    `late` (any answer after the deadline that does not say so); `refused` (503), `timed out` (504), `lost` (no answer)
    or `failed NNN`."""
    if attempt.status == 200:
        if deadline_ms is not None and attempt.ms > deadline_ms + LATE_MS:
            return "late"
        return next((kind for kind in ("early", "degraded") if attempt.parameters.get(kind) is True), "whole")
    return {0: "lost", 503: "refused", 504: "timed out"}.get(attempt.status, f"failed {attempt.status}")


async def latencies(
    sides: Sequence[Side], full: Alone | None, images: np.ndarray, runs: int, progress: Callable[[str], None]
) -> list[Record]:
    """Asks each side for `runs` images, one at a time, in turns of a few, and has the full model invoked in turn.

    Args:
      sides: whom to ask.
      full: the switch of one device in this process, or None.
      images: uint8 (N, height, width, channels).
      runs: how many images of each, 1 or more.
      progress: is told how far it is.

    Raises `UserError` where a request fails.
    """
    attempts: list[list[Attempt]] = [[] for _ in sides]
    full_s: list[float] = []
    async with AsyncExitStack() as stack:
        askers = [await stack.enter_async_context(Asker(side.target, images, {"timeline": True})) for side in sides]
        for first in range(0, runs, _BLOCK):
            block = range(first, min(runs, first + _BLOCK))
            if full is not None:
                # The first of a turn finds cold caches.
                full.invoke(images[0])
                full_s += [full.invoke(images[i % len(images)]) for i in block]
            for side, asker, answered in zip(sides, askers, attempts, strict=True):
                with pinned(side.client_cores):
                    await asker.ask(0)
                    answered += [_require_answer(side, await asker.ask(i)) for i in block]
            progress(f"latency: {block[-1] + 1}/{runs} images")
    full_ms = _times(full_s)["p50_ms"] if full_s else None
    return [_latency(side, answered, full_ms) for side, answered in zip(sides, attempts, strict=True)]


async def throughput(side: Side, images: np.ndarray, clients: int, seconds: float) -> Record:
    """`clients` clients for so many seconds, in turns with the interpreters alone."""
    attempts: list[Attempt] = []
    rates, alone = [], []
    async with Asker(side.target, images, {}) as asker:
        for _ in range(_ROUNDS):
            with pinned(side.client_cores):
                round_ = await closed_loops(asker, clients, seconds / _ROUNDS)
            attempts += round_
            rates.append(_answered_per_s(round_))
            if side.alone is not None:
                alone.append(side.alone.rate(images, seconds / _ROUNDS))
    answered = [attempt.ended - attempt.started for attempt in attempts if attempt.status == 200]
    return {
        "switch": side.name,
        "measured": "throughput",
        "clients": clients,
        "images_per_s": statistics.fmean(rates),
        "alone_images_per_s": statistics.fmean(alone) if alone else None,
        **(_times(answered) if answered else {}),
        "outcomes": _outcomes(attempts, side.target.deadline_ms),
    }


async def overload(side: Side, images: np.ndarray, rate: float, seconds: float) -> Record:
    """Requests at `rate` per second for so many seconds, whatever becomes of them."""
    attempts: list[Attempt] = []
    async with Asker(side.target, images, {}) as asker:
        with pinned(side.client_cores):
            await open_loop(asker, rate, _MOST_CONNECTIONS, seconds, attempts.append)
    started = [attempt.started for attempt in attempts]
    return {
        "switch": side.name,
        "measured": "overload",
        "offered_per_s": len(attempts) / max(max(started) - min(started), 1e-9),
        "images_per_s": _answered_per_s(attempts),
        "outcomes": _outcomes(attempts, side.target.deadline_ms),
    }


def _latency(side: Side, attempts: Sequence[Attempt], full_ms: float | None) -> Record:
    times = _times([attempt.ended - attempt.started for attempt in attempts])
    invoke_ms = _times([slowest_invoke_ms(attempt) / 1e3 for attempt in attempts])["p50_ms"]
    return {
        "switch": side.name,
        "measured": "latency",
        "clients": 1,
        **times,
        "full_p50_ms": full_ms,
        "speed_up": None if full_ms is None else full_ms / times["p50_ms"],
        "invoke_p50_ms": invoke_ms,
        "overhead_ms": times["p50_ms"] - invoke_ms,
        **{f"{phase}_ms": ms for phase, ms in median_phases(attempts).items()},
        "sent_bytes": attempts[-1].sent_bytes,
        "received_bytes": attempts[-1].received_bytes,
    }


def _times(seconds: Sequence[float]) -> dict[str, float]:
    figures = timing.of(seconds)
    return {
        "p50_ms": figures.p50 / 1e3,
        "p95_ms": figures.p95 / 1e3,
        "p99_ms": figures.p99 / 1e3,
        "mean_ms": figures.avg / 1e3,
    }


def _answered_per_s(attempts: Sequence[Attempt]) -> float:
    spent = max(attempt.ended for attempt in attempts) - min(attempt.started for attempt in attempts)
    return sum(attempt.status == 200 for attempt in attempts) / spent


def _outcomes(attempts: Sequence[Attempt], deadline_ms: float | None) -> str:
    counts = Counter(outcome(attempt, deadline_ms) for attempt in attempts)
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _require_answer(side: Side, attempt: Attempt) -> Attempt:
    if attempt.status != 200:
        raise UserError(f"switch {side.name}: a request was answered {attempt.status}: {attempt.error}")
    return attempt
