"""The Prometheus metrics that worker and coordinator share."""

from __future__ import annotations

import functools
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

LATENCY_BUCKETS = (0.0001, 0.0003, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds in seconds for every latency histogram."""


class Metrics:
    """The metrics of one server; more can be added to `registry`.

    Attributes:
      requests: `fusion_requests_total` by model and status.
      seconds: `fusion_request_seconds` by model.
      decode_seconds: `fusion_decode_seconds`, of reading and decoding a request's body.
      received_bytes, sent_bytes: `fusion_received_bytes_total` and `fusion_sent_bytes_total`, of the bodies of
        inference requests and their answers.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("fusion_requests", "Inference requests.", ["model", "status"], registry=self.registry)
        self.seconds = Histogram(
            "fusion_request_seconds",
            "From the arrival of an inference request to its answer.",
            ["model"],
            registry=self.registry,
            buckets=LATENCY_BUCKETS,
        )
        # Finding a metric by its labels takes longer than counting.
        self._requests_of: Callable[..., Counter] = functools.cache(self.requests.labels)
        self._seconds_of: Callable[..., Histogram] = functools.cache(self.seconds.labels)
        self.decode_seconds = Histogram(
            "fusion_decode_seconds",
            "From the arrival of an inference request's head to its tensors being there.",
            registry=self.registry,
            buckets=LATENCY_BUCKETS,
        )
        self.received_bytes = Counter(
            "fusion_received_bytes", "Bytes of inference requests' bodies, as sent.", registry=self.registry
        )
        self.sent_bytes = Counter("fusion_sent_bytes", "Bytes of inference answers' bodies.", registry=self.registry)

    def answered(self, model: str, status: int, seconds: float) -> None:
        """Counts an answer or a refusal."""
        self._requests_of(model, str(status)).inc()
        self._seconds_of(model).observe(seconds)
