"""Judges what became of every request of a chaos run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos.injector import Incident, servable
from benchmarks.chaos.oracle import Oracle
from fusion.bench.load import Attempt
from fusion.bench.measure import LATE_MS

ANSWERED, DEGRADED, REFUSED = "answered", "degraded", "refused"
LATE, WRONG, LOST, FAILED = "late", "wrong", "lost", "failed"
ALL = (ANSWERED, DEGRADED, REFUSED, LATE, WRONG, LOST, FAILED)
GOOD = (ANSWERED, DEGRADED, REFUSED)
"""Verdicts that a run may have: `refused` is 503 or 504 when nothing could be served."""

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
    attempt: Attempt, fault: str | None, began: float, deadline_ms: float, incidents: Sequence[Incident], workers: int
) -> Verdict:
    """The verdict on a request.

    Args:
      attempt: the request, and what became of it.
      fault: what `Oracle.fault` says of a 200's answer.
      began: `time.perf_counter()` of the start.
      deadline_ms: the coordinator's; an answer may come 50 ms later.
      incidents: what happened to the workers.
      workers: how many there are.
    """
    at, ms = attempt.started - began, attempt.ms
    switch = str(attempt.parameters.get("switch", ""))
    if attempt.status == 0:
        return Verdict(at, ms, LOST, attempt.error, switch)
    if ms > deadline_ms + LATE_MS:
        return Verdict(at, ms, LATE, f"{ms:.0f} ms, status {attempt.status}", switch)
    if attempt.status == 200:
        if fault is not None:
            return Verdict(at, ms, WRONG, fault, switch)
        return Verdict(at, ms, DEGRADED if attempt.parameters.get("degraded") is True else ANSWERED, "", switch)
    excused = not servable(incidents, workers, at - NOTICE_S, at + ms / 1e3)
    if attempt.status in (503, 504) and excused:
        return Verdict(at, ms, REFUSED, "", switch)
    return Verdict(at, ms, FAILED, f"status {attempt.status}: {attempt.error}", switch)


def fault_of(oracle: Oracle, attempt: Attempt) -> str | None:
    """What is wrong with the content of an answer, None of one that is no 200."""
    return oracle.fault(attempt.image, attempt.outputs, attempt.parameters) if attempt.status == 200 else None
