"""The measurements of `bench`: requests one at a time, from several clients, and more than can be served."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.program import UserError
from ..local.pinning import pinned
from ..runtime import timing
from ..runtime.timing import Timing
from .cores import Placement
from .load import Asker, Reply, Server, closed_loops, open_loop
from .phases import of_the_middle, slowest_invoke
from .reference import Alone

# Requests in a row before the others' turn: a cluster that serves one switch has its weights in the caches.
_BLOCK = 10
# What a network may add to a deadline before an answer counts as late.
LATE_MS = 50.0
_MOST_CONNECTIONS = 64
_ROUNDS = 3


@dataclass(frozen=True)
class Side:
    """One coordinator to measure, what it is called, where its processes run, and its switch's interpreters alone, None
    where the bundle is not here."""

    name: str
    server: Server
    placement: Placement | None
    alone: Alone | None

    @property
    def client_cores(self) -> Sequence[int]:
        return self.placement.client if self.placement else ()


@dataclass(frozen=True)
class Latency:
    """One image at a time: its time in microseconds, of the slowest slice's invocation too; `overhead_ms`: the first
    median less the second; milliseconds by phase of the median request; bytes of its bodies at the client."""

    total: Timing
    invoke: Timing
    overhead_ms: float
    phases: Mapping[str, float]
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True)
class Throughput:
    """Several clients at once, each with one request after the other: answered images per second and their time in
    microseconds (None where none was answered), outcomes, and the images per second of the interpreters alone (None
    where not measured)."""

    clients: int
    images_per_s: float
    total: Timing | None
    outcomes: Mapping[str, int]
    alone_images_per_s: float | None


@dataclass(frozen=True)
class Overload:
    """Requests that leave at a fixed rate beyond what can be served: offered and answered per second, and outcomes."""

    offered_per_s: float
    images_per_s: float
    outcomes: Mapping[str, int]


def outcome(reply: Reply, deadline_ms: float | None) -> str:
    """What became of a request, one of: `whole`, `early` or `degraded`, as a coordinator's metrics count answers;
    `late` (any answer after the deadline that does not say so); `refused` (503), `timed out` (504), `lost` (no answer)
    or `failed NNN`."""
    if reply.status == 200:
        if deadline_ms is not None and reply.ms > deadline_ms + LATE_MS:
            return "late"
        return next((kind for kind in ("early", "degraded") if reply.parameters.get(kind) is True), "whole")
    return {0: "lost", 503: "refused", 504: "timed out"}.get(reply.status, f"failed {reply.status}")


def latencies(
    sides: Sequence[Side],
    full: Alone | None,
    images: np.ndarray,
    runs: int,
    progress: Callable[[str], None],
) -> tuple[list[Latency], Timing | None]:
    """Asks each side for `runs` images, one at a time, in turns of a few, and has the full model invoked in turn.

    Args:
      sides: whom to ask.
      full: the switch of one device in this process, or None.
      images: uint8 (N, height, width, channels).
      runs: how many images of each, 1 or more.
      progress: is told how far it is.

    Raises `UserError` where a request fails.
    """
    replies: list[list[Reply]] = [[] for _ in sides]
    seconds: list[float] = []
    askers = [Asker(side.server, images, {"timeline": True}) for side in sides]
    for first in range(0, runs, _BLOCK):
        block = range(first, min(runs, first + _BLOCK))
        if full is not None:
            # The first of a turn finds cold caches.
            full.invoke(images[0])
            seconds += [full.invoke(images[i % len(images)]) for i in block]
        for side, asker, mine in zip(sides, askers, replies, strict=True):
            with pinned(side.client_cores):
                asker.ask(0)
                mine += [_answered(side, asker.ask(i)) for i in block]
        progress(f"latency: {block[-1] + 1}/{runs} images")
    for asker in askers:
        asker.close()
    return [_latency(mine) for mine in replies], timing.of(seconds) if seconds else None


def throughput(side: Side, images: np.ndarray, clients: int, seconds: float, deadline_ms: float | None) -> Throughput:
    """`clients` clients for so many seconds, in turns with the interpreters alone."""
    replies: list[Reply] = []
    rates, alone = [], []
    part = seconds / _ROUNDS
    for _ in range(_ROUNDS):
        with pinned(side.client_cores):
            found = closed_loops(side.server, images, clients, part)
        replies += found
        spent = max(reply.ended for reply in found) - min(reply.started for reply in found)
        rates.append(sum(reply.status == 200 for reply in found) / spent)
        if side.alone is not None:
            alone.append(side.alone.rate(images, part))
    answered = [reply.ended - reply.started for reply in replies if reply.status == 200]
    return Throughput(
        clients,
        float(np.mean(rates)),
        timing.of(answered) if answered else None,
        dict(Counter(outcome(reply, deadline_ms) for reply in replies)),
        float(np.mean(alone)) if alone else None,
    )


def overload(side: Side, images: np.ndarray, rate: float, seconds: float, deadline_ms: float | None) -> Overload:
    """Requests at `rate` per second for so many seconds, whatever becomes of them."""
    replies: list[Reply] = []
    lock = threading.Lock()

    def take(reply: Reply) -> None:
        with lock:
            replies.append(reply)

    with pinned(side.client_cores):
        open_loop(side.server, images, rate, _MOST_CONNECTIONS, seconds, take)
    spent = max(reply.ended for reply in replies) - min(reply.started for reply in replies)
    sent = max(reply.started for reply in replies) - min(reply.started for reply in replies)
    return Overload(
        len(replies) / max(sent, 1e-9),
        sum(reply.status == 200 for reply in replies) / spent,
        dict(Counter(outcome(reply, deadline_ms) for reply in replies)),
    )


def deadline_ms(status: Mapping[str, Any]) -> float | None:
    """The deadline that a coordinator's status tells, None where it tells none."""
    value = status.get("deadline_ms")
    return float(value) if isinstance(value, (int, float)) else None


def _answered(side: Side, reply: Reply) -> Reply:
    if reply.status != 200:
        raise UserError(f"switch {side.name}: a request was answered {reply.status}: {reply.error}")
    return reply


def _latency(replies: Sequence[Reply]) -> Latency:
    total = timing.of([reply.ended - reply.started for reply in replies])
    invoke = timing.of([slowest_invoke(reply) / 1e3 for reply in replies])
    return Latency(
        total,
        invoke,
        (total.p50 - invoke.p50) / 1e3,
        of_the_middle(replies),
        replies[-1].sent_bytes,
        replies[-1].received_bytes,
    )
