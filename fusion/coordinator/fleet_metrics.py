"""What a coordinator counts of its devices and answers, for Prometheus."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..serving.metrics import LATENCY_BUCKETS, Metrics
from .devices import UNKNOWN, UP
from .dispatch import Dispatch, Outcome
from .fleet import Fleet


class FleetMetrics(Collector):
    """Metrics beside those that every server has; see each one's text."""

    def __init__(self, metrics: Metrics, fleet: Fleet) -> None:
        registry = metrics.registry
        counter = functools.partial(Counter, registry=registry)
        histogram = functools.partial(Histogram, registry=registry, buckets=LATENCY_BUCKETS)
        self._answers = _by_labels(
            counter(
                "fusion_answers",
                "Answers, by the switch they are of and their kind, one of: whole, early (decided by the slices that "
                "had come, as --early_answer allows) or degraded (slices are missing). Their sum is all answers.",
                ["switch", "kind"],
            )
        )
        self._seconds = _by_labels(
            histogram("fusion_device_seconds", "From sending a device its request to having its answer.", ["device"])
        )
        phases = histogram(
            "fusion_phase_seconds",
            "Parts of an answer's time: decode of the request; wire, queue and invoke of the last slice to come; fuse.",
            ["phase"],
        )
        self._phases = [phases.labels(phase) for phase in ("decode", "wire", "queue", "invoke", "fuse")]
        self._failures = counter(
            "fusion_device_failures",
            "Slices that a device failed, by the phase it failed in and the reason: busy, gone, slow, unable or wrong.",
            ["device", "phase", "reason"],
        )
        self._late = _by_labels(
            counter(
                "fusion_late_answers",
                "Slices that were asked for and not waited for any more, as too late or not needed.",
                ["device"],
            )
        )
        self._retries = counter("fusion_retries", "Times that slices were sent anew.")
        self._fleet = fleet
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The states of the devices when they are asked for."""
        up = GaugeMetricFamily("fusion_device_up", "Whether a device is there, 1 or 0.", labels=["device"])
        for device in self._fleet.devices:
            if device.health.state != UNKNOWN:
                up.add_metric([device.name], device.health.state == UP)
        yield up

    def observe(self, outcome: Outcome, decode_ms: float, fuse_ms: float) -> None:
        """Takes in an answer."""
        self._answers(outcome.entry.switch, outcome.kind).inc()
        for arrival in outcome.arrivals.values():
            self._seconds(arrival.device).observe(arrival.ms / 1e3)
        last = max(outcome.arrivals.values(), key=lambda arrival: arrival.partial.received)
        queue_ms, invoke_ms = last.partial.queue_ms, last.partial.invoke_ms
        parts_ms = (decode_ms, last.ms - queue_ms - invoke_ms, queue_ms, invoke_ms, fuse_ms)
        for phase, ms in zip(self._phases, parts_ms, strict=True):
            phase.observe(ms / 1e3)

    def count(self, dispatch: Dispatch) -> None:
        """Takes in what happened on the way of a request."""
        for error in dispatch.failures:
            self._failures.labels(error.device, error.phase, error.reason).inc()
        for device in dispatch.late:
            self._late(device).inc()
        self._retries.inc(dispatch.retries)


def _by_labels(metric: Any) -> Callable[..., Any]:
    """The metric of some labels; finding it takes longer than counting, so it is kept."""
    return functools.cache(metric.labels)
