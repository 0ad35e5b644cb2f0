"""How long repeated calls take, in the figures of TFLite's benchmark tool and percentiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Figures of `count` calls in microseconds: the first call, which may still be warming up, and of all the rest the
    least, most, mean, standard deviation and percentiles (nearest rank)."""

    count: int
    first: float
    min: float
    max: float
    avg: float
    std: float
    p50: float
    p95: float
    p99: float


def percentile(ranked: Sequence[float], percent: int) -> float:
    """The value that so many per cent of the ranked ones stay within (nearest rank)."""
    return ranked[max(0, -(-percent * len(ranked) // 100) - 1)]


def of(seconds: Sequence[float]) -> Timing:
    """The figures of calls that took so many seconds each, in their order; one call is its own rest."""
    micros = [1e6 * duration for duration in seconds]
    rest = sorted(micros[1:] or micros)

    return Timing(
        count=len(micros),
        first=micros[0],
        min=rest[0],
        max=rest[-1],
        avg=statistics.fmean(rest),
        std=statistics.pstdev(rest),
        p50=percentile(rest, 50),
        p95=percentile(rest, 95),
        p99=percentile(rest, 99),
    )


def measure(call: Callable[[], object], count: int) -> Timing:
    """Calls `count` times, 1 or more, one after the other."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return of(seconds)
