"""Where the time of a request goes, from what client, coordinator and workers tell of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from ..protocol.oip import OipError
from .load import Attempt

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


def phases(attempt: Attempt) -> dict[str, float]:
    """The milliseconds of each of `PHASES`, whose sum is `attempt.ms`, of an answer asked for with `timeline`.

    Raises `OipError` (502) where the answer has no timeline that is understood.
    """
    try:
        line, devices = _timeline(attempt)
        last = max(devices, key=lambda device: float(device["received_ms"]))
        sent, received, queued, invoked = (
            float(last[key]) for key in ("sent_ms", "received_ms", "queue_ms", "invoke_ms")
        )
        decode, fuse = float(line["decode_ms"]), float(line["fuse_ms"])
    except (KeyError, ValueError, TypeError) as error:
        raise _not_understood(error) from error
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


def slowest_invoke_ms(attempt: Attempt) -> float:
    """The milliseconds of the slowest slice's own invocation. Raises `OipError` as `phases` does."""
    try:
        return max(float(device["invoke_ms"]) for device in _timeline(attempt)[1])
    except (KeyError, ValueError, TypeError) as error:
        raise _not_understood(error) from error


def median_phases(attempts: Sequence[Attempt]) -> dict[str, float]:
    """The mean milliseconds of each phase over the middle fifth of the attempts by their time, at least one.

    Medians of phases do not add up to the median of the sum; these means add up to nearly that.
    """
    ranked = sorted(attempts, key=lambda attempt: attempt.ms)
    first = len(ranked) * 2 // 5
    middle = [phases(attempt) for attempt in ranked[first : max(first + 1, -(-len(ranked) * 3 // 5))]]
    return {name: statistics.fmean(line[name] for line in middle) for name in PHASES}


def _timeline(attempt: Attempt) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An answer's timeline, and of it the devices whose answers came."""
    line = json.loads(str(attempt.parameters["timeline"]))
    return line, [device for device in line["devices"] if device.get("received_ms") is not None]


def _not_understood(error: Exception) -> OipError:
    return OipError(502, f"the answer has no timeline that is understood ({error}).")
