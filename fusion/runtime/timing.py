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


def of(seconds: Sequence[float]) -> Timing:
    """The figures of calls that took so many seconds each, in their order; one call is its own rest."""
    micros = [1e6 * duration for duration in seconds]
    rest = sorted(micros[1:] or micros)

    def percentile(percent: int) -> float:
        return rest[max(0, -(-percent * len(rest) // 100) - 1)]

    return Timing(
        count=len(micros),
        first=micros[0],
        min=rest[0],
        max=rest[-1],
        avg=statistics.fmean(rest),
        std=statistics.pstdev(rest),
        p50=percentile(50),
        p95=percentile(95),
        p99=percentile(99),
    )


def measure(call: Callable[[], object], count: int) -> Timing:
    """Calls `count` times, 1 or more, one after the other."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return of(seconds)
