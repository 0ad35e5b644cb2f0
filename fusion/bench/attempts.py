"""What became of a request, and where its time went, from what client, coordinator and workers tell of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.program import UserError

# What a network may add to a deadline before an answer counts as late.
LATE_MS = 50.0

PHASES = (
    "client_encode",
    "decode",
    "queue",
    "wire",
    "worker_queue",
    "invoke",
    "fuse",
    "answer",
    "client_decode",
)
"""The phases of a request, one after the other:

client_encode: the client makes the request. decode: the coordinator, from the request's head to its image. queue: until
the coordinator sends the image to the device that answers last. wire: that exchange, less what the worker tells of,
HTTP. worker_queue: the worker decodes, and waits. invoke: its invocation. fuse: the coordinator adds what came.
answer: the request's way to the coordinator, the answer's encoding and its way back. client_decode: the client reads
it."""


@dataclass(frozen=True)
class Attempt:
    """A request, and what became of it.

    Attributes:
      image: which of the images it was.
      status: the HTTP status; 0 where the exchange failed, 502 also where the answer cannot be read.
      started, encoded, received, ended: `time.perf_counter()` when its encoding began and was done, when the answer was
        there, and when it was decoded.
      sent_bytes, received_bytes: the bodies' sizes.
      outputs: the outputs of status 200 for the image, by name; empty otherwise.
      parameters: those of the answer.
      error: why there is no answer.
    """

    image: int
    status: int
    started: float
    encoded: float
    received: float
    ended: float
    sent_bytes: int
    received_bytes: int
    outputs: Mapping[str, np.ndarray]
    parameters: Mapping[str, Any]
    error: str

    @property
    def ms(self) -> float:
        """From the encoding of the request to its decoded answer."""
        return (self.ended - self.started) * 1e3


def outcome(attempt: Attempt, deadline_ms: float | None) -> str:
    """What became of an attempt, one of: `whole`, `early` or `degraded`, as a coordinator's metrics count answers;
    `late` (any answer after the deadline that does not say so); `refused` (503), `timed out` (504), `lost` (no answer)
    or `failed NNN`."""
    if attempt.status == 200:
        if deadline_ms is not None and attempt.ms > deadline_ms + LATE_MS:
            return "late"
        return next((kind for kind in ("early", "degraded") if attempt.parameters.get(kind) is True), "whole")
    return {0: "lost", 503: "refused", 504: "timed out"}.get(attempt.status, f"failed {attempt.status}")


def phases(attempt: Attempt) -> dict[str, float]:
    """The milliseconds of each of `PHASES`, whose sum is `attempt.ms`, of an answer asked for with `timeline`.

    Raises `UserError` where the answer has no timeline that is understood.
    """
    decode, fuse, devices = _timeline(attempt)
    last = max(devices, key=lambda device: device["received_ms"])
    sent, received, queued, invoked = (last[key] for key in _DEVICE_TIMES)
    return {
        "client_encode": (attempt.encoded - attempt.started) * 1e3,
        "decode": decode,
        "queue": sent - decode,
        "wire": received - sent - queued - invoked,
        "worker_queue": queued,
        "invoke": invoked,
        "fuse": fuse,
        "answer": (attempt.received - attempt.encoded) * 1e3 - received - fuse,
        "client_decode": (attempt.ended - attempt.received) * 1e3,
    }


def median_phases(attempts: Sequence[Attempt]) -> dict[str, float]:
    """The mean milliseconds of each phase over the middle fifth of the attempts by their time, at least one.

    Medians of phases do not add up to the median of the sum; these means add up to nearly that.
    """
    ranked = sorted(attempts, key=lambda attempt: attempt.ms)
    first = len(ranked) * 2 // 5
    middle = [phases(attempt) for attempt in ranked[first : max(first + 1, -(-len(ranked) * 3 // 5))]]
    return {name: statistics.fmean(line[name] for line in middle) for name in PHASES}


def slowest_invoke_ms(attempt: Attempt) -> float:
    """The milliseconds of the slowest slice's own invocation. Raises `UserError` as `phases` does."""
    return max(device["invoke_ms"] for device in _timeline(attempt)[2])


_DEVICE_TIMES = ("sent_ms", "received_ms", "queue_ms", "invoke_ms")


def _timeline(attempt: Attempt) -> tuple[float, float, list[dict[str, float]]]:
    """Of an answer's timeline, in ms: decoding, fusing, and `_DEVICE_TIMES` of the devices whose answers came."""
    try:
        line = json.loads(str(attempt.parameters["timeline"]))
        answered = [device for device in line["devices"] if device["received_ms"] is not None]
        devices = [{key: float(device[key]) for key in _DEVICE_TIMES} for device in answered]
        if not devices:
            raise ValueError("no device has answered")
        return float(line["decode_ms"]), float(line["fuse_ms"]), devices
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"the answer has no timeline that is understood ({error}).") from error
