"""Injects the faults of a schedule into a running cluster, and remembers when which worker was not well."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.chaos import proxies, schedule
from benchmarks.chaos.proxies import Proxies
from benchmarks.chaos.schedule import Event
from fusion.local.cluster import LocalCluster

_STUTTER_S = 0.05


@dataclass(frozen=True)
class Incident:
    """An event as it was carried out, from `began` to `ended` (seconds from the start), when its worker was well again;
    one that would have left no worker well was `skipped`."""

    event: Event
    began: float
    ended: float
    skipped: bool


class Injector:
    """Injects faults into a cluster, as a schedule says.

    Args:
      cluster: entered; its coordinator speaks to the proxies.
      before: the proxies before its workers.
      workers: how many there are.
      slow_s: how long a slow worker's answers are held back, in seconds.
      began: `time.perf_counter()` of the schedule's start.
    """

    def __init__(self, cluster: LocalCluster, before: Proxies, workers: int, slow_s: float, began: float) -> None:
        self._cluster, self._proxies, self._slow_s, self._began = cluster, before, slow_s, began
        self._workers = workers
        self._lock = threading.Lock()
        self._ill: set[int] = set()

    def carry_out(self, events: Sequence[Event]) -> list[Incident]:
        """Carries out the events at their times; returns when all are over. Raises what went wrong with one."""
        with ThreadPoolExecutor(self._workers) as pool:
            futures = []
            for event in sorted(events):
                time.sleep(max(0.0, self._began + event.at - time.perf_counter()))
                futures.append(pool.submit(self._carry_out, event))
            incidents = [future.result() for future in futures]
        return sorted(incidents, key=lambda incident: incident.began)

    def _carry_out(self, event: Event) -> Incident:
        workers = list(range(self._workers)) if event.worker < 0 else [event.worker]
        began = time.perf_counter() - self._began
        with self._lock:
            # Workers may come back later than the schedule thinks.
            blocked = bool(self._ill & set(workers))
            last = event.worker >= 0 and len(self._ill) >= self._workers - 1
            if blocked or last:
                return Incident(event, began, began, True)
            self._ill |= set(workers)
        if event.kind in schedule.OF_PROXIES:
            self._spoil(event)
        else:
            self._strike(event, workers)
        with self._lock:
            self._ill -= set(workers)
        return Incident(event, began, time.perf_counter() - self._began, False)

    def _spoil(self, event: Event) -> None:
        self._proxies.set(event.worker, event.kind, self._slow_s)
        time.sleep(event.lasts)
        self._proxies.set(event.worker, proxies.PASS)

    def _strike(self, event: Event, workers: Sequence[int]) -> None:
        cluster = self._cluster
        if event.kind == schedule.KILL:
            cluster.signal(event.worker, signal.SIGKILL)
            time.sleep(event.lasts)
            cluster.restart(event.worker)
        elif event.kind == schedule.RESTART:
            cluster.restart(event.worker)
        elif event.kind == schedule.STUTTER:
            end = time.perf_counter() + event.lasts
            while time.perf_counter() < end:
                for number in (signal.SIGSTOP, signal.SIGCONT):
                    cluster.signal(event.worker, number)
                    time.sleep(_STUTTER_S)
        else:
            for worker in workers:
                cluster.signal(worker, signal.SIGSTOP)
            time.sleep(event.lasts)
            for worker in workers:
                cluster.signal(worker, signal.SIGCONT)


def servable(incidents: Sequence[Incident], workers: int, start: float, end: float) -> bool:
    """Whether some worker was well all the time from `start` to `end`: then some switch could be served, since any
    worker serves any slice."""
    during = [incident for incident in incidents if incident.began <= end and incident.ended >= start]
    ill = {incident.event.worker for incident in during if not incident.skipped}
    return not any(worker < 0 for worker in ill) and len(ill) < workers
