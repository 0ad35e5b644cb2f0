"""What a coordinator counts of its devices and answers, for Prometheus."""

from __future__ import annotations

import functools
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from ..serving.metrics import LATENCY_BUCKETS, Metrics
from .devices import UP, FleetDevice
from .dispatch import Events, Outcome

_PHASES = ("decode", "wire", "queue", "invoke", "fuse")


class FleetMetrics:
    """Metrics beside those that every server has; see each one's text."""

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        answers = Counter(
            "fusion_answers",
            "Answers, by the switch they are of and their kind, one of: whole, early (decided by the slices that had "
            "come, as --early_answer allows) or degraded (slices are missing). Their sum is all answers.",
            ["switch", "kind"],
            registry=registry,
        )
        seconds = Histogram(
            "fusion_device_seconds",
            "From sending a device its request to having its answer.",
            ["device"],
            registry=registry,
            buckets=LATENCY_BUCKETS,
        )
        phases = Histogram(
            "fusion_phase_seconds",
            "Parts of an answer's time: decode of the request; wire, queue and invoke of the last slice to come; fuse.",
            ["phase"],
            registry=registry,
            buckets=LATENCY_BUCKETS,
        )
        # Finding a metric by its labels takes longer than counting.
        self._answers: Callable[..., Counter] = functools.cache(answers.labels)
        self._seconds: Callable[..., Histogram] = functools.cache(seconds.labels)
        self._phases: Callable[..., Histogram] = functools.cache(phases.labels)
        self._failures = Counter(
            "fusion_device_failures",
            "Slices that a device failed, by the phase it failed in and the reason: busy, gone, slow, unable or wrong.",
            ["device", "phase", "reason"],
            registry=registry,
        )
        self._late = Counter(
            "fusion_late_answers",
            "Slices that were asked for and not waited for any more, as too late or not needed.",
            ["device"],
            registry=registry,
        )
        self._retries = Counter("fusion_retries", "Times that slices were sent anew.", registry=registry)
        self._up = Gauge("fusion_device_up", "Whether a device is there, 1 or 0.", ["device"], registry=registry)

    def changed(self, device: FleetDevice) -> None:
        """Takes in the state of a device."""
        self._up.labels(device.name).set(device.health.state == UP)

    def gone(self, device: str) -> None:
        """Forgets a device that has left the cluster."""
        self._up.remove(device)

    def observe(self, outcome: Outcome, decode_ms: float, fuse_ms: float) -> None:
        """Takes in an answer."""
        kind = "early" if outcome.early else "degraded" if outcome.degraded else "whole"
        self._answers(outcome.entry.switch, kind).inc()
        for arrival in outcome.arrivals.values():
            self._seconds(arrival.device).observe(arrival.partial.received - arrival.partial.sent)
        last = max((arrival.partial for arrival in outcome.arrivals.values()), key=lambda partial: partial.received)
        wire_ms = (last.received - last.sent) * 1e3 - last.queue_ms - last.invoke_ms
        phases = (decode_ms, wire_ms, last.queue_ms, last.invoke_ms, fuse_ms)
        for phase, ms in zip(_PHASES, phases, strict=True):
            self._phases(phase).observe(ms / 1e3)

    def count(self, events: Events) -> None:
        """Takes in what happened on the way of a request."""
        for device, error in events.failures:
            self._failures.labels(device, error.phase, error.reason).inc()
        for device in events.late:
            self._late.labels(device).inc()
        self._retries.inc(events.retries)
