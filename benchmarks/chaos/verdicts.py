"""Judges every reply of a chaos run, and the coordinator's resources."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos.injector import Done, servable
from benchmarks.chaos.oracle import Oracle
from benchmarks.chaos.watch import Sample
from fusion.bench.load import Reply
from fusion.bench.measure import LATE_MS

ANSWERED, DEGRADED, REFUSED = "answered", "degraded", "refused"
LATE, WRONG, LOST, FAILED = "late", "wrong", "lost", "failed"
ALL = (ANSWERED, DEGRADED, REFUSED, LATE, WRONG, LOST, FAILED)
GOOD = (ANSWERED, DEGRADED, REFUSED)
"""Verdicts that a run may have: `refused` is 503 or 504 when nothing could be served."""

MOST_GROWTH = 10 << 20
_MOST_DESCRIPTORS = 16
_MOST_THREADS = 4
# Until the coordinator has seen that a worker is well again: its back-off, and its look at it.
NOTICE_S = 5.0


@dataclass(frozen=True)
class Verdict:
    """A request: when it left (seconds from the start), its milliseconds, what became of it, and of a bad one why."""

    at: float
    ms: float
    what: str
    why: str
    switch: str


def judge(
    reply: Reply, fault: str | None, began: float, deadline_ms: float, done: Sequence[Done], workers: int
) -> Verdict:
    """The verdict on a reply.

    Args:
      reply: it.
      fault: what `Oracle.fault` says of a 200's answer.
      began: `time.perf_counter()` of the start.
      deadline_ms: the coordinator's; an answer may come 50 ms later.
      done: what happened to the workers.
      workers: how many there are.
    """
    at, ms = reply.encoded - began, (reply.received - reply.encoded) * 1e3
    switch = str(reply.parameters.get("switch", ""))
    if reply.status == 0:
        return Verdict(at, ms, LOST, reply.error, switch)
    if ms > deadline_ms + LATE_MS:
        return Verdict(at, ms, LATE, f"{ms:.0f} ms, status {reply.status}", switch)
    if reply.status == 200:
        if fault is not None:
            return Verdict(at, ms, WRONG, fault, switch)
        return Verdict(at, ms, DEGRADED if reply.parameters.get("degraded") is True else ANSWERED, "", switch)
    excused = not servable(done, workers, at - NOTICE_S, at + ms / 1e3)
    if reply.status in (503, 504) and excused:
        return Verdict(at, ms, REFUSED, "", switch)
    return Verdict(at, ms, FAILED, f"status {reply.status}: {reply.error}", switch)


def fault_of(oracle: Oracle, reply: Reply) -> str | None:
    """What is wrong with the content of a reply, None of one that is no 200."""
    return oracle.fault(reply.image, reply.outputs, reply.parameters) if reply.status == 200 else None


@dataclass(frozen=True)
class Resources:
    """What the coordinator held after warming up and at the end, in medians of some samples, and what grew too much."""

    memory: tuple[int, int]
    descriptors: tuple[int, int]
    threads: tuple[int, int]
    faults: tuple[str, ...]


def resources(samples: Sequence[Sample], warm_s: float, quiet_s: float) -> Resources:
    """Compares the samples of the 5 s after `warm_s` with those from `quiet_s` on, when nothing is asked any more."""
    first = [one for one in samples if warm_s <= one.at <= warm_s + 5] or list(samples[:1])
    last = [one for one in samples if one.at >= quiet_s] or list(samples[-1:])
    pairs = {
        key: (_median([getattr(one, key) for one in first]), _median([getattr(one, key) for one in last]))
        for key in ("memory", "descriptors", "threads")
    }
    faults = []
    for key, most in (("memory", MOST_GROWTH), ("descriptors", _MOST_DESCRIPTORS), ("threads", _MOST_THREADS)):
        before, after = pairs[key]
        if after - before >= most:
            faults.append(f"the coordinator's {key} grew from {before:,} to {after:,}; legal: by less than {most:,}")
    return Resources(pairs["memory"], pairs["descriptors"], pairs["threads"], tuple(faults))


def _median(values: Sequence[int]) -> int:
    return int(statistics.median(values))
